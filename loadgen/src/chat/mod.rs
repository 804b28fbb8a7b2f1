//! Chat: members of conversations send, retry and receive as a careful client does, and the oracle hears
//! of everything.
//!
//! A client keeps each message until it is answered and sends it again under the same id: when it is told
//! to, when the answer does not come, and when it is back after its connection broke. It pulls what it
//! missed: after a reconnect, when the server says that it left pushes out, and when a hole stays open.

mod audit;
mod receive;
mod send;
mod setup;
mod stage;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::client::{Failure, Incoming};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::message::Contents;
use crate::net::{Handler, Net};
use crate::oracle::{Oracle, PullReason, Seat};
use crate::pace::Pace;
use crate::plan::{Plan, Share};
use audit::AuditRun;
use setup::{Room, Setup};

/// What a request is for: the low three bits of its id. The rest tells an answer from that to an earlier
/// try of the same.
mod request {
    pub(super) const CREATE: u32 = 2;
    pub(super) const JOIN: u32 = 3;
    pub(super) const PULL: u32 = 4;
    pub(super) const AUDIT: u32 = 5;

    pub(super) fn purpose(id: u32) -> u32 {
        id & 7
    }
}

/// Messages asked for at a time.
const PULL_LIMIT: u32 = proto::limits::PULL_LIMIT_MAX;
/// How long a hole may stay open before the member pulls.
const GAP_GRACE_NS: u64 = SECOND_NS;
/// How long after a hole was closed by a pull a push may still come, or word that it was left out.
const OWED_GRACE_NS: u64 = 10 * SECOND_NS;
/// How often slow things are looked at.
const SWEEP_NS: u64 = 250 * MILLISECOND_NS;
/// Nothing arrived for so long: nothing will.
const QUIET_NS: u64 = 2 * SECOND_NS;

/// A message without final answer.
#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u32,
    tries: u32,
    due_ns: u64,
    /// When it was sent last; [`Pending::WAITS`] while it waits to be sent again.
    sent_ns: u64,
}

impl Pending {
    const WAITS: u64 = u64::MAX;
}

/// A pull under way.
#[derive(Clone, Copy, Debug)]
struct Pull {
    reason: PullReason,
    cursor: u64,
    request_id: u32,
    sent_ns: u64,
    /// Another reason came up meanwhile.
    again: Option<PullReason>,
}

/// One connection that takes part.
#[derive(Debug, Default)]
struct Member {
    outstanding: VecDeque<Pending>,
    /// Due times of messages that wait for room in the window.
    backlog: VecDeque<u64>,
    pull: Option<Pull>,
}

/// The scenario.
pub(crate) struct Chat {
    oracle: Oracle,
    share: Share,
    /// Members of a conversation.
    size: u32,
    window: usize,
    ack_timeout_ns: u64,
    members: Vec<Member>,
    rooms: Vec<Room>,
    setup: Setup,
    pace: Pace,
    contents: Contents,
    content: Vec<u8>,
    /// Messages to send again: when, which connection, which message.
    resend: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Wall clock minus monotonic clock, for the time inside message ids.
    unix_offset_ms: u64,
    next_request: u32,
    next_sweep_ns: u64,
    last_progress_ns: u64,
    draining: bool,
    drained: bool,
    audit: AuditRun,
}

impl Chat {
    pub(crate) fn new(plan: &Arc<Plan>, share: &Share) -> Self {
        let size = plan.options.members();
        let rooms = share.active / size;
        let mut oracle = Oracle::new();
        for _ in 0..rooms {
            oracle.add_conversation(size);
        }
        let now_ns = clock::now_ns();
        Self {
            oracle,
            share: *share,
            size,
            window: plan.options.window() as usize,
            ack_timeout_ns: clock::duration_ns(plan.options.ack_timeout),
            members: std::iter::repeat_with(Member::default).take(share.active as usize).collect(),
            rooms: std::iter::repeat_with(Room::default).take(rooms as usize).collect(),
            setup: Setup::new(rooms),
            pace: Pace::new(plan, share),
            contents: Contents::new(plan.options.payload_bytes as usize),
            content: Vec::new(),
            resend: BinaryHeap::new(),
            unix_offset_ms: clock::unix_ms().saturating_sub(now_ns / MILLISECOND_NS),
            next_request: 0,
            next_sweep_ns: now_ns,
            last_progress_ns: now_ns,
            draining: false,
            drained: false,
            audit: AuditRun::default(),
        }
    }

    fn takes_part(&self, conn: u32) -> bool {
        conn < self.share.active
    }

