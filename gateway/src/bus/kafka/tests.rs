use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster::kafka::SendError;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use prost::Message as _;
use proto::error::ErrorCode;
use proto::v1::{
    Ack, Connection, DeliveryBatch, Event, EventDelivery, GroupPush, InterestChange, Kick, Message,
    Peer, PushRecord, Send as ClientSend, SendReply, Sent, ShardEvent, ShardPush, Target,
    UpstreamBatch, UpstreamFrame, UpstreamRecord, UserPush,
};

use super::expand::Expansion;
use super::pending::Pending;
use super::upstream::{Log, Upstream};
use crate::ids::ConnId;
use crate::index::{Change, Entrant, Identity, Index};
use crate::mailbox::{Mailbox, Mailboxes, Order};
use crate::uplink::Uplink;

fn mailboxes(shards: usize) -> Mailboxes {
    Mailboxes((0..shards).map(|_| Arc::new(Mailbox::new().unwrap())).collect())
}

fn batches(mailboxes: &Mailboxes, shard: usize) -> Vec<DeliveryBatch> {
    std::iter::from_fn(|| mailboxes.0[shard].next_delivery()).collect()
}

fn orders(mailboxes: &Mailboxes, shard: usize) -> Vec<String> {
    std::iter::from_fn(|| mailboxes.0[shard].next_order())
        .map(|order| match order {
            Order::Event(event) => format!("event to {}", event.peers.len()),
            Order::Close { slot, code, .. } => format!("close {slot} with {code}"),
            other => format!("{other:?}"),
        })
        .collect()
}

fn message(conversation: &str, seq: u64) -> Message {
    Message {
        conversation_id: conversation.into(),
        seq,
        content: vec![7; 100].into(),
        ..Message::default()
    }
}

fn target(message: u32, slot: u32) -> Target {
    Target { message, slot, generation: 0 }
}

fn logged_in(sessions: &[(u32, u32, u64)]) -> Index {
    let index = Index::default();
    let entered = sessions.iter().map(|&(shard, slot, user_id)| {
        Change::Entered(Entrant {
            connection: ConnId { shard, slot, generation: 0 },
            user_id,
            device_id: String::new(),
            device_class: String::new(),
        })
    });
    index.finish_changes(entered, &[]);
    index
}

/// What a batch brings to each slot, as conversation and seq, in order.
fn received(batch: &DeliveryBatch, slot: u32) -> Vec<(String, u64)> {
    let theirs = batch.targets.iter().filter(|target| target.slot == slot);
    theirs
        .map(|target| {
            let message = &batch.messages[target.message as usize];
            (message.conversation_id.clone(), message.seq)
        })
        .collect()
}

fn pairs(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(id, seq)| ((*id).to_owned(), *seq)).collect()
}

#[test]
fn several_records_make_one_batch_a_shard() {
    let (mailboxes, index) = (mailboxes(2), Index::default());
    let mut expansion = Expansion::new(2);
    for seq in 1..=3 {
        let record = PushRecord {
            messages: vec![message("unused", 99), message("c", seq)],
            shards: vec![
                ShardPush {
                    shard: 0,
                    replies: vec![SendReply { slot: 9, ..SendReply::default() }],
                    targets: vec![target(1, 1), target(1, 2)],
                },
                ShardPush { shard: 1, targets: vec![target(1, 5)], ..ShardPush::default() },
            ],
            ..PushRecord::default()
        };
        assert_eq!(expansion.add(record, &mut index.open()), 3);
    }
    expansion.flush(&mailboxes);
    let first = batches(&mailboxes, 0);
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].shard, first[0].replies.len(), first[0].messages.len()), (0, 3, 3));
    assert_eq!(received(&first[0], 1), pairs(&[("c", 1), ("c", 2), ("c", 3)]));
    let second = batches(&mailboxes, 1);
    assert_eq!((second.len(), second[0].shard), (1, 1));
    assert_eq!(received(&second[0], 5), pairs(&[("c", 1), ("c", 2), ("c", 3)]));
    expansion.flush(&mailboxes);
    assert!(batches(&mailboxes, 0).is_empty(), "nothing is handed over twice");
}

