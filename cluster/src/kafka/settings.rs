//! What a client is told when it is made.

use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::error::SetupError;

/// How to reach Kafka, and what its topics are called.
#[derive(Clone)]
pub struct Settings {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// Put before the name of every topic: several installations may share one Kafka.
    pub topic_prefix: String,
    /// A record that is not delivered after this long fails.
    pub message_timeout_ms: u32,
    /// How long the producer waits for more records before it sends a batch.
    pub linger_ms: f64,
    /// A consumer that is silent for this long loses its partitions. The broker sets bounds
    /// (6 s to 30 min as Kafka ships).
    pub session_timeout_ms: u32,
    /// A consumer that does not poll for this long loses its partitions.
    pub max_poll_interval_ms: u32,
    /// How often figures of the clients are renewed; 0 switches them off, and with them
    /// everything in [`super::Health`] that rests on them.
    pub statistics_interval_ms: u32,
    /// The name that shows up in the broker's logs and metrics.
    pub client_id: String,
    /// Properties of librdkafka; they win over all of the above. A name that begins with
    /// `producer.` or `consumer.` goes to those clients only.
    pub extra: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            brokers: "127.0.0.1:9092".to_owned(),
            topic_prefix: String::new(),
            message_timeout_ms: 10_000,
            linger_ms: 0.0,
            session_timeout_ms: 10_000,
            max_poll_interval_ms: 60_000,
            statistics_interval_ms: 1_000,
            client_id: "corelane".to_owned(),
            extra: Vec::new(),
        }
    }
}

/// Properties may hold passwords: only their names are shown.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.extra.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("topic_prefix", &self.topic_prefix)
            .field("message_timeout_ms", &self.message_timeout_ms)
            .field("linger_ms", &self.linger_ms)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("max_poll_interval_ms", &self.max_poll_interval_ms)
            .field("extra", &names)
            .finish_non_exhaustive()
    }
}

/// Properties that the code rests on: a consumer that commits by itself loses messages.
const FIXED: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.instance.id",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "check.crcs",
    "log.queue",
];

/// Kinds of clients; `extra` may speak to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Producer,
    Consumer,
    Admin,
}

impl Settings {
    /// What gateways send: `{prefix}im-upstream`.
    #[must_use]
    pub fn upstream(&self) -> String {
        format!("{}im-upstream", self.topic_prefix)
    }

    /// What one gateway is sent: `{prefix}im-push-{gateway_id}`.
    #[must_use]
    pub fn push(&self, gateway_id: &str) -> String {
        format!("{}im-push-{gateway_id}", self.topic_prefix)
    }

    /// Work for later: `{prefix}im-tasks`.
    #[must_use]
    pub fn tasks(&self) -> String {
        format!("{}im-tasks", self.topic_prefix)
    }

    /// Records that could not be worked: `{prefix}im-dlq`.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        format!("{}im-dlq", self.topic_prefix)
    }

    /// What every kind of client is told.
    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("statistics.interval.ms", self.statistics_interval_ms.to_string())
            // Requests without an answer end; the defaults of a minute hold a thread too long.
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// An admin client. Nobody takes its logs and figures away: it must make none, or they would
    /// pile up. Its calls return their errors.
    pub(crate) fn admin(&self) -> Result<ClientConfig, SetupError> {
        let mut config = self.common();
        self.add_extra(&mut config, Kind::Admin)?;
        config.set("statistics.interval.ms", "0").set_log_level(RDKafkaLogLevel::Emerg);
        Ok(config)
    }

    /// An idempotent producer that acknowledges what all replicas have.
    pub(crate) fn producer(&self) -> Result<ClientConfig, SetupError> {
        let mut config = self.common();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", self.linger_ms.to_string())
            .set("message.timeout.ms", self.message_timeout_ms.to_string())
            .set("request.timeout.ms", "5000")
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "500")
            // Bounded: what does not fit is refused, never kept.
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "131072")
            // A topic that does not exist is told within seconds.
            .set("topic.metadata.propagation.max.ms", "5000");
        self.add_extra(&mut config, Kind::Producer)?;
        Ok(config)
    }

    /// A consumer that commits only what it is told to.
    pub(crate) fn consumer(
        &self,
        group: &str,
        instance: Option<&str>,
    ) -> Result<ClientConfig, SetupError> {
        let mut config = self.common();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "earliest")
            // Only partitions that move are given up: the caches of the others stay warm.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", self.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (self.session_timeout_ms / 4).max(1).to_string())
            .set("max.poll.interval.ms", self.max_poll_interval_ms.to_string())
            // What is read ahead is bounded; once it was full, reading goes on soon.
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.wait.max.ms", "500")
            .set("fetch.error.backoff.ms", "100")
            // Brokers send what lies on their disks without looking: a record that was damaged there is left out, and
            // whoever waits for it notices. It must not be taken for what somebody wrote.
            .set("check.crcs", "true")
            // Topics and partitions that are new are found within this time.
            .set("topic.metadata.refresh.interval.ms", "10000");
        if let Some(instance) = instance {
            config.set("group.instance.id", instance);
        }
        self.add_extra(&mut config, Kind::Consumer)?;
        Ok(config)
    }

    fn add_extra(&self, config: &mut ClientConfig, kind: Kind) -> Result<(), SetupError> {
        for (name, value) in &self.extra {
            let (wanted, name) = match name.split_once('.') {
                Some(("producer", rest)) => (Some(Kind::Producer), rest),
                Some(("consumer", rest)) => (Some(Kind::Consumer), rest),
                _ => (None, name.as_str()),
            };
            if FIXED.contains(&name) {
                return Err(SetupError::Property {
                    name: name.to_owned(),
                    why: "this property is not for setting: the program rests on its value"
                        .to_owned(),
                });
            }
            if wanted.is_none_or(|wanted| wanted == kind) {
                config.set(name, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(extra: &[(&str, &str)]) -> Settings {
        let extra = extra.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Settings { extra, topic_prefix: "p.".into(), ..Settings::default() }
    }

    #[test]
    fn topics_carry_the_prefix() {
        let settings = with(&[]);
        assert_eq!(settings.upstream(), "p.im-upstream");
        assert_eq!(settings.push("gw-1"), "p.im-push-gw-1");
        assert_eq!(settings.tasks(), "p.im-tasks");
        assert_eq!(settings.dead_letters(), "p.im-dlq");
    }

    #[test]
    fn extra_properties_win_and_may_speak_to_one_kind() {
        let settings = with(&[("linger.ms", "3"), ("consumer.fetch.min.bytes", "7")]);
        let producer = settings.producer().expect("known properties");
        let consumer = settings.consumer("g", Some("i")).expect("known properties");
        assert_eq!(producer.get("linger.ms"), Some("3"));
        assert_eq!(producer.get("fetch.min.bytes"), None);
        assert_eq!(consumer.get("fetch.min.bytes"), Some("7"));
        assert_eq!(consumer.get("group.instance.id"), Some("i"));
        assert_eq!(consumer.get("check.crcs"), Some("true"));
    }

    #[test]
    fn what_the_program_rests_on_cannot_be_set() {
        for name in ["enable.auto.commit", "consumer.enable.auto.commit", "group.id"] {
            let error = with(&[(name, "true")]).consumer("g", None).expect_err(name);
            assert!(matches!(error, SetupError::Property { .. }), "{error}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = format!("{:?}", with(&[("sasl.password", "hunter2")]));
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
