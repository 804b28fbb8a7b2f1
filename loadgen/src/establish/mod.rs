//! Logging in as fast as possible: a closed loop with a window of connections on their way.
//!
//! What a login costs the generator is on the same cores as the server, so it is kept small: the request
//! is written into one reused buffer and sent in the call that connects, readiness to write is not
//! watched, nothing is allocated, and answers that are the same as one already checked are compared only.

use std::io;
use std::time::Duration;

use crate::args::Login;
use crate::client::{Incoming, Protocol, Request};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::parts::{EstablishPart, Part};
use crate::plan::{Plan, Share};
use crate::procfs;
use crate::rest::Authenticator;
use crate::stats::Stats;
use crate::swarm::answers::{Answers, Form, Said};
use crate::swarm::requests::{Requests, Who};
use crate::swarm::{Drive, End, Opening, Swarm};
use crate::talk::{FromWorker, Link, Outcome};

/// Longest time from the start of connecting to being logged in.
const PATIENCE_NS: u64 = 20 * SECOND_NS;
/// Connections that share a token, within what a server allows one user.
const CONNECTIONS_A_USER: u32 = 16;
/// Between a round's end and the next one's beginning, for the server to take note.
const PAUSE: Duration = Duration::from_millis(300);

/// One connection.
#[derive(Clone, Copy, Default)]
struct Entry {
    since_ns: u64,
    form: Form,
    open: bool,
    logged_in: bool,
    /// The request could not be sent at once.
    unsent: bool,
}

struct Establish<'p> {
    plan: &'p Plan,
    share: Share,
    requests: Requests,
    answers: Answers,
    entries: Vec<Entry>,
    tokens: Vec<String>,
    name: String,
    out: Vec<u8>,
    stats: Stats,
    part: EstablishPart,
    in_flight: u32,
    /// Connections of this round that were started.
    started: u32,
}

/// Runs the scenario in one worker.
pub(crate) fn run(plan: &Plan, share: &Share, link: &mut Link<'_>) -> io::Result<Outcome> {
    let mut swarm = Swarm::new(plan, share.active, share.worker)?;
    let mut run = Establish::new(plan, *share);
    run.fetch_tokens(link)?;
    link.say(FromWorker::Ready(run.stats.counters));
    let mut outcome = Outcome::default();
    if let Some(start_ns) = link.wait_for_start()? {
        let total = plan.options.stress.total.unwrap_or(u64::from(plan.options.connections));
        let rounds = total.div_ceil(u64::from(plan.options.connections));
        for round in 1..=rounds {
            // Closing between the rounds is not in it.
            let cpu_ns = clock::thread_cpu_ns();
            run.round(&mut swarm, link)?;
            outcome.cpu_ns += clock::thread_cpu_ns() - cpu_ns;
            let last = round == rounds || link.stopped;
            if last {
                break;
            }
            run.close_all(&mut swarm);
            std::thread::sleep(PAUSE);
            let gate = u32::try_from(round).unwrap_or(u32::MAX);
            link.reach(gate);
            link.wait(|link| link.opened_ns(gate).is_some())?;
        }
        outcome.load_ns = clock::now_ns().saturating_sub(start_ns);
        outcome.connect_ns = run.part.rounds_ns.iter().sum();
        outcome.rss_bytes = procfs::usage(std::process::id()).map_or(0, |usage| usage.rss_bytes);
    }
    link.say(FromWorker::Drained);
    run.close_all(&mut swarm);
    outcome.part = Some(Part::Establish(run.part));
    outcome.stats = run.stats;
    Ok(outcome)
}

impl<'p> Establish<'p> {
    fn new(plan: &'p Plan, share: Share) -> Self {
        let requests = Requests::new(plan);
        Self {
            plan,
            share,
            answers: Answers::new(requests.nonce()),
            requests,
            entries: vec![Entry::default(); share.active as usize],
            tokens: Vec::new(),
            name: String::new(),
            out: Vec::with_capacity(8192),
            stats: Stats::default(),
            part: EstablishPart::default(),
            in_flight: 0,
            started: 0,
        }
    }

