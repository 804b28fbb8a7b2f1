use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use proto::error::ErrorCode;
use proto::v1::call_reply::Reply;
use proto::v1::{
    CallBatch, CallReplies, CallReply, Closed, CreateConversation, GatewayReport,
    GatewayReportReply, Hello, Interests, Kick, Page, Pull, SessionChanges, SessionReplies,
    Welcome,
};

use super::*;
use crate::mailbox::{Mailbox, Order};

/// A logic service that answers, or does not, as a test says.
#[derive(Default)]
struct Fake {
    /// Names of what arrived, in order.
    seen: Mutex<Vec<String>>,
    reports: Mutex<Vec<GatewayReport>>,
    /// How many of the next changes and asks fail.
    failures: AtomicUsize,
    /// Held while a change is under way.
    hold: tokio::sync::Mutex<()>,
    leave_out: AtomicBool,
    report_all: AtomicBool,
    overlapping: AtomicBool,
    batches: Mutex<VecDeque<usize>>,
}

impl Fake {
    fn note(&self, text: String) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn fails(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }
}

fn reply(call: &Call, reply: Reply) -> CallReply {
    let (command, request_id) = match &call.request {
        Some(call::Request::Login(_)) => (5, 0),
        Some(call::Request::Pull(pull)) => (6, pull.request_id),
        Some(call::Request::Create(create)) => (8, create.request_id),
        _ => (0, 0),
    };
    let Call { shard, slot, generation, .. } = *call;
    CallReply { shard, slot, generation, request_id, command, reply: Some(reply) }
}

impl Logic for Fake {
    async fn change(&self, changes: SessionChanges) -> Result<SessionReplies, NoAnswer> {
        let free = self.hold.try_lock();
        if free.is_err() {
            self.overlapping.store(true, Ordering::SeqCst);
        }
        drop(free);
        let _held = self.hold.lock().await;
        self.batches.lock().unwrap().push_back(changes.calls.len());
        if self.fails() {
            return Err(NoAnswer("a test says so".into()));
        }
        let mut answer = SessionReplies::default();
        for call in &changes.calls {
            match &call.request {
                Some(call::Request::Login(_)) => {
                    self.note(format!("login {}", call.slot));
                    if self.leave_out.load(Ordering::SeqCst) {
                        continue;
                    }
                    let welcome =
                        Welcome { user_id: u64::from(call.slot) + 100, ..Welcome::default() };
                    answer.replies.push(reply(call, Reply::Welcome(welcome)));
                    answer.interests.push(Interests {
                        shard: call.shard,
                        slot: call.slot,
                        generation: call.generation,
                        user_id: u64::from(call.slot) + 100,
                        conversation_ids: vec!["big".into()],
                    });
                }
                _ => self.note(format!("closed {}", call.slot)),
            }
        }
        answer.report_all = self.report_all.swap(false, Ordering::SeqCst);
        Ok(answer)
    }

    async fn report(&self, report: GatewayReport) -> Result<GatewayReportReply, NoAnswer> {
        self.reports.lock().unwrap().push(report);
        let kick = Kick { shard: 0, slot: 1, generation: 0, code: 4900, reason: String::new() };
        Ok(GatewayReportReply { report_all: false, kicks: vec![kick] })
    }

    async fn ask(&self, batch: CallBatch, repeatable: bool) -> Result<CallReplies, NoAnswer> {
        // Earlier batches take longer: answers come in order only if they are waited for.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let kind = if repeatable { "repeatable" } else { "once" };
        self.note(format!("{} {kind}", batch.calls.len()));
        if self.fails() {
            return Err(NoAnswer("a test says so".into()));
        }
        let answers = batch.calls.iter().map(|call| reply(call, Reply::Page(Page::default())));
        Ok(CallReplies { replies: answers.collect() })
    }
}

struct World {
    doors: Doors<Fake>,
    uplink: Arc<Uplink>,
    report_all: ReportAll,
    thread: Option<std::thread::JoinHandle<Vec<JoinHandle<()>>>>,
}

