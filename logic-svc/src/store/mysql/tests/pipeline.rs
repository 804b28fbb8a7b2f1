//! The real pipeline on this store: what `tests/pipeline.rs` checks of the embedded one, with several services.

use proto::v1::{Failure, Message, Send, SendReply, UpstreamBatch, UpstreamFrame};

use super::faults::{server_address, through};
use super::proxy::{At, Proxy};
use super::*;
use crate::domain::delivery::ConnectionId;
use crate::pipeline::{Pipeline, Settings};
use crate::ports::{
    Backend, Clock, ConversationInfo, ConversationRecord, Fanout, HistoryStore, Keep, NewGroup,
    PublishTick, Publisher,
};
use crate::snowflake::Snowflake;

struct Now;

impl Clock for Now {
    fn now_ms(&self) -> u64 {
        super::super::now_ms()
    }
}

/// Answers and deliveries of a tick, with those they are for.
#[derive(Default)]
struct Answers {
    replies: Vec<SendReply>,
    delivered: Vec<(Vec<u64>, Message)>,
}

struct Recorder;

impl Publisher for Recorder {
    type Out = Answers;
    type Tick<'a> = Answers;

    fn begin(&mut self) -> Answers {
        Answers::default()
    }
}

impl PublishTick for Answers {
    type Out = Self;

    fn reply(&mut self, _: ConnectionId, reply: SendReply) {
        self.replies.push(reply);
    }

    fn deliver(
        &mut self,
        _: ConnectionId,
        conversation: &ConversationRecord,
        build: impl FnOnce() -> Message,
    ) {
        self.delivered.push((conversation.members.as_slice().to_vec(), build()));
    }

    fn finish(self) -> Self {
        self
    }
}

struct Service {
    store: Arc<Store>,
    pipeline: Pipeline<Log, Directory, Recorder>,
}

fn settings() -> Settings {
    Settings {
        content_max_bytes: 4096,
        dev_login: false,
        cached_conversations: 1000,
        cached_members: 10_000,
        recent_sends: 1000,
        versions_hold: Duration::ZERO,
        #[cfg(feature = "fault-injection")]
        ack_before_commit: false,
        #[cfg(feature = "fault-injection")]
        forget_sends: false,
    }
}

impl Service {
    fn new(database: &Database, worker: u16) -> Self {
        Self::with(&database.options(), worker, settings())
    }

    fn dev(database: &Database, worker: u16) -> Self {
        Self::with(&database.options(), worker, Settings { dev_login: true, ..settings() })
    }

    fn with(options: &Options, worker: u16, settings: Settings) -> Self {
        let store = Store::open(options).unwrap();
        let log = Log::new(Arc::clone(&store));
        let directory = Directory::new(Arc::clone(&store));
        let ids = Arc::new(Snowflake::new(Now, worker, 0));
        Self { store, pipeline: Pipeline::new(log, directory, Recorder, ids, settings) }
    }

    fn tick(&mut self, frames: Vec<UpstreamFrame>) -> Answers {
        self.pipeline.tick(vec![(1, UpstreamBatch { shard: 0, frames })])
    }

    fn send(&mut self, user: u64, conversation: &str, id: &str, content: &str) -> SendReply {
        self.tick(vec![frame(user, conversation, id, content)]).replies.remove(0)
    }
}

fn frame(user_id: u64, conversation: &str, id: &str, content: &str) -> UpstreamFrame {
    let send = Send {
        request_id: 1,
        conversation_id: conversation.into(),
        client_msg_id: id.into(),
        msg_type: 1,
        content: content.as_bytes().to_vec().into(),
    };
    UpstreamFrame { slot: 0, generation: 1, user_id, send: Some(send) }
}

fn seq(reply: &SendReply) -> u64 {
    assert_eq!(reply.failure, None);
    reply.ack.as_ref().unwrap().seq
}

fn failure(reply: &SendReply) -> &Failure {
    reply.failure.as_ref().expect("a refusal")
}

