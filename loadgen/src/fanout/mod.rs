//! Fan-out: one conversation of many members who are all online, few of whom send. With slow readers there
//! are two phases; in the second one those stop reading, and afterwards they wake up, read what waits for
//! them, and pull what was left out.
//!
//! The members may be spread over several workers. Those without the senders learn of messages by their
//! arrival, and the coordinator compares what the workers saw.

mod join;
mod memo;
mod pull;
mod receive;
mod send;
mod slow;
mod stage;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use crate::args::Scenario as Kind;
use crate::client::{Failure, Incoming};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::message::Contents;
use crate::net::{Handler, Net};
use crate::oracle::{Oracle, Seat};
use crate::parts::FanoutPart;
use crate::plan::{Plan, Share};
use crate::schedule::Schedule;
use memo::Memo;
use pull::{Pull, Reading};
use send::Sender;
use slow::SlowReaders;
use stage::Stage;

pub(crate) use join::{Joined, join};

/// Where the workers wait for each other; the coordinator looks at the server when a gate opens.
pub(crate) mod gate {
    /// Every member has joined, nobody is online.
    pub(crate) const JOINED: u32 = 1;
    /// The first phase is over.
    pub(crate) const FIRST_OVER: u32 = 2;
    /// The slow readers are connected.
    pub(crate) const SLOW_READY: u32 = 3;
    /// The second phase is over; the slow readers have not read.
    pub(crate) const SECOND_OVER: u32 = 4;
}

/// How often slow things are looked at.
const SWEEP_NS: u64 = 20 * MILLISECOND_NS;
/// Nothing arrived for so long: nothing will.
const QUIET_NS: u64 = 2 * SECOND_NS;
/// Messages due within so short a time of each other are sent in one turn.
const COALESCE_NS: u64 = 200_000;

/// The scenario.
pub(crate) struct Fanout {
    oracle: Oracle,
    share: Share,
    group: String,
    senders: Vec<Sender>,
    window: usize,
    saturate: bool,
    schedule: Option<Schedule>,
    contents: Contents,
    content: Vec<u8>,
    memo: Memo,
    pulls: HashMap<u32, Pull>,
    reading: Option<Reading>,
    /// How often the history was asked for from its start.
    times_read: u32,
    /// What to try again: when, which connection, which message (`None`: its pull).
    again: BinaryHeap<Reverse<(u64, u32, Option<u32>)>>,
    next_request: u32,
    slow: SlowReaders,
    stage: Stage,
    /// Deliveries due from here on belong to the second phase.
    boundary_ns: u64,
    unix_offset_ms: u64,
    last_due_ns: u64,
    last_progress_ns: u64,
    next_sweep_ns: u64,
    drained: bool,
    joined: Option<Joined>,
    part: FanoutPart,
}

impl Fanout {
    pub(crate) fn new(plan: &Arc<Plan>, share: &Share, joined: Joined) -> Self {
        debug_assert_eq!(plan.options.scenario, Kind::Fanout);
        let mut oracle = Oracle::new();
        let senders = if share.worker == 0 { plan.options.stress.senders } else { 0 };
        if senders > 0 {
            oracle.add_conversation(share.connections());
        } else {
            oracle.add_observed(share.connections());
        }
        let now_ns = clock::now_ns();
        Self {
            oracle,
            share: *share,
            group: plan.group_id(0),
            senders: std::iter::repeat_with(Sender::default).take(senders as usize).collect(),
            window: plan.options.window() as usize,
            saturate: plan.options.rate == 0,
            schedule: None,
            contents: Contents::new(plan.options.payload_bytes as usize),
            content: Vec::new(),
            memo: Memo::new(),
            pulls: HashMap::new(),
            reading: None,
            times_read: 0,
            again: BinaryHeap::new(),
            next_request: 0,
            slow: SlowReaders::new(share.active, share.idle),
            stage: Stage::SetUp,
            boundary_ns: u64::MAX,
            unix_offset_ms: clock::unix_ms().saturating_sub(now_ns / MILLISECOND_NS),
            last_due_ns: 0,
            last_progress_ns: now_ns,
            next_sweep_ns: now_ns,
            drained: false,
            joined: Some(joined),
            part: FanoutPart { slow: share.idle.into(), ..FanoutPart::default() },
        }
    }

