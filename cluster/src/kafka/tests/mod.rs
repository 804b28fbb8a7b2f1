//! Tests of the clients: against a real Kafka (ignored unless asked for), against a simulated one
//! for faults, and against a port that nobody listens on.

mod faults;
mod forgetful;
mod live;
mod rebalance;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;

/// Longer than anything here takes on a busy machine: reaching it means "hangs".
const PATIENCE: Duration = Duration::from_secs(60);

/// What has been told of each token.
type Told = Arc<Mutex<BTreeMap<Token, Vec<Result<(), DeliveryError>>>>>;

/// A producer that writes down every delivery.
fn recording(settings: &Settings) -> (Producer, Told) {
    let told = Told::default();
    let notes = Arc::clone(&told);
    let producer = Producer::new(settings, move |token, outcome| {
        notes.lock().expect("no test panics here").entry(token).or_default().push(outcome);
    });
    (producer.expect("the settings are good"), told)
}

/// The deliveries so far.
fn notes(told: &Told) -> BTreeMap<Token, Vec<Result<(), DeliveryError>>> {
    told.lock().expect("no test panics here").clone()
}

/// Topics of one test: a prefix that nobody else has; gone at the end.
struct Scratch {
    settings: Settings,
    topics: Topics,
    groups: Vec<String>,
}

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let brokers = std::env::var("CORELANE_TEST_KAFKA")
            .expect("CORELANE_TEST_KAFKA names the brokers to test with");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let topic_prefix = format!("test-{}-{count}-", std::process::id());
        let settings = Settings { brokers, topic_prefix, ..Settings::default() };
        let topics = Topics::new(&settings).expect("the settings are good");
        Scratch { settings, topics, groups: Vec::new() }
    }

    /// Makes the upstream topic.
    fn upstream(&self, partitions: u32) -> String {
        let name = self.settings.upstream();
        let made = self.topics.ensure(&[spec(&name, partitions)], PATIENCE);
        assert_eq!(made, Ok(vec![(name.clone(), partitions)]));
        name
    }

    /// A name for a group that is deleted with the rest.
    fn group(&mut self, name: &str) -> String {
        let name = format!("{}{name}", self.settings.topic_prefix);
        self.groups.push(name.clone());
        name
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Ok(all) = self.topics.list() else { return };
        let prefix = &self.settings.topic_prefix;
        let mine = all.into_iter().map(|(name, _)| name).filter(|name| name.starts_with(prefix));
        let _ = self.topics.delete(&mine.collect::<Vec<_>>());
        // Members of a test that failed may still be there: then the broker forgets the group.
        let _ = self.topics.delete_groups(&self.groups);
    }
}

fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, replication: 1, retention_ms: Some(600_000) }
}

/// Polls until `enough` says so.
fn poll_until(consumer: &mut Consumer, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
    let until = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while !enough(&records) {
        assert!(Instant::now() < until, "only {} records in time", records.len());
        consumer.poll(&mut records, Duration::from_millis(100), 100).expect("nothing goes wrong");
    }
    records
}

/// Waits for something that happens on another thread.
fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
