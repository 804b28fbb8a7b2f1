//! Kafka as the way out: records of ticks, whose acknowledgements release offsets, and records outside of ticks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cluster::kafka::{
    Acks, DeliveryError, Headers, Health, Producer, SendError, Settings, SetupError, Token,
    TraceContext, partition_of,
};
use hashbrown::HashMap;
use prost::Message as _;
use proto::v1::{PushRecord, Task, UpstreamRecord};

use crate::domain::delivery::GatewayNo;
use crate::gateways::Gateways;
use crate::ports::{PushOut, StoreError, TaskOut};

/// Tags of tokens; those of ticks lie below.
const TAG_WAITED: u16 = 0xfffe;
const TAG_LOOSE: u16 = 0xffff;
const TAG_SHIFT: u32 = 48;

/// How long a full queue is tried before a tick is given up.
const FULL_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait between two attempts at a full queue.
const FULL_WAIT: Duration = Duration::from_millis(2);
/// How long the topic of a gateway that is registered may be missing before records for it are dropped.
const MISSING_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait between two looks for such a topic, and for the answer to one.
const MISSING_WAIT: Duration = Duration::from_millis(50);
const MISSING_LOOK: Duration = Duration::from_secs(1);
/// How long work that is handed over may take to be durable.
const TASK_LIMIT: Duration = Duration::from_secs(5);
/// How long a change may take to be told. Whoever asked for it waits on a thread that others need.
const ANNOUNCE_LIMIT: Duration = Duration::from_secs(2);
/// After one that took longer the next ones fail at once for so long.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

/// Why a record did not leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// Kafka takes nothing: the same may go well later.
    #[error("Kafka takes no records: {0}")]
    Unavailable(String),
}

/// Names of the topics, and how many partitions those have that are not one gateway's.
#[derive(Clone, Debug)]
pub struct Topics {
    /// What gateways send.
    pub upstream: String,
    /// Partitions of it.
    pub upstream_partitions: u32,
    /// Work for later.
    pub tasks: String,
    /// Partitions of it.
    pub task_partitions: u32,
    /// Records that could not be worked.
    pub dead_letters: String,
}

/// The ticks of one life of the consumer: which offsets may be committed.
#[derive(Debug)]
pub struct Ledger {
    /// The acknowledgements that are missing.
    pub acks: Acks,
    tag: u16,
    failed: AtomicBool,
}

impl Ledger {
    /// Nothing outstanding.
    #[must_use]
    pub fn new(tag: u16) -> Self {
        let tag = tag % TAG_WAITED;
        Self { acks: Acks::new(tag), tag, failed: AtomicBool::new(false) }
    }

    /// Whether a record of some tick was lost: what was read since the last commit is to be read again.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// A record of some tick is lost.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

/// Records that somebody waits for.
#[derive(Debug, Default)]
struct Wait {
    missing: u64,
    lost: Option<String>,
}

#[derive(Debug, Default)]
struct Deliveries {
    ledger: RwLock<Option<Arc<Ledger>>>,
    waits: Mutex<HashMap<Token, Wait>>,
    changed: Condvar,
}

impl Deliveries {
    fn told(&self, token: Token, result: Result<(), DeliveryError>) {
        // A gateway that is gone wants nothing, what it is sent is loose; a record that is too large will never be taken.
        let result = match result {
            Err(DeliveryError::UnknownTopic) if Acks::tag_of(token) == TAG_LOOSE => Ok(()),
            Err(DeliveryError::TooLarge) => {
                tracing::error!("a record was dropped: it is larger than Kafka takes");
                Ok(())
            }
            result => result,
        };
        if let Err(error) = &result {
            metrics::counter!("corelane_logic_records_lost_total").increment(1);
            tracing::warn!(%error, "a record did not reach Kafka");
        }
        match Acks::tag_of(token) {
            TAG_LOOSE => {}
            TAG_WAITED => self.told_waiting(token, result),
            _ => self.told_tick(token, &result),
        }
    }

