//! One worker: its connections, its scenario, its stages, and its talk with the coordinator.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::args::Scenario as Kind;
use crate::chat::Chat;
use crate::clock::{self, SECOND_NS};
use crate::echo::Echo;
use crate::fanout::Fanout;
use crate::hostile::Healthy;
use crate::net::Net;
use crate::plan::{Plan, Share};
use crate::procfs;
use crate::scenario::{Idle, Scenario};
use crate::talk::{FromWorker, Link, Outcome, ToWorker};
use crate::{churn, establish, fanout};

/// Longest time for reading histories back.
pub(crate) const AUDIT_NS: u64 = 300 * SECOND_NS;
/// Longest time that a scenario of several phases may take beside sending.
pub(crate) const PHASES_NS: u64 = 600 * SECOND_NS;

/// Runs a worker until its result is known.
pub(crate) fn work(
    plan: Arc<Plan>,
    share: Share,
    inbox: &Receiver<ToWorker>,
    outbox: &mut dyn FnMut(FromWorker),
) -> io::Result<()> {
    let mut link = Link::new(inbox, outbox);
    let outcome = match plan.options.scenario {
        Kind::Idle => Worker::new(&plan, share, Idle, &mut link)?.run(),
        Kind::Echo => Worker::new(&plan, share, Echo::new(&plan, &share), &mut link)?.run(),
        Kind::Chat => Worker::new(&plan, share, Chat::new(&plan, &share), &mut link)?.run(),
        Kind::Fanout => {
            let joined = fanout::join(&plan, &share, &mut link)?;
            let scenario = Fanout::new(&plan, &share, joined);
            Worker::new(&plan, share, scenario, &mut link)?.run()
        }
        Kind::Hostile => Worker::new(&plan, share, Healthy::new(&plan, &share), &mut link)?.run(),
        Kind::Churn => churn::run(&plan, &share, &mut link),
        Kind::Establish => establish::run(&plan, &share, &mut link),
    }?;
    link.say(FromWorker::Done(Box::new(outcome)));
    Ok(())
}

struct Worker<'l, 'w, S> {
    net: Net,
    scenario: S,
    link: &'l mut Link<'w>,
}

impl<'l, 'w, S: Scenario> Worker<'l, 'w, S> {
    fn new(
        plan: &Arc<Plan>,
        share: Share,
        mut scenario: S,
        link: &'l mut Link<'w>,
    ) -> io::Result<Self> {
        let mut net = Net::new(Arc::clone(plan), share)?;
        scenario.begin_setup(&mut net);
        Ok(Self { net, scenario, link })
    }

    fn run(mut self) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let begin_ns = clock::now_ns();
        self.until(
            begin_ns + clock::duration_ns(self.net.plan.options.setup_timeout),
            Self::set_up_or_failed,
        )?;
        outcome.connect_ns = clock::now_ns() - begin_ns;
        self.link.say(FromWorker::Ready(self.net.stats.counters));
        self.until(u64::MAX, |worker| worker.link.start_ns.is_some() || worker.link.stopped)?;
        let start_ns = self.link.start_ns;
        if let Some(start_ns) = start_ns {
            self.until(start_ns, |worker| worker.link.stopped)?;
            self.load(start_ns, &mut outcome)?;
        }
        self.link.say(FromWorker::Drained);
        if start_ns.is_some() {
            self.scenario.begin_audit(&mut self.net);
            self.until(clock::now_ns() + AUDIT_NS, |worker| {
                worker.scenario.is_audited(&worker.net)
            })?;
        }
        (outcome.verdict, outcome.part) = self.scenario.finish(&mut self.net);
        self.net.close();
        outcome.stats = self.net.stats;
        Ok(outcome)
    }

    fn load(&mut self, start_ns: u64, outcome: &mut Outcome) -> io::Result<()> {
        let options = &self.net.plan.options;
        let (duration_ns, drain_ns) =
            (clock::duration_ns(options.duration), clock::duration_ns(options.drain));
        self.net.measured_from_ns = start_ns.saturating_add(clock::duration_ns(options.warmup));
        let cpu_ns = clock::thread_cpu_ns();
        self.scenario.begin_load(&mut self.net, start_ns);
        let end_ns = match self.scenario.is_over(&self.net) {
            None => start_ns.saturating_add(duration_ns),
            Some(_) => start_ns.saturating_add(duration_ns.saturating_mul(2) + PHASES_NS),
        };
        self.until(end_ns, |worker| {
            worker.link.stopped || worker.scenario.is_over(&worker.net) == Some(true)
        })?;
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
        self.link.stopped || self.net.is_settled() && (failed || self.scenario.is_set_up())
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
        let gates = &mut self.net.gates;
        self.link.reach(gates.reached);
        if gates.opened_ns.is_none() {
            gates.opened_ns = self.link.opened_ns(gates.reached);
        }
        self.link.poll(self.net.now_ns, &self.net.stats)
    }
}
