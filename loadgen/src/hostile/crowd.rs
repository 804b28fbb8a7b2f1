//! The hostile connections, in a loop of their own beside the healthy ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use codec::ws::Opcode;

use super::kind::Kind;
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::parts::HostilePart;
use crate::plan::{Plan, Share};
use crate::swarm::answers::{Answers, Form, Said};
use crate::swarm::requests::{Requests, Who};
use crate::swarm::{Drive, End, Opening, Swarm};

/// Started a turn, so that all stand within a second or two.
const START_AT_A_TIME: u32 = 64;
const TICK_NS: u64 = 25 * MILLISECOND_NS;
/// Longest payload of a ping.
const PING: [u8; 125] = [b'p'; 125];
/// A never-reading connection's receive buffer.
const DEAF_BYTES: usize = 4096;

/// One connection.
#[derive(Clone, Debug, Default)]
struct Entry {
    kind: Kind,
    since_ns: u64,
    next_ns: u64,
    /// Bytes of the script already sent (floods: of the batch in hand).
    at: u32,
    form: Form,
    open: bool,
    blocked: bool,
    /// How the server said goodbye before it closed.
    told: Option<String>,
}

/// The hostile connections of one worker.
pub(super) struct Crowd {
    plan: Arc<Plan>,
    share: Share,
    requests: Requests,
    answers: Answers,
    entries: Vec<Entry>,
    started: u32,
    /// A whole handshake, without its last line end.
    handshake: Vec<u8>,
    pings: Vec<u8>,
    out: Vec<u8>,
    part: HostilePart,
}

impl Crowd {
    pub(super) fn new(plan: &Arc<Plan>, share: &Share) -> Self {
        let mut requests = Requests::new(plan);
        let mut handshake = Vec::new();
        requests.open(&mut handshake, 0, Who::Nobody);
        handshake.truncate(handshake.len() - 2);
        let stress = &plan.options.stress;
        let mut pings = Vec::new();
        // Twenty batches a second.
        for _ in 0..(stress.flood_rate / 20).max(1) {
            requests.frame(&mut pings, Opcode::Ping, &PING);
        }
        Self {
            answers: Answers::new(requests.nonce()),
            requests,
            entries: vec![Entry::default(); share.idle as usize],
            started: 0,
            handshake,
            pings,
            out: Vec::new(),
            part: HostilePart::default(),
            plan: Arc::clone(plan),
            share: *share,
        }
    }

    /// Runs until every connection with a deadline is closed or overdue, or `stop` is set.
    pub(super) fn run(mut self, stop: &AtomicBool) -> io::Result<HostilePart> {
        // Sources apart from those of other workers.
        let mut swarm =
            Swarm::new(&self.plan, self.share.idle, self.share.worker + self.share.workers)?;
        let stress = self.plan.options.stress.clone();
        let patience_ns = (stress.deadline_ms + stress.tolerance_ms) * MILLISECOND_NS;
        let mut over_ns = u64::MAX;
        while !stop.load(Ordering::Relaxed) {
            let tick_ns = swarm.now_ns + if self.started < self.share.idle { 0 } else { TICK_NS };
            swarm.turn(&mut self, tick_ns)?;
            self.start_some(&mut swarm);
            self.act(&mut swarm);
            if over_ns == u64::MAX && self.started == self.share.idle {
                // Somewhat longer than anything may take, to see how late what is late is.
                over_ns = swarm.now_ns + patience_ns + SECOND_NS;
            }
            if swarm.now_ns > over_ns || self.all_closed() {
                break;
            }
        }
        self.close_the_books(&mut swarm);
        Ok(self.part)
    }

    /// Floods go on as long as there is anything else, and the whole time when there is nothing else.
    fn all_closed(&self) -> bool {
        let floods_only = self.plan.options.stress.hostile == 0;
        let waits = |entry: &Entry| entry.open && (floods_only || entry.kind.has_deadline());
        self.started == self.share.idle && !self.entries.iter().any(waits)
    }

    fn start_some(&mut self, swarm: &mut Swarm) {
        for _ in 0..START_AT_A_TIME {
            if self.started == self.share.idle {
                return;
            }
            self.start(swarm, self.started);
            self.started += 1;
        }
    }

    fn start(&mut self, swarm: &mut Swarm, slot: u32) {
        let global = self.share.global(slot + self.share.active);
        let number = global - self.plan.options.connections;
        let kind = if number < self.plan.options.stress.hostile {
            Kind::without_login(number)
        } else {
            Kind::PingFlood
        };
        let books = self.part.kinds.entry(kind.name().to_owned()).or_default();
        books.count += 1;
        self.out.clear();
        match kind {
            Kind::HalfOpen => self.requests.open(&mut self.out, global, Who::Nobody),
            Kind::PingFlood => {
                let name = self.plan.user_name(global);
                self.requests.open(&mut self.out, global, Who::Name(&name));
            }
            _ => {}
        }
        let flood = kind == Kind::PingFlood;
        let opening = Opening {
            first: &self.out,
            receive_bytes: flood.then_some(DEAF_BYTES),
            deaf: flood,
            watch_writable: flood,
        };
        let since_ns = clock::now_ns();
        match swarm.open(slot, global, opening) {
            Ok(_) => {
                books.sent_bytes += self.out.len() as u64;
                let next_ns = kind.interval_ns().map_or(u64::MAX, |interval| since_ns + interval);
                self.entries[slot as usize] =
                    Entry { kind, since_ns, next_ns, open: true, ..Entry::default() };
            }
            Err(error) => {
                *books.ends.entry(format!("connect {:?}", error.kind())).or_default() += 1
            }
        }
    }

