//! How a client fares: seen from other threads, and shown as metrics.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::metrics::{counter, gauge};
use rdkafka::Statistics;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// A lag that nobody has told yet.
const UNKNOWN: i64 = -1;

/// Partitions of topics, as one client names them.
pub(crate) type Partitions = BTreeSet<(String, u32)>;

/// The state of one client, kept by its callbacks. Cheap to read from any thread.
#[derive(Debug)]
pub struct Health {
    /// What the metrics call this client: `producer`, or the name of the group.
    name: String,
    /// Whether what counts as done is what the group has committed.
    commits: bool,
    born: Instant,
    up: AtomicBool,
    brokerless: AtomicBool,
    fatal: OnceLock<String>,
    lag: AtomicI64,
    unread: AtomicI64,
    partitions: AtomicUsize,
    polled_ms: AtomicU64,
    moved_ms: AtomicU64,
    disconnects: AtomicI64,
}

impl Health {
    pub(crate) fn new(name: &str, commits: bool) -> Health {
        Health {
            name: name.to_owned(),
            commits,
            born: Instant::now(),
            up: AtomicBool::new(false),
            brokerless: AtomicBool::new(false),
            fatal: OnceLock::new(),
            lag: AtomicI64::new(UNKNOWN),
            unread: AtomicI64::new(UNKNOWN),
            partitions: AtomicUsize::new(0),
            polled_ms: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            disconnects: AtomicI64::new(0),
        }
    }

