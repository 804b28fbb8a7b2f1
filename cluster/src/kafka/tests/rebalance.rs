//! Several consumers of one group: nothing is lost, nothing is read twice without need.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use super::*;

/// Which records have been worked, by whom.
type Worked = Arc<Mutex<Vec<(&'static str, u32, i64)>>>;

/// What a member keeps between polls: offsets that are worked and not yet committed.
#[derive(Debug, Default)]
struct Desk {
    open: BTreeMap<(String, u32), i64>,
    assigned: BTreeSet<u32>,
    revoked: usize,
}

struct Handler(Arc<Mutex<Desk>>);

impl Rebalance for Handler {
    fn assigned(&mut self, partitions: &[(String, u32)]) {
        let mut desk = self.0.lock().expect("no panic here");
        desk.assigned.extend(partitions.iter().map(|(_, partition)| *partition));
    }

    fn revoked(&mut self, partitions: &[(String, u32)]) {
        let mut desk = self.0.lock().expect("no panic here");
        desk.revoked += partitions.len();
        for (_, partition) in partitions {
            desk.assigned.remove(partition);
        }
    }

    fn last_offsets(&mut self, partitions: &[(String, u32)]) -> Vec<NextOffset> {
        let mut desk = self.0.lock().expect("no panic here");
        let mine = partitions.iter();
        mine.filter_map(|key| Some((key.0.clone(), key.1, desk.open.remove(key)?))).collect()
    }
}

/// A member of the group on a thread of its own; it commits only when partitions are revoked, so
/// that only the hand-over keeps records from being read twice.
struct Member {
    stop: Arc<AtomicBool>,
    desk: Arc<Mutex<Desk>>,
    thread: JoinHandle<()>,
}

impl Member {
    fn join(settings: &Settings, group: &str, name: &'static str, worked: &Worked) -> Member {
        let desk = Arc::new(Mutex::new(Desk::default()));
        let topics = [settings.upstream()];
        let handler = Handler(Arc::clone(&desk));
        let mut consumer =
            Consumer::group(settings, group, &topics, None, handler).expect("good settings");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (stop, desk, worked) = (Arc::clone(&stop), Arc::clone(&desk), Arc::clone(worked));
            move || {
                let mut records = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    consumer.poll(&mut records, Duration::from_millis(20), 50).expect("polls");
                    for record in records.drain(..) {
                        let key = (record.topic.to_string(), record.partition);
                        let mut desk = desk.lock().expect("no panic here");
                        assert!(desk.assigned.contains(&record.partition), "not ours");
                        desk.open.insert(key, record.offset + 1);
                        let mut worked = worked.lock().expect("no panic here");
                        worked.push((name, record.partition, record.offset));
                    }
                }
            }
        });
        Member { stop, desk, thread }
    }

    fn partitions(&self) -> usize {
        self.desk.lock().expect("no panic here").assigned.len()
    }

    fn leave(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the member does not panic");
        self.desk.lock().expect("no panic here").revoked
    }
}

const PARTITIONS: u32 = 6;

fn send(producer: &Producer, topic: &str, rounds: u32) {
    for _ in 0..rounds {
        for partition in 0..PARTITIONS {
            producer
                .send(topic, partition, None, b"x", &Headers::default(), 0)
                .expect("the queue has room");
        }
    }
    assert!(producer.flush(PATIENCE));
}

fn count(worked: &Worked) -> usize {
    worked.lock().expect("no panic here").len()
}

