//! Sharded, thread-per-core connection gateway: terminates WebSocket and binary connections, hands their
//! messages upstream, and brings answers and deliveries back to the right connections.
//!
//! Order of the rooms: `ids`, `limits` < `session`, `index` < `net`, `rt`, `mailbox`, `uplink` < `shard`,
//! `bus`, `control` < `supervisor`.

pub mod bus;
pub mod config;
pub mod control;
pub mod ids;
pub mod index;
pub mod limits;
pub mod mailbox;
pub mod net;
pub mod rt;
pub mod session;
pub mod shard;
pub mod supervisor;
pub mod uplink;

pub use supervisor::Gateway;