    /// Whether a broker was connected when last seen: false until the first connection, and from
    /// the moment when the last one is lost.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) && self.fatal.get().is_none()
    }

    /// Why this client is of no use any more, if so: drop it, make another.
    #[must_use]
    pub fn fatal(&self) -> Option<&str> {
        self.fatal.get().map(String::as_str)
    }

    /// Whether the client knows no broker any more, asked once for each time it was seen. A broker that is up and not
    /// let in by its controller yet tells of topics and of no brokers; librdkafka (2.12) then forgets even those it
    /// was given at start, and stays alone for ever.
    pub(crate) fn take_brokerless(&self) -> bool {
        self.brokerless.load(Ordering::Relaxed) && self.brokerless.swap(false, Ordering::Relaxed)
    }

    /// Records that are written and not yet committed (of a consumer without a group: not yet
    /// polled), over all partitions that the consumer has. `None`: not known yet.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        Some(self.lag.load(Ordering::Relaxed)).filter(|lag| *lag >= 0)
    }

    /// How many partitions the consumer has.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.partitions.load(Ordering::Relaxed)
    }

    /// How long ago the consumer polled last.
    #[must_use]
    pub fn poll_age(&self) -> Duration {
        self.since(&self.polled_ms)
    }

    /// How long a consumer has been polling without being given any of the records that wait for
    /// it. More than some seconds: it has stopped fetching (which has been seen after a
    /// rebalance); make another one. `None`: all is well.
    #[must_use]
    pub fn stalled_for(&self) -> Option<Duration> {
        (self.unread.load(Ordering::Relaxed) > 0).then(|| self.since(&self.moved_ms))
    }

    fn since(&self, at_ms: &AtomicU64) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(at_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    pub(crate) fn polled(&self, records: usize) {
        let now = self.now_ms();
        self.polled_ms.store(now, Ordering::Relaxed);
        if records > 0 {
            self.moved_ms.store(now, Ordering::Relaxed);
            self.up.store(true, Ordering::Relaxed);
        }
    }

    /// Waiting starts anew: the partitions have changed, or are read again after a pause.
    pub(crate) fn moved(&self, partitions: usize) {
        self.partitions.store(partitions, Ordering::Relaxed);
        self.unread.store(UNKNOWN, Ordering::Relaxed);
        self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
        gauge!("corelane_kafka_consumer_partitions", "client" => self.name.clone())
            .set(partitions as f64);
    }

    pub(crate) fn set_up(&self) {
        self.up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_fatal(&self, why: String) {
        if self.fatal.set(why).is_ok() {
            tracing::error!(client = self.name, why = self.fatal(), "Kafka client has failed");
            gauge!("corelane_kafka_fatal", "client" => self.name.clone()).set(1.0);
        }
    }

    /// An error that belongs to no call.
    pub(crate) fn error(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(Code::AllBrokersDown) && self.up.swap(false, Ordering::Relaxed) {
            tracing::warn!(client = self.name, reason, "no Kafka broker is connected");
        }
        if code == Some(Code::Fatal) {
            self.set_fatal(reason.to_owned());
        }
        tracing::debug!(client = self.name, %error, reason, "Kafka");
        self.count_error(code);
    }

    pub(crate) fn count_error(&self, code: Option<Code>) {
        let code = code.map_or_else(|| "other".to_owned(), |code| format!("{code:?}"));
        counter!("corelane_kafka_errors_total", "client" => self.name.clone(), "code" => code)
            .increment(1);
    }

    pub(crate) fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let client = self.name.as_str();
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", client, facility, "{text}");
            }
            // Lost connections are errors to librdkafka; here they are expected to come back.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", client, facility, "{text}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", client, facility, "{text}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", client, facility, "{text}");
            }
        }
    }

    /// Figures of librdkafka, once every `statistics_interval_ms`.
    pub(crate) fn brokers(&self, statistics: &Statistics) {
        let brokers = statistics.brokers.values().filter(|broker| broker.source != "internal");
        let (mut connected, mut disconnects, mut errors) = (0_u32, 0_i64, 0_u64);
        let mut brokerless = true;
        for broker in brokers {
            // A coordinator is a further name for one of the others.
            brokerless &= broker.source == "logical";
            connected += u32::from(matches!(broker.state.as_str(), "UP" | "UPDATE"));
            disconnects += broker.disconnects.unwrap_or(0);
            errors += broker.txerrs + broker.rxerrs + broker.req_timeouts;
        }
        self.up.store(connected > 0, Ordering::Relaxed);
        self.brokerless.store(brokerless, Ordering::Relaxed);
        let lost = disconnects - self.disconnects.swap(disconnects, Ordering::Relaxed);
        let client = || self.name.clone();
        gauge!("corelane_kafka_brokers_connected", "client" => client()).set(f64::from(connected));
        counter!("corelane_kafka_disconnects_total", "client" => client())
            .increment(u64::try_from(lost).unwrap_or(0));
        counter!("corelane_kafka_broker_errors_total", "client" => client()).absolute(errors);
        gauge!("corelane_kafka_queue_records", "client" => client()).set(statistics.msg_cnt as f64);
        gauge!("corelane_kafka_queue_bytes", "client" => client()).set(statistics.msg_size as f64);
        gauge!("corelane_kafka_reply_queue", "client" => client()).set(statistics.replyq as f64);
    }

    /// How far a consumer is behind on `assigned`; `paused` ones count as behind, not as stalled.
    pub(crate) fn consumer(
        &self,
        statistics: &Statistics,
        assigned: &Partitions,
        paused: &Partitions,
    ) {
        let nothing_to_do = assigned.is_empty() && self.is_up();
        let (mut lag, mut unread, mut known) = (0, 0, nothing_to_do);
        for key in assigned {
            let topic = statistics.topics.get(&key.0);
            let number = i32::try_from(key.1).unwrap_or(i32::MAX);
            let Some(partition) = topic.and_then(|topic| topic.partitions.get(&number)) else {
                continue;
            };
            if partition.hi_offset < 0 {
                continue;
            }
            known = true;
            let oldest = partition.lo_offset.max(0);
            // What was never handed out is read from where fetching begins, not from the oldest record on.
            let read = match partition.app_offset {
                ..0 => partition.next_offset.max(partition.committed_offset).max(oldest),
                read => read.max(oldest),
            };
            let done = if self.commits { partition.committed_offset.max(oldest) } else { read };
            let behind = (partition.hi_offset - done).max(0);
            lag += behind;
            if !paused.contains(key) {
                unread += (partition.hi_offset - read).max(0);
            }
            gauge!("corelane_kafka_consumer_lag", "client" => self.name.clone(),
                "topic" => key.0.clone(), "partition" => key.1.to_string())
            .set(behind as f64);
        }
        self.lag.store(if known { lag } else { UNKNOWN }, Ordering::Relaxed);
        // Without a broker nothing can come; once it is back it has the whole time again.
        if unread <= 0 || !self.is_up() {
            self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
        }
        self.unread.store(unread, Ordering::Relaxed);
        gauge!("corelane_kafka_consumer_stalled_seconds", "client" => self.name.clone())
            .set(self.stalled_for().map_or(0.0, |age| age.as_secs_f64()));
    }

    /// A partition that is no longer ours has no lag of ours.
    pub(crate) fn given_up(&self, partitions: &[(String, u32)]) {
        for (topic, partition) in partitions {
            gauge!("corelane_kafka_consumer_lag", "client" => self.name.clone(),
                "topic" => topic.clone(), "partition" => partition.to_string())
            .set(0.0);
        }
    }
}
