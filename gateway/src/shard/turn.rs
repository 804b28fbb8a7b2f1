//! The turn: the only place where rooms meet. It never awaits.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use proto::error::ErrorCode;
use proto::v1::{Call, Closed, UpstreamFrame, call};
use tokio::sync::mpsc;

use super::connection::Connection;
use super::door::{Door, DoorLimits};
use super::drain::{Drain, LINGER_MS};
use super::early::Early;
use super::outgoing::{Outgoing, Place};
use super::stats::{self, Stats};
use super::table::Table;
use super::wheel::Wheel;
use crate::ids::ConnId;
use crate::limits::{DELIVERIES_PER_TURN, EVENTS_PER_TURN, RECV_BUFFER_BYTES};
use crate::mailbox::{Mailbox, Order};
use crate::net::capacity::HandedOver;
use crate::net::poll_set::{PollSet, Readiness, Token};
use crate::net::sends::Sends;
use crate::net::sockets::{self, Received, Send};
use crate::session::deflate::Deflate;
use crate::session::rules::Rules;
use crate::session::{Cause, Context, Outputs, Phase, Session, Verdict};
use crate::uplink::Uplink;

pub(super) const LISTENER: Token = Token { slot: u32::MAX, generation: 0 };
pub(super) const MAILBOX: Token = Token { slot: u32::MAX, generation: 1 };

/// The wheel's tick.
pub(super) const TICK_MS: u32 = 250;

/// One core's share of the gateway.
pub(super) struct Shard {
    pub(super) index: u32,
    pub(super) rules: Rules,
    pub(super) poll: PollSet,
    pub(super) sends: Sends,
    pub(super) table: Table<Connection>,
    pub(super) wheel: Wheel,
    pub(super) outputs: Outputs,
    /// The compressors of all connections.
    pub(super) deflate: Option<Box<Deflate>>,
    pub(super) outgoing: Outgoing,
    pub(super) places: Vec<(Token, Place)>,
    /// Kept from turn to turn for its memory alone.
    pub(super) batch: Vec<Send<'static>>,
    pub(super) closing: Vec<Token>,
    pub(super) listener: Option<TcpListener>,
    pub(super) door: Door,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) uplink: Arc<Uplink>,
    pub(super) http: Option<mpsc::Sender<HandedOver>>,
    pub(super) stats: Arc<Stats>,
    /// Messages handed to the uplink whose answer has not come.
    pub(super) in_flight: usize,
    pub(super) drain: Drain,
    pub(super) early: Early,
    /// Ends of connections that the uplink had no room for.
    pub(super) unreported: Vec<Call>,
    pub(super) buffer: Box<[u8]>,
    ready: Vec<Readiness>,
    /// Connections that may have more to receive without another edge.
    pub(super) again: Vec<Readiness>,
    pub(super) accept_again: bool,
    started: Instant,
    pub(super) now_ms: u32,
}

