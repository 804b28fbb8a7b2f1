//! The connections of one worker: opened, logged in, kept alive, brought back; and the turn of the event
//! loop. What the messages mean is the business of a [`Handler`].

mod conn;
mod connect;
mod deflate;
mod heartbeat;
mod input;
pub(crate) mod socket;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use codec::ws::{self, Opcode};

use crate::args::{Login, Scenario};
use crate::client::{self, Incoming, Request, Scratch};
use crate::clock;
use crate::plan::{Plan, Share};
use crate::rng::Rng;
use crate::stats::{Latencies, Stats};
use conn::{Conn, Phase};
use connect::Connector;
use deflate::Deflate;
use heartbeat::Heartbeat;
use socket::{Poller, Ready};

const INPUT_BYTES: usize = 256 * 1024;
const POOL_MAX: usize = 4096;

/// What a scenario does with its connections.
pub(crate) trait Handler {
    /// A connection is logged in; `again` when it had been before.
    fn on_login(&mut self, net: &mut Net, conn: u32, again: bool);
    /// The server said something.
    fn on_incoming(&mut self, net: &mut Net, conn: u32, incoming: Incoming<'_>);
    /// Bytes came on a connection without a protocol (echo): one WebSocket message, or a piece of a stream.
    fn on_data(&mut self, _net: &mut Net, _conn: u32, _bytes: &[u8]) {}
    /// A text message came; true when nothing more needs to be done with it.
    fn on_text(&mut self, _net: &mut Net, _conn: u32, _text: &str) -> bool {
        false
    }
    /// A connection that was logged in broke.
    fn on_down(&mut self, net: &mut Net, conn: u32);
    /// Once a turn, after the input.
    fn on_turn(&mut self, net: &mut Net);
    /// When `on_turn` should run next at the latest.
    fn wake_ns(&self) -> u64;
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Down {
    /// Counted under this name.
    name: String,
    /// Close code of the server, 0 without.
    code: u32,
}

impl Down {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), code: 0 }
    }

    fn coded(code: u32) -> Self {
        Self { name: format!("CLOSE_{code}"), code }
    }
}

/// Where the workers of a run wait for each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gates {
    /// The last gate that this worker has come to.
    pub(crate) reached: u32,
    /// From when on things happen behind it, once it is open.
    pub(crate) opened_ns: Option<u64>,
}

/// The table of connections and everything around it.
pub(crate) struct Net {
    pub(crate) plan: Arc<Plan>,
    pub(crate) share: Share,
    pub(crate) stats: Stats,
    /// The time of the event in hand.
    pub(crate) now_ns: u64,
    /// Messages due before are warm-up: their latencies are not recorded.
    pub(crate) measured_from_ns: u64,
    pub(crate) rng: Rng,
    pub(crate) gates: Gates,
    login: Login,
    raw: bool,
    poller: Poller,
    conns: Vec<Conn>,
    connector: Connector,
    heartbeat: Heartbeat,
    ready: Vec<Ready>,
    /// Connections with more to read than one turn takes.
    again: VecDeque<u64>,
    dirty: Vec<u32>,
    failed: Vec<(u32, Down)>,
    pool: Vec<Vec<u8>>,
    scratch: Scratch,
    /// There when it is offered.
    deflate: Option<Deflate>,
    input: Vec<u8>,
    next_tick_ns: u64,
    next_sweep_ns: u64,
    closing: bool,
}

impl Net {
    pub(crate) fn new(plan: Arc<Plan>, share: Share) -> io::Result<Self> {
        let count = share.connections();
        let now_ns = clock::now_ns();
        Ok(Self {
            login: plan.options.login(),
            raw: plan.options.scenario == Scenario::Echo,
            poller: Poller::new()?,
            conns: std::iter::repeat_with(Conn::new).take(count as usize).collect(),
            connector: Connector::new(&plan, &share, now_ns),
            heartbeat: Heartbeat::new(now_ns, clock::duration_ns(plan.options.heartbeat)),
            rng: Rng::fork(plan.seed, u64::from(share.worker) + 1),
            stats: Stats::default(),
            gates: Gates::default(),
            now_ns,
            measured_from_ns: 0,
            ready: Vec::new(),
            again: VecDeque::new(),
            dirty: Vec::new(),
            failed: Vec::new(),
            pool: Vec::new(),
            scratch: Scratch::default(),
            deflate: plan.options.deflate.then(Deflate::new),
            input: vec![0; INPUT_BYTES],
            next_tick_ns: now_ns,
            next_sweep_ns: now_ns,
            closing: false,
            plan,
            share,
        })
    }

