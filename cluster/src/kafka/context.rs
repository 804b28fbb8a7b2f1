//! What librdkafka calls back: figures, logs, errors, deliveries, rebalances.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientContext, Offset, Statistics};

use super::acks::{NextOffset, Token};
use super::error::DeliveryError;
use super::health::{Health, Partitions};
use super::in_flight::InFlight;
use super::native::commit_within;

/// How long a commit may wait for its answer.
pub(crate) const COMMIT_LIMIT: Duration = Duration::from_secs(5);

/// Told about partitions that come and go. Both lists name only what changes; partitions that
/// are in none of them stay as they are.
pub trait Rebalance: Send {
    /// These partitions are ours from now on. Called inside `poll`.
    fn assigned(&mut self, partitions: &[(String, u32)]);

    /// These partitions are about to be given up. Called inside `poll`, or while the consumer is
    /// dropped: the last chance to finish what was begun (keep it well below the session timeout).
    fn revoked(&mut self, partitions: &[(String, u32)]);

    /// Asked right after [`Rebalance::revoked`]: what is done by now. It is committed before the
    /// partitions are given up.
    fn last_offsets(&mut self, partitions: &[(String, u32)]) -> Vec<NextOffset> {
        let _ = partitions;
        Vec::new()
    }

    /// These partitions were taken away without asking (the session had timed out): others may
    /// read them already, nothing can be committed. By default as [`Rebalance::revoked`].
    fn lost(&mut self, partitions: &[(String, u32)]) {
        self.revoked(partitions);
    }
}

/// For consumers that do not care.
impl Rebalance for () {
    fn assigned(&mut self, _: &[(String, u32)]) {}

    fn revoked(&mut self, _: &[(String, u32)]) {}
}

/// The callbacks of a consumer.
pub(crate) struct ConsumerSide {
    pub(crate) health: Arc<Health>,
    rebalance: Mutex<Box<dyn Rebalance>>,
    held: Mutex<Held>,
    /// Counts revocations, so that a poll notices those that happen inside it.
    revocations: AtomicU64,
}

/// The partitions of a consumer.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) assigned: Partitions,
    pub(crate) paused: Partitions,
}

impl ConsumerSide {
    pub(crate) fn new(health: Arc<Health>, rebalance: Box<dyn Rebalance>) -> ConsumerSide {
        ConsumerSide {
            health,
            rebalance: Mutex::new(rebalance),
            held: Mutex::default(),
            revocations: AtomicU64::new(0),
        }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Relaxed)
    }

    /// Runs the application's part. Its panic must not keep librdkafka from finishing the
    /// rebalance, or the consumer would never be given partitions again.
    fn ask<T: Default>(&self, question: impl FnOnce(&mut dyn Rebalance) -> T) -> T {
        let mut rebalance = self.rebalance.lock().unwrap_or_else(PoisonError::into_inner);
        catch_unwind(AssertUnwindSafe(|| question(rebalance.as_mut()))).unwrap_or_else(|_| {
            tracing::error!("the rebalance handler panicked; the rebalance goes on");
            T::default()
        })
    }

    fn give_up(&self, consumer: &BaseConsumer<ConsumerSide>, partitions: &[(String, u32)]) {
        let lost = consumer.assignment_lost();
        tracing::info!(?partitions, lost, "partitions are given up");
        if lost {
            self.ask(|handler| handler.lost(partitions));
        } else {
            let offsets = self.ask(|handler| {
                handler.revoked(partitions);
                handler.last_offsets(partitions)
            });
            self.commit_last(consumer, &offsets);
        }
        let mut held = self.held();
        for partition in partitions {
            held.assigned.remove(partition);
            held.paused.remove(partition);
        }
        self.revocations.fetch_add(1, Ordering::Relaxed);
        self.health.given_up(partitions);
        self.health.moved(held.assigned.len());
    }

    fn commit_last(&self, consumer: &BaseConsumer<ConsumerSide>, offsets: &[NextOffset]) {
        if offsets.is_empty() || !self.health.is_up() {
            return;
        }
        let result = list(offsets).and_then(|list| commit_within(consumer, &list, COMMIT_LIMIT));
        if let Err(error) = result {
            // Whoever has the partitions next reads these records again.
            tracing::warn!(%error, "the last offsets of revoked partitions are not committed");
            self.health.count_error(error.rdkafka_error_code());
        }
    }
}

impl ClientContext for ConsumerSide {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.health.log(level, facility, text);
    }

    fn stats(&self, statistics: Statistics) {
        self.health.brokers(&statistics);
        let held = self.held();
        self.health.consumer(&statistics, &held.assigned, &held.paused);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.error(&error, reason);
    }
}

impl ConsumerContext for ConsumerSide {
    fn pre_rebalance(
        &self,
        consumer: &BaseConsumer<ConsumerSide>,
        rebalance: &rdkafka::consumer::Rebalance<'_>,
    ) {
        match rebalance {
            rdkafka::consumer::Rebalance::Revoke(partitions) => {
                let partitions = names(partitions);
                if !partitions.is_empty() {
                    self.give_up(consumer, &partitions);
                }
            }
            rdkafka::consumer::Rebalance::Assign(partitions) => {
                let partitions = names(partitions);
                tracing::info!(?partitions, "partitions are assigned");
                let count = {
                    let mut held = self.held();
                    held.assigned.extend(partitions.iter().cloned());
                    held.assigned.len()
                };
                self.health.moved(count);
                if !partitions.is_empty() {
                    self.ask(|handler| handler.assigned(&partitions));
                }
            }
            rdkafka::consumer::Rebalance::Error(error) => {
                tracing::warn!(%error, "rebalance");
            }
        }
    }

    fn commit_callback(
        &self,
        result: rdkafka::error::KafkaResult<()>,
        _offsets: &TopicPartitionList,
    ) {
        if let Err(error) = result {
            tracing::warn!(%error, "offsets are not committed");
            self.health.count_error(error.rdkafka_error_code());
        }
    }
}

/// Topics and partitions of a list; negative partitions stand for "none" and are left out.
fn names(list: &TopicPartitionList) -> Vec<(String, u32)> {
    let elements = list.elements();
    elements
        .iter()
        .filter_map(|one| Some((one.topic().to_owned(), u32::try_from(one.partition()).ok()?)))
        .collect()
}

/// A list of offsets as librdkafka takes it.
pub(crate) fn list(offsets: &[NextOffset]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (topic, partition, next) in offsets {
        let partition = i32::try_from(*partition).unwrap_or(i32::MAX);
        list.add_partition_offset(topic, partition, Offset::Offset(*next))?;
    }
    Ok(list)
}

/// The application's part of a delivery.
pub(crate) type OnDelivery = Box<dyn Fn(Token, Result<(), DeliveryError>) + Send + Sync>;

/// The callbacks of a producer.
pub(crate) struct ProducerSide {
    pub(crate) health: Arc<Health>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) on_delivery: OnDelivery,
}

impl ClientContext for ProducerSide {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.health.log(level, facility, text);
    }

    fn stats(&self, statistics: Statistics) {
        self.health.brokers(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.error(&error, reason);
    }
}

impl ProducerContext for ProducerSide {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let outcome = match result {
            Ok(_) => {
                self.health.set_up();
                Ok(())
            }
            Err((error, _)) => {
                self.health.count_error(error.rdkafka_error_code());
                Err(DeliveryError::from(error))
            }
        };
        let told = catch_unwind(AssertUnwindSafe(|| (self.on_delivery)(token as Token, outcome)));
        if told.is_err() {
            tracing::error!("the delivery callback panicked; deliveries go on");
        }
        self.in_flight.remove();
    }
}