    fn told_tick(&self, token: Token, result: &Result<(), DeliveryError>) {
        let ledger = self.ledger.read().unwrap_or_else(PoisonError::into_inner);
        let Some(ledger) = ledger.as_ref().filter(|ledger| ledger.tag == Acks::tag_of(token))
        else {
            return;
        };
        match result {
            Ok(()) => ledger.acks.acked(token),
            Err(_) => ledger.fail(),
        }
    }

    fn told_waiting(&self, token: Token, result: Result<(), DeliveryError>) {
        let mut waits = self.waits();
        let Some(wait) = waits.get_mut(&token) else { return };
        wait.missing = wait.missing.saturating_sub(1);
        if let Err(error) = result {
            wait.lost = Some(error.to_string());
        }
        if wait.missing == 0 {
            self.changed.notify_all();
        }
    }

    fn waits(&self) -> MutexGuard<'_, HashMap<Token, Wait>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for everything under this token; forgets it.
    fn wait(&self, token: Token, limit: Duration) -> Result<(), OutboxError> {
        let until = Instant::now() + limit;
        let mut waits = self.waits();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let done = waits.get(&token).is_none_or(|wait| wait.missing == 0);
            if done || left.is_zero() {
                let lost = waits.remove(&token).and_then(|wait| wait.lost);
                return match lost {
                    None if done => Ok(()),
                    None => Err(OutboxError::Unavailable("no answer in time".to_owned())),
                    Some(lost) => Err(OutboxError::Unavailable(lost)),
                };
            }
            waits =
                self.changed.wait_timeout(waits, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The producer of this process. Any thread may send.
pub struct Outbox {
    producer: RwLock<Arc<Producer>>,
    settings: Settings,
    topics: Topics,
    gateways: Arc<Gateways>,
    deliveries: Arc<Deliveries>,
    next: AtomicU64,
    /// Topics of registered gateways that were not there, and since when.
    missing: Mutex<HashMap<String, Instant>>,
    /// Partitions that could not be told of a change, and when that was last.
    untold: Mutex<HashMap<u32, Instant>>,
}

impl Outbox {
    /// Connects in the background.
    ///
    /// # Errors
    /// Settings that cannot be.
    pub fn new(
        settings: Settings,
        topics: Topics,
        gateways: Arc<Gateways>,
    ) -> Result<Self, SetupError> {
        let deliveries = Arc::new(Deliveries::default());
        let producer = RwLock::new(connect(&settings, &deliveries)?);
        let (next, missing, untold) = (AtomicU64::new(1), Mutex::default(), Mutex::default());
        Ok(Self { producer, settings, topics, gateways, deliveries, next, missing, untold })
    }

    /// The topics.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The state of the producer, for other threads to watch.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        self.producer().health()
    }

    fn producer(&self) -> Arc<Producer> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The producer, made anew if it can send nothing any more: a broker that lost records it had acknowledged ends an
    /// idempotent producer for good. What was under way is told as lost, so its ticks are worked again.
    fn working_producer(&self) -> Arc<Producer> {
        let producer = self.producer();
        if let Some(why) = producer.health().fatal() {
            tracing::error!(why, "the producer is of no use any more and is made anew");
            return self.renew(&producer);
        }
        producer
    }

    /// Takes another producer in the place of `broken`, unless somebody else did so.
    fn renew(&self, broken: &Arc<Producer>) -> Arc<Producer> {
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, broken) {
            match connect(&self.settings, &self.deliveries) {
                Ok(new) => *current = new,
                Err(error) => tracing::error!(%error, "no other producer"),
            }
        }
        Arc::clone(&current)
    }

    /// From now on acknowledgements of ticks go to this ledger.
    pub fn begin(&self, ledger: &Arc<Ledger>) {
        let mut current = self.deliveries.ledger.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Arc::clone(ledger));
    }

