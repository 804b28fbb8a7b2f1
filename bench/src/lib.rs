//! Measuring instruments.
//!
//! * [`accounts`]: what a phase of a measurement cost, on the server's core and by process.
//! * [`process`]: what a server process costs, read from `/proc`.
//! * [`growth`]: what one more connection costs.
//! * [`machine`]: pinning this thread and raising its file limit.
//! * [`client`]: a closed-loop echo client on one thread, over raw TCP, WebSocket or the
//!   chat server's own heartbeat.
//! * [`fanout`]: one sender, many receivers, every delivery checked.
//! * [`turns`]: a client that measures when it is told to, line by line.
//! * [`establish`]: connections as fast as one thread can open them, and tokens to log in with.
//!
//! The binaries `echo_client`, `fanout_client` and `establish_client` put them together and write
//! one JSON document a run; `cargo xtask bench` runs them in interleaved rounds and compares.

pub mod accounts;
pub mod client;
pub mod establish;
pub mod fanout;
pub mod growth;
pub mod machine;
pub mod process;
pub mod turns;
