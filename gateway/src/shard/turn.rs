//! The turn: the only place where rooms meet. It never awaits.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use proto::error::{ErrorCode, close_code};
use proto::v1::{Call, Closed, UpstreamFrame, call};
use tokio::sync::mpsc;

use super::connection::Connection;
use super::outgoing::{Outgoing, Place};
use super::stats::{self, Stats};
use super::table::Table;
use super::wheel::Wheel;
use crate::ids::ConnId;
use crate::limits::{ACCEPTS_PER_TURN, EVENTS_PER_TURN, RECV_BUFFER_BYTES};
use crate::mailbox::{Mailbox, Order};
use crate::net::poll_set::{PollSet, Readiness, Token};
use crate::net::sends::Sends;
use crate::net::sockets::{self, Accepted, Received};
use crate::session::rules::{Mode, Rules};
use crate::session::{Context, Outputs, Phase, Session, Verdict};
use crate::uplink::Uplink;

/// A plain HTTP connection and the bytes already read from it.
pub type HandedOver = (OwnedFd, Vec<u8>);

pub(super) const LISTENER: Token = Token { slot: u32::MAX, generation: 0 };
pub(super) const MAILBOX: Token = Token { slot: u32::MAX, generation: 1 };

/// How long the peer has to finish after our last byte.
pub(super) const LINGER_MS: u32 = 2_000;
/// How long answers under way are waited for when the server stops.
const DRAIN_MS: u32 = 5_000;
/// When the server stops each client gets a delay of its own, so that this many a millisecond and
/// shard come back rather than all at once.
const RECONNECTS_PER_MS: u32 = 5;
/// The wheel's tick.
pub(super) const TICK_MS: u32 = 250;

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// Not stopping.
    No,
    /// Answers under way are waited for.
    Finishing { since_ms: u32 },
    /// GOAWAY was said.
    Leaving { since_ms: u32 },
    /// Nothing is left to do.
    Done,
}

/// One core's share of the gateway.
pub(super) struct Shard {
    pub(super) index: u32,
    pub(super) rules: Rules,
    pub(super) poll: PollSet,
    pub(super) sends: Sends,
    pub(super) table: Table<Connection>,
    pub(super) wheel: Wheel,
    pub(super) outputs: Outputs,
    pub(super) outgoing: Outgoing,
    pub(super) places: Vec<(Token, Place)>,
    pub(super) closing: Vec<Token>,
    pub(super) listener: Option<TcpListener>,
    pub(super) max_connections: usize,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) uplink: Arc<Uplink>,
    pub(super) http: Option<mpsc::Sender<HandedOver>>,
    pub(super) stats: Arc<Stats>,
    /// Messages handed to the uplink whose answer has not come.
    pub(super) in_flight: usize,
    pub(super) drain: Drain,
    /// Ends of connections that the uplink had no room for.
    pub(super) unreported: Vec<Call>,
    buffer: Box<[u8]>,
    ready: Vec<Readiness>,
    /// Connections that may have more to receive without another edge.
    again: Vec<Readiness>,
    accept_again: bool,
    started: Instant,
    pub(super) now_ms: u32,
}

/// What a shard is built from.
pub(super) struct Parts {
    pub(super) index: u32,
    pub(super) rules: Rules,
    pub(super) sends: Sends,
    pub(super) listener: TcpListener,
    pub(super) max_connections: usize,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) uplink: Arc<Uplink>,
    pub(super) http: Option<mpsc::Sender<HandedOver>>,
    pub(super) stats: Arc<Stats>,
}

impl Shard {
    pub(super) fn new(parts: Parts) -> std::io::Result<Self> {
        let poll = PollSet::new(EVENTS_PER_TURN)?;
        poll.add(&parts.listener, LISTENER)?;
        poll.add(&*parts.mailbox, MAILBOX)?;
        Ok(Self {
            index: parts.index,
            rules: parts.rules,
            poll,
            sends: parts.sends,
            table: Table::new(),
            wheel: Wheel::new(TICK_MS),
            outputs: Outputs::default(),
            outgoing: Outgoing::default(),
            places: Vec::new(),
            closing: Vec::new(),
            listener: Some(parts.listener),
            max_connections: parts.max_connections,
            mailbox: parts.mailbox,
            uplink: parts.uplink,
            http: parts.http,
            stats: parts.stats,
            in_flight: 0,
            drain: Drain::No,
            unreported: Vec::new(),
            buffer: vec![0; RECV_BUFFER_BYTES].into_boxed_slice(),
            ready: Vec::with_capacity(EVENTS_PER_TURN),
            again: Vec::new(),
            accept_again: false,
            started: Instant::now(),
            now_ms: 0,
        })
    }