/// Alice, Bob and Eve, and the ids of the conversations of Alice with the others.
fn three(store: &Store) -> ([u64; 3], [String; 2]) {
    let users: [u64; 3] =
        store.ensure_users(&["alice", "bob", "eve"], 1).unwrap().try_into().unwrap();
    let dm = |other| proto::ids::direct_conversation_id(users[0], other);
    (users, [dm(users[1]), dm(users[2])])
}

/// The same three, and a group "g" of Alice and Bob.
fn group_of_two(store: &Store) -> ([u64; 3], ConversationInfo) {
    let (users, _) = three(store);
    let group = NewGroup { id: "g", name: "", owner: users[0], members: &[users[1]] };
    store.create_group(&group, 1 << 40).unwrap();
    (users, store.conversation_of("g", users[0]).unwrap().unwrap().0)
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn seqs_are_dense_per_conversation_whoever_gives_them() {
    let database = Database::new();
    let mut services = [Service::new(&database, 1), Service::new(&database, 2)];
    let ([alice, bob, eve], [one, two]) = three(&services[0].store);
    for round in 0..6u64 {
        // The other service took over: it is told, every second time.
        let service = &mut services[round as usize % 2];
        if round % 3 == 0 {
            service.pipeline.forget();
        }
        let frames = (0..30usize).map(|n| {
            let (user, dm) = [(alice, &one), (bob, &one), (eve, &two)][n % 3];
            frame(user, dm, &format!("m-{round}-{n}"), "x")
        });
        let answers = service.tick(frames.collect());
        let of = |keep: &dyn Fn(usize) -> bool| -> Vec<u64> {
            let replies = answers.replies.iter().enumerate();
            replies.filter(|(at, _)| keep(*at)).map(|(_, reply)| seq(reply)).collect()
        };
        let first = round * 20 + 1;
        assert_eq!(of(&|at| at % 3 != 2), (first..first + 20).collect::<Vec<_>>());
        let first = round * 10 + 1;
        assert_eq!(of(&|at| at % 3 == 2), (first..first + 10).collect::<Vec<_>>());
        assert_eq!(answers.delivered.len(), 30);
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_retry_elsewhere_gets_the_same_answer_and_is_delivered_again() {
    let database = Database::new();
    let mut first = Service::new(&database, 1);
    let mut second = Service::new(&database, 2);
    let ([alice, ..], [dm, _]) = three(&first.store);
    let id = "0190a6b2-7c3d-7e4f-8a9b-0c1d2e3f4a5b";
    let ack = first.send(alice, &dm, id, "once").ack;
    // Here it is known by heart: answered, not delivered.
    let again = first.tick(vec![frame(alice, &dm, id, "once")]);
    assert_eq!((&again.replies[0].ack, again.delivered.len()), (&ack, 0));
    for n in 0..10u64 {
        second.pipeline.forget();
        let new = format!("new-{n}");
        let frames = vec![
            frame(alice, &dm, &new, "y"),
            frame(alice, &dm, id, "once"),
            frame(alice, &dm, id, "changed"),
        ];
        let answers = second.tick(frames);
        assert_eq!(seq(&answers.replies[0]), 2 + n);
        assert_eq!((&answers.replies[1].ack, &answers.replies[2].ack), (&ack, &ack));
        let again: Vec<_> =
            answers.delivered.iter().filter(|(_, message)| message.client_msg_id == id).collect();
        assert_eq!(again.len(), 1, "its deliveries may never have left");
        assert_eq!((again[0].1.seq, &again[0].1.content[..]), (1, &b"once"[..]));
    }
    // Whatever else comes under the same id: what is delivered is what was stored.
    second.pipeline.forget();
    let mut changed = frame(alice, &dm, id, "changed");
    changed.send.as_mut().unwrap().msg_type = 100;
    let answers = second.tick(vec![changed]);
    assert_eq!(answers.replies[0].ack, ack);
    let [(_, message)] = &answers.delivered[..] else {
        panic!("{} deliveries", answers.delivered.len())
    };
    assert_eq!((message.seq, message.msg_type, &message.content[..]), (1, 1, &b"once"[..]));
    assert_eq!(database.count("messages"), 11);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn duplicates_inside_a_tick_are_one_message() {
    let database = Database::new();
    let mut service = Service::new(&database, 1);
    let ([alice, bob, _], [one, two]) = three(&service.store);
    let answers = service.tick((0..100).map(|_| frame(alice, &one, "same", "z")).collect());
    assert!(answers.replies.iter().all(|reply| reply == &answers.replies[0] && seq(reply) == 1));
    assert_eq!((answers.delivered.len(), database.count("messages")), (1, 1));
    // The same client id of others or elsewhere is another message.
    let frames = vec![frame(bob, &one, "same", "b"), frame(alice, &two, "same", "c")];
    let answers = service.tick(frames);
    assert_eq!(answers.replies.iter().map(seq).collect::<Vec<_>>(), [2, 1]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_may_not_be_sent_is_refused_by_name_and_the_rest_goes_on() {
    let database = Database::new();
    let mut service = Service::new(&database, 1);
    let ([alice, _, eve], [dm, _]) = three(&service.store);
    service.send(alice, &dm, "first", "x");
    let unknown = proto::ids::direct_conversation_id(alice, 999);
    let text = "\0 <b>&amp; '; DROP TABLE users; -- \u{1F600} \u{202e}";
    let cases = [
        (frame(eve, &dm, "a", "x"), "NOT_A_MEMBER"),
        (frame(alice, &unknown, "a", "x"), "CONVERSATION_NOT_FOUND"),
        (frame(999, &unknown, "a", "x"), "USER_NOT_FOUND"),
        (frame(alice, "group_101", "a", "x"), "CONVERSATION_NOT_FOUND"),
        (frame(alice, "", "a", "x"), "BAD_REQUEST"),
        (frame(alice, &dm, "big", &"x".repeat(4097)), "TOO_LARGE"),
        (frame(alice, &dm, "exact", &"x".repeat(4096)), ""),
        (frame(alice, &dm, "text", text), ""),
        (frame(alice, &dm, &"i".repeat(64), "longest id"), ""),
    ];
    let answers = service.tick(cases.iter().map(|case| case.0.clone()).collect());
    for (reply, (frame, name)) in answers.replies.iter().zip(&cases) {
        let got = reply.failure.as_ref().map_or("", |failure| failure.name.as_str());
        assert_eq!(got, *name, "{frame:?}");
    }
    let no = service.store.conversation_of(&dm, alice).unwrap().unwrap().0.no;
    let stored = service.store.messages(no, 3, 4, Keep::Low, usize::MAX).unwrap();
    assert_eq!(stored[0].content, text.as_bytes(), "byte for byte");
    assert_eq!(stored[1].client_msg_id, "i".repeat(64));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn dev_login_makes_groups_and_takes_senders_in_at_both_services() {
    let database = Database::new();
    let mut services = [Service::dev(&database, 1), Service::dev(&database, 2)];
    let ([alice, bob, eve], _) = three(&services[0].store);
    assert_eq!(seq(&services[0].send(alice, "group_101", "a", "x")), 1);
    let frames = vec![
        frame(bob, "group_101", "b", "x"),
        frame(eve, "group_101", "c", "x"),
        frame(bob, "group_102", "d", "x"),
    ];
    let answers = services[1].tick(frames);
    assert_eq!(answers.replies.iter().map(seq).collect::<Vec<_>>(), [2, 3, 1]);
    // The first service knew the group with one member; its heads are old, too.
    let answers = services[0].tick(vec![frame(alice, "group_101", "e", "x")]);
    assert_eq!(seq(&answers.replies[0]), 4);
    assert_eq!(answers.delivered[0].0, [alice, bob, eve]);
    assert_eq!(
        failure(&services[0].send(alice, "dm_nonsense", "n", "x")).name,
        "CONVERSATION_NOT_FOUND"
    );
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn joins_leaves_and_switches_elsewhere_are_seen_by_the_next_message() {
    let database = Database::new();
    let mut service = Service::new(&database, 1);
    let other = database.open();
    let ([alice, bob, eve], info) = group_of_two(&other);
    assert_eq!(seq(&service.send(alice, "g", "1", "x")), 1);
    assert_eq!(failure(&service.send(eve, "g", "2", "x")).name, "NOT_A_MEMBER");
    other.join(&info, eve, 2 << 40).unwrap();
    let answers = service.tick(vec![frame(eve, "g", "3", "x")]);
    assert_eq!((seq(&answers.replies[0]), &answers.delivered[0].0), (2, &vec![alice, bob, eve]));
    other.leave(&info, bob).unwrap();
    other.set_fanout(info.no, Fanout::Read, 2).unwrap();
    let answers = service.tick(vec![frame(alice, "g", "4", "x"), frame(bob, "g", "5", "x")]);
    assert_eq!(answers.delivered[0].0, [alice, eve]);
    assert_eq!(failure(&answers.replies[1]).name, "NOT_A_MEMBER");
}

/// A tick asks about what it was told of, what it is asked about by strangers, and what it has not asked about for
/// long; and about nothing else.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_change_is_asked_about_once_it_is_told() {
    let database = Database::new();
    let hold = |versions_hold| Settings { versions_hold, ..settings() };
    let mut service = Service::with(&database.options(), 1, hold(Duration::from_secs(3600)));
    let mut forgetful = Service::with(&database.options(), 2, hold(Duration::from_millis(100)));
    let other = database.open();
    let ([alice, bob, eve], info) = group_of_two(&other);
    assert_eq!(seq(&service.send(alice, "g", "1", "x")), 1);
    assert_eq!(seq(&forgetful.send(alice, "g", "2", "x")), 2);
    other.leave(&info, bob).unwrap();
    let stayed = [alice, bob];
    let answers = service.tick(vec![frame(bob, "g", "3", "x")]);
    assert_eq!((seq(&answers.replies[0]), &answers.delivered[0].0[..]), (3, &stayed[..]));
    service.pipeline.changed(&["other".to_owned(), "g".to_owned()]);
    assert_eq!(failure(&service.send(bob, "g", "4", "x")).name, "NOT_A_MEMBER");
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(failure(&forgetful.send(bob, "g", "5", "x")).name, "NOT_A_MEMBER");
    // Nobody told of this one, but to refuse the sender it is asked about.
    other.join(&info, eve, 2 << 40).unwrap();
    let answers = service.tick(vec![frame(alice, "g", "6", "x"), frame(eve, "g", "7", "x")]);
    assert_eq!(answers.replies.iter().map(seq).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(answers.delivered[0].0, [alice, eve]);
}

/// What a tick does not have at hand is asked for together, but refused only where it is damaged.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_damaged_conversation_is_refused_alone() {
    let database = Database::new();
    let mut service = Service::new(&database, 1);
    let ([alice, ..], [one, two]) = three(&service.store);
    service.tick(vec![frame(alice, &one, "1", "x"), frame(alice, &two, "2", "x")]);
    let damage = format!("UPDATE conversations SET type = 99 WHERE conversation_id = '{one}'");
    database.raw().query_drop(damage).unwrap();
    service.pipeline.forget();
    let answers = service.tick(vec![frame(alice, &one, "3", "x"), frame(alice, &two, "4", "x")]);
    assert_eq!(failure(&answers.replies[0]).name, "INTERNAL");
    assert_eq!(seq(&answers.replies[1]), 2);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn small_caches_change_nothing() {
    let database = Database::new();
    let small = Settings {
        dev_login: true,
        cached_conversations: 2,
        cached_members: 3,
        recent_sends: 2,
        ..settings()
    };
    let mut service = Service::with(&database.options(), 1, small);
    let names: Vec<String> = (0..4).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let users = service.store.ensure_users(&names, 1).unwrap();
    for round in 0..2 {
        for n in 0..50u64 {
            let group = format!("group_{}", n % 7);
            let reply = service.send(users[n as usize % 4], &group, &format!("m-{n}"), "x");
            assert_eq!(seq(&reply), n / 7 + 1, "round {round}");
        }
    }
}

/// Messages that need two statements, and so a commit of its own.
const TWO_STATEMENTS: u64 = 150;

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_tick_whose_commit_got_lost_is_refused_as_busy_and_its_repetition_is_one_effect() {
    let database = Database::new();
    let proxy = Proxy::start(&server_address());
    let mut service = Service::with(&through(&proxy, &database), 1, settings());
    let ([alice, ..], [dm, _]) = three(&service.store);
    service.send(alice, &dm, "before", "x");
    let frames = || {
        (0..TWO_STATEMENTS).map(|n| frame(alice, &dm, &format!("m{n}"), "x")).collect::<Vec<_>>()
    };
    proxy.set(At::CommitAnswer);
    let refused = service.tick(frames());
    for reply in &refused.replies {
        assert_eq!((failure(reply).name.as_str(), failure(reply).temporary), ("BUSY", true));
    }
    assert!(refused.delivered.is_empty());
    assert_eq!(database.count("messages"), TWO_STATEMENTS + 1, "it took place all the same");
    let answers = service.tick(frames());
    assert_eq!(
        answers.replies.iter().map(seq).collect::<Vec<_>>(),
        (2..=TWO_STATEMENTS + 1).collect::<Vec<_>>()
    );
    assert_eq!(answers.delivered.len() as u64, TWO_STATEMENTS, "delivered when it is known");
    assert_eq!(database.count("messages"), TWO_STATEMENTS + 1);
    assert!(service.store.can_write());
}

/// What came later was delivered without it, and it after that: whoever takes pushes as they come saw them out of order.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_a_lost_commit_stored_is_delivered_before_what_comes_later() {
    let database = Database::new();
    let proxy = Proxy::start(&server_address());
    let mut service = Service::with(&through(&proxy, &database), 1, settings());
    let ([alice, bob, eve], [dm, other]) = three(&service.store);
    service.send(alice, &dm, "before", "x");
    let frames = || {
        (0..TWO_STATEMENTS).map(|n| frame(alice, &dm, &format!("m{n}"), "x")).collect::<Vec<_>>()
    };
    proxy.set(At::CommitAnswer);
    let refused = service.tick(frames());
    assert!(refused.replies.iter().all(|reply| failure(reply).temporary));
    assert!(refused.delivered.is_empty());
    // Somebody speaks elsewhere, and this transaction is not made.
    proxy.set(At::Commit);
    let seqs = |answers: &Answers| -> Vec<u64> {
        answers.delivered.iter().map(|(_, message)| message.seq).collect()
    };
    let elsewhere =
        || (0..TWO_STATEMENTS).map(|n| frame(eve, &other, &format!("e{n}"), "x")).collect();
    let refused = service.tick(elsewhere());
    assert!(refused.replies.iter().all(|reply| failure(reply).temporary));
    assert_eq!(
        (refused.replies.len() as u64, seqs(&refused)),
        (TWO_STATEMENTS, (2..=TWO_STATEMENTS + 1).collect())
    );
    assert!(refused.delivered.iter().all(|(to, message)| {
        to.as_slice() == [alice, bob] && message.sender == "alice" && message.content == "x"
    }));
    // Nothing of it is owed: it was not stored.
    let later = service.tick(vec![frame(bob, &dm, "b", "x")]);
    assert_eq!(
        (seq(&later.replies[0]), seqs(&later)),
        (TWO_STATEMENTS + 2, vec![TWO_STATEMENTS + 2])
    );
    assert_eq!(seqs(&service.tick(elsewhere())), (1..=TWO_STATEMENTS).collect::<Vec<_>>());
    // The senders' own repetition finds its places, and is not delivered a second time.
    let again = service.tick(frames());
    assert_eq!(
        again.replies.iter().map(seq).collect::<Vec<_>>(),
        (2..=TWO_STATEMENTS + 1).collect::<Vec<_>>()
    );
    assert!(again.delivered.is_empty());
}

#[cfg(feature = "fault-injection")]
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn without_the_unique_key_the_pipeline_stores_a_retry_again() {
    let database = Database::new();
    let options = Options { unique_sends: false, ..database.options() };
    let forgetful = Settings { forget_sends: true, ..settings() };
    let mut service = Service::with(&options, 1, forgetful);
    let ([alice, ..], [dm, _]) = three(&service.store);
    assert_eq!(seq(&service.send(alice, &dm, "same", "x")), 1);
    assert_eq!(seq(&service.send(alice, &dm, "same", "x")), 2);
}
