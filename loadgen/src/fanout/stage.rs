//! The stages of a fan-out.

use super::{Fanout, QUIET_NS, gate};
use crate::args::Audit;
use crate::clock;
use crate::net::Net;
use crate::oracle::Verdict;
use crate::parts::Part;
use crate::scenario::Scenario;
use crate::stress::SlowBaseline;

/// How far a run is. Without slow readers there is only the first phase, and the worker ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    SetUp,
    /// The first phase, until this time.
    First(u64),
    /// Its last deliveries are awaited, then the other workers.
    FirstOver,
    /// The slow readers connect, unless they are there already.
    Gathering,
    /// The second phase, until this time.
    Second(u64),
    SecondOver,
    /// The slow readers wake up and read.
    Waking,
    Over,
}

impl Stage {
    /// Whether messages are sent at saturation.
    pub(super) fn sends(self) -> bool {
        matches!(self, Self::First(_) | Self::Second(_))
    }
}

impl Fanout {
    /// Whether everything sent is answered and has reached everybody who reads, or nothing more comes.
    fn is_settled(&self, net: &Net) -> bool {
        let quiet_ns = net.now_ns.saturating_sub(self.last_progress_ns);
        // Without the senders here there is no saying what is still to come.
        let knows = !self.senders.is_empty() || quiet_ns > QUIET_NS / 4;
        let readers = match self.stage {
            Stage::Second(_) | Stage::SecondOver => 0..self.share.active,
            _ if net.plan.options.stress.slow_baseline == SlowBaseline::Offline => {
                0..self.share.active
            }
            _ => 0..self.share.connections(),
        };
        quiet_ns > QUIET_NS || knows && self.all_answered() && self.oracle.have_all(0, readers)
    }

    pub(super) fn advance(&mut self, net: &mut Net) {
        match self.stage {
            Stage::First(end_ns) if self.has_slow(net) && net.now_ns >= end_ns => {
                self.stage = Stage::FirstOver;
            }
            Stage::FirstOver if self.is_settled(net) && passes(net, gate::FIRST_OVER) => {
                self.gather(net);
            }
            Stage::Gathering if self.are_gathered(net) && passes(net, gate::SLOW_READY) => {
                self.begin_second(net);
            }
            Stage::Second(end_ns) if net.now_ns >= end_ns => self.stage = Stage::SecondOver,
            Stage::SecondOver if self.is_settled(net) && passes(net, gate::SECOND_OVER) => {
                self.stage = Stage::Waking;
            }
            Stage::Waking => self.wake(net),
            Stage::Over => {
                self.drained = self.is_settled(net);
                if self.reading.is_none() && self.must_read_again() {
                    self.read_whole_history(net);
                }
            }
            _ => {}
        }
    }

    fn gather(&mut self, net: &mut Net) {
        self.stage = Stage::Gathering;
        if net.plan.options.stress.slow_baseline == SlowBaseline::Offline {
            self.slow.fall_asleep();
            for conn in self.slow.connections() {
                // What was sent while they were not there is not owed as a push.
                self.oracle.excuse(Self::seat(conn));
            }
            net.release_extra();
        }
    }

    /// Whether the slow readers stand, or some never will.
    fn are_gathered(&self, net: &Net) -> bool {
        self.slow.are_there() || net.is_settled()
    }

    fn begin_second(&mut self, net: &mut Net) {
        self.slow.fall_asleep();
        for conn in self.slow.connections() {
            net.pause(conn);
        }
        // The gate opened a moment ago, in all workers: what is due from then on is of this phase.
        let start_ns = net.now_ns;
        self.boundary_ns = net.gates.opened_ns.unwrap_or(start_ns);
        let duration_ns = clock::duration_ns(net.plan.options.duration);
        self.part.phase_ns[1] = duration_ns;
        self.stage = Stage::Second(start_ns.saturating_add(duration_ns));
        self.begin_phase(net, start_ns);
        self.pump_all(net);
    }

    fn wake(&mut self, net: &mut Net) {
        while let Some(conn) = self.slow.wake_next(net.now_ns) {
            if net.is_active(conn) {
                net.resume(conn);
            }
        }
        let (oracle, pulls, part) = (&self.oracle, &self.pulls, &mut self.part);
        self.slow.settle(
            net.now_ns,
            |conn| !pulls.contains_key(&conn) && oracle.have_all(0, conn..conn + 1),
            |time_ns| {
                if let Some(time_ns) = time_ns {
                    part.slow_complete += 1;
                    part.recovery.record_ns(time_ns);
                }
            },
        );
        if self.slow.are_settled() {
            self.stage = Stage::Over;
        }
    }
}

/// Comes to a gate; whether it is open, and what lies behind it has begun.
fn passes(net: &mut Net, gate: u32) -> bool {
    net.reach(gate);
    let open = net.gates.opened_ns.is_some_and(|opened_ns| net.now_ns >= opened_ns);
    open && net.gates.reached == gate
}

impl Scenario for Fanout {
    fn begin_setup(&mut self, net: &mut Net) {
        if let Some(joined) = self.joined.take() {
            net.stats.counters.setup_failures += joined.failed;
            for (name, count) in joined.errors {
                *net.stats.errors.entry(name).or_default() += count;
            }
        }
        let stress = &net.plan.options.stress;
        let (bytes, offline) =
            (stress.slow_rcvbuf as usize, stress.slow_baseline == SlowBaseline::Offline);
        net.bound_extra(bytes);
        if offline {
            net.hold_extra();
        }
    }

    fn is_set_up(&self) -> bool {
        true
    }

    fn begin_load(&mut self, net: &mut Net, start_ns: u64) {
        let duration_ns = clock::duration_ns(net.plan.options.duration);
        self.part.phase_ns[0] = duration_ns;
        self.stage = Stage::First(start_ns.saturating_add(duration_ns));
        self.last_progress_ns = net.now_ns;
        self.begin_phase(net, start_ns);
        self.pump_all(net);
    }

    fn is_over(&self, net: &Net) -> Option<bool> {
        self.has_slow(net).then_some(self.stage == Stage::Over)
    }

    fn begin_drain(&mut self, net: &mut Net) {
        self.end_phase(clock::now_ns());
        self.stage = Stage::Over;
        self.last_progress_ns = net.now_ns;
    }

    fn is_drained(&self, _net: &Net) -> bool {
        self.drained
    }

    fn begin_audit(&mut self, net: &mut Net) {
        if net.plan.options.audit != Audit::None && !self.senders.is_empty() {
            self.read_whole_history(net);
        }
    }

    fn is_audited(&self, net: &Net) -> bool {
        let patience_ns = clock::duration_ns(net.plan.options.drain);
        match self.reading {
            Some(reading) => net.now_ns.saturating_sub(reading.last_page_ns) > patience_ns,
            None => !self.must_read_again() && self.is_settled(net),
        }
    }

    fn finish(mut self, net: &mut Net) -> (Option<Verdict>, Option<Part>) {
        net.stats.counters.unsent = self.unsent();
        self.part.agreements = vec![self.oracle.agreement(0)];
        (Some(self.oracle.finish()), Some(Part::Fanout(Box::new(self.part))))
    }
}
