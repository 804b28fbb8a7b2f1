//! Opening connections at a bounded pace, logging them in, and bringing them back.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use codec::binary::PREFACE;
use codec::ws::deflate::Offer;
use codec::ws::handshake;

use super::conn::{Conn, Input, Phase};
use super::{Down, Handler, Net, deflate, socket};
use crate::args::Login;
use crate::client::{Protocol, Request};
use crate::clock::{MILLISECOND_NS, SECOND_NS};
use crate::plan::{PER_SOURCE_ADDRESS, Plan, Share};
use crate::rest::Authenticator;
use crate::rng::Rng;

/// Longest time from the start of connecting to being logged in.
const ESTABLISH_NS: u64 = 20 * SECOND_NS;
/// Given source ports run from here, below those the kernel gives.
const FIRST_PORT: u16 = 10_000;
/// Attempts before a connection that never stood is given up.
const ATTEMPTS_MAX: u16 = 6;

/// Which connections want to be opened, and how fast that may go.
pub(super) struct Connector {
    queue: VecDeque<u32>,
    /// Connections to queue later, by time.
    later: BinaryHeap<Reverse<(u64, u32)>>,
    in_flight: u32,
    in_flight_max: u32,
    /// Nanoseconds from one start to the next; 0: no pace.
    pace_ns: u64,
    next_ns: u64,
    tokens: Vec<Option<Box<str>>>,
    authenticator: Option<Authenticator>,
    /// Connections that are to stand; those beyond it are held back.
    wanted: u32,
    /// Receive buffer of the connections beside those that take part.
    extra_receive_bytes: Option<usize>,
}

impl Connector {
    pub(super) fn new(plan: &Plan, share: &Share, now_ns: u64) -> Self {
        let options = &plan.options;
        let count = share.connections();
        let with_token = options.login() == Login::Token;
        let rate = u64::from(options.connect_rate);
        Self {
            queue: (0..count).collect(),
            later: BinaryHeap::new(),
            in_flight: 0,
            in_flight_max: (options.connect_in_flight / share.workers).max(1),
            pace_ns: (SECOND_NS * u64::from(share.workers)).checked_div(rate).unwrap_or(0),
            next_ns: now_ns,
            tokens: if with_token { vec![None; count as usize] } else { Vec::new() },
            authenticator: with_token.then(|| Authenticator::start(plan)),
            wanted: count,
            extra_receive_bytes: None,
        }
    }

    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Whether something here waits for time to pass rather than for a socket.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.later.is_empty() || self.in_flight > 0
    }
}

impl Net {
    /// Opens only the connections that take part, until [`Net::release_extra`].
    pub(crate) fn hold_extra(&mut self) {
        self.connector.wanted = self.share.active;
        self.connector.queue.truncate(self.share.active as usize);
    }

    /// Opens the others too.
    pub(crate) fn release_extra(&mut self) {
        self.connector.queue.extend(self.connector.wanted..self.share.connections());
        self.connector.wanted = self.share.connections();
        self.next_tick_ns = self.now_ns;
    }

    /// The receive buffer of the others, in bytes.
    pub(crate) fn bound_extra(&mut self, bytes: usize) {
        self.connector.extra_receive_bytes = Some(bytes);
    }

    /// Opens as many connections as the pace allows.
    pub(super) fn start_connections(&mut self) {
        if self.closing {
            return;
        }
        while let Some(&Reverse((at_ns, index))) = self.connector.later.peek() {
            if at_ns > self.now_ns {
                break;
            }
            self.connector.later.pop();
            self.connector.queue.push_back(index);
        }
        while self.connector.in_flight < self.connector.in_flight_max
            && self.connector.next_ns <= self.now_ns
        {
            let Some(index) = self.connector.queue.pop_front() else { return };
            if !self.has_token(index) {
                continue;
            }
            let pace_ns = self.connector.pace_ns;
            self.connector.next_ns = (self.connector.next_ns + pace_ns)
                .max(self.now_ns.saturating_sub(20 * MILLISECOND_NS));
            self.start_connection(index);
        }
    }

    /// Whether the connection can log in now; asks for a token when it needs one.
    fn has_token(&mut self, index: u32) -> bool {
        let Some(authenticator) = &self.connector.authenticator else { return true };
        if self.connector.tokens[index as usize].is_some() {
            return true;
        }
        authenticator.ask(
            index,
            self.plan.user_name(self.share.global(index)),
            self.conns[index as usize].known,
        );
        false
    }

    pub(super) fn collect_tokens(&mut self) {
        while let Some((index, answer)) =
            self.connector.authenticator.as_ref().and_then(Authenticator::answer)
        {
            match answer {
                Ok(token) => {
                    self.connector.tokens[index as usize] = Some(token.into_boxed_str());
                    self.connector.queue.push_back(index);
                }
                Err(reason) => self.retry_or_give_up(index, &Down::new(format!("LOGIN: {reason}"))),
            }
        }
    }

