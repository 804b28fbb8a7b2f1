//! What both halves of the cluster form share. `README.md` draws the rooms of this crate.
//!
//! Knows: Kafka, etcd, gRPC channels, where settings come from, how metrics are shown.
//! Must not know: connections, conversations, databases.

pub mod etcd;
pub mod kafka;
pub mod log;
pub mod metrics;
#[cfg(test)]
mod own_address;
pub mod rpc;
pub mod settings;
