//! Measuring instruments.
//!
//! * [`process`]: what a server process costs, read from `/proc`.
//! * [`growth`]: what one more connection costs.
//! * [`machine`]: pinning this thread and raising its file limit.
//! * [`client`]: a closed-loop echo client on one thread, over raw TCP, WebSocket or the
//!   chat server's own heartbeat.
//!
//! The binary `echo_client` puts them together and writes one JSON document a run;
//! `cargo xtask bench` runs it in interleaved rounds and compares.

pub mod client;
pub mod growth;
pub mod machine;
pub mod process;