    fn start_connection(&mut self, index: u32) {
        let global = self.share.global(index);
        let target = self.target_of(global);
        let receive = self.connector.extra_receive_bytes.filter(|_| index >= self.share.active);
        let opened = socket::connect(target, self.source_of(index), receive);
        let conn = &mut self.conns[index as usize];
        conn.generation = conn.generation.wrapping_add(1);
        conn.since_ns = self.now_ns;
        let token = self.token(index);
        match opened.and_then(|socket| self.poller.add(&socket, token).map(|()| socket)) {
            Ok(socket) => {
                let conn = &mut self.conns[index as usize];
                conn.socket = Some(socket);
                conn.phase = Phase::Connecting;
                self.connector.in_flight += 1;
            }
            Err(error) => {
                let down = Down::new(format!("CONNECT_{}", socket::error_name(&error)));
                self.retry_or_give_up(index, &down);
            }
        }
    }

    fn target_of(&self, global: u32) -> std::net::SocketAddr {
        self.plan.targets[global as usize % self.plan.targets.len()].address
    }

    /// Source addresses are spread when one does not have ports enough for one destination.
    fn source_of(&self, index: u32) -> Option<SocketAddrV4> {
        let options = &self.plan.options;
        let global = self.share.global(index);
        let IpAddr::V4(target) = self.target_of(global).ip() else { return None };
        let targets = u32::try_from(self.plan.targets.len()).unwrap_or(1);
        let per_target = (options.connections + options.extra_connections()).div_ceil(targets);
        if per_target <= PER_SOURCE_ADDRESS || !target.is_loopback() {
            return None;
        }
        let first = self.conns[index as usize].attempts == 0 && !self.conns[index as usize].known;
        Some(source_address(global / targets, first))
    }

    /// TCP stands, or not.
    pub(super) fn on_connected<H: Handler>(&mut self, handler: &mut H, index: u32) {
        let conn = &self.conns[index as usize];
        let Some(Err(error)) = conn.socket.as_ref().map(socket::connect_result) else {
            return self.open(handler, index);
        };
        self.down(handler, index, &Down::new(format!("CONNECT_{}", socket::error_name(&error))));
    }

    fn open<H: Handler>(&mut self, handler: &mut H, index: u32) {
        if self.plan.options.protocol.is_websocket() {
            let request = self.handshake_request(index);
            let conn = &mut self.conns[index as usize];
            conn.phase = Phase::Upgrading;
            conn.input = Input::Head(Vec::new());
            self.send_raw(index, &request);
            return;
        }
        let conn = &mut self.conns[index as usize];
        conn.input =
            if self.raw { Input::Raw } else { Input::Binary(codec::binary::Decoder::new()) };
        self.send_raw(index, &PREFACE);
        self.log_in(handler, index);
    }

    fn handshake_request(&self, index: u32) -> Vec<u8> {
        let global = self.share.global(index);
        let target = &self.plan.targets[global as usize % self.plan.targets.len()];
        let json = self.plan.options.protocol == Protocol::Json;
        let name = self.plan.user_name(global);
        let by_name = (self.login == Login::Dev && json).then_some(("user_id", name.as_str()));
        let bearer = self.token_of(index).filter(|_| json).map(|token| format!("bearer.{token}"));
        let mut protocols = Vec::new();
        if let Some(bearer) = &bearer {
            protocols.extend(["corelane.json.v1", bearer.as_str()]);
        }
        let mut out = Vec::with_capacity(512);
        let path = target.path_and_query(by_name);
        handshake::write_client_request_offering(
            &mut out,
            &target.host,
            &path,
            &protocols,
            self.offer(),
            self.nonce(index),
        );
        out
    }

