//! What runs beside the shards on a tokio thread: plain HTTP, and (cargo feature `cluster`) the gateway's
//! dealings with the logic services and etcd.

#[cfg(feature = "cluster")]
pub mod counters;
#[cfg(feature = "cluster")]
pub mod discovery;
#[cfg(feature = "cluster")]
pub mod dynamic;
#[cfg(feature = "cluster")]
pub mod health;
pub mod http_handoff;
#[cfg(feature = "cluster")]
pub mod proxy;
#[cfg(feature = "cluster")]
pub mod registration;
#[cfg(feature = "cluster")]
pub mod reports;
#[cfg(feature = "cluster")]
pub mod rpc;
pub mod signals;
pub mod site;