    /// Everybody whose time has come does the next thing.
    fn act(&mut self, swarm: &mut Swarm) {
        for slot in 0..self.started {
            let entry = &mut self.entries[slot as usize];
            if !entry.open || entry.next_ns > swarm.now_ns {
                continue;
            }
            let (kind, at) = (entry.kind, entry.at as usize);
            entry.next_ns += kind.interval_ns().unwrap_or(0);
            match kind {
                Kind::SlowHeader => self.next_line(swarm, slot, at),
                Kind::Drip if at < self.handshake.len() => {
                    self.send(swarm, slot, at, at + 1);
                }
                Kind::PingFlood => self.flood(swarm, slot),
                _ => {}
            }
        }
    }

    /// The next line of the handshake; when there is none left, headers that mean nothing.
    fn next_line(&mut self, swarm: &mut Swarm, slot: u32, at: usize) {
        let rest = &self.handshake[at..];
        let end = rest.iter().position(|&byte| byte == b'\n').map(|end| at + end + 1);
        match end {
            Some(end) => self.send(swarm, slot, at, end),
            None => {
                let sent = swarm.send(slot, b"X-And-Another: one\r\n");
                self.count_sent(slot, sent);
            }
        }
    }

    /// Sends a part of the handshake.
    fn send(&mut self, swarm: &mut Swarm, slot: u32, from: usize, to: usize) {
        let sent = swarm.send(slot, &self.handshake[from..to]);
        self.entries[slot as usize].at = (from + sent) as u32;
        self.count_sent(slot, sent);
    }

    fn count_sent(&mut self, slot: u32, sent: usize) {
        let name = self.entries[slot as usize].kind.name();
        if let Some(books) = self.part.kinds.get_mut(name) {
            books.sent_bytes += sent as u64;
        }
    }

    /// The next batch of pings, unless the server stopped taking them; a cut batch is continued.
    fn flood(&mut self, swarm: &mut Swarm, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        if entry.blocked {
            return;
        }
        let rest = &self.pings[entry.at as usize..];
        let sent = swarm.send(slot, rest);
        entry.blocked = sent < rest.len();
        entry.at = if entry.blocked { entry.at + sent as u32 } else { 0 };
        self.count_sent(slot, sent);
    }

    fn closed(&mut self, slot: u32, how: &str, now_ns: u64) {
        let stress = &self.plan.options.stress;
        let earliest_ms = stress.deadline_ms.saturating_sub(stress.tolerance_ms);
        let entry = &mut self.entries[slot as usize];
        self.answers.forget(slot);
        if !std::mem::take(&mut entry.open) {
            return;
        }
        let told = entry.told.take();
        let refused = told.as_deref().is_some_and(is_refusal);
        let way = told.map_or_else(|| how.to_owned(), |told| format!("{told}, {how}"));
        let life_ns = now_ns.saturating_sub(entry.since_ns);
        let kind = entry.kind;
        let Some(books) = self.part.kinds.get_mut(kind.name()) else { return };
        *books.ends.entry(way).or_default() += 1;
        if refused {
            books.refused += 1;
            return;
        }
        let life_ms = life_ns / MILLISECOND_NS;
        books.early += u64::from(kind.has_deadline() && life_ms < earliest_ms);
        books.first_ms = Some(books.first_ms.map_or(life_ms, |first| first.min(life_ms)));
        books.life.record_ns(life_ns);
    }

    fn close_the_books(&mut self, swarm: &mut Swarm) {
        for slot in 0..self.started {
            let entry = &self.entries[slot as usize];
            if entry.open
                && let Some(books) = self.part.kinds.get_mut(entry.kind.name())
            {
                books.open += 1;
            }
            swarm.close(slot, true);
        }
    }
}

/// A server that is full may turn connections away at the door.
fn is_refusal(told: &str) -> bool {
    ["status 429", "status 503", "close 4100"].contains(&told)
}

impl Drive for Crowd {
    fn on_writable(&mut self, swarm: &mut Swarm, slot: u32) {
        if std::mem::take(&mut self.entries[slot as usize].blocked) {
            self.flood(swarm, slot);
        }
    }

    fn on_bytes(&mut self, _swarm: &mut Swarm, slot: u32, bytes: &mut [u8]) {
        let entry = &mut self.entries[slot as usize];
        let mut form = entry.form;
        let mut told = None;
        self.answers.read(slot, &mut form, bytes, &mut |said| {
            match said {
                Said::Status(status) => told = Some(format!("status {status}")),
                Said::Close(code) => told = Some(format!("close {code}")),
                Said::Nonsense(text) => told = Some(text),
                Said::Upgraded | Said::Frame(_) => {}
            }
            told.is_none()
        });
        entry.form = form;
        if entry.told.is_none() {
            entry.told = told;
        }
    }

    fn on_end(&mut self, swarm: &mut Swarm, slot: u32, end: End) {
        let how = match end {
            End::Fin => "closed".to_owned(),
            End::Reset => "reset".to_owned(),
            End::Error(kind) => format!("{kind:?}"),
        };
        self.closed(slot, &how, swarm.now_ns);
    }
}