    /// What is offered beside the protocol.
    pub(super) fn offer(&self) -> Option<&'static Offer> {
        self.deflate.is_some().then_some(&deflate::OFFER)
    }

    fn token_of(&self, index: u32) -> Option<&str> {
        self.connector.tokens.get(index as usize)?.as_deref()
    }

    /// The nonce of a connection's handshake; computed again rather than kept.
    pub(super) fn nonce(&self, index: u32) -> [u8; 16] {
        let generation = u64::from(self.conns[index as usize].generation);
        Rng::fork(self.plan.seed, generation << 32 | u64::from(self.share.global(index))).nonce()
    }

    /// The transport stands; logs in unless the handshake did that already.
    pub(super) fn log_in<H: Handler>(&mut self, handler: &mut H, index: u32) {
        if self.plan.options.protocol == Protocol::Json || self.login == Login::None {
            return self.established(handler, index);
        }
        self.conns[index as usize].phase = Phase::LoggingIn;
        let name = self.plan.user_name(self.share.global(index));
        let token = self.token_of(index).unwrap_or_default().to_owned();
        let dev_user = if self.login == Login::Dev { name.as_str() } else { "" };
        self.request(index, &Request::Hello { token: &token, dev_user });
    }

    /// A connection is logged in.
    pub(super) fn established<H: Handler>(&mut self, handler: &mut H, index: u32) {
        let now_ns = crate::clock::now_ns();
        let conn = &mut self.conns[index as usize];
        let again = conn.known;
        self.stats.latencies.connect.record_ns(now_ns.saturating_sub(conn.since_ns));
        conn.phase = Phase::Active;
        conn.known = true;
        conn.spoke = false;
        conn.since_ns = 0;
        conn.attempts = 0;
        self.connector.in_flight = self.connector.in_flight.saturating_sub(1);
        let counters = &mut self.stats.counters;
        counters.connected += 1;
        *(if again { &mut counters.reconnects } else { &mut counters.established }) += 1;
        handler.on_login(self, index, again);
    }

    /// Closes a connection and decides whether it comes back.
    pub(super) fn down<H: Handler>(&mut self, handler: &mut H, index: u32, down: &Down) {
        let conn = &mut self.conns[index as usize];
        if conn.socket.take().is_none() {
            return;
        }
        let was = conn.phase;
        reset(conn);
        if was == Phase::Active {
            self.stats.counters.connected -= 1;
            self.stats.counters.disconnects += 1;
            handler.on_down(self, index);
        } else {
            self.connector.in_flight = self.connector.in_flight.saturating_sub(1);
        }
        self.retry_or_give_up(index, down);
    }

    fn retry_or_give_up(&mut self, index: u32, down: &Down) {
        self.stats.error(&down.name);
        if (4200..4300).contains(&down.code)
            && let Some(token) = self.connector.tokens.get_mut(index as usize)
        {
            *token = None;
        }
        let reconnect = self.plan.options.reconnect;
        let conn = &mut self.conns[index as usize];
        conn.banned |= (4900..5000).contains(&down.code);
        conn.attempts = conn.attempts.saturating_add(1);
        let patient =
            if conn.known { reconnect } else { reconnect || conn.attempts < ATTEMPTS_MAX };
        if !patient || conn.banned {
            conn.phase = Phase::Dead;
            self.stats.counters.connect_failures += u64::from(!conn.known);
            return;
        }
        conn.phase = Phase::Waiting;
        let asked_ms = u64::from(std::mem::take(&mut conn.come_back_ms)).min(60_000);
        let backoff_ms = 25 << u32::from(conn.attempts).min(6);
        let delay_ms = asked_ms.max(backoff_ms / 2) + self.rng.below(backoff_ms);
        self.connector.later.push(Reverse((self.now_ns + delay_ms * MILLISECOND_NS, index)));
    }

    /// Ends connections that take too long to establish.
    pub(super) fn expire_connections(&mut self) {
        for index in 0..self.share.connections() {
            let conn = &self.conns[index as usize];
            if conn.is_under_way() && self.now_ns.saturating_sub(conn.since_ns) > ESTABLISH_NS {
                let name = format!("TIMEOUT_{:?}", conn.phase);
                self.failed.push((index, Down::new(name)));
            }
        }
    }
}

/// The source of the n-th connection to a destination. Its port is given at the first attempt: the kernel
/// takes a hundred times longer to find a free one among tens of thousands. A later attempt lets it, for
/// the port may be what failed.
fn source_address(nth: u32, first: bool) -> SocketAddrV4 {
    let ip = Ipv4Addr::from(0x7f01_0001 + nth / PER_SOURCE_ADDRESS);
    let port = FIRST_PORT + (nth % PER_SOURCE_ADDRESS) as u16;
    SocketAddrV4::new(ip, if first { port } else { 0 })
}

fn reset(conn: &mut Conn) {
    conn.input = Input::None;
    conn.out = Vec::new();
    conn.out_sent = 0;
    conn.since_ns = 0;
    conn.blocked = false;
    conn.spoke = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_connections_share_a_source() {
        let sources: std::collections::HashSet<_> =
            (0..100_000).map(|nth| source_address(nth, true)).collect();
        assert_eq!(sources.len(), 100_000);
        assert!(sources.iter().all(|source| source.ip().is_loopback() && source.port() < 32_768));
        let last = source_address((1 << 21) - 1, true);
        assert_eq!(*last.ip(), Ipv4Addr::new(127, 1, 0, 105));
        assert_eq!(
            source_address(20_001, false),
            SocketAddrV4::new(Ipv4Addr::new(127, 1, 0, 2), 0)
        );
    }
}