#[test]
fn a_group_is_expanded_without_the_connection_that_sent() {
    let (mailboxes, index) =
        (mailboxes(2), logged_in(&[(0, 1, 7), (0, 2, 7), (1, 3, 8), (1, 4, 9)]));
    let mut expansion = Expansion::new(2);
    let record = PushRecord {
        messages: vec![message("big", 1), message("big", 2)],
        groups: vec![GroupPush {
            conversation_id: "big".into(),
            messages: vec![
                Sent { message: 0, origin: Some(Connection { shard: 0, slot: 1, generation: 0 }) },
                Sent { message: 1, origin: None },
            ],
        }],
        // In the record that makes it large: applied before its messages go out.
        interests: vec![InterestChange {
            conversation_id: "big".into(),
            joined: vec![7, 8, 1000],
            ..InterestChange::default()
        }],
        ..PushRecord::default()
    };
    assert_eq!(expansion.add(record, &mut index.open()), 5);
    expansion.flush(&mailboxes);
    let first = batches(&mailboxes, 0).remove(0);
    assert_eq!(received(&first, 1), pairs(&[("big", 2)]));
    assert_eq!(received(&first, 2), pairs(&[("big", 1), ("big", 2)]));
    let second = batches(&mailboxes, 1).remove(0);
    assert_eq!(received(&second, 3), pairs(&[("big", 1), ("big", 2)]));
    assert!(received(&second, 4).is_empty());
}

#[test]
fn targets_are_ordered_by_message_however_they_were_addressed() {
    let (mailboxes, index) = (mailboxes(1), logged_in(&[(0, 1, 7), (0, 2, 8)]));
    let mut expansion = Expansion::new(1);
    let record = PushRecord {
        messages: vec![message("a", 1), message("b", 1), message("a", 2)],
        shards: vec![ShardPush {
            shard: 0,
            targets: vec![target(1, 1), target(2, 1)],
            ..ShardPush::default()
        }],
        users: vec![UserPush {
            message: Some(Sent {
                message: 0,
                origin: Some(Connection { shard: 0, slot: 2, generation: 0 }),
            }),
            user_ids: vec![7, 8, 1000],
        }],
        ..PushRecord::default()
    };
    expansion.add(record, &mut index.open());
    expansion.flush(&mailboxes);
    let batch = batches(&mailboxes, 0).remove(0);
    assert!(batch.targets.is_sorted_by_key(|target| target.message), "{:?}", batch.targets);
    assert_eq!(batch.targets.len(), 3, "the sender is left out");
    assert_eq!(batch.messages.len(), 3);
}

#[test]
fn events_and_kicks_reach_their_shards_and_what_cannot_be_is_left_out() {
    let (mailboxes, index) = (mailboxes(2), Index::default());
    let mut expansion = Expansion::new(2);
    let event = EventDelivery {
        presence: None,
        event: Some(Event::default()),
        peers: vec![Peer { slot: 1, generation: 0 }, Peer { slot: 2, generation: 0 }],
    };
    let record = PushRecord {
        messages: vec![message("c", 1)],
        shards: vec![
            ShardPush { shard: 77, targets: vec![target(0, 1)], ..ShardPush::default() },
            ShardPush { shard: 0, targets: vec![target(5, 1)], ..ShardPush::default() },
        ],
        events: vec![
            ShardEvent { shard: 1, event: Some(event) },
            ShardEvent { shard: 1, event: None },
            ShardEvent { shard: 78, event: Some(EventDelivery::default()) },
        ],
        kicks: vec![Kick { shard: 1, slot: 4, generation: 0, code: 4900, reason: "r".into() }],
        ..PushRecord::default()
    };
    expansion.add(record, &mut index.open());
    expansion.flush(&mailboxes);
    assert!(batches(&mailboxes, 0).is_empty() && orders(&mailboxes, 0).is_empty());
    assert_eq!(orders(&mailboxes, 1), ["event to 2", "close 4 with 4900"]);
}

/// The content is not copied: neither out of the record nor for each shard.
#[test]
fn the_content_of_a_message_is_shared() {
    let (mailboxes, index) = (mailboxes(2), Index::default());
    let mut expansion = Expansion::new(2);
    let target = |shard| ShardPush { shard, targets: vec![target(0, 1)], ..ShardPush::default() };
    let record = PushRecord {
        messages: vec![message("c", 1)],
        shards: vec![target(0), target(1)],
        ..PushRecord::default()
    };
    let bytes = bytes::Bytes::from(record.encode_to_vec());
    let within = bytes.as_ptr_range();
    expansion.add(PushRecord::decode(bytes.clone()).unwrap(), &mut index.open());
    expansion.flush(&mailboxes);
    for shard in 0..2 {
        let content = batches(&mailboxes, shard).remove(0).messages.remove(0).content;
        assert!(within.contains(&content.as_ptr()), "shard {shard} has a copy");
    }
}

/// Partition, value and number of a record.
type Taken = (usize, Vec<u8>, u64);