fn hand_over(strategy: Option<&str>) {
    let mut scratch = Scratch::new();
    if let Some(strategy) = strategy {
        let name = "consumer.partition.assignment.strategy".to_owned();
        scratch.settings.extra.push((name, strategy.to_owned()));
    }
    let topic = scratch.upstream(PARTITIONS);
    let group = scratch.group("shared");
    let (producer, _) = recording(&scratch.settings);
    let worked = Worked::default();
    send(&producer, &topic, 20);
    let first = Member::join(&scratch.settings, &group, "first", &worked);
    eventually("the first has all", || count(&worked) == 120);

    let second = Member::join(&scratch.settings, &group, "second", &worked);
    eventually("they share", || first.partitions() == 3 && second.partitions() == 3);
    send(&producer, &topic, 20);
    eventually("both have worked", || count(&worked) == 240);

    assert!(first.leave() >= 3, "all partitions of the first were revoked");
    eventually("the second has all", || second.partitions() == 6);
    send(&producer, &topic, 20);
    eventually("the second goes on alone", || count(&worked) == 360);
    second.leave();

    let worked = worked.lock().expect("no panic here").clone();
    let distinct: BTreeSet<(u32, i64)> = worked.iter().map(|one| (one.1, one.2)).collect();
    assert_eq!(distinct.len(), 360, "every record once, none twice");
    let by_second = worked.iter().filter(|one| one.0 == "second").count();
    assert_eq!(by_second, 60 + 120, "its share, then everything");

    // Whoever comes next begins where the last one ended.
    let third = Member::join(&scratch.settings, &group, "third", &Worked::default());
    eventually("the third has all", || third.partitions() == 6);
    let seen = third.desk.lock().expect("no panic here").open.len();
    assert_eq!(seen, 0, "all was committed");
    third.leave();
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn partitions_are_handed_over_without_loss() {
    hand_over(None);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn partitions_are_handed_over_without_loss_by_range() {
    hand_over(Some("range"));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_is_not_committed_is_read_again() {
    let mut scratch = Scratch::new();
    let topic = scratch.upstream(1);
    let group = scratch.group("again");
    let (producer, _) = recording(&scratch.settings);
    for _ in 0..10 {
        producer.send(&topic, 0, None, b"x", &Headers::default(), 0).expect("room");
    }
    assert!(producer.flush(PATIENCE));
    let open = || {
        Consumer::group(&scratch.settings, &group, std::slice::from_ref(&topic), None, ())
            .expect("good settings")
    };
    let mut consumer = open();
    poll_until(&mut consumer, |records| records.len() == 10);
    consumer.commit(&[(topic.clone(), 0, 4)], CommitMode::Sync).expect("it is ours");
    drop(consumer);
    let mut consumer = open();
    let records = poll_until(&mut consumer, |records| records.len() >= 6);
    assert_eq!(records[0].offset, 4);
    assert_eq!(records.len(), 6);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_member_that_stopped_polling_is_fenced() {
    let mut scratch = Scratch::new();
    scratch.settings.session_timeout_ms = 6_000;
    scratch.settings.max_poll_interval_ms = 6_000;
    let topic = scratch.upstream(1);
    let group = scratch.group("fenced");
    let (producer, _) = recording(&scratch.settings);
    producer.send(&topic, 0, None, b"x", &Headers::default(), 0).expect("room");
    assert!(producer.flush(PATIENCE));
    let topics = [topic.clone()];
    let lost = Arc::new(AtomicBool::new(false));
    let open = |lost: &Arc<AtomicBool>| {
        Consumer::group(&scratch.settings, &group, &topics, None, Lost(Arc::clone(lost)))
            .expect("good settings")
    };
    let mut zombie = open(&lost);
    poll_until(&mut zombie, |records| records.len() == 1);
    // It stops polling; its partition goes to another, who reads the record again.
    let mut heir = open(&Arc::default());
    poll_until(&mut heir, |records| records.len() == 1);
    let late = zombie.commit(&[(topic.clone(), 0, 1)], CommitMode::Sync);
    assert!(late.is_err(), "the heir owns it: {late:?}");
    let mut records = Vec::new();
    eventually("the zombie learns that it has lost its partition", || {
        zombie.poll(&mut records, Duration::from_millis(20), 10).expect("no error to act upon");
        // The heir must go on polling, or it is next.
        heir.poll(&mut Vec::new(), Duration::from_millis(20), 10).expect("all is well");
        lost.load(Ordering::Relaxed)
    });
}

struct Lost(Arc<AtomicBool>);

impl Rebalance for Lost {
    fn assigned(&mut self, _: &[(String, u32)]) {}

    fn revoked(&mut self, _: &[(String, u32)]) {}

    fn lost(&mut self, _: &[(String, u32)]) {
        self.0.store(true, Ordering::Relaxed);
    }
}
