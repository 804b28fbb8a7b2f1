//! Connections come and go in every way, many times over; the server must have nothing left of them.
//!
//! The first twentieth is the warm-up: it makes the users and lets the server's tables and pools grow.
//! The coordinator looks at the server after it and at the end.

mod kind;

use std::io;
use std::time::Duration;

use codec::ws::Opcode;

use crate::client::{Incoming, Request};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::parts::{ChurnPart, Part};
use crate::plan::{Plan, Share};
use crate::procfs;
use crate::stats::Stats;
use crate::swarm::answers::{Answers, Form, Said};
use crate::swarm::requests::{Requests, Who};
use crate::swarm::{Drive, End, Opening, Swarm};
use crate::talk::{FromWorker, Link, Outcome};
use kind::Kind;

/// A connection that lives longer is stuck.
const PATIENCE_NS: u64 = 20 * SECOND_NS;
/// For the server to see the last ones go before it is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// One part of so many is the warm-up.
const WARM_UP_PART: u64 = 20;
/// How far behind its pace a run may catch up.
const BURST_NS: u64 = 20 * MILLISECOND_NS;

/// One connection.
#[derive(Clone, Copy, Default)]
struct Entry {
    since_ns: u64,
    kind: Kind,
    form: Form,
    open: bool,
    /// The request could not be sent at once.
    unsent: bool,
    /// The close frame was sent, and the server's came.
    said_goodbye: bool,
    heard_goodbye: bool,
}

struct Churn<'p> {
    plan: &'p Plan,
    share: Share,
    requests: Requests,
    answers: Answers,
    goodbye: Vec<u8>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    name: String,
    out: Vec<u8>,
    stats: Stats,
    part: ChurnPart,
    /// Connections started, over warm-up and load.
    started: u64,
    pace_ns: u64,
    next_ns: u64,
}

/// Runs the scenario in one worker.
pub(crate) fn run(plan: &Plan, share: &Share, link: &mut Link<'_>) -> io::Result<Outcome> {
    let mut swarm = Swarm::new(plan, share.active, share.worker)?;
    let mut run = Churn::new(plan, *share);
    let total = plan.options.stress.total.unwrap_or(0);
    let (workers, worker) = (u64::from(share.workers), u64::from(share.worker));
    let mine = total * (worker + 1) / workers - total * worker / workers;
    let warm_up = mine / WARM_UP_PART;
    run.go(&mut swarm, link, warm_up)?;
    std::thread::sleep(SETTLE);
    run.part = ChurnPart { failed: run.part.failed, ..ChurnPart::default() };
    link.say(FromWorker::Ready(run.stats.counters));
    let mut outcome = Outcome::default();
    if let Some(start_ns) = link.wait_for_start()? {
        let cpu_ns = clock::thread_cpu_ns();
        run.go(&mut swarm, link, mine)?;
        outcome.load_ns = clock::now_ns().saturating_sub(start_ns);
        outcome.cpu_ns = clock::thread_cpu_ns() - cpu_ns;
        outcome.rss_bytes = procfs::usage(std::process::id()).map_or(0, |usage| usage.rss_bytes);
        std::thread::sleep(SETTLE);
    }
    link.say(FromWorker::Drained);
    outcome.part = Some(Part::Churn(run.part));
    outcome.stats = run.stats;
    Ok(outcome)
}

impl<'p> Churn<'p> {
    fn new(plan: &'p Plan, share: Share) -> Self {
        let requests = Requests::new(plan);
        let mut goodbye = Vec::new();
        requests.frame(&mut goodbye, Opcode::Close, &1000_u16.to_be_bytes());
        let rate = u64::from(plan.options.connect_rate);
        Self {
            plan,
            share,
            answers: Answers::new(requests.nonce()),
            requests,
            goodbye,
            entries: vec![Entry::default(); share.active as usize],
            free: (0..share.active).rev().collect(),
            name: String::new(),
            out: Vec::with_capacity(1024),
            stats: Stats::default(),
            part: ChurnPart::default(),
            started: 0,
            pace_ns: (SECOND_NS * u64::from(share.workers)).checked_div(rate).unwrap_or(0),
            next_ns: 0,
        }
    }