    /// Sends the records of a tick; gives how many acknowledgements to expect.
    ///
    /// # Errors
    /// Kafka took nothing for so long that the tick has to be worked again.
    pub fn send_tick(
        &self,
        records: Vec<(GatewayNo, PushRecord)>,
        token: Token,
        trace: Option<TraceContext>,
    ) -> Result<u64, OutboxError> {
        let mut sent = 0;
        for (gateway, record) in records {
            let Some(life) = self.gateways.life(gateway) else { continue };
            let topic = self.settings.push(&life.id);
            let payload = record.encode_to_vec();
            // Nobody waits for what a gateway is sent that is gone.
            let wanted = self.gateways.is_reachable(gateway);
            let token = if wanted { token } else { u64::from(TAG_LOOSE) << TAG_SHIFT };
            let taken = self.send(&topic, 0, &payload, trace, token)?;
            sent += u64::from(taken && wanted);
        }
        Ok(sent)
    }

    /// Sends a record that could not be worked to where such records are looked at.
    ///
    /// # Errors
    /// As [`Outbox::send_tick`].
    pub fn send_dead_letter(
        &self,
        letter: &proto::v1::DeadLetter,
        token: Token,
        trace: Option<TraceContext>,
    ) -> Result<u64, OutboxError> {
        let topic = &self.topics.dead_letters;
        self.send(topic, 0, &letter.encode_to_vec(), trace, token).map(u64::from)
    }

    /// Puts a record back where it came from, and waits until it is durable.
    ///
    /// # Errors
    /// It is not.
    pub fn put_back(&self, topic: &str, partition: u32, payload: &[u8]) -> Result<(), OutboxError> {
        self.send_and_wait(TASK_LIMIT, &[(topic.to_owned(), partition, payload.to_vec())])
    }

    /// Waits until everything sent so far is told; false: not in time.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        self.producer().flush(limit)
    }

    /// Waits while the queue is full. False: nobody wants the record.
    fn send(
        &self,
        topic: &str,
        partition: u32,
        payload: &[u8],
        trace: Option<TraceContext>,
        token: Token,
    ) -> Result<bool, OutboxError> {
        let until = Instant::now() + FULL_LIMIT;
        self.send_until(until, topic, partition, payload, trace, token)
    }

    fn send_until(
        &self,
        until: Instant,
        topic: &str,
        partition: u32,
        payload: &[u8],
        trace: Option<TraceContext>,
        token: Token,
    ) -> Result<bool, OutboxError> {
        let headers = Headers {
            traceparent: Some(
                trace.map_or_else(|| TraceContext::new_random(false), |trace| trace.child()),
            ),
        };
        loop {
            match self.working_producer().send(topic, partition, None, payload, &headers, token) {
                Ok(()) => {
                    self.missing().remove(topic);
                    return Ok(true);
                }
                Err(SendError::UnknownTopic) if self.is_awaited(topic) => {
                    std::thread::sleep(MISSING_WAIT);
                    self.producer().look_for(topic, MISSING_LOOK);
                }
                Err(SendError::UnknownTopic) => return Ok(false),
                Err(SendError::TooLarge) => {
                    tracing::error!(
                        topic,
                        bytes = payload.len(),
                        "a record was dropped: too large"
                    );
                    return Ok(false);
                }
                Err(SendError::QueueFull) if Instant::now() < until => {
                    std::thread::sleep(FULL_WAIT);
                }
                Err(error) => return Err(OutboxError::Unavailable(error.to_string())),
            }
        }
    }

    /// Whether a topic that is not there may still come: it is that of a gateway that is registered, and has not been
    /// missing for long. So a gateway without a topic holds up others once, and not with every record.
    fn is_awaited(&self, topic: &str) -> bool {
        let has_it =
            |no| self.gateways.life(no).is_some_and(|life| self.settings.push(&life.id) == topic);
        if !self.gateways.live().into_iter().any(has_it) {
            return false;
        }
        let mut missing = self.missing();
        let since = *missing.entry(topic.to_owned()).or_insert_with(Instant::now);
        let awaited = since.elapsed() < MISSING_LIMIT;
        if !awaited {
            metrics::counter!("corelane_logic_records_lost_total").increment(1);
            tracing::warn!(
                topic,
                "a record was dropped: its gateway is registered but has no topic"
            );
        }
        awaited
    }

