//! The one place that calls librdkafka past its Rust crate: a commit that ends in time, and brokers that are named
//! once more.
//!
//! The crate's own waiting commit has no limit, and a broker that takes requests and answers none
//! holds it for ever.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings::{
    rd_kafka_brokers_add, rd_kafka_commit_queue, rd_kafka_event_destroy, rd_kafka_event_error,
    rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t,
};
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{IsError as _, KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::TopicPartitionList;

/// Names brokers to a client as it was done at start (`host:port`, separated by commas); those it knows stay as they are.
pub(crate) fn add_brokers<C: ClientContext>(client: &Client<C>, brokers: &str) {
    // It was taken at start, so there is no zero byte in it.
    let Ok(brokers) = CString::new(brokers) else { return };
    // SAFETY: the client lives as long as the borrow, the call may come from any thread, and the library copies the
    // text.
    let added = unsafe { rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
    tracing::warn!(added, "the Kafka client had forgotten all brokers; they are named anew");
}

/// A queue of its own for one answer.
struct Queue(NonNull<rd_kafka_queue_t>);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it comes from `rd_kafka_queue_new` and is destroyed once, here. The library
        // counts references: an answer that comes later finds a disabled queue and is thrown away.
        unsafe { rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// Commits and waits for the answer, at most for `limit`.
///
/// # Errors
/// What Kafka answers, or [`Code::OperationTimedOut`]: then nobody knows what was committed.
pub(crate) fn commit_within<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
    limit: Duration,
) -> KafkaResult<()> {
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives as long as `consumer`, which is borrowed here; the queue is
    // destroyed before this function returns.
    let queue = NonNull::new(unsafe { rd_kafka_queue_new(client) });
    let Some(queue) = queue.map(Queue) else {
        return Err(KafkaError::ConsumerCommit(Code::Fail));
    };
    // SAFETY: client and queue are alive, the library copies the list, and without a callback it
    // keeps no pointer of ours.
    let refused = unsafe {
        rd_kafka_commit_queue(client, offsets.ptr(), queue.0.as_ptr(), None, std::ptr::null_mut())
    };
    if refused.is_error() {
        return Err(KafkaError::ConsumerCommit(refused.into()));
    }
    let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the queue is alive; nobody else polls it.
    let event = unsafe { rd_kafka_queue_poll(queue.0.as_ptr(), limit_ms) };
    if event.is_null() {
        return Err(KafkaError::ConsumerCommit(Code::OperationTimedOut));
    }
    // SAFETY: the event is ours until it is destroyed, once, after its only use.
    let code = unsafe {
        let code = rd_kafka_event_error(event);
        rd_kafka_event_destroy(event);
        code
    };
    if code.is_error() { Err(KafkaError::ConsumerCommit(code.into())) } else { Ok(()) }
}
