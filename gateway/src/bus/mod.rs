//! What lies behind the uplink. `direct`: the logic service in the same process. `kafka` (cargo feature
//! `cluster`): any number of logic services, reached through Kafka.

pub mod direct;
#[cfg(feature = "cluster")]
pub mod kafka;