    fn missing(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_and_wait(
        &self,
        limit: Duration,
        records: &[(String, u32, Vec<u8>)],
    ) -> Result<(), OutboxError> {
        let counter = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << TAG_SHIFT) - 1);
        let token = (u64::from(TAG_WAITED) << TAG_SHIFT) | counter;
        let wait = Wait { missing: records.len() as u64, lost: None };
        self.deliveries.waits().insert(token, wait);
        let until = Instant::now() + limit.min(FULL_LIMIT);
        for (topic, partition, payload) in records {
            match self.send_until(until, topic, *partition, payload, None, token) {
                Ok(true) => {}
                // Of a gateway that is gone: nobody wants it.
                Ok(false) if topic.starts_with(&self.settings.push("")) => {
                    self.deliveries.told_waiting(token, Ok(()));
                }
                Ok(false) => {
                    self.deliveries.told_waiting(token, Err(DeliveryError::UnknownTopic));
                }
                Err(error) => {
                    self.deliveries.waits().remove(&token);
                    return Err(error);
                }
            }
        }
        self.deliveries.wait(token, limit)
    }

    fn encoded(&self, records: Vec<(GatewayNo, PushRecord)>) -> Vec<(String, u32, Vec<u8>)> {
        let encode = |(gateway, record): (GatewayNo, PushRecord)| {
            let life = self.gateways.life(gateway)?;
            Some((self.settings.push(&life.id), 0, record.encode_to_vec()))
        };
        records.into_iter().filter_map(encode).collect()
    }
}

fn connect(settings: &Settings, deliveries: &Arc<Deliveries>) -> Result<Arc<Producer>, SetupError> {
    let told = Arc::clone(deliveries);
    Producer::new(settings, move |token, result| told.told(token, result)).map(Arc::new)
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl PushOut for Outbox {
    fn push(&self, records: Vec<(GatewayNo, PushRecord)>) {
        let token = u64::from(TAG_LOOSE) << TAG_SHIFT;
        for (topic, partition, payload) in self.encoded(records) {
            if let Err(error) = self.send(&topic, partition, &payload, None, token) {
                tracing::warn!(%error, topic, "a record for a gateway was lost");
            }
        }
    }

    fn push_and_wait(
        &self,
        records: Vec<(GatewayNo, PushRecord)>,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let records = self.encoded(records);
        if records.is_empty() {
            return Ok(());
        }
        self.send_and_wait(limit, &records).map_err(unavailable)
    }
}

impl TaskOut for Outbox {
    fn hand_over(&self, conversation_id: &str, task: Task) -> Result<(), StoreError> {
        let partition = partition_of(conversation_id, self.topics.task_partitions);
        let record = (self.topics.tasks.clone(), partition, task.encode_to_vec());
        self.send_and_wait(TASK_LIMIT, &[record]).map_err(unavailable)
    }

    fn announce(&self, conversation_id: &str) -> Result<(), StoreError> {
        let partition = partition_of(conversation_id, self.topics.upstream_partitions);
        let untold = || self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if untold().get(&partition).is_some_and(|at| at.elapsed() < ANNOUNCE_PAUSE) {
            return Err(StoreError::Unavailable("Kafka takes no records".to_owned()));
        }
        let changed = vec![conversation_id.to_owned()];
        let record = UpstreamRecord { changed, ..UpstreamRecord::default() };
        let record = (self.topics.upstream.clone(), partition, record.encode_to_vec());
        match self.send_and_wait(ANNOUNCE_LIMIT, &[record]) {
            Ok(()) => {
                untold().remove(&partition);
                metrics::counter!("corelane_logic_changes_announced_total").increment(1);
                Ok(())
            }
            Err(error) => {
                untold().insert(partition, Instant::now());
                Err(unavailable(error))
            }
        }
    }
}

fn unavailable(error: OutboxError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests;