    /// Goes on until so many connections have come and gone.
    fn go(&mut self, swarm: &mut Swarm, link: &mut Link<'_>, until: u64) -> io::Result<()> {
        let mut next_sweep_ns = clock::now_ns() + SECOND_NS;
        swarm.now_ns = clock::now_ns();
        while (self.started < until || swarm.live() > 0) && !link.stopped {
            self.start_some(swarm, until);
            let waits_for_pace = self.pace_ns > 0 && !self.free.is_empty() && self.started < until;
            let pause_ns = swarm.now_ns + 100 * MILLISECOND_NS;
            let wake_ns = if waits_for_pace { self.next_ns.min(pause_ns) } else { pause_ns };
            swarm.turn(self, wake_ns)?;
            link.poll(swarm.now_ns, &self.stats)?;
            if swarm.now_ns > next_sweep_ns {
                next_sweep_ns = swarm.now_ns + SECOND_NS;
                self.expire(swarm);
            }
        }
        Ok(())
    }

    /// Few at a time, so that those under way are not left waiting.
    fn start_some(&mut self, swarm: &mut Swarm, until: u64) {
        for _ in 0..64 {
            if self.started >= until || self.next_ns > swarm.now_ns {
                return;
            }
            let Some(slot) = self.free.pop() else { return };
            self.next_ns = (self.next_ns + self.pace_ns).max(swarm.now_ns.saturating_sub(BURST_NS));
            let kind = Kind::of(self.started);
            self.started += 1;
            self.start(swarm, slot, kind);
        }
    }

    fn start(&mut self, swarm: &mut Swarm, slot: u32, kind: Kind) {
        self.write_request(slot, kind);
        let opening = Opening { first: &self.out, ..Opening::default() };
        self.entries[slot as usize] =
            Entry { since_ns: clock::now_ns(), kind, open: true, ..Entry::default() };
        match swarm.open(slot, self.share.global(slot), opening) {
            // With nothing to send, readiness tells that TCP stands.
            Ok(true) => self.on_sent(swarm, slot),
            Ok(false) => self.entries[slot as usize].unsent = true,
            Err(error) => self.fail(swarm, slot, &format!("CONNECT_{:?}", error.kind())),
        }
    }

    fn write_request(&mut self, slot: u32, kind: Kind) {
        self.out.clear();
        if matches!(kind, Kind::Connect | Kind::ResetConnected) {
            return;
        }
        let global = self.share.global(slot);
        // A user a slot, so that no user is there twice.
        self.plan.write_user_name(global, &mut self.name);
        let who = if kind.logs_in() { Who::Name(&self.name) } else { Who::Nobody };
        self.requests.open(&mut self.out, global, who);
        match kind {
            Kind::HalfHandshake => self.out.truncate(self.out.len() / 2),
            Kind::Login | Kind::ResetLoggedIn => {
                self.requests.request(&mut self.out, &Request::Heartbeat);
            }
            _ => {}
        }
    }

    fn on_sent(&mut self, swarm: &mut Swarm, slot: u32) {
        let kind = self.entries[slot as usize].kind;
        if kind.ends_when_sent() {
            swarm.close(slot, kind.is_abrupt());
            self.done(slot);
        }
    }

    fn done(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.open = false;
        let (kind, since_ns) = (entry.kind, entry.since_ns);
        self.answers.forget(slot);
        self.free.push(slot);
        *self.part.done.entry(kind.name().to_owned()).or_default() += 1;
        self.stats.counters.acked += 1;
        self.part.life.record_ns(clock::now_ns().saturating_sub(since_ns));
    }

