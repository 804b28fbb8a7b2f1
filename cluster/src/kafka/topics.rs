//! Topics: made, listed, deleted. Every call ends within its time limit.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};

use super::error::{SetupError, TopicsError};
use super::settings::Settings;

/// For calls that name no limit of their own.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait between two looks at the list of topics.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A topic as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its full name, prefix included.
    pub name: String,
    /// How many partitions a new topic gets.
    pub partitions: u32,
    /// How many brokers keep a copy; 0: what the broker has as its default.
    pub replication: u32,
    /// How long records are kept; `None`: what the broker has as its default.
    pub retention_ms: Option<u64>,
}

/// Asks and changes what topics there are. Calls block; call from threads that may.
pub struct Topics {
    client: AdminClient<DefaultClientContext>,
}

impl Topics {
    /// Makes a client; it connects in the background.
    ///
    /// # Errors
    /// A property that librdkafka does not take.
    pub fn new(settings: &Settings) -> Result<Topics, SetupError> {
        let client = settings.admin()?.create()?;
        Ok(Topics { client })
    }

    /// Makes the topics that are missing and waits until they show. Those that exist stay as they
    /// are, whatever is wanted: more partitions would move conversations. Returns how many
    /// partitions each has, in the order asked.
    ///
    /// # Errors
    /// No answer within `timeout`, or the broker refuses a topic.
    pub fn ensure(
        &self,
        topics: &[TopicSpec],
        timeout: Duration,
    ) -> Result<Vec<(String, u32)>, TopicsError> {
        let until = Instant::now() + timeout;
        let there: BTreeMap<String, u32> = self.list_until(until)?.into_iter().collect();
        let missing: Vec<&TopicSpec> =
            topics.iter().filter(|topic| !there.contains_key(&topic.name)).collect();
        if !missing.is_empty() {
            self.create(&missing, until)?;
        }
        self.wait_for(topics, until)
    }

    fn create(&self, topics: &[&TopicSpec], until: Instant) -> Result<(), TopicsError> {
        let retention: Vec<Option<String>> =
            topics.iter().map(|topic| topic.retention_ms.map(|ms| ms.to_string())).collect();
        let mut new = Vec::with_capacity(topics.len());
        for (topic, retention) in topics.iter().zip(&retention) {
            // librdkafka takes -1 for "what the broker has".
            let copies = match topic.replication {
                0 => -1,
                copies => i32::try_from(copies).unwrap_or(i32::MAX),
            };
            let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
            let one = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(copies));
            new.push(match retention {
                Some(retention) => one.set("retention.ms", retention),
                None => one,
            });
        }
        let results = wait(until, self.client.create_topics(&new, &options(until)))?;
        first_refusal(results, Code::TopicAlreadyExists)
    }

    /// Metadata follows the creation by some milliseconds.
    fn wait_for(
        &self,
        topics: &[TopicSpec],
        until: Instant,
    ) -> Result<Vec<(String, u32)>, TopicsError> {
        loop {
            let there: BTreeMap<String, u32> = self.list_until(until)?.into_iter().collect();
            let found: Vec<(String, u32)> = topics
                .iter()
                .filter_map(|topic| Some((topic.name.clone(), *there.get(&topic.name)?)))
                .filter(|(_, partitions)| *partitions > 0)
                .collect();
            if found.len() == topics.len() {
                return Ok(found);
            }
            if Instant::now() >= until {
                return Err(TopicsError::Unavailable("new topics do not show".to_owned()));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Deletes topics; those that do not exist are no error.
    ///
    /// # Errors
    /// No answer within ten seconds, or the broker refuses one of them.
    pub fn delete(&self, topics: &[String]) -> Result<(), TopicsError> {
        if topics.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + TIME_LIMIT;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let results = wait(until, self.client.delete_topics(&names, &options(until)))?;
        first_refusal(results, Code::UnknownTopicOrPartition)
    }

    /// Deletes groups that have no members, and what they have committed; those that do not
    /// exist are no error.
    ///
    /// # Errors
    /// No answer within ten seconds, or the broker refuses one of them.
    pub fn delete_groups(&self, groups: &[String]) -> Result<(), TopicsError> {
        if groups.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + TIME_LIMIT;
        let names: Vec<&str> = groups.iter().map(String::as_str).collect();
        let results = wait(until, self.client.delete_groups(&names, &options(until)))?;
        first_refusal(results, Code::GroupIdNotFound)
    }

    /// All topics and how many partitions they have, sorted by name.
    ///
    /// # Errors
    /// No answer within ten seconds.
    pub fn list(&self) -> Result<Vec<(String, u32)>, TopicsError> {
        self.list_until(Instant::now() + TIME_LIMIT)
    }

    fn list_until(&self, until: Instant) -> Result<Vec<(String, u32)>, TopicsError> {
        // At least a moment: 0 would ask for no answer at all.
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let metadata = self.client.inner().fetch_metadata(None, left)?;
        let mut topics: Vec<(String, u32)> = metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| (topic.name().to_owned(), topic.partitions().len() as u32))
            .collect();
        topics.sort();
        Ok(topics)
    }

    /// How many partitions a topic has. It asks for all topics: asking for one by name may create
    /// it, where brokers are set up that way.
    ///
    /// # Errors
    /// No such topic, or no answer within ten seconds.
    pub fn partitions(&self, topic: &str) -> Result<u32, TopicsError> {
        let topics = self.list()?;
        let found = topics.into_iter().find(|(name, _)| name == topic);
        found
            .map(|(_, partitions)| partitions)
            .ok_or_else(|| TopicsError::Unknown(topic.to_owned()))
    }
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").finish_non_exhaustive()
    }
}

fn options(until: Instant) -> AdminOptions {
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    AdminOptions::new().request_timeout(Some(left)).operation_timeout(Some(left))
}

fn first_refusal(results: Vec<TopicResult>, expected: Code) -> Result<(), TopicsError> {
    for result in results {
        if let Err((topic, code)) = result
            && code != expected
        {
            return Err(TopicsError::Refused { topic, why: code.to_string() });
        }
    }
    Ok(())
}

/// Waits for an answer of the admin client, which comes on a thread of its own.
fn wait<T>(until: Instant, answer: impl Future<Output = KafkaResult<T>>) -> Result<T, TopicsError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut answer = pin!(answer);
    loop {
        if let Poll::Ready(result) = answer.as_mut().poll(&mut context) {
            return Ok(result?);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TopicsError::Unavailable("no answer in time".to_owned()));
        }
        std::thread::park_timeout(left);
    }
}
