//! The cluster's bus: messages go up through `im-upstream`, answers and deliveries come down through this
//! gateway's own `im-push-{gateway_id}`.
//!
//! ```text
//!   uplink.messages ──► thread `upstream`: regroup by partition ──► Kafka ──► delivery told ─┐
//!                                              BUSY for those whose record failed ◄──────────┘
//!   mailboxes ◄── thread `push`: expand by shard ◄── Kafka
//! ```
//! A record carries all that a tick has for one partition; never one record for one message where there
//! are more.

mod expand;
mod pending;
mod push;
mod regroup;
#[cfg(test)]
mod tests;
mod upstream;

pub use push::{Push, probe};
pub use upstream::{Log, Upstream, deliveries};