    /// It did not go as meant.
    fn fail(&mut self, swarm: &mut Swarm, slot: u32, name: &str) {
        swarm.close(slot, true);
        let entry = &mut self.entries[slot as usize];
        if !std::mem::take(&mut entry.open) {
            return;
        }
        let kind = entry.kind;
        self.answers.forget(slot);
        self.free.push(slot);
        self.stats.error(&format!("{}: {name}", kind.name()));
        if name.starts_with("REFUSED") {
            self.part.refused += 1;
        } else {
            self.part.failed += 1;
        }
    }

    fn say_goodbye(&mut self, swarm: &mut Swarm, slot: u32) {
        self.entries[slot as usize].said_goodbye = true;
        if swarm.send(slot, &self.goodbye) < self.goodbye.len() {
            self.fail(swarm, slot, "SEND");
        }
    }

    fn expire(&mut self, swarm: &mut Swarm) {
        for slot in 0..self.share.active {
            let entry = &self.entries[slot as usize];
            if entry.open && swarm.now_ns.saturating_sub(entry.since_ns) > PATIENCE_NS {
                self.fail(swarm, slot, "TIMEOUT");
            }
        }
    }
}

/// What an answer means for its connection.
enum Turn {
    Nothing,
    Goodbye,
    Done,
    Fail(String),
}

fn meaning(kind: Kind, entry: &mut Entry, said: Said<'_>) -> Turn {
    match said {
        Said::Upgraded if kind == Kind::Upgrade => Turn::Goodbye,
        Said::Upgraded => Turn::Nothing,
        Said::Frame(Incoming::Heartbeat) if kind == Kind::Login => Turn::Goodbye,
        Said::Frame(Incoming::Heartbeat) => Turn::Done,
        Said::Close(1000) if entry.said_goodbye => {
            entry.heard_goodbye = true;
            Turn::Nothing
        }
        Said::Status(status @ (429 | 503)) => Turn::Fail(format!("REFUSED_{status}")),
        Said::Close(code @ 4100) => Turn::Fail(format!("REFUSED_{code}")),
        Said::Status(status) => Turn::Fail(format!("STATUS_{status}")),
        Said::Close(code) => Turn::Fail(format!("CLOSE_{code}")),
        Said::Nonsense(text) => Turn::Fail(text),
        Said::Frame(Incoming::Failed(failure)) => Turn::Fail(failure.name.into_owned()),
        Said::Frame(_) => Turn::Nothing,
    }
}

impl Drive for Churn<'_> {
    fn on_writable(&mut self, swarm: &mut Swarm, slot: u32) {
        if !std::mem::take(&mut self.entries[slot as usize].unsent) {
            return;
        }
        self.write_request(slot, self.entries[slot as usize].kind);
        if swarm.send(slot, &self.out) < self.out.len() {
            return self.fail(swarm, slot, "SEND");
        }
        self.on_sent(swarm, slot);
    }

    fn on_bytes(&mut self, swarm: &mut Swarm, slot: u32, bytes: &mut [u8]) {
        let entry = &mut self.entries[slot as usize];
        let (kind, mut form) = (entry.kind, entry.form);
        let mut turn = Turn::Nothing;
        self.answers.read(slot, &mut form, bytes, &mut |said| {
            turn = meaning(kind, entry, said);
            matches!(turn, Turn::Nothing)
        });
        entry.form = form;
        match turn {
            Turn::Nothing => {}
            Turn::Goodbye => self.say_goodbye(swarm, slot),
            Turn::Done => {
                swarm.close(slot, true);
                self.done(slot);
            }
            Turn::Fail(name) => self.fail(swarm, slot, &name),
        }
    }

    fn on_end(&mut self, swarm: &mut Swarm, slot: u32, end: End) {
        // The server closes first once both close frames are out.
        if self.entries[slot as usize].heard_goodbye && end == End::Fin {
            self.done(slot);
        } else {
            self.fail(swarm, slot, &format!("CLOSED_{end:?}"));
        }
    }
}
