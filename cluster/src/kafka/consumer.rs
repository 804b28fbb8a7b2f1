//! Reads records; offsets are committed when the application says so, never before.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::acks::NextOffset;
use super::context::{COMMIT_LIMIT, ConsumerSide, Rebalance, list};
use super::error::{ConsumeError, SetupError, is_connection};
use super::health::Health;
use super::native::{add_brokers, commit_within};
use super::settings::Settings;
use super::trace::{Headers, TRACEPARENT, TraceContext};

/// One poll stops after this many bytes, however many records it may take.
const POLL_BYTES: usize = 8 << 20;

/// How long a drop waits.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How long a seek may take.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// One record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: i64,
    /// What it holds; copied once, out of librdkafka's memory.
    pub payload: Bytes,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its headers, as far as this project knows them.
    pub headers: Headers,
    /// When it was made, in milliseconds since 1970; 0 if nobody says.
    pub timestamp_ms: i64,
}

/// What a poll brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// This many records were added.
    Records(usize),
    /// None; partitions may have come or gone meanwhile.
    Nothing,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the oldest record that is kept.
    Beginning,
    /// Behind the newest one.
    End,
    /// At this offset.
    Offset(i64),
}

/// Whether a commit waits for Kafka's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// It waits: five seconds at worst, when the group's coordinator does not answer.
    Sync,
    /// It does not; failures show in the log and the metrics.
    Async,
}

/// A consumer. One thread owns it and must poll it, more often than `max_poll_interval_ms`, even
/// when it wants no records (see [`Consumer::pause`]).
///
/// Dropping it gives its partitions up: [`Rebalance::revoked`] is called once more, on another
/// thread that the drop waits for, at most ten seconds.
#[must_use = "a consumer that is dropped leaves its group"]
pub struct Consumer {
    inner: Inner,
    health: Arc<Health>,
    /// Those it was made with.
    brokers: String,
    /// Names of topics, each allocated once.
    names: Vec<Arc<str>>,
    /// An error that came behind records, kept for the next poll.
    pending: Option<ConsumeError>,
}

/// The client, until it is dropped.
struct Inner(Option<BaseConsumer<ConsumerSide>>);

impl std::ops::Deref for Inner {
    type Target = BaseConsumer<ConsumerSide>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it is taken by drop only")
    }
}

impl Drop for Inner {
    /// Closing waits for commits under way, without a limit: a broker that takes requests and
    /// answers none must not hold more than a thread of no other use.
    fn drop(&mut self) {
        let Some(consumer) = self.0.take() else { return };
        let (closed, wait) = std::sync::mpsc::sync_channel(1);
        let closing = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || {
            drop(consumer);
            let _ = closed.send(());
        });
        if closing.is_ok() && wait.recv_timeout(CLOSE_LIMIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the consumer is still closing: Kafka does not answer");
        }
    }
}

impl Consumer {
    /// Joins a group that shares the partitions of `topics`; reading begins at what the group has
    /// committed, or at the oldest record. With an `instance` name a restart within the session
    /// timeout moves no partitions (static membership).
    ///
    /// # Errors
    /// A property or topic name that librdkafka does not take. An unreachable broker is no error
    /// here.
    pub fn group(
        settings: &Settings,
        group: &str,
        topics: &[String],
        instance: Option<&str>,
        rebalance: impl Rebalance + 'static,
    ) -> Result<Consumer, SetupError> {
        let consumer = Consumer::open(settings, group, instance, Box::new(rebalance), true)?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.inner.subscribe(&topics)?;
        Ok(consumer)
    }

    /// Reads one partition, without a group.
    ///
    /// # Errors
    /// A property or topic name that librdkafka does not take. An unreachable broker is no error
    /// here.
    pub fn assigned(
        settings: &Settings,
        topic: &str,
        partition: u32,
        from: From,
    ) -> Result<Consumer, SetupError> {
        // librdkafka wants a name for the group; it never joins one for an assignment by hand.
        let name = format!("{topic}-reader");
        let consumer = Consumer::open(settings, &name, None, Box::new(()), false)?;
        let offset = match from {
            From::Beginning => Offset::Beginning,
            From::End => Offset::End,
            From::Offset(offset) => Offset::Offset(offset),
        };
        let mut list = TopicPartitionList::with_capacity(1);
        let number = i32::try_from(partition)
            .map_err(|_| SetupError::Client(format!("there is no partition {partition}")))?;
        list.add_partition_offset(topic, number, offset)?;
        consumer.inner.assign(&list)?;
        let side = consumer.inner.context();
        side.held().assigned.insert((topic.to_owned(), partition));
        consumer.health.moved(1);
        Ok(consumer)
    }