impl World {
    fn new(fake: Fake) -> Self {
        let doors = Doors {
            logic: Arc::new(fake),
            index: Arc::new(Index::default()),
            identity: Arc::new(Identity::new("g1", 3)),
            mailboxes: Mailboxes(vec![Arc::new(Mailbox::new().unwrap())]),
        };
        let lanes = Lanes::start(&doors, 4);
        let report_all = lanes.report_all();
        let uplink = Arc::new(Uplink::default());
        let thread = std::thread::spawn({
            let uplink = Arc::clone(&uplink);
            move || lanes.run(&uplink).unwrap()
        });
        Self { doors, uplink, report_all, thread: Some(thread) }
    }

    /// Everything taken in is answered, and the lanes have ended.
    async fn end(&mut self) {
        self.uplink.calls.close();
        let thread = self.thread.take().unwrap();
        let tasks = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
        for task in tasks {
            tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
        }
    }

    fn orders(&self) -> Vec<Order> {
        std::iter::from_fn(|| self.doors.mailboxes.0[0].next_order()).collect()
    }

    async fn replies(&self, count: usize) -> Vec<CallReply> {
        let begun = Instant::now();
        let mut replies = Vec::new();
        while replies.len() < count {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} of {count}", replies.len());
            for order in self.orders() {
                if let Order::Reply(reply) = order {
                    replies.push(*reply);
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        replies
    }
}

/// Waits until it holds; `seen` is what is told when it does not come to that.
async fn until<T: std::fmt::Debug>(holds: impl Fn() -> bool, seen: impl Fn() -> T) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", seen());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn call(slot: u32, request: call::Request) -> Call {
    Call { shard: 0, slot, generation: 0, user_id: 0, request: Some(request) }
}

fn login(slot: u32) -> Call {
    let hello = Hello { device_id: format!("d{slot}"), ..Hello::default() };
    call(slot, call::Request::Login(hello))
}

fn closed(slot: u32) -> Call {
    call(slot, call::Request::Closed(Closed {}))
}

fn pull(slot: u32, request_id: u32) -> Call {
    call(slot, call::Request::Pull(Pull { request_id, ..Pull::default() }))
}

fn create(slot: u32, request_id: u32) -> Call {
    let create = CreateConversation { request_id, ..CreateConversation::default() };
    call(slot, call::Request::Create(create))
}

fn failure(reply: &CallReply) -> &proto::v1::Failure {
    match &reply.reply {
        Some(Reply::Failure(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_and_ends_go_in_order_one_batch_at_a_time() {
    let mut world = World::new(Fake::default());
    let fake = Arc::clone(&world.doors.logic);
    let held = fake.hold.lock().await;
    let mut expected = Vec::new();
    for slot in 0..200 {
        world.uplink.calls.offer(vec![login(slot)]).unwrap();
        world.uplink.calls.offer(vec![closed(slot)]).unwrap();
        expected.extend([format!("login {slot}"), format!("closed {slot}")]);
    }
    world.uplink.calls.offer(vec![login(500)]).unwrap();
    expected.push("login 500".into());
    // All of it is taken in while the first batch is under way: a request that comes behind it is answered,
    // and of the batch it is known that it waits for what is held here.
    world.uplink.calls.offer(vec![pull(501, 1)]).unwrap();
    expected.insert(0, "1 repeatable".into());
    assert!(matches!(world.replies(1).await[0].reply, Some(Reply::Page(_))));
    until(|| fake.overlapping.swap(false, Ordering::SeqCst), || fake.seen()).await;
    drop(held);
    let replies = world.replies(201).await;
    assert!(replies.iter().all(|reply| matches!(reply.reply, Some(Reply::Welcome(_)))));
    world.end().await;
    assert_eq!(fake.seen(), expected);
    assert!(!fake.overlapping.load(Ordering::SeqCst), "two batches at once");
    assert!(fake.batches.lock().unwrap().len() <= 3, "{:?}", fake.batches);
    assert_eq!(world.doors.index.len(), 1);
    let mut large = Vec::new();
    world.doors.index.open().of_conversation("big", |connection| large.push(connection.slot));
    assert_eq!(large, [500]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_answers_logins_are_refused_and_ends_are_told_later() {
    let mut world = World::new(Fake { failures: AtomicUsize::new(1), ..Fake::default() });
    world.uplink.calls.offer(vec![login(1), closed(2)]).unwrap();
    let replies = world.replies(1).await;
    let failure = failure(&replies[0]);
    assert_eq!((failure.code, replies[0].command), (ErrorCode::Busy.code(), 5));
    assert!(failure.temporary && failure.retry_after_ms >= 1_000);
    assert!(failure.detail.contains("logic service"), "{}", failure.detail);
    assert!(world.doors.index.is_empty());
    // The refused connection ends; both ends are told, the older one first.
    world.uplink.calls.offer(vec![closed(1)]).unwrap();
    world.end().await;
    assert_eq!(world.doors.logic.seen(), ["closed 2", "closed 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_left_without_an_answer() {
    let fake = Fake { leave_out: AtomicBool::new(true), ..Fake::default() };
    let mut world = World::new(fake);
    world.uplink.calls.offer(vec![login(1)]).unwrap();
    let replies = world.replies(1).await;
    assert_eq!(failure(&replies[0]).code, ErrorCode::Busy.code());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_a_connection_come_in_the_order_of_its_requests() {
    let mut world = World::new(Fake::default());
    for request_id in 1..=50 {
        let calls = (0..8).map(|slot| pull(slot, request_id)).collect();
        world.uplink.calls.offer(calls).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let replies = world.replies(400).await;
    for slot in 0..8 {
        let theirs = replies.iter().filter(|reply| reply.slot == slot);
        assert!(theirs.map(|reply| reply.request_id).eq(1..=50), "slot {slot}");
    }
    world.end().await;
    assert!(world.doors.logic.seen().len() < 200, "batches gather while one is in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_happen_twice_is_not_asked_twice() {
    let mut world = World::new(Fake { failures: AtomicUsize::new(1), ..Fake::default() });
    world.uplink.calls.offer(vec![pull(1, 1), create(1, 2), pull(1, 3)]).unwrap();
    let mut replies = world.replies(3).await;
    replies.sort_by_key(|reply| reply.request_id);
    assert!(matches!(replies[0].reply, Some(Reply::Page(_))));
    assert_eq!((replies[1].command, failure(&replies[1]).code), (8, ErrorCode::Busy.code()));
    assert!(matches!(replies[2].reply, Some(Reply::Page(_))));
    world.end().await;
    assert_eq!(world.doors.logic.seen(), ["3 once", "2 repeatable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sessions_are_reported_in_parts_and_kicks_are_executed() {
    let fake = Fake { report_all: AtomicBool::new(true), ..Fake::default() };
    let mut world = World::new(fake);
    for first in (0..5000).step_by(1000) {
        world.uplink.calls.offer((first..first + 1000).map(login).collect()).unwrap();
        world.replies(1000).await;
    }
    let reported = |world: &World| -> Vec<usize> {
        world.doors.logic.reports.lock().unwrap().iter().map(|part| part.sessions.len()).collect()
    };
    // The first answer asked for it; now everybody is in, and it is asked for once more.
    world.report_all.ask();
    until(|| reported(&world).ends_with(&[4096, 904]), || reported(&world)).await;
    let last = world.doors.logic.reports.lock().unwrap().pop().unwrap();
    assert_eq!((last.connections, last.gateway.unwrap().epoch), (5000, 3));
    let session = &last.sessions[0];
    let slot = session.connection.unwrap().slot;
    assert_eq!(
        (session.user_id, &*session.device_id),
        (u64::from(slot) + 100, &*format!("d{slot}"))
    );
    assert!(
        world
            .orders()
            .iter()
            .any(|order| matches!(order, Order::Close { slot: 1, code: 4900, .. }))
    );
    world.end().await;
}