    fn seat(&self, conn: u32) -> Seat {
        Seat { conversation: conn / self.size, member: conn % self.size }
    }

    fn room(&self, conn: u32) -> &Room {
        &self.rooms[(conn / self.size) as usize]
    }

    /// The connections of a room.
    fn connections(&self, room: u32) -> std::ops::Range<u32> {
        room * self.size..(room + 1) * self.size
    }

    fn on_failed(&mut self, net: &mut Net, conn: u32, failure: &Failure<'_>) {
        net.stats.error(&failure.name);
        if failure.name == "RATE_LIMITED" {
            net.stats.counters.rate_limited += 1;
        }
        let delay_ms = u64::from(failure.retry_after_ms).clamp(50, 60_000);
        let retry_ns = failure.temporary.then_some(net.now_ns + delay_ms * MILLISECOND_NS);
        match request::purpose(failure.request_id) {
            _ if !failure.msg_id.is_empty() => {
                self.on_send_failed(net, conn, failure.msg_id.as_bytes(), retry_ns)
            }
            request::CREATE | request::JOIN => self.on_setup_failed(net, conn, failure, retry_ns),
            request::PULL => self.on_pull_failed(conn, retry_ns),
            request::AUDIT => self.on_audit_failed(conn, retry_ns),
            _ => {}
        }
    }

    fn sweep(&mut self, net: &mut Net) {
        for conn in 0..self.share.active {
            if net.is_active(conn) {
                self.resend_overdue(net, conn);
                self.repeat_overdue_pull(net, conn);
                self.look_for_gap(net, conn);
                self.pump(net, conn);
            }
        }
        self.sweep_audit(net);
        self.drained = self.draining && self.nothing_open(net);
    }
}

impl Handler for Chat {
    fn on_login(&mut self, net: &mut Net, conn: u32, again: bool) {
        if !self.takes_part(conn) {
            return;
        }
        if again {
            self.oracle.reconnected(self.seat(conn));
        }
        if !self.room(conn).is_open() {
            return self.on_member_ready(net, conn, again);
        }
        if !net.plan.options.no_catch_up {
            self.start_pull(net, conn, PullReason::Reconnect);
        }
        self.resend_all(net, conn);
        self.pump(net, conn);
    }

    fn on_incoming(&mut self, net: &mut Net, conn: u32, incoming: Incoming<'_>) {
        if !self.takes_part(conn) {
            if let Incoming::Failed(failure) = incoming {
                net.stats.error(&failure.name);
            }
            return;
        }
        match incoming {
            Incoming::Ack { msg_id, seq } => self.on_ack(net, conn, msg_id.as_bytes(), seq),
            Incoming::Push(item) => self.on_push(net, conn, &item),
            Incoming::Page(page) if request::purpose(page.request_id) == request::AUDIT => {
                self.on_audit_page(net, conn, &page);
            }
            Incoming::Page(page) => self.on_page(net, conn, &page),
            Incoming::Lagged { from_seq, .. } => {
                net.stats.counters.lagged += 1;
                self.last_progress_ns = net.now_ns;
                self.oracle.told(self.seat(conn), from_seq);
                self.start_pull(net, conn, PullReason::Lagged);
            }
            Incoming::Conversation { conversation_id, .. } => {
                self.on_conversation(net, conn, &conversation_id)
            }
            Incoming::Failed(failure) => self.on_failed(net, conn, &failure),
            Incoming::Heartbeat | Incoming::Welcome | Incoming::Goaway { .. } | Incoming::Other => {
            }
        }
    }

    fn on_down(&mut self, _net: &mut Net, conn: u32) {
        if !self.takes_part(conn) {
            return;
        }
        self.oracle.disconnected(self.seat(conn));
        self.members[conn as usize].pull = None;
        self.on_member_gone(conn);
        self.on_auditor_gone(conn);
    }

    fn on_turn(&mut self, net: &mut Net) {
        self.pump_setup(net);
        while let Some((conn, due_ns)) = self.pace.take_due(net.now_ns) {
            net.stats.counters.due += 1;
            self.members[conn as usize].backlog.push_back(due_ns);
            self.pump(net, conn);
        }
        self.resend_due(net);
        if net.now_ns >= self.next_sweep_ns {
            self.next_sweep_ns = net.now_ns + SWEEP_NS;
            self.sweep(net);
        }
    }

    fn wake_ns(&self) -> u64 {
        let resend_ns = self.resend.peek().map_or(u64::MAX, |&Reverse((at_ns, ..))| at_ns);
        self.pace.wake_ns().min(self.next_sweep_ns).min(resend_ns)
    }
}
