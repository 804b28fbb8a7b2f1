//! One worker: its connections, its scenario, its stages, and its talk with the coordinator.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use serde::{Deserialize, Serialize};

use crate::args::Scenario as Kind;
use crate::chat::Chat;
use crate::clock::{self, SECOND_NS};
use crate::echo::Echo;
use crate::net::Net;
use crate::oracle::Verdict;
use crate::plan::{Plan, Share};
use crate::procfs;
use crate::scenario::{Idle, Scenario};
use crate::stats::{Counters, Percentiles, Stats};

/// Longest time for reading histories back.
pub(crate) const AUDIT_NS: u64 = 300 * SECOND_NS;

/// What the coordinator says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// First of all, to worker processes.
    Assign(Box<(Plan, Share)>),
    /// The load runs from this time on.
    Go { start_ns: u64 },
    /// No more load.
    Stop,
}

/// What a worker says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// Set up, or as far as it went.
    Ready(Counters),
    /// Once a second.
    Tick { counters: Counters, ack: Percentiles },
    /// Load and drain are over.
    Drained,
    /// The result; nothing follows.
    Done(Box<Outcome>),
    /// It could not go on; nothing follows.
    Failed(String),
}

/// A worker's result.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) stats: Stats,
    pub(crate) verdict: Option<Verdict>,
    /// From the first connection to the last one's login.
    pub(crate) connect_ns: u64,
    /// How long the load ran.
    pub(crate) load_ns: u64,
    /// CPU time of the loop during load and drain.
    pub(crate) cpu_ns: u64,
    /// Resident memory of the worker's process at the end of the load.
    pub(crate) rss_bytes: u64,
}

/// Runs a worker until its result is known.
pub(crate) fn work(
    plan: Arc<Plan>,
    share: Share,
    inbox: &Receiver<ToWorker>,
    outbox: &mut dyn FnMut(FromWorker),
) -> io::Result<()> {
    let net = Net::new(Arc::clone(&plan), share)?;
    let outcome = match plan.options.scenario {
        Kind::Idle => Worker::new(net, Idle, inbox, outbox).run(),
        Kind::Echo => Worker::new(net, Echo::new(&plan, &share), inbox, outbox).run(),
        Kind::Chat => Worker::new(net, Chat::new(&plan, &share), inbox, outbox).run(),
    }?;
    outbox(FromWorker::Done(Box::new(outcome)));
    Ok(())
}

struct Worker<'w, S> {
    net: Net,
    scenario: S,
    inbox: &'w Receiver<ToWorker>,
    outbox: &'w mut dyn FnMut(FromWorker),
    start_ns: Option<u64>,
    stopped: bool,
    next_tick_ns: u64,
}

impl<'w, S: Scenario> Worker<'w, S> {
    fn new(
        net: Net,
        scenario: S,
        inbox: &'w Receiver<ToWorker>,
        outbox: &'w mut dyn FnMut(FromWorker),
    ) -> Self {
        Self { net, scenario, inbox, outbox, start_ns: None, stopped: false, next_tick_ns: 0 }
    }

    fn run(mut self) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let begin_ns = clock::now_ns();
        self.until(
            begin_ns + clock::duration_ns(self.net.plan.options.setup_timeout),
            Self::set_up_or_failed,
        )?;
        outcome.connect_ns = clock::now_ns() - begin_ns;
        (self.outbox)(FromWorker::Ready(self.net.stats.counters));
        self.until(u64::MAX, |worker| worker.start_ns.is_some() || worker.stopped)?;
        if let Some(start_ns) = self.start_ns {
            self.until(start_ns, |worker| worker.stopped)?;
            self.load(start_ns, &mut outcome)?;
        }
        (self.outbox)(FromWorker::Drained);
        if self.start_ns.is_some() {
            self.scenario.begin_audit(&mut self.net);
            self.until(clock::now_ns() + AUDIT_NS, |worker| {
                worker.scenario.is_audited(&worker.net)
            })?;
        }
        outcome.verdict = self.scenario.finish(&mut self.net);
        self.net.close();
        outcome.stats = self.net.stats;
        Ok(outcome)
    }

    fn load(&mut self, start_ns: u64, outcome: &mut Outcome) -> io::Result<()> {
        let options = &self.net.plan.options;
        let (duration_ns, drain_ns) =
            (clock::duration_ns(options.duration), clock::duration_ns(options.drain));
        let cpu_ns = clock::thread_cpu_ns();
        self.scenario.begin_load(&mut self.net, start_ns);
        self.until(start_ns.saturating_add(duration_ns), |worker| worker.stopped)?;
        outcome.load_ns = clock::now_ns().saturating_sub(start_ns);
        self.scenario.begin_drain(&mut self.net);
        self.until(clock::now_ns() + drain_ns, |worker| worker.scenario.is_drained(&worker.net))?;
        outcome.cpu_ns = clock::thread_cpu_ns() - cpu_ns;
        outcome.rss_bytes = procfs::usage(std::process::id()).map_or(0, |usage| usage.rss_bytes);
        Ok(())
    }

    /// Everything stands, or something will never stand.
    fn set_up_or_failed(&self) -> bool {
        let counters = &self.net.stats.counters;
        let broken = counters.disconnects > 0 && !self.net.plan.options.reconnect;
        let failed = counters.setup_failures > 0 || counters.connect_failures > 0 || broken;
        self.stopped || self.net.is_settled() && (failed || self.scenario.is_set_up())
    }

    /// Turns the loop until something holds or a time has come.
    fn until(&mut self, deadline_ns: u64, holds: impl Fn(&Self) -> bool) -> io::Result<()> {
        while !holds(self) && clock::now_ns() < deadline_ns {
            self.net.turn(&mut self.scenario, deadline_ns)?;
            self.talk()?;
        }
        Ok(())
    }

    fn talk(&mut self) -> io::Result<()> {
        match self.inbox.try_recv() {
            Ok(ToWorker::Go { start_ns }) => self.start_ns = Some(start_ns),
            Ok(ToWorker::Stop) => self.stopped = true,
            Ok(ToWorker::Assign(_)) | Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other("the coordinator is gone"));
            }
        }
        if self.net.now_ns >= self.next_tick_ns {
            self.next_tick_ns = self.net.now_ns + SECOND_NS;
            let ack = self.net.stats.latencies.ack.percentiles();
            (self.outbox)(FromWorker::Tick { counters: self.net.stats.counters, ack });
        }
        Ok(())
    }
}