    /// Before the clock starts: hashing passwords costs more than everything that is measured.
    fn fetch_tokens(&mut self, link: &mut Link<'_>) -> io::Result<()> {
        if self.plan.options.login() != Login::Token {
            return Ok(());
        }
        let wanted = self.plan.options.stress.users.map(|users| users.div_ceil(self.share.workers));
        let wanted = wanted.unwrap_or(self.share.active.div_ceil(CONNECTIONS_A_USER));
        let users = wanted.min(self.share.active).max(1);
        let authenticator = Authenticator::start(self.plan);
        for user in 0..users {
            let name = self.plan.user_name(self.share.global(0) + user);
            authenticator.ask(user, name, false);
        }
        let deadline_ns = clock::now_ns() + clock::duration_ns(self.plan.options.setup_timeout);
        let mut missing = users;
        while missing > 0 && clock::now_ns() < deadline_ns && !link.stopped {
            link.poll(clock::now_ns(), &self.stats)?;
            match authenticator.answer() {
                Some((_, Ok(token))) => self.tokens.push(token),
                Some((_, Err(reason))) => self.stats.error(&format!("LOGIN: {reason}")),
                None => {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
            }
            missing -= 1;
        }
        if self.tokens.len() < users as usize {
            self.stats.counters.setup_failures += u64::from(users) - self.tokens.len() as u64;
        }
        Ok(())
    }

    fn round(&mut self, swarm: &mut Swarm, link: &mut Link<'_>) -> io::Result<()> {
        let begin_ns = clock::now_ns();
        let mut last_login_ns = begin_ns;
        let mut next_sweep_ns = begin_ns + SECOND_NS;
        let before = self.part.logins;
        self.started = 0;
        swarm.now_ns = begin_ns;
        let window = (self.plan.options.connect_in_flight / self.share.workers).max(1);
        while (self.started < self.share.active || self.in_flight > 0) && !link.stopped {
            while self.in_flight < window && self.started < self.share.active {
                self.start(swarm, self.started);
                self.started += 1;
            }
            let logins = self.part.logins;
            swarm.turn(self, swarm.now_ns + 100 * MILLISECOND_NS)?;
            if self.part.logins > logins {
                last_login_ns = swarm.now_ns;
            }
            link.poll(swarm.now_ns, &self.stats)?;
            if swarm.now_ns > next_sweep_ns {
                next_sweep_ns = swarm.now_ns + SECOND_NS;
                self.expire(swarm);
            }
        }
        if self.part.logins > before {
            self.part.rounds_ns.push(last_login_ns - begin_ns);
        }
        Ok(())
    }

    fn start(&mut self, swarm: &mut Swarm, slot: u32) {
        self.write_request(slot);
        let since_ns = clock::now_ns();
        let opening = Opening { first: &self.out, ..Opening::default() };
        match swarm.open(slot, self.share.global(slot), opening) {
            Ok(sent) => {
                self.in_flight += 1;
                self.entries[slot as usize] = Entry {
                    since_ns,
                    form: Form::first(self.plan.options.protocol),
                    open: true,
                    logged_in: false,
                    unsent: !sent,
                };
            }
            Err(error) => self.failed(&format!("CONNECT_{:?}", error.kind())),
        }
    }

    /// Writes what a connection sends first: everything at once.
    fn write_request(&mut self, slot: u32) {
        let global = self.share.global(slot);
        self.out.clear();
        let who = if self.tokens.is_empty() {
            self.plan.write_user_name(global, &mut self.name);
            Who::Name(&self.name)
        } else {
            Who::Token(&self.tokens[slot as usize % self.tokens.len()])
        };
        self.requests.open(&mut self.out, global, who);
        if self.plan.options.protocol == Protocol::Json {
            // A login by handshake is answered by silence; this is answered behind it.
            self.requests.request(&mut self.out, &Request::Heartbeat);
        }
    }

    fn failed(&mut self, name: &str) {
        self.stats.error(name);
        self.part.failed += 1;
        self.stats.counters.connect_failures += 1;
    }

    fn logged_in(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.logged_in = true;
        self.in_flight -= 1;
        self.part.logins += 1;
        self.stats.counters.established += 1;
        self.stats.counters.connected += 1;
        self.stats.latencies.connect.record_ns(clock::now_ns().saturating_sub(entry.since_ns));
    }

    /// Ends a connection that will not be what it should be.
    fn give_up(&mut self, swarm: &mut Swarm, slot: u32, name: &str) {
        swarm.close(slot, true);
        self.gone(slot, name);
    }

    fn gone(&mut self, slot: u32, name: &str) {
        self.answers.forget(slot);
        let entry = &mut self.entries[slot as usize];
        if !std::mem::take(&mut entry.open) {
            return;
        }
        if entry.logged_in {
            self.stats.error(name);
            self.stats.counters.disconnects += 1;
            self.stats.counters.connected -= 1;
        } else {
            self.in_flight -= 1;
            self.failed(name);
        }
    }

    fn expire(&mut self, swarm: &mut Swarm) {
        for slot in 0..self.started {
            let entry = &self.entries[slot as usize];
            let waits = entry.open && !entry.logged_in;
            if waits && swarm.now_ns.saturating_sub(entry.since_ns) > PATIENCE_NS {
                self.give_up(swarm, slot, "TIMEOUT");
            }
        }
    }

    fn close_all(&mut self, swarm: &mut Swarm) {
        for slot in 0..self.started {
            swarm.close(slot, true);
            self.entries[slot as usize].open = false;
        }
        self.stats.counters.connected = 0;
    }
}

impl Drive for Establish<'_> {
    fn on_writable(&mut self, swarm: &mut Swarm, slot: u32) {
        if std::mem::take(&mut self.entries[slot as usize].unsent) {
            self.write_request(slot);
            if swarm.send(slot, &self.out) < self.out.len() {
                self.give_up(swarm, slot, "SEND");
            }
        }
    }

    fn on_bytes(&mut self, swarm: &mut Swarm, slot: u32, bytes: &mut [u8]) {
        let entry = &mut self.entries[slot as usize];
        if entry.logged_in {
            return;
        }
        let json = self.plan.options.protocol == Protocol::Json;
        let (mut done, mut wrong) = (false, None);
        self.answers.read(slot, &mut entry.form, bytes, &mut |said| {
            match said {
                Said::Upgraded => return true,
                Said::Frame(Incoming::Heartbeat) if json => done = true,
                Said::Frame(Incoming::Welcome) if !json => done = true,
                Said::Frame(Incoming::Failed(failure)) => {
                    wrong = Some(format!("LOGIN_{}", failure.name))
                }
                Said::Frame(_) => return true,
                Said::Status(status) => wrong = Some(format!("STATUS_{status}")),
                Said::Close(code) => wrong = Some(format!("CLOSE_{code}")),
                Said::Nonsense(text) => wrong = Some(text),
            }
            false
        });
        if done {
            self.logged_in(slot);
        } else if let Some(name) = wrong {
            self.give_up(swarm, slot, &name);
        }
    }

    fn on_end(&mut self, _swarm: &mut Swarm, slot: u32, end: End) {
        self.gone(slot, &format!("CLOSED_{end:?}"));
    }
}
