//! The service as a gateway sees it: the real binary on real Kafka, MariaDB, Redis and etcd.

mod admin;
mod again;
mod changes;
#[cfg(feature = "fault-injection")]
mod crashes;
mod groups;
mod messages;
mod proxy;
mod retention;
mod world;
