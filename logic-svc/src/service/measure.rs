//! What a message costs by the number of members it goes to: noted in each member's inbox and addressed to each
//! connection, addressed only, or handed to gateways as one for the group. Prints; fails on nothing but errors.
//!
//! In a release build: `cargo test --release -p logic-svc --features cluster --lib what_fan_out_costs -- --ignored
//! --nocapture`.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::v1::{Message, PushRecord};

use crate::domain::UserId;
use crate::domain::conversation::Kind;
use crate::domain::delivery::ConnectionId;
use crate::domain::member::MemberSet;
use crate::egress::cluster::ToGateways;
use crate::gateways::Gateways;
use crate::ports::{
    Clock, ConversationRecord, Fanout, PublishTick, Publisher, SessionChange, Sessions,
};
use crate::snowflake::SystemClock;
use crate::store::redis::tests::server::Server;
use crate::store::redis::{Client, Options, RouteSettings, SessionTable, Warm, WarmSettings};

/// Messages of a tick, each of another conversation, whose members are in no other one.
const TICK: u64 = 64;
const CONTENT: &[u8] = &[b'x'; 128];

/// How messages reach members.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Inboxes,
    Addresses,
    Group,
}

/// A Redis of its own, and two gateways that live.
struct Bench {
    server: Server,
    client: Client,
    gateways: Arc<Gateways>,
    clock: Arc<dyn Clock>,
}

impl Bench {
    fn new() -> Self {
        let server = Server::start(&[]);
        let mut options = Options::new(&server.address(), "").unwrap();
        // However long: what a tick costs is asked here, not whether it is in time.
        options.tick_timeout = Duration::from_secs(10);
        options.batch_timeout = Duration::from_secs(10);
        let gateways = Arc::new(Gateways::default());
        gateways.set_live([("gw-1".to_owned(), 11), ("gw-2".to_owned(), 12)]);
        Self { server, client: Client::new(options), gateways, clock: Arc::new(SystemClock) }
    }

    fn gateway(&self, user: UserId) -> u32 {
        if user.is_multiple_of(2) {
            self.gateways.number_of("gw-1", 11)
        } else {
            self.gateways.number_of("gw-2", 12)
        }
    }

    /// Logs in every so many of all members; the groups' gateways are known.
    fn enter(&self, members: u64, one_of: u64) {
        let table = SessionTable::new(
            self.client.clone(),
            Arc::clone(&self.gateways),
            Arc::clone(&self.clock),
            RouteSettings::default(),
        );
        for user in 1..=2 {
            table.report(self.gateway(user), 0).unwrap();
        }
        let users: Vec<UserId> =
            (1..=TICK * members).filter(|user| user.is_multiple_of(one_of)).collect();
        for users in users.chunks(1000) {
            let enter = |&user: &UserId| {
                let (shard, slot) = ((user / 2 % 2) as u32, user as u32);
                let connection =
                    ConnectionId { gateway: self.gateway(user), shard, slot, generation: 1 };
                let (device_id, device_class) = ("phone".to_owned(), "app".to_owned());
                SessionChange::Login { user, connection, device_id, device_class }
            };
            let mut changes = Some(users.iter().map(enter).collect());
            table.change(8, &mut || changes.take().unwrap_or_default(), &mut |_| {}).unwrap();
        }
        (1..=TICK).for_each(|no| table.begin_group(no).unwrap());
    }

    fn server_us(&self) -> f64 {
        let info = self.server.query::<String>(&["INFO", "cpu"]).unwrap();
        let of = |name: &str| -> f64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|seconds| seconds.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        (of("used_cpu_user:") + of("used_cpu_sys:")) * 1e6
    }
}

/// Time this thread was on a processor, in microseconds.
fn own_us() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
}

fn conversations(members: u64, way: Way) -> Vec<ConversationRecord> {
    let record = |no: u64| {
        let members = match way {
            Way::Group => MemberSet::default(),
            _ => MemberSet::new((no - 1) * members + 1..=no * members),
        };
        let fanout = if way == Way::Group { Fanout::Read } else { Fanout::Write };
        ConversationRecord { no, kind: Kind::Group, dev_made: false, members, version: 1, fanout }
    };
    (1..=TICK).map(record).collect()
}

fn message(tick: u64, no: u64) -> Message {
    Message {
        conversation_id: format!("conversation-{no}"),
        seq: tick,
        message_id: tick * TICK + no,
        sender_id: no,
        client_msg_id: format!("0190f7c2-0000-7000-8000-{:012}", tick * TICK + no),
        content: CONTENT.into(),
        created_at_ms: SystemClock.now_ms(),
        ..Message::default()
    }
}

/// One tick from the pipeline's hand to bytes for Kafka.
fn tick(out: &mut ToGateways<Warm>, records: &[ConversationRecord], n: u64) -> Vec<Vec<u8>> {
    let mut tick = out.begin();
    for record in records {
        let origin = ConnectionId { gateway: 1, shard: 9, slot: 9, generation: 9 };
        tick.deliver(origin, record, || message(n, record.no));
    }
    tick.finish().into_iter().map(|(_, record)| record.encode_to_vec()).collect()
}

#[test]
#[ignore = "prints figures; starts a redis-server"]
fn what_fan_out_costs() {
    println!(
        "| members | connected | way | service us | Redis us | gateways us | commands | bytes to gateways |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for one_of in [10, 1] {
        for members in [2, 100, 500, 1000] {
            let bench = Bench::new();
            bench.enter(members, one_of);
            for way in [Way::Inboxes, Way::Addresses, Way::Group] {
                let inbox_messages = if way == Way::Inboxes { 1000 } else { 0 };
                let settings = WarmSettings { inbox_messages, ..WarmSettings::default() };
                let (client, clock) = (bench.client.clone(), Arc::clone(&bench.clock));
                let warm = Warm::new(client, Arc::clone(&bench.gateways), clock, settings);
                let mut out = ToGateways::new(warm, Arc::clone(&bench.gateways));
                let records = conversations(members, way);
                // The first one cuts inboxes and sets lifetimes, which later ones do now and then.
                tick(&mut out, &records, 1);
                let ticks = (20_000 / members).clamp(20, 300);
                let commands = bench.client.counters().commands;
                let (own, theirs) = (own_us(), bench.server_us());
                let all: Vec<Vec<Vec<u8>>> =
                    (2..ticks + 2).map(|n| tick(&mut out, &records, n)).collect();
                let (own, theirs) = (own_us() - own, bench.server_us() - theirs);
                let commands = bench.client.counters().commands - commands;
                let begun = own_us();
                for record in all.iter().flatten() {
                    assert!(!PushRecord::decode(&record[..]).unwrap().messages.is_empty());
                }
                let reading = own_us() - begun;
                let bytes: usize = all.iter().flatten().map(Vec::len).sum();
                let per = |total: f64| total / (ticks * TICK) as f64;
                println!(
                    "| {members} | {} % | {way:?} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} |",
                    100 / one_of,
                    per(own),
                    per(theirs),
                    per(reading),
                    per(commands as f64),
                    per(bytes as f64),
                );
            }
        }
    }
}