/// A log that takes what it is told to take.
#[derive(Clone, Default)]
struct FakeLog {
    records: Arc<Mutex<Vec<Taken>>>,
    full: bool,
}

impl Log for FakeLog {
    fn send(&self, partition: usize, value: &[u8], number: u64) -> Result<(), SendError> {
        if self.full {
            return Err(SendError::QueueFull);
        }
        self.records.lock().unwrap().push((partition, value.to_vec(), number));
        Ok(())
    }

    fn flush(&self, _limit: Duration) {}
}

fn frames(count: u32) -> UpstreamBatch {
    let frame = |slot| UpstreamFrame {
        slot,
        generation: 3,
        user_id: 1,
        send: Some(ClientSend {
            request_id: slot + 10,
            conversation_id: format!("c{}", slot % 5),
            client_msg_id: format!("m{slot}"),
            ..ClientSend::default()
        }),
    };
    UpstreamBatch { shard: 1, frames: (0..count).map(frame).collect() }
}

fn start(
    log: FakeLog,
    pending: &Arc<Pending>,
    mailboxes: &Mailboxes,
    uplink: &Arc<Uplink>,
) -> std::thread::JoinHandle<()> {
    start_with(4, log, pending, mailboxes, uplink, UnderWay::default())
}

fn start_with(
    partitions: usize,
    log: FakeLog,
    pending: &Arc<Pending>,
    mailboxes: &Mailboxes,
    uplink: &Arc<Uplink>,
    seen: UnderWay,
) -> std::thread::JoinHandle<()> {
    let identity = Arc::new(Identity::new("g1", 42));
    let upstream = Upstream::to(log, partitions, Arc::clone(pending), identity, mailboxes.clone());
    let uplink = Arc::clone(uplink);
    std::thread::spawn(move || metrics::with_local_recorder(&seen, || upstream.run(&uplink)))
}

/// What the thread shows as under way: frames in records and frames that wait.
#[derive(Clone, Default)]
struct UnderWay(Arc<AtomicU64>);

impl UnderWay {
    fn frames(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::SeqCst))
    }
}

impl Recorder for UnderWay {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(&self.0))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_tick_makes_few_records_and_a_failed_one_is_answered_busy_in_one_batch() {
    let (pending, mailboxes, uplink) =
        (Arc::new(Pending::default()), mailboxes(2), Arc::new(Uplink::default()));
    let log = FakeLog::default();
    uplink.messages.offer(frames(100)).unwrap();
    let thread = start(log.clone(), &pending, &mailboxes, &uplink);
    let held = |taken: &[Taken]| taken.iter().map(|record| slots(record).len()).sum::<usize>();
    let records = wait_for(|| {
        Some(log.records.lock().unwrap().clone()).filter(|records| held(records) == 100)
    });
    assert!((1..=4).contains(&records.len()), "{} records for 100 messages", records.len());
    let mut failed = 0;
    for (at, (_, value, number)) in records.iter().enumerate() {
        let record = UpstreamRecord::decode(&value[..]).unwrap();
        assert_eq!(record.gateway.unwrap().epoch, 42);
        let count: usize = record.batches.iter().map(|batch| batch.frames.len()).sum();
        failed += if at == 0 { count } else { 0 };
        pending.settled(*number, at != 0);
    }
    let batch = wait_for(|| mailboxes.0[1].next_delivery());
    assert_eq!(batch.replies.len(), failed);
    for reply in &batch.replies {
        let failure = reply.failure.as_ref().unwrap();
        assert_eq!(failure.code, ErrorCode::Busy.code());
        assert!(
            failure.temporary && failure.retry_after_ms > 0 && failure.detail.contains("Kafka")
        );
        let Ack { request_id, client_msg_id, .. } = reply.ack.as_ref().unwrap();
        assert_eq!(
            (*request_id, client_msg_id.as_str()),
            (reply.slot + 10, &*format!("m{}", reply.slot))
        );
        assert_eq!(reply.generation, 3);
    }
    uplink.messages.close();
    thread.join().unwrap();
    assert!(batches(&mailboxes, 1).is_empty() && batches(&mailboxes, 0).is_empty());
    assert_eq!(pending.frames(), 0);
}

#[test]
fn a_full_queue_is_answered_at_once_and_what_is_under_way_at_the_end_too() {
    for full in [true, false] {
        let (pending, mailboxes, uplink) =
            (Arc::new(Pending::default()), mailboxes(2), Arc::new(Uplink::default()));
        let log = FakeLog { full, ..FakeLog::default() };
        uplink.messages.offer(frames(20)).unwrap();
        let thread = start(log, &pending, &mailboxes, &uplink);
        if full {
            let batch = wait_for(|| mailboxes.0[1].next_delivery());
            assert_eq!(batch.replies.len(), 20);
        } else {
            wait_for(|| (pending.frames() == 20).then_some(()));
        }
        uplink.messages.close();
        thread.join().unwrap();
        let answered: usize = batches(&mailboxes, 1).iter().map(|batch| batch.replies.len()).sum();
        assert_eq!(answered, if full { 0 } else { 20 });
    }
}