    fn open(
        settings: &Settings,
        group: &str,
        instance: Option<&str>,
        rebalance: Box<dyn Rebalance>,
        commits: bool,
    ) -> Result<Consumer, SetupError> {
        let health = Arc::new(Health::new(group, commits));
        let side = ConsumerSide::new(Arc::clone(&health), rebalance);
        let inner = settings.consumer(group, instance)?.create_with_context(side)?;
        let brokers = settings.brokers.clone();
        Ok(Consumer {
            inner: Inner(Some(inner)),
            health,
            brokers,
            names: Vec::new(),
            pending: None,
        })
    }

    /// Waits for the first record, at most for `timeout`, and takes what else has arrived without
    /// waiting: at most `max_records`, appended to `into`. Rebalances happen inside this call.
    ///
    /// # Errors
    /// Only [`ConsumeError::Fatal`] ends this consumer. Lost connections are no error: nothing
    /// comes until they are back, and [`Consumer::is_up`] tells.
    pub fn poll(
        &mut self,
        into: &mut Vec<Record>,
        timeout: Duration,
        max_records: usize,
    ) -> Result<Polled, ConsumeError> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        let (before, revocations) = (into.len(), self.inner.context().revocations());
        let outcome = self.fill(into, timeout, max_records.max(1));
        if self.inner.context().revocations() != revocations {
            self.drop_revoked(into, before);
        }
        let taken = into.len() - before;
        self.health.polled(taken);
        if self.health.take_brokerless() {
            add_brokers(self.inner.client(), &self.brokers);
        }
        match outcome {
            Ok(()) if taken == 0 => Ok(Polled::Nothing),
            Ok(()) => Ok(Polled::Records(taken)),
            Err(error) if taken == 0 => Err(error),
            Err(error) => {
                self.pending = Some(error);
                Ok(Polled::Records(taken))
            }
        }
    }

    fn fill(
        &mut self,
        into: &mut Vec<Record>,
        timeout: Duration,
        max_records: usize,
    ) -> Result<(), ConsumeError> {
        let until = Instant::now() + timeout;
        let (mut taken, mut bytes, mut wait) = (0, 0, timeout);
        while taken < max_records && bytes < POLL_BYTES {
            match self.inner.poll(wait) {
                None => return Ok(()),
                Some(Ok(message)) => {
                    let record = copy(&message, &mut self.names);
                    bytes += record.payload.len();
                    into.push(record);
                    taken += 1;
                    wait = Duration::ZERO;
                }
                Some(Err(error)) => {
                    self.judge(&error)?;
                    // Nothing that the caller could act upon: the waiting goes on.
                    wait = if taken > 0 {
                        Duration::ZERO
                    } else {
                        until.saturating_duration_since(Instant::now())
                    };
                    if wait.is_zero() && taken == 0 {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Errors that librdkafka deals with by itself are counted and passed over.
    fn judge(&self, error: &KafkaError) -> Result<(), ConsumeError> {
        let code = error.rdkafka_error_code();
        self.health.count_error(code);
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let harmless = code.is_some_and(is_connection) || code == Some(Code::PollExceeded);
        if harmless && !fatal {
            tracing::debug!(%error, "consumer");
            return Ok(());
        }
        let error = ConsumeError::from(error);
        if let ConsumeError::Fatal(why) = &error {
            self.health.set_fatal(why.clone());
        }
        Err(error)
    }

    /// Records of partitions that were given up during the same poll: whoever has them now reads
    /// them too.
    fn drop_revoked(&self, into: &mut Vec<Record>, before: usize) {
        let side = self.inner.context();
        let held = side.held();
        let mut at = 0;
        into.retain(|record| {
            at += 1;
            at <= before || held.assigned.contains(&(record.topic.to_string(), record.partition))
        });
    }

    /// Commits offsets of the group: for each partition the first record that is not done.
    ///
    /// # Errors
    /// [`ConsumeError::Fenced`] if the partitions belong to others by now. In async mode only what
    /// is known at once.
    pub fn commit(&mut self, offsets: &[NextOffset], mode: CommitMode) -> Result<(), ConsumeError> {
        if offsets.is_empty() {
            return Ok(());
        }
        if mode == CommitMode::Sync && !self.is_up() {
            // librdkafka would wait for a coordinator first.
            return Err(ConsumeError::Unavailable("no broker is connected".to_owned()));
        }
        let result = list(offsets).and_then(|list| match mode {
            CommitMode::Sync => commit_within(&self.inner, &list, COMMIT_LIMIT),
            CommitMode::Async => self.inner.commit(&list, rdkafka::consumer::CommitMode::Async),
        });
        result.map_err(|error| {
            self.health.count_error(error.rdkafka_error_code());
            ConsumeError::from(&error)
        })
    }

    /// Reads partitions again (or further on) from these offsets. Records polled before are the
    /// caller's to drop.
    ///
    /// # Errors
    /// The partition is not ours, or Kafka does not answer within some seconds.
    pub fn seek(&mut self, offsets: &[NextOffset]) -> Result<(), ConsumeError> {
        for (topic, partition, offset) in offsets {
            let partition = i32::try_from(*partition).unwrap_or(i32::MAX);
            self.inner
                .seek(topic, partition, Offset::Offset(*offset), SEEK_TIMEOUT)
                .map_err(|error| ConsumeError::from(&error))?;
        }
        Ok(())
    }

    /// Takes no more records of these partitions, and keeps them: for a pipeline that is full.
    /// Polling must go on. A partition that is given up and comes back is not paused any more.
    ///
    /// # Errors
    /// A partition that is not ours.
    pub fn pause(&mut self, partitions: &[(String, u32)]) -> Result<(), ConsumeError> {
        let list = partition_list(partitions);
        self.inner.pause(&list).map_err(|error| ConsumeError::from(&error))?;
        self.inner.context().held().paused.extend(partitions.iter().cloned());
        Ok(())
    }

    /// Takes records of these partitions again.
    ///
    /// # Errors
    /// A partition that is not ours.
    pub fn resume(&mut self, partitions: &[(String, u32)]) -> Result<(), ConsumeError> {
        let list = partition_list(partitions);
        self.inner.resume(&list).map_err(|error| ConsumeError::from(&error))?;
        let mut held = self.inner.context().held();
        for partition in partitions {
            held.paused.remove(partition);
        }
        self.health.moved(held.assigned.len());
        Ok(())
    }

    /// The partitions that are paused.
    #[must_use]
    pub fn paused(&self) -> Vec<(String, u32)> {
        self.inner.context().held().paused.iter().cloned().collect()
    }

    /// The partitions that this consumer has.
    #[must_use]
    pub fn partitions(&self) -> Vec<(String, u32)> {
        self.inner.context().held().assigned.iter().cloned().collect()
    }

    /// How many records are behind what is committed, over all partitions of this consumer. From
    /// the last statistics: it asks nobody, so it cannot hang.
    ///
    /// # Errors
    /// Nobody has told it yet.
    pub fn lag(&self) -> Result<i64, ConsumeError> {
        self.health.lag().ok_or_else(|| ConsumeError::Unavailable("no statistics yet".to_owned()))
    }

    /// Whether a broker is connected.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// The state of this client, for other threads to watch.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("partitions", &self.partitions())
            .field("is_up", &self.is_up())
            .finish_non_exhaustive()
    }
}

fn partition_list(partitions: &[(String, u32)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, i32::try_from(*partition).unwrap_or(i32::MAX));
    }
    list
}

fn copy(message: &BorrowedMessage<'_>, names: &mut Vec<Arc<str>>) -> Record {
    Record {
        topic: name(message.topic(), names),
        partition: u32::try_from(message.partition()).unwrap_or(0),
        offset: message.offset(),
        payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        key: message.key().map(Bytes::copy_from_slice),
        headers: headers(message),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
    }
}

fn name(topic: &str, names: &mut Vec<Arc<str>>) -> Arc<str> {
    if let Some(known) = names.iter().find(|known| &***known == topic) {
        return Arc::clone(known);
    }
    let new: Arc<str> = Arc::from(topic);
    names.push(Arc::clone(&new));
    new
}

/// Headers are made by others: whatever is not understood is left out.
fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(found) = message.headers() else { return Headers::default() };
    // Reading a header whose name is no UTF-8 panics inside the client library.
    let traceparent = catch_unwind(|| {
        let mut all = (0..found.count()).filter_map(|index| found.try_get(index));
        let value = all.find(|header| header.key == TRACEPARENT)?.value?;
        TraceContext::parse(std::str::from_utf8(value).ok()?).ok()
    });
    Headers { traceparent: traceparent.ok().flatten() }
}