    /// Everything that is ready now: receive, decide, then send all of it together. Returns how
    /// many events there were.
    pub(super) fn turn(&mut self) -> std::io::Result<usize> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        ready.append(&mut self.again);
        self.poll.take_ready(&mut ready)?;
        let accept_again = std::mem::take(&mut self.accept_again);
        if ready.is_empty() && !accept_again {
            self.ready = ready;
            return Ok(0);
        }
        self.look_at_the_clock();
        stats::add(&self.stats.turns, 1);
        if accept_again {
            self.accept();
        }
        for event in &ready {
            match event.token {
                LISTENER => self.accept(),
                MAILBOX => self.open_mailbox(),
                _ => self.on_ready(*event),
            }
        }
        let events = ready.len();
        self.ready = ready;
        self.end_turn();
        if !self.again.is_empty() || self.accept_again {
            // The pump waits for the poll set: an entry in our own mailbox lets it go on at once.
            self.mailbox.notify();
        }
        Ok(events)
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "wraps after 49 days; all differences are wrapping"
    )]
    fn look_at_the_clock(&mut self) {
        self.now_ms = self.started.elapsed().as_millis() as u32;
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            match sockets::accept(listener) {
                Accepted::Connection(socket, _) => self.admit(socket),
                Accepted::Gone => {}
                Accepted::WouldBlock => return,
                Accepted::Exhausted(error) => {
                    tracing::warn!(%error, "cannot accept; trying again at the next tick");
                    return;
                }
            }
        }
        self.accept_again = true;
    }

    fn admit(&mut self, socket: OwnedFd) {
        if self.table.len() >= self.max_connections {
            stats::add(&self.stats.refused, 1);
            let _ = sockets::send(&socket, b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        let session = Session::new(&self.rules, self.now_ms);
        let token = self.table.insert(Connection::new(session, socket, self.now_ms));
        stats::add(&self.stats.accepted, 1);
        stats::set(&self.stats.connections, self.table.len());
        let added =
            self.table.get(token).map(|connection| self.poll.add(&connection.socket, token));
        if let Some(Err(error)) = added {
            tracing::warn!(%error, "cannot watch a new connection");
            self.forget(token);
        } else if self.rules.mode != Mode::Echo {
            self.wheel.insert(token, self.rules.limits.handshake_ms);
        }
    }

    fn on_ready(&mut self, event: Readiness) {
        if event.writable {
            self.send_waiting(event.token);
        }
        if event.readable {
            self.receive(event);
        }
    }

    fn receive(&mut self, event: Readiness) {
        let draining = self.drain != Drain::No;
        let Some(connection) = self.table.get_mut(event.token) else { return };
        let phase = connection.session.phase();
        if phase == Phase::LoggingIn || (draining && phase != Phase::Ended) {
            connection.receive_put_off = true;
            return;
        }
        match sockets::recv(&connection.socket, &mut self.buffer) {
            Received::WouldBlock => {}
            Received::End => self.gone(event.token),
            Received::Bytes(count) => {
                // A full buffer may have left bytes behind, and FIN together with data makes one edge only.
                if count == self.buffer.len() || event.hang_up {
                    self.again.push(event);
                }
                if phase == Phase::Open {
                    connection.since_ms = self.now_ms;
                }
                let buffer = std::mem::take(&mut self.buffer);
                self.buffer = self.feed(event.token, buffer, count);
            }
        }
    }

    fn feed(&mut self, token: Token, mut buffer: Box<[u8]>, count: usize) -> Box<[u8]> {
        self.with_session(token, |session, cx| session.on_bytes(cx, &mut buffer[..count]));
        buffer
    }

    /// Lets a session work and takes in what comes out of it. The one way to a session.
    pub(super) fn with_session(
        &mut self,
        token: Token,
        work: impl FnOnce(&mut Session, &mut Context<'_>),
    ) {
        let Some(connection) = self.table.get_mut(token) else { return };
        let id = ConnId { shard: self.index, slot: token.slot, generation: token.generation };
        let start = self.outputs.bytes.len();
        self.outputs.verdict = Verdict::Stay;
        let phase = connection.session.phase();
        let mut cx =
            Context { id, now_ms: self.now_ms, rules: &self.rules, out: &mut self.outputs };
        work(&mut connection.session, &mut cx);
        if connection.session.phase() != phase {
            connection.since_ms = match connection.session.phase() {
                Phase::Open | Phase::Ended => self.now_ms,
                _ => connection.since_ms,
            };
        }
        let end = self.outputs.bytes.len();
        if end > start {
            self.outgoing.add(&mut connection.outgoing, token, start..end);
        }
        match self.outputs.verdict {
            Verdict::Stay => {}
            Verdict::Close => self.start_closing(token),
            Verdict::HandOver => self.hand_over(token),
        }
        self.flush_if_full();
    }

    fn start_closing(&mut self, token: Token) {
        self.report_closed(token);
        self.wheel.insert(token, LINGER_MS);
        self.closing.push(token);
    }

    /// Tells the logic service of the end of a connection that it was asked to log in, however short
    /// the time between the two.
    fn report_closed(&mut self, token: Token) {
        let Some(connection) = self.table.get_mut(token) else { return };
        if !connection.session.take_announced() {
            return;
        }
        self.outputs.calls.push(Call {
            shard: self.index,
            slot: token.slot,
            generation: token.generation,
            user_id: connection.session.user_id(),
            request: Some(call::Request::Closed(Closed {})),
        });
    }

    /// The peer finished sending, or the connection broke. What this turn has for it is still tried.
    fn gone(&mut self, token: Token) {
        self.report_closed(token);
        self.flush_sends();
        self.forget(token);
    }

    /// Drops the table entry and closes the socket. Only when no send of this turn refers to it.
    pub(super) fn forget(&mut self, token: Token) -> Option<Connection> {
        let connection = self.table.remove(token);
        stats::set(&self.stats.connections, self.table.len());
        connection
    }

    fn hand_over(&mut self, token: Token) {
        let bytes = std::mem::take(&mut self.outputs.handed_over);
        let Some(connection) = self.forget(token) else { return };
        if self.poll.remove(&connection.socket).is_err() {
            return;
        }
        let refused = match &self.http {
            Some(http) => {
                http.try_send((connection.socket, bytes)).err().map(|error| error.into_inner().0)
            }
            None => Some(connection.socket),
        };
        if let Some(socket) = refused {
            stats::add(&self.stats.refused, 1);
            let _ = sockets::send(&socket, b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    }

    fn open_mailbox(&mut self) {
        self.mailbox.acknowledge();
        self.obey_all();
        while let Some(batch) = self.mailbox.next_delivery() {
            // A welcome is put in before the first push it makes possible, but in the other lane: by the
            // time the push is here so is the welcome, and it goes first.
            self.obey_all();
            self.deliver(batch);
        }
    }

    fn obey_all(&mut self) {
        while let Some(order) = self.mailbox.next_order() {
            self.obey(order);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Reply(reply) => self.answer_call(&reply),
            Order::Event(event) => self.deliver_event(&event),
            Order::Close { slot, generation, code, reason } => {
                self.with_session(Token { slot, generation }, |session, cx| {
                    session.close(cx, code, &reason)
                });
            }
            Order::Drain => self.start_draining(),
        }
    }

    /// A login is answered: what was put off is received now.
    pub(super) fn receive_put_off(&mut self, token: Token) {
        let Some(connection) = self.table.get_mut(token) else { return };
        if std::mem::take(&mut connection.receive_put_off) {
            self.again.push(Readiness { token, readable: true, writable: false, hang_up: true });
        }
    }

    /// The coarse clock: handshakes, silence, lingering, and how stopping goes on.
    pub(super) fn tick(&mut self) {
        self.look_at_the_clock();
        let mut due = Vec::new();
        self.wheel.advance(self.now_ms, &mut due);
        for token in due {
            self.look_at(token);
        }
        if self.listener.is_some() {
            self.accept();
        }
        self.go_on_draining();
        self.end_turn();
        if !self.again.is_empty() || self.accept_again || self.drain == Drain::Done {
            self.mailbox.notify();
        }
    }

    fn look_at(&mut self, token: Token) {
        let Some(connection) = self.table.get(token) else { return };
        let limits = &self.rules.limits;
        let phase = connection.session.phase();
        let allowed_ms = match phase {
            Phase::Greeting | Phase::Anonymous | Phase::LoggingIn => limits.handshake_ms,
            Phase::Open => limits.silence_ms(),
            Phase::Ended => LINGER_MS,
            Phase::Echo => return,
        };
        let passed_ms = self.now_ms.wrapping_sub(connection.since_ms);
        if passed_ms < allowed_ms {
            return self.wheel.insert(token, allowed_ms - passed_ms);
        }
        if phase == Phase::Ended {
            self.forget(token);
            return;
        }
        stats::add(&self.stats.timed_out, 1);
        let (code, reason) = match phase {
            Phase::Open => (close_code::HEARTBEAT_TIMEOUT, "nothing was heard for too long"),
            Phase::LoggingIn => (close_code::OVERLOADED, "the login took too long"),
            _ => (close_code::LOGIN_TIMEOUT, "no login within the deadline"),
        };
        self.with_session(token, |session, cx| session.close(cx, code, reason));
    }

    fn start_draining(&mut self) {
        if self.drain != Drain::No {
            return;
        }
        self.listener = None;
        self.drain = Drain::Finishing { since_ms: self.now_ms };
        self.go_on_draining();
    }

    pub(super) fn go_on_draining(&mut self) {
        let passed = |since_ms: u32| self.now_ms.wrapping_sub(since_ms);
        match self.drain {
            Drain::Finishing { since_ms }
                if self.in_flight == 0 || passed(since_ms) >= DRAIN_MS =>
            {
                for (place, token) in (0_u32..).zip(self.table.tokens()) {
                    let reconnect_after_ms = place / RECONNECTS_PER_MS;
                    self.with_session(token, |session, cx| session.go_away(cx, reconnect_after_ms));
                }
                self.drain = Drain::Leaving { since_ms: self.now_ms };
            }
            Drain::Leaving { since_ms }
                if self.table.len() == 0 || passed(since_ms) >= LINGER_MS =>
            {
                self.drain = Drain::Done;
            }
            _ => {}
        }
    }

    /// Answers messages that the uplink had no room for.
    pub(super) fn refuse_messages(&mut self, frames: Vec<UpstreamFrame>) {
        stats::add(&self.stats.busy, frames.len());
        let failure = ErrorCode::Busy.retry_after(1_000, "the server is busy");
        for frame in frames {
            let token = Token { slot: frame.slot, generation: frame.generation };
            let Some(send) = frame.send else { continue };
            self.with_session(token, |session, cx| session.refuse_send(cx, &send, &failure));
        }
    }

    /// Answers requests that the uplink had no room for; ends of connections are kept for later.
    pub(super) fn refuse_calls(&mut self, calls: Vec<Call>) {
        let failure = ErrorCode::Busy.retry_after(1_000, "the server is busy");
        for call in calls {
            let token = Token { slot: call.slot, generation: call.generation };
            let request_id = crate::session::answer::request_id_of(&call);
            match &call.request {
                Some(call::Request::Closed(_)) => self.unreported.push(call),
                Some(call::Request::Login(_)) => {
                    stats::add(&self.stats.busy, 1);
                    self.with_session(token, |session, cx| session.on_login_failed(cx, &failure));
                }
                Some(request) => {
                    stats::add(&self.stats.busy, 1);
                    self.with_session(token, |session, cx| {
                        session.refuse_call(cx, request, request_id, &failure)
                    });
                }
                None => {}
            }
        }
    }
}
