//! Kafka as this project uses it: many frames a record, offsets committed last, nothing that
//! hangs without a broker.
//!
//! Knows: librdkafka, topics, partitions, record headers.
//! Must not know: what records hold.
//!
//! Every client here is blocking and belongs to a thread of its own. Errors of the connection are
//! no errors of a call: librdkafka reconnects by itself, [`Health::is_up`] and the metrics tell
//! how it fares, and a record that cannot be delivered in time comes back through the delivery
//! callback.

mod acks;
mod consumer;
mod context;
mod error;
mod health;
mod in_flight;
mod native;
mod partition;
mod producer;
mod settings;
#[cfg(test)]
mod tests;
mod topics;
mod trace;

pub use acks::{Acks, NextOffset, Token};
pub use consumer::{CommitMode, Consumer, From, Polled, Record};
pub use context::Rebalance;
pub use error::{ConsumeError, DeliveryError, SendError, SetupError, TopicsError};
pub use health::Health;
pub use partition::partition_of;
pub use producer::Producer;
pub use settings::Settings;
pub use topics::{TopicSpec, Topics};
pub use trace::{BadTraceparent, Headers, TraceContext};
