//! One core's share of the gateway: its listener, connections, timers, buffers and outputs, and nothing
//! of them shared with another thread. Threads meet only at the mailbox (in) and the uplink (out).
//!
//! ```text
//!   epoll set ──► pump ──► turn ─┬─► session (pure) ──► outputs ─┬─► uplink      (one batch a turn)
//!   mailbox ─────────┘           └─► fan-out ──────────► outgoing └─► sends      (one submit a turn)
//!   timer ──► tick ──► turn
//! ```
//! Invariants:
//! - `Shard::turn` and `Shard::tick` are the only places where rooms meet, and they never await: no
//!   borrow outlives a turn.
//! - A socket has at most one send in a submit, and none while its tail queue holds bytes.
//! - Output bytes stay in the arena until the submit has returned; sockets are closed after it.
//! - An idle connection holds a table entry, an epoll entry and a place in the wheel, nothing else.

mod admission;
mod clock;
mod connection;
mod door;
mod drain;
mod early;
mod end_of_turn;
mod fanout;
mod outbound;
mod outgoing;
mod run;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod turn;
mod wheel;

pub use run::{ShardSetup, run};
pub use stats::{Stats, StatsSnapshot};