    /// Where the latencies of a message due then are recorded, with how long ago that is; none during warm-up.
    pub(crate) fn measured(&mut self, due_ns: u64) -> Option<(&mut Latencies, u64)> {
        (due_ns >= self.measured_from_ns)
            .then(|| (&mut self.stats.latencies, self.now_ns.saturating_sub(due_ns)))
    }

    /// One turn of the loop: waits for readiness, a due time or `until_ns`, whichever is first.
    pub(crate) fn turn<H: Handler>(&mut self, handler: &mut H, until_ns: u64) -> io::Result<()> {
        let wake_ns = until_ns.min(self.next_tick_ns).min(handler.wake_ns());
        let wake_ns = if self.again.is_empty() { wake_ns } else { 0 };
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(wake_ns, &mut ready)?;
        for &event in &ready {
            self.on_ready(handler, event);
        }
        self.ready = ready;
        for _ in 0..self.again.len() {
            if let Some(token) = self.again.pop_front() {
                self.read(handler, token, true);
            }
        }
        self.now_ns = clock::now_ns();
        if self.now_ns >= self.next_tick_ns {
            self.tick();
        }
        self.start_connections();
        handler.on_turn(self);
        self.flush();
        self.bury(handler);
        Ok(())
    }

    fn tick(&mut self) {
        self.collect_tokens();
        self.beat();
        if self.now_ns >= self.next_sweep_ns {
            self.next_sweep_ns = self.now_ns + clock::SECOND_NS;
            self.expire_connections();
        }
        let busy = self.connector.is_busy();
        self.next_tick_ns = self.now_ns + if busy { 2 } else { 50 } * clock::MILLISECOND_NS;
    }

    fn on_ready<H: Handler>(&mut self, handler: &mut H, ready: Ready) {
        let Some(index) = self.index_of(ready.token) else { return };
        let conn = &mut self.conns[index as usize];
        if conn.phase == Phase::Connecting {
            if ready.writable || ready.ended {
                self.on_connected(handler, index);
            }
            return;
        }
        if ready.writable && conn.blocked {
            conn.blocked = false;
            self.mark_dirty(index);
        }
        if ready.readable || ready.ended {
            self.read(handler, ready.token, ready.ended);
        }
    }

    /// Comes to a gate; the load behind it waits for the other workers.
    pub(crate) fn reach(&mut self, gate: u32) {
        if gate > self.gates.reached {
            self.gates = Gates { reached: gate, opened_ns: None };
        }
    }

    /// From now on nothing that comes is read.
    pub(crate) fn pause(&mut self, index: u32) {
        self.conns[index as usize].paused = true;
    }

    /// Reads again, beginning with what waits.
    pub(crate) fn resume(&mut self, index: u32) {
        self.conns[index as usize].paused = false;
        self.again.push_back(self.token(index));
    }

    /// The connection of an event, unless its socket is closed by now.
    fn index_of(&self, token: u64) -> Option<u32> {
        let (generation, index) = ((token >> 32) as u32, token as u32);
        let conn = self.conns.get(index as usize)?;
        (conn.generation == generation && conn.socket.is_some()).then_some(index)
    }

    fn token(&self, index: u32) -> u64 {
        u64::from(self.conns[index as usize].generation) << 32 | u64::from(index)
    }

    /// Whether requests on the connection go out now.
    pub(crate) fn is_active(&self, index: u32) -> bool {
        self.conns.get(index as usize).is_some_and(|conn| conn.phase == Phase::Active)
    }

    /// Whether the connection was given up.
    pub(crate) fn is_gone(&self, index: u32) -> bool {
        self.conns.get(index as usize).is_none_or(|conn| conn.phase == Phase::Dead)
    }

    /// Whether bytes wait because the server does not read them.
    pub(crate) fn is_blocked(&self, index: u32) -> bool {
        self.conns.get(index as usize).is_some_and(|conn| conn.blocked)
    }

