//! The way up: everything that waits in the uplink becomes one record a partition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::kafka::{DeliveryError, Headers, Producer, SendError, TraceContext, partition_of};
use metrics::{counter, gauge};
use proto::v1::UpstreamBatch;

use super::pending::Pending;
use super::regroup::{Collected, RECORD_BYTES, Waiting};
use crate::index::Identity;
use crate::mailbox::Mailboxes;
use crate::uplink::Uplink;

/// How long a look at the uplink waits; bounds how late failed records are answered.
const WAIT: Duration = Duration::from_millis(20);
/// Ticks begin this far apart at least. One that comes alone is not kept waiting; of many that come one by
/// one each would otherwise cost a record a partition.
const TICK_APART: Duration = Duration::from_micros(1_500);
/// The same behind a tick of a herd: what a record costs on its way is the same for one message and for many.
const HERD_APART: Duration = Duration::from_millis(4);
/// A tick of this many frames is part of a herd.
const HERD: usize = 12;
/// A tick of this many frames is not kept waiting for more.
const TICK_FRAMES: usize = 8_192;
/// Frames under way to Kafka beyond which the uplink is left to fill up: then the shards answer BUSY
/// themselves.
const UNDER_WAY: usize = 131_072;
/// How long the thread waits for Kafka to take some before it looks around again.
const UNDER_WAY_WAIT: Duration = Duration::from_millis(2);
/// Records of one partition under way at once. Behind them frames gather until one of them is settled: a Kafka that
/// is slow gets fewer and larger records. Below the five that librdkafka's idempotent producer has under way: with a
/// sixth its thread would ask the socket over and over until one of them is answered, which takes a core from
/// whoever is late (`rd_kafka_toppar_producer_serve` of librdkafka 2.12).
const RECORDS_UNDER_WAY: usize = 4;
/// How long records under way are waited for at the end.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// Where records go.
pub trait Log: Send {
    /// Takes a record without waiting. What becomes of it is told under its number, unless this fails.
    ///
    /// # Errors
    /// It was not taken.
    fn send(&self, partition: usize, value: &[u8], number: u64) -> Result<(), SendError>;

    /// Waits until everything taken is told, at most so long.
    fn flush(&self, limit: Duration);
}

/// The topic of all gateways.
pub struct Topic {
    producer: Arc<Producer>,
    name: String,
}

impl Log for Topic {
    fn send(&self, partition: usize, value: &[u8], number: u64) -> Result<(), SendError> {
        let partition = u32::try_from(partition).map_err(|_| SendError::UnknownTopic)?;
        let headers = Headers { traceparent: Some(TraceContext::new_random(false)) };
        self.producer.send(&self.name, partition, None, value, &headers, number)
    }

    fn flush(&self, limit: Duration) {
        if !self.producer.flush(limit) {
            tracing::warn!("Kafka did not take everything in time; its senders send it again");
        }
    }
}

/// Who waits for records, and what the producer calls when it knows what became of one.
pub fn deliveries()
-> (Arc<Pending>, impl Fn(u64, Result<(), DeliveryError>) + Send + Sync + 'static) {
    let pending = Arc::new(Pending::default());
    let told = Arc::clone(&pending);
    let tell = move |number, outcome: Result<(), DeliveryError>| {
        if let Err(error) = &outcome {
            counter!("corelane_gateway_upstream_failed_total").increment(1);
            tracing::debug!(%error, "a record was not delivered");
        }
        told.settled(number, outcome.is_ok());
    };
    (pending, tell)
}

/// The thread `upstream`.
pub struct Upstream<L> {
    log: L,
    pending: Arc<Pending>,
    identity: Arc<Identity>,
    mailboxes: Mailboxes,
    waiting: Waiting,
    /// When the last tick began, and how long after it the next one may.
    last_tick: Option<(Instant, Duration)>,
}

impl Upstream<Topic> {
    /// Sends to a topic with so many partitions through a producer that tells [`deliveries`].
    #[must_use]
    pub fn new(
        producer: Arc<Producer>,
        topic: String,
        partitions: u32,
        pending: Arc<Pending>,
        identity: Arc<Identity>,
        mailboxes: Mailboxes,
    ) -> Self {
        let log = Topic { producer, name: topic };
        Self::to(log, partitions as usize, pending, identity, mailboxes)
    }
}