/// The slots of a record's frames, in order.
fn slots((_, value, _): &Taken) -> Vec<u32> {
    let record = UpstreamRecord::decode(&value[..]).unwrap();
    record.batches.iter().flat_map(|batch| &batch.frames).map(|frame| frame.slot).collect()
}

/// Kafka that has four records of the only partition and acknowledges none; behind them two frames wait.
struct Slow {
    pending: Arc<Pending>,
    mailboxes: Mailboxes,
    uplink: Arc<Uplink>,
    log: FakeLog,
    thread: std::thread::JoinHandle<()>,
}

impl Slow {
    fn new() -> Self {
        let (pending, uplink) = (Arc::new(Pending::default()), Arc::new(Uplink::default()));
        let (mailboxes, log) = (mailboxes(2), FakeLog::default());
        let seen = UnderWay::default();
        let thread = start_with(1, log.clone(), &pending, &mailboxes, &uplink, seen.clone());
        for n in 1..=4 {
            uplink.messages.offer(one(n)).unwrap();
            wait_for(|| (log.records.lock().unwrap().len() == n as usize).then_some(()));
        }
        for n in 5..=6 {
            uplink.messages.offer(one(n)).unwrap();
            wait_for(|| (seen.frames() == f64::from(n)).then_some(()));
        }
        // Many times as long as frames are gathered.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(log.records.lock().unwrap().len(), 4, "a fifth record is under way");
        Self { pending, mailboxes, uplink, log, thread }
    }

    fn number(&self, at: usize) -> u64 {
        self.log.records.lock().unwrap()[at].2
    }

    fn close(self) -> Mailboxes {
        self.uplink.messages.close();
        self.thread.join().unwrap();
        assert_eq!(self.pending.frames(), 0);
        self.mailboxes
    }
}

fn one(slot: u32) -> UpstreamBatch {
    let mut batch = frames(slot + 1);
    batch.frames.drain(..slot as usize);
    batch
}

fn answered(mailboxes: &Mailboxes) -> Vec<u32> {
    let replies = batches(mailboxes, 1).into_iter().flat_map(|batch| batch.replies);
    replies.map(|reply| reply.slot).collect()
}

#[test]
fn behind_four_records_frames_gather_until_one_is_acknowledged() {
    let slow = Slow::new();
    slow.pending.settled(slow.number(0), true);
    let fifth = wait_for(|| slow.log.records.lock().unwrap().get(4).cloned());
    assert_eq!(slots(&fifth), [5, 6], "both frames in one record, in their order");
    for at in 1..5 {
        slow.pending.settled(slow.number(at), true);
    }
    assert_eq!(answered(&slow.close()), [0; 0]);
}

#[test]
fn behind_a_record_that_was_not_taken_nobody_waits_as_long_again() {
    let slow = Slow::new();
    slow.pending.settled(slow.number(0), false);
    let mut refused = Vec::new();
    while refused.len() < 3 {
        refused.extend(wait_for(|| slow.mailboxes.0[1].next_delivery()).replies);
    }
    let mut refused: Vec<u32> = refused.iter().map(|reply| reply.slot).collect();
    refused.sort_unstable();
    assert_eq!((refused, slow.log.records.lock().unwrap().len()), (vec![1, 5, 6], 4));
    for at in 1..4 {
        slow.pending.settled(slow.number(at), true);
    }
    assert_eq!(answered(&slow.close()), [0; 0]);
}

#[test]
fn what_waits_when_the_gateway_ends_is_sent_or_answered() {
    for acknowledged in [true, false] {
        let slow = Slow::new();
        if acknowledged {
            let (pending, first) = (Arc::clone(&slow.pending), slow.number(0));
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                pending.settled(first, true);
            });
        }
        let log = slow.log.clone();
        let mut told = answered(&slow.close());
        told.sort_unstable();
        // The fake log acknowledges no record by itself, not even in its flush.
        let expected: &[u32] = if acknowledged { &[2, 3, 4, 5, 6] } else { &[1, 2, 3, 4, 5, 6] };
        assert_eq!(
            (told.as_slice(), log.records.lock().unwrap().len() > 4),
            (expected, acknowledged)
        );
    }
}