/// What a shard is built from.
pub(super) struct Parts {
    pub(super) index: u32,
    pub(super) rules: Rules,
    pub(super) sends: Sends,
    pub(super) listener: TcpListener,
    pub(super) door: DoorLimits,
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
        let buffer = vec![0; RECV_BUFFER_BYTES].into_boxed_slice();
        let start = buffer.as_ptr().addr();
        let receive_buffer = start..start + buffer.len();
        Ok(Self {
            deflate: parts.rules.deflate.as_ref().map(|config| Box::new(Deflate::new(config))),
            index: parts.index,
            rules: parts.rules,
            poll,
            sends: parts.sends,
            table: Table::new(),
            wheel: Wheel::new(TICK_MS),
            outputs: Outputs { receive_buffer, ..Outputs::default() },
            outgoing: Outgoing::default(),
            places: Vec::new(),
            batch: Vec::new(),
            closing: Vec::new(),
            listener: Some(parts.listener),
            door: Door::new(parts.door),
            mailbox: parts.mailbox,
            uplink: parts.uplink,
            http: parts.http,
            stats: parts.stats,
            in_flight: 0,
            drain: Drain::No,
            early: Early::default(),
            unreported: Vec::new(),
            buffer,
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
        // Only for what it brings into the cache; events of what is gone are told apart one by one.
        std::hint::black_box(self.table.count_live(ready.iter().map(|event| event.token)));
        for event in &ready {
            match event.token {
                LISTENER => self.on_listener(),
                MAILBOX => self.open_mailbox(),
                _ => self.on_ready(*event),
            }
        }
        let events = ready.len();
        self.ready = ready;
        self.end_turn();
        self.go_on_if_more();
        Ok(events)
    }

    /// The pump waits for the poll set: an entry in our own mailbox lets it go on at once.
    pub(super) fn go_on_if_more(&self) {
        let more = !self.again.is_empty() || self.accept_again || !self.mailbox.is_empty();
        if more || self.drain == Drain::Done {
            self.mailbox.notify();
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "wraps after 49 days; all differences are wrapping"
    )]
    pub(super) fn look_at_the_clock(&mut self) {
        self.now_ms = self.started.elapsed().as_millis() as u32;
    }

    fn on_ready(&mut self, event: Readiness) {
        if event.writable {
            self.send_waiting(event.token);
            self.made_room(event.token);
        }
        if event.readable {
            self.receive(event);
        }
    }

    pub(super) fn receive(&mut self, event: Readiness) {
        let draining = self.drain != Drain::No;
        let room = self.rules.limits.outbound_bytes;
        let Some(connection) = self.table.get_mut(event.token) else { return };
        let phase = connection.session.phase();
        if phase == Phase::LoggingIn
            || (draining && phase != Phase::Ended)
            || (phase != Phase::Ended && connection.waits_for_reader(room))
        {
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
                    connection.is_alive(self.now_ms);
                }
                self.feed(event.token, count);
            }
        }
    }

    /// The connection took bytes that waited: it lives, and if it was not received from for what it had
    /// not taken, it is again.
    fn made_room(&mut self, token: Token) {
        let room = self.rules.limits.outbound_bytes;
        let Some(connection) = self.table.get_mut(token) else { return };
        if connection.session.phase() == Phase::Open {
            connection.is_alive(self.now_ms);
        }
        if !connection.waits_for_reader(room / 2) {
            self.receive_put_off(token);
        }
    }

    /// `count` bytes were received.
    fn feed(&mut self, token: Token, count: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.run_session(token, |session, cx| session.on_bytes(cx, &mut buffer[..count]));
        self.buffer = buffer;
        if self.outgoing.refers_to_received() {
            self.flush_sends();
        }
        self.obey_verdict(token);
    }

    /// Lets a session work and takes in what comes out of it.
    pub(super) fn with_session(
        &mut self,
        token: Token,
        work: impl FnOnce(&mut Session, &mut Context<'_>),
    ) {
        self.run_session(token, work);
        self.obey_verdict(token);
    }

    /// The one way to a session. [`Self::obey_verdict`] has to follow.
    fn run_session(&mut self, token: Token, work: impl FnOnce(&mut Session, &mut Context<'_>)) {
        self.outputs.verdict = Verdict::Stay;
        let Some(connection) = self.table.get_mut(token) else { return };
        let id = ConnId { shard: self.index, slot: token.slot, generation: token.generation };
        let start = self.outputs.bytes.len();
        self.outputs.debt_ms = u32::from(connection.debt_ms);
        self.outputs.login_delay_ms = self.door.login_delay_ms(token.slot);
        let phase = connection.session.phase();
        self.outputs.no_room = self.door.is_full(phase);
        let mut cx = Context {
            id,
            now_ms: self.now_ms,
            rules: &self.rules,
            deflate: self.deflate.as_deref_mut(),
            out: &mut self.outputs,
        };
        work(&mut connection.session, &mut cx);
        connection.debt_ms = u16::try_from(self.outputs.debt_ms).unwrap_or(u16::MAX);
        let phase_now = connection.session.phase();
        if phase_now != phase {
            self.door.phase_changed(phase, phase_now);
            if matches!(phase_now, Phase::Open | Phase::Ended) {
                connection.since_ms = self.now_ms;
            }
        }
        if self.outputs.bytes.len() > start {
            let deflate = self.deflate.as_deref_mut();
            connection.session.compress(deflate, &mut self.outputs.bytes, start);
            self.outgoing.add_written(&mut connection.outgoing, token, start, &mut self.outputs);
        }
    }

    fn obey_verdict(&mut self, token: Token) {
        match self.outputs.verdict {
            Verdict::Stay => {}
            Verdict::Close => self.start_closing(token),
            Verdict::HandOver => self.hand_over(token),
        }
        self.flush_if_full();
    }

    fn start_closing(&mut self, token: Token) {
        match self.outputs.cause.take() {
            Some(Cause::Flood) => stats::add(&self.stats.flooded, 1),
            Some(Cause::NoRoom) => {
                stats::add(&self.stats.refused_full, 1);
                stats::add(&self.stats.refused, 1);
            }
            Some(Cause::LoginShed) => stats::add(&self.stats.logins_shed, 1),
            None => {}
        }
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
    pub(super) fn forget(&mut self, token: Token) {
        if let Some(connection) = self.take_out(token) {
            self.door.left(token, connection.session.phase());
        }
    }

    /// Takes the table entry out; its place is for the caller to give back.
    pub(super) fn take_out(&mut self, token: Token) -> Option<Connection> {
        let connection = self.table.remove(token);
        self.early.forget(token);
        stats::set(&self.stats.connections, self.table.len());
        connection
    }

    fn open_mailbox(&mut self) {
        self.mailbox.acknowledge();
        self.obey_all();
        let mut deliveries = 0;
        while deliveries < DELIVERIES_PER_TURN {
            let Some(batch) = self.mailbox.next_delivery() else { return };
            deliveries += batch.replies.len() + batch.targets.len();
            // A welcome is put in before the first push it makes possible, but in the other lane: by the
            // time the push is here so is the welcome, and it goes first. Where the two come different ways
            // a push may still be early.
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
            Order::Event(mut event) => self.deliver_event(&mut event),
            Order::Close { slot, generation, code, reason } => {
                self.with_session(Token { slot, generation }, |session, cx| {
                    session.close(cx, code, &reason)
                });
            }
            Order::MessageRate(rate) => self.rules.message_rate = rate,
            Order::Drain => self.start_draining(),
            #[cfg(test)]
            Order::Panic => panic!("asked for by a test"),
        }
    }

    /// A login is answered: what was put off is received now.
    pub(super) fn receive_put_off(&mut self, token: Token) {
        let Some(connection) = self.table.get_mut(token) else { return };
        if std::mem::take(&mut connection.receive_put_off) {
            self.again.push(Readiness { token, readable: true, writable: false, hang_up: true });
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