impl<L: Log> Upstream<L> {
    pub(super) fn to(
        log: L,
        partitions: usize,
        pending: Arc<Pending>,
        identity: Arc<Identity>,
        mailboxes: Mailboxes,
    ) -> Self {
        let waiting = Waiting::new(partitions, RECORD_BYTES);
        Self { log, pending, identity, mailboxes, waiting, last_tick: None }
    }

    /// Sends until the uplink is closed and empty.
    pub fn run(mut self, uplink: &Uplink) {
        let mut batches = Vec::new();
        while self.take(uplink, &mut batches) {
            self.tick(&mut batches);
        }
        self.finish();
    }

    /// Takes what waits; false: that was all.
    fn take(&mut self, uplink: &Uplink, batches: &mut Vec<UpstreamBatch>) -> bool {
        while self.under_way() >= UNDER_WAY {
            self.pending.wait(UNDER_WAY_WAIT);
            self.tick(batches);
        }
        let mut wait = WAIT;
        if self.waiting.frames() > 0 {
            self.pending.wait(UNDER_WAY_WAIT);
            self.tick(batches);
            wait = Duration::ZERO;
        }
        match uplink.messages.take_all(wait, |batch| batches.push(batch)) {
            None => return false,
            Some(false) => return true,
            Some(true) => {}
        }
        let frames = |batches: &[UpstreamBatch]| -> usize {
            batches.iter().map(|batch| batch.frames.len()).sum()
        };
        let early = self.last_tick.and_then(|(at, apart)| apart.checked_sub(at.elapsed()));
        if let Some(early) = early.filter(|_| frames(batches) < TICK_FRAMES) {
            std::thread::sleep(early);
            // Closed or not is seen by the next look.
            let _ = uplink.messages.take_all(Duration::ZERO, |batch| batches.push(batch));
        }
        let apart = if frames(batches) < HERD { TICK_APART } else { HERD_APART };
        self.last_tick = Some((Instant::now(), apart));
        true
    }

    /// Frames that Kafka does not have yet.
    fn under_way(&self) -> usize {
        self.pending.frames() + self.waiting.frames()
    }

    /// Sends what its partition takes, and answers for what was not taken.
    fn tick(&mut self, batches: &mut Vec<UpstreamBatch>) {
        self.answer_failed();
        let count = u32::try_from(self.waiting.partitions()).unwrap_or(u32::MAX);
        self.waiting.add(batches.drain(..), |id| partition_of(id, count) as usize);
        for partition in 0..self.waiting.partitions() {
            while self.pending.takes_more(partition, RECORDS_UNDER_WAY)
                && let Some(record) = self.waiting.take(partition)
            {
                self.send(record);
            }
        }
        self.answer_failed();
        gauge!("corelane_gateway_upstream_under_way").set(self.under_way() as f64);
    }

    fn send(&self, record: Collected) {
        let (partition, frames) = (record.partition, record.frames());
        let (value, origins) = record.seal(self.identity.current());
        counter!("corelane_gateway_upstream_records_total").increment(1);
        counter!("corelane_gateway_upstream_messages_total").increment(frames as u64);
        let number = self.pending.remember(partition, origins);
        if let Err(error) = self.log.send(partition, &value, number) {
            counter!("corelane_gateway_upstream_refused_total").increment(1);
            tracing::debug!(%error, "a record was not taken");
            self.pending.settled(number, false);
        }
    }

    /// The last of it: what Kafka does not take in time is answered like everything it did not take.
    fn finish(mut self) {
        let end = Instant::now() + LAST_FLUSH;
        while self.waiting.frames() > 0 && Instant::now() < end {
            self.pending.wait(UNDER_WAY_WAIT);
            self.tick(&mut Vec::new());
        }
        self.log.flush(end.saturating_duration_since(Instant::now()));
        for partition in 0..self.waiting.partitions() {
            self.refuse_waiting(partition);
        }
        self.pending.give_up();
        self.answer_failed();
    }

    fn refuse_waiting(&mut self, partition: usize) {
        while let Some(record) = self.waiting.take(partition) {
            self.pending.refuse(record.into_origins());
        }
    }

    /// Behind a record that was not taken nothing is kept waiting: it would be told only after as long again.
    fn answer_failed(&mut self) {
        for partition in self.pending.take_failing() {
            self.refuse_waiting(partition);
        }
        let count = self.pending.answer_failed(&self.mailboxes);
        if count > 0 {
            counter!("corelane_gateway_upstream_busy_total").increment(count as u64);
        }
    }
}