    fn seat(conn: u32) -> Seat {
        Seat { conversation: 0, member: conn }
    }

    fn has_slow(&self, net: &Net) -> bool {
        net.plan.options.stress.slow > 0
    }

    fn on_failed(&mut self, net: &mut Net, conn: u32, failure: &Failure<'_>) {
        net.stats.error(&failure.name);
        if failure.name == "RATE_LIMITED" {
            net.stats.counters.rate_limited += 1;
        }
        let delay_ms = u64::from(failure.retry_after_ms).clamp(50, 60_000);
        let again_ns = failure.temporary.then_some(net.now_ns + delay_ms * MILLISECOND_NS);
        if failure.msg_id.is_empty() {
            self.on_pull_failed(conn, again_ns);
        } else {
            self.on_send_failed(net, conn, failure.msg_id.as_bytes(), again_ns);
        }
    }

    fn try_again(&mut self, net: &mut Net) {
        while let Some(&Reverse((at_ns, conn, number))) = self.again.peek() {
            if at_ns > net.now_ns {
                return;
            }
            self.again.pop();
            match number {
                Some(number) => self.send_again(net, conn, number),
                None => self.pull_again(net, conn),
            }
        }
    }
}

impl Handler for Fanout {
    fn on_login(&mut self, net: &mut Net, conn: u32, _again: bool) {
        self.slow.on_login(conn);
        if self.slow.sleeps(conn) {
            net.pause(conn);
        }
    }

    fn on_text(&mut self, net: &mut Net, conn: u32, text: &str) -> bool {
        let Some((seen, due_ns)) = self.memo.get(text.as_bytes()) else {
            return self.on_new_text(net, conn, text);
        };
        self.arrived(net, conn, seen, due_ns);
        true
    }

    fn on_incoming(&mut self, net: &mut Net, conn: u32, incoming: Incoming<'_>) {
        match incoming {
            Incoming::Ack { msg_id, seq } => self.on_ack(net, conn, msg_id.as_bytes(), seq),
            Incoming::Push(item) => self.on_push(net, conn, &item),
            Incoming::Page(page) => self.on_page(net, conn, &page),
            Incoming::Lagged { from_seq, .. } => self.on_lagged(net, conn, from_seq),
            Incoming::Failed(failure) => self.on_failed(net, conn, &failure),
            Incoming::Heartbeat
            | Incoming::Welcome
            | Incoming::Goaway { .. }
            | Incoming::Conversation { .. }
            | Incoming::Other => {}
        }
    }

    fn on_down(&mut self, _net: &mut Net, conn: u32) {
        // Nothing comes back here, so what it was not pushed stays missed: the run fails either way.
        self.pulls.remove(&conn);
        self.slow.on_down(conn);
    }

    fn on_turn(&mut self, net: &mut Net) {
        self.take_due(net);
        self.try_again(net);
        if net.now_ns >= self.next_sweep_ns {
            self.next_sweep_ns = net.now_ns + SWEEP_NS;
            self.advance(net);
        }
    }

    fn wake_ns(&self) -> u64 {
        let due = self.schedule.as_ref().and_then(Schedule::peek_ns);
        let due_ns = due.map_or(u64::MAX, |due_ns| due_ns.max(self.last_due_ns + COALESCE_NS));
        let again_ns = self.again.peek().map_or(u64::MAX, |&Reverse((at_ns, ..))| at_ns);
        due_ns.min(again_ns).min(self.next_sweep_ns)
    }
}

/// Messages of one sender that have no answer yet, and those that wait for room.
type Backlog = VecDeque<u64>;
