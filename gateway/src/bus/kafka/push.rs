//! The way down: records of this gateway's own topic, expanded and handed to the shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::kafka::{
    ConsumeError, Consumer, From, Headers, Producer, Record, SendError, Settings, SetupError,
};
use metrics::counter;
use prost::Message as _;
use proto::v1::PushRecord;

use super::expand::Expansion;
use crate::index::{Identity, Index};
use crate::mailbox::Mailboxes;

/// How long a poll waits; bounds how late the end is seen.
const WAIT: Duration = Duration::from_millis(100);
/// Most records of one poll.
const RECORDS: usize = 512;
/// How long a registration may take to be known here that others know of.
const REGISTRATION: Duration = Duration::from_secs(2);
/// A consumer that gets nothing for so long although there is something is made anew.
const STALLED: Duration = Duration::from_secs(30);

/// The thread `push`.
pub struct Push {
    settings: Settings,
    topic: String,
    consumer: Consumer,
    /// The record after the last one seen.
    next: Option<i64>,
    identity: Arc<Identity>,
    index: Arc<Index>,
    mailboxes: Mailboxes,
    live: Arc<AtomicBool>,
    up: Arc<AtomicBool>,
}

impl Push {
    /// Reads the topic of this gateway from its end on.
    ///
    /// # Errors
    /// Settings that Kafka's client does not take.
    pub fn new(
        settings: &Settings,
        identity: Arc<Identity>,
        index: Arc<Index>,
        mailboxes: Mailboxes,
    ) -> Result<Self, SetupError> {
        let topic = settings.push(identity.id());
        let consumer = Consumer::assigned(settings, &topic, 0, From::End)?;
        let live = Arc::new(AtomicBool::new(false));
        let (settings, up) = (settings.clone(), Arc::default());
        Ok(Self { settings, topic, consumer, next: None, identity, index, mailboxes, live, up })
    }

    /// Set once a record of ours was seen: only then is it sure that nothing is missed. Where the end of
    /// the topic is gets known a moment after the start; see [`probe`].
    #[must_use]
    pub fn live(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.live)
    }

    /// Whether the topic is being read, as of the last moments.
    #[must_use]
    pub fn up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.up)
    }

    /// Reads until `stop` is set.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut records = Vec::new();
        let mut expansion = Expansion::new(self.mailboxes.0.len());
        while !stop.load(Ordering::Relaxed) {
            match self.consumer.poll(&mut records, WAIT, RECORDS) {
                Ok(_) => {}
                Err(error @ ConsumeError::Fatal(_)) => {
                    tracing::error!(%error, "the consumer of pushes is made anew");
                    self.reopen();
                }
                Err(error) => {
                    tracing::debug!(%error, "pushes");
                    // Whatever it is, it is not asked about in a loop without a pause.
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            if self.consumer.health().stalled_for().is_some_and(|time| time > STALLED) {
                tracing::warn!("the consumer of pushes has stalled and is made anew");
                self.reopen();
            }
            self.up.store(self.consumer.is_up(), Ordering::Relaxed);
            self.take(&mut records, &mut expansion);
        }
    }

    fn reopen(&mut self) {
        let from = self.next.map_or(From::End, From::Offset);
        match Consumer::assigned(&self.settings, &self.topic, 0, from) {
            Ok(consumer) => self.consumer = consumer,
            Err(error) => {
                tracing::error!(%error, "no consumer of pushes");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }

    fn take(&mut self, records: &mut Vec<Record>, expansion: &mut Expansion) {
        for record in records.drain(..) {
            self.next = Some(record.offset + 1);
            // The content of its messages is shared with the record's bytes.
            let Ok(push) = PushRecord::decode(record.payload) else {
                counter!("corelane_gateway_push_unreadable_total").increment(1);
                tracing::warn!(offset = record.offset, "a record of the push topic cannot be read");
                continue;
            };
            if !self.identity.is_ours(push.epoch, REGISTRATION) {
                counter!("corelane_gateway_push_stale_total").increment(1);
                continue;
            }
            self.live.store(true, Ordering::Release);
            let pushes = expansion.add(push, &mut self.index.open());
            counter!("corelane_gateway_push_records_total").increment(1);
            counter!("corelane_gateway_push_targets_total").increment(pushes as u64);
            if expansion.is_full() {
                expansion.flush(&self.mailboxes);
            }
        }
        expansion.flush(&self.mailboxes);
    }
}

/// Sends this gateway an empty record: once it comes back, nothing that is sent later is missed.
///
/// # Errors
/// The producer does not take it.
pub fn probe(
    producer: &Producer,
    settings: &Settings,
    identity: &Identity,
) -> Result<(), SendError> {
    let record = PushRecord { epoch: identity.epoch(), ..PushRecord::default() };
    let topic = settings.push(identity.id());
    // No record of the upstream has the number 0.
    producer.send(&topic, 0, None, &record.encode_to_vec(), &Headers::default(), 0)
}
