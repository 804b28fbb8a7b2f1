//! Hostile connections beside healthy ones: the healthy send heartbeats in an open loop all the time, first
//! alone, then with the hostile.

mod crowd;
mod kind;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::client::{Incoming, Request};
use crate::clock::{self, SECOND_NS};
use crate::net::{Handler, Net};
use crate::oracle::Verdict;
use crate::parts::{HostilePart, Part};
use crate::plan::{Plan, Share};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::stats::Latency;
use crowd::Crowd;

/// Heartbeats due within so short a time of each other are sent in one turn.
const COALESCE_NS: u64 = 200_000;
/// The gate behind which the hostile come: the server is looked at before.
const HOSTILE_COME: u32 = 1;
/// The gate before which they go.
const HOSTILE_GO: u32 = 2;

struct Hostile {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<HostilePart>>,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Alone,
    Together,
    Over,
}

/// The healthy connections of one worker.
pub(crate) struct Healthy {
    share: Share,
    stage: Stage,
    schedule: Option<Schedule>,
    /// When the hostile came.
    boundary_ns: u64,
    alone_until_ns: u64,
    last_ns: u64,
    /// Due times of heartbeats without answer.
    outstanding: Vec<VecDeque<u64>>,
    hostile: Option<Hostile>,
    failure: Option<String>,
    phases: [Latency; 2],
    part: HostilePart,
    /// Answered in the moment the set-up is complete, to warm up; not measured.
    draining: bool,
}

impl Healthy {
    pub(crate) fn new(_plan: &Plan, share: &Share) -> Self {
        Self {
            share: *share,
            stage: Stage::Alone,
            schedule: None,
            boundary_ns: u64::MAX,
            alone_until_ns: u64::MAX,
            last_ns: 0,
            outstanding: vec![VecDeque::new(); share.active as usize],
            hostile: None,
            failure: None,
            phases: Default::default(),
            part: HostilePart::default(),
            draining: false,
        }
    }

    fn beat(&mut self, net: &mut Net) {
        while let Some((number, due_ns)) =
            self.schedule.as_mut().and_then(|schedule| schedule.take_due(net.now_ns))
        {
            self.last_ns = net.now_ns;
            net.stats.counters.due += 1;
            let conn = (number % u64::from(self.share.active.max(1))) as u32;
            if net.is_active(conn) {
                net.stats.counters.sent += 1;
                net.stats.latencies.send_lag.record_ns(net.now_ns.saturating_sub(due_ns));
                self.outstanding[conn as usize].push_back(due_ns);
                net.request(conn, &Request::Heartbeat);
            } else {
                net.stats.counters.unsent += 1;
            }
        }
    }

    fn advance(&mut self, net: &mut Net) {
        match self.stage {
            Stage::Alone if net.now_ns >= self.alone_until_ns => {
                net.reach(HOSTILE_COME);
                let Some(opened_ns) = net.gates.opened_ns else { return };
                if net.now_ns < opened_ns {
                    return;
                }
                self.boundary_ns = net.now_ns;
                self.stage = Stage::Together;
                let (stop, crowd) =
                    (Arc::new(AtomicBool::new(false)), Crowd::new(&net.plan, &net.share));
                let stopped = Arc::clone(&stop);
                let thread = std::thread::spawn(move || crowd.run(&stopped));
                self.hostile = Some(Hostile { stop, thread });
            }
            Stage::Together => {
                let duration_ns = clock::duration_ns(net.plan.options.duration);
                let long_enough = net.now_ns >= self.boundary_ns.saturating_add(duration_ns);
                let gone = self.hostile.as_ref().is_none_or(|hostile| hostile.thread.is_finished());
                if gone && long_enough {
                    self.collect();
                    self.stage = Stage::Over;
                }
            }
            Stage::Alone | Stage::Over => {}
        }
    }

    /// Takes what the hostile measured.
    fn collect(&mut self) {
        let Some(hostile) = self.hostile.take() else { return };
        hostile.stop.store(true, Ordering::Relaxed);
        match hostile.thread.join() {
            Ok(Ok(part)) => self.part = part,
            Ok(Err(error)) => self.failure = Some(format!("HOSTILE: {error}")),
            Err(_) => self.failure = Some("HOSTILE: panicked".to_owned()),
        }
    }
}

impl Handler for Healthy {
    fn on_login(&mut self, _net: &mut Net, _conn: u32, _again: bool) {}

    fn on_incoming(&mut self, net: &mut Net, conn: u32, incoming: Incoming<'_>) {
        match incoming {
            Incoming::Heartbeat => {
                let Some(due_ns) = self.outstanding[conn as usize].pop_front() else { return };
                net.stats.counters.acked += 1;
                let latency_ns = net.now_ns.saturating_sub(due_ns);
                net.stats.latencies.ack.record_ns(latency_ns);
                self.phases[usize::from(due_ns >= self.boundary_ns)].record_ns(latency_ns);
            }
            Incoming::Failed(failure) => net.stats.error(&failure.name),
            _ => {}
        }
    }

    fn on_down(&mut self, _net: &mut Net, conn: u32) {
        self.outstanding[conn as usize].clear();
    }

    fn on_turn(&mut self, net: &mut Net) {
        self.beat(net);
        if self.schedule.is_some() {
            self.advance(net);
        }
    }

    fn wake_ns(&self) -> u64 {
        let due = self.schedule.as_ref().and_then(Schedule::peek_ns);
        due.map_or(u64::MAX, |due_ns| due_ns.max(self.last_ns + COALESCE_NS))
    }
}

impl Scenario for Healthy {
    fn begin_setup(&mut self, net: &mut Net) {
        // The hostile are not among the connections that it opens, and heartbeats are sent here.
        net.hold_extra();
        net.stop_heartbeats();
    }

    fn is_set_up(&self) -> bool {
        true
    }

    fn begin_load(&mut self, net: &mut Net, start_ns: u64) {
        let duration_ns = clock::duration_ns(net.plan.options.duration);
        self.alone_until_ns = start_ns.saturating_add(duration_ns);
        // It ends when the hostile are gone.
        let forever_ns = 86_400 * SECOND_NS;
        let rate = net.plan.options.rate;
        self.schedule = Some(Schedule::new(start_ns, forever_ns, rate, self.share.part()));
    }

    fn is_over(&self, _net: &Net) -> Option<bool> {
        Some(self.stage == Stage::Over)
    }

    fn begin_drain(&mut self, net: &mut Net) {
        self.collect();
        if let Some(schedule) = &mut self.schedule {
            schedule.cut(net.now_ns);
        }
        self.draining = true;
        net.reach(HOSTILE_GO);
    }

    fn is_drained(&self, net: &Net) -> bool {
        let settled = self.outstanding.iter().all(VecDeque::is_empty);
        self.draining && settled && net.gates.opened_ns.is_some()
    }

    fn begin_audit(&mut self, _net: &mut Net) {}

    fn is_audited(&self, _net: &Net) -> bool {
        true
    }

    fn finish(mut self, net: &mut Net) -> (Option<Verdict>, Option<Part>) {
        self.collect();
        if let Some(failure) = &self.failure {
            net.stats.error(failure);
            net.stats.counters.setup_failures += 1;
        }
        let counters = &mut net.stats.counters;
        counters.unsent += self.outstanding.iter().map(|due| due.len() as u64).sum::<u64>();
        self.part.phases = self.phases;
        (None, Some(Part::Hostile(Box::new(self.part))))
    }
}