    /// Whether no connection is on its way any more.
    pub(crate) fn is_settled(&self) -> bool {
        let counters = &self.stats.counters;
        counters.established + counters.connect_failures >= u64::from(self.connector.wanted())
    }

    /// Queues a request on an active connection; it goes out at the end of the turn.
    pub(crate) fn request(&mut self, index: u32, request: &Request<'_>) {
        let protocol = self.plan.options.protocol;
        let mask = self.rng.mask();
        let conn = &mut self.conns[index as usize];
        take_buffer(&mut self.pool, &mut conn.out);
        match self.deflate.as_mut().filter(|_| conn.deflates) {
            None => client::encode(protocol, request, &mut self.scratch, &mut conn.out, mask),
            Some(deflate) => {
                let (opcode, message) = client::message(protocol, request, &mut self.scratch);
                deflate.write(&mut conn.out, opcode, message, mask);
            }
        }
        conn.spoke = true;
        self.mark_dirty(index);
    }

    /// Queues bytes as they are.
    pub(crate) fn send_raw(&mut self, index: u32, bytes: &[u8]) {
        let conn = &mut self.conns[index as usize];
        take_buffer(&mut self.pool, &mut conn.out);
        conn.out.extend_from_slice(bytes);
        conn.spoke = true;
        self.mark_dirty(index);
    }

    /// Queues one WebSocket frame.
    pub(crate) fn send_frame(&mut self, index: u32, opcode: Opcode, payload: &[u8]) {
        let mask = self.rng.mask();
        let conn = &mut self.conns[index as usize];
        take_buffer(&mut self.pool, &mut conn.out);
        let compressible = conn.deflates && matches!(opcode, Opcode::Text | Opcode::Binary);
        match self.deflate.as_mut().filter(|_| compressible) {
            None => ws::encode_frame_masked(&mut conn.out, opcode, payload, mask),
            Some(deflate) => deflate.write(&mut conn.out, opcode, payload, mask),
        }
        self.mark_dirty(index);
    }

    fn mark_dirty(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Ends a connection at the end of the turn.
    pub(crate) fn abort(&mut self, index: u32, down: Down) {
        self.failed.push((index, down));
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for &index in &dirty {
            self.conns[index as usize].dirty = false;
            if let Err(error) = self.flush_one(index) {
                self.failed
                    .push((index, Down::new(format!("SEND_{}", socket::error_name(&error)))));
            }
        }
        dirty.clear();
        self.dirty = dirty;
    }

    fn flush_one(&mut self, index: u32) -> io::Result<()> {
        let conn = &mut self.conns[index as usize];
        let Some(socket) = conn.socket.as_ref().filter(|_| !conn.blocked) else { return Ok(()) };
        while conn.out_sent < conn.out.len() {
            let Some(sent) = socket::send(socket, &conn.out[conn.out_sent..])? else {
                conn.blocked = true;
                return Ok(());
            };
            conn.out_sent += sent;
            self.stats.counters.sent_bytes += sent as u64;
        }
        let mut buffer = std::mem::take(&mut conn.out);
        conn.out_sent = 0;
        if self.pool.len() < POOL_MAX && buffer.capacity() <= 64 * 1024 {
            buffer.clear();
            self.pool.push(buffer);
        }
        Ok(())
    }

    /// Ends what failed during the turn.
    fn bury<H: Handler>(&mut self, handler: &mut H) {
        while let Some((index, down)) = self.failed.pop() {
            self.down(handler, index, &down);
        }
    }

    /// Says goodbye and closes everything.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        let abruptly = self.conns.len() * self.share.workers as usize > 10_000;
        let websocket = self.plan.options.protocol.is_websocket();
        for index in 0..self.share.connections() {
            if self.is_active(index) && !abruptly && websocket {
                self.send_frame(index, Opcode::Close, &1000_u16.to_be_bytes());
                // A goodbye that cannot be sent changes nothing.
                let _ = self.flush_one(index);
            }
            let conn = &mut self.conns[index as usize];
            if let Some(socket) = conn.socket.take_if(|_| abruptly) {
                socket::close_abruptly(&socket);
            }
            conn.socket = None;
            conn.phase = Phase::Dead;
        }
    }
}

fn take_buffer(pool: &mut Vec<Vec<u8>>, out: &mut Vec<u8>) {
    if out.capacity() == 0 {
        *out = pool.pop().unwrap_or_default();
    }
}
