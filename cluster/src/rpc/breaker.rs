//! A circuit breaker: a pure state machine, time is an argument.
//!
//! Closed: everybody may ask. After `failures` failures in a row it opens: nobody may, for a
//! while. Then it is half open: a few may try. A success closes it, a failure opens it again for
//! twice as long.

use std::time::Duration;

/// When a circuit breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; 0 counts as 1.
    pub failures: u32,
    /// How long it stays open the first time.
    pub open_ms: u64,
    /// The longest it stays open; every failed trial doubles the time up to here.
    pub open_max_ms: u64,
    /// How many may try at the same time while it is half open; 0 counts as 1.
    pub trials: u32,
}

impl Default for BreakerSettings {
    fn default() -> BreakerSettings {
        BreakerSettings { failures: 5, open_ms: 500, open_max_ms: 10_000, trials: 1 }
    }
}

/// What a circuit breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// A few trials.
    HalfOpen,
    /// Nothing.
    Open,
}

/// How something that was let through has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// Nobody waited for the end: it says nothing.
    Abandoned,
}

/// Leave to ask; it is given back with the outcome.
#[derive(Debug)]
#[must_use = "a permit that is not given back blocks a trial for ever"]
pub(crate) struct Permit {
    /// The round in which it was given: outcomes of earlier rounds say nothing about this one.
    round: u64,
}

/// The state machine of one endpoint.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: BreakerSettings,
    round: u64,
    phase: Phase,
    /// How often it has opened without closing in between.
    reopened: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Duration },
    HalfOpen { trying: u32 },
}

impl Breaker {
    pub(crate) fn new(settings: BreakerSettings) -> Breaker {
        Breaker { settings, round: 0, phase: Phase::Closed { failures: 0 }, reopened: 0 }
    }

    /// What it lets through at `now` (time since any fixed moment).
    pub(crate) fn state(&self, now: Duration) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Asks for leave.
    pub(crate) fn permit(&mut self, now: Duration) -> Option<Permit> {
        match self.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until } if now < until => return None,
            Phase::Open { .. } => self.enter(Phase::HalfOpen { trying: 1 }),
            Phase::HalfOpen { trying } if trying >= self.settings.trials.max(1) => return None,
            Phase::HalfOpen { trying } => self.phase = Phase::HalfOpen { trying: trying + 1 },
        }
        Some(Permit { round: self.round })
    }

    /// Gives leave back.
    #[allow(clippy::needless_pass_by_value)] // A permit is good for one outcome.
    pub(crate) fn end(&mut self, now: Duration, permit: Permit, outcome: Outcome) {
        if permit.round != self.round {
            return;
        }
        match (self.phase, outcome) {
            (Phase::Closed { .. }, Outcome::Success) => self.phase = Phase::Closed { failures: 0 },
            (Phase::Closed { failures }, Outcome::Failure) => {
                self.phase = Phase::Closed { failures: failures + 1 };
                if failures + 1 >= self.settings.failures.max(1) {
                    self.open(now);
                }
            }
            (Phase::HalfOpen { .. }, Outcome::Success) => {
                self.reopened = 0;
                self.enter(Phase::Closed { failures: 0 });
            }
            (Phase::HalfOpen { .. }, Outcome::Failure) => self.open(now),
            (Phase::HalfOpen { trying }, Outcome::Abandoned) => {
                self.phase = Phase::HalfOpen { trying: trying.saturating_sub(1) };
            }
            (Phase::Closed { .. }, Outcome::Abandoned) | (Phase::Open { .. }, _) => {}
        }
    }

    fn open(&mut self, now: Duration) {
        let factor = 1_u64.checked_shl(self.reopened.min(63)).unwrap_or(u64::MAX);
        let longest = self.settings.open_max_ms.max(self.settings.open_ms);
        let open_ms = self.settings.open_ms.saturating_mul(factor).min(longest);
        self.reopened = self.reopened.saturating_add(1);
        self.enter(Phase::Open { until: now + Duration::from_millis(open_ms) });
    }

    fn enter(&mut self, phase: Phase) {
        self.round += 1;
        self.phase = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings =
        BreakerSettings { failures: 3, open_ms: 100, open_max_ms: 350, trials: 1 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn fail(breaker: &mut Breaker, now: Duration) {
        let permit = breaker.permit(now).expect("it lets this through");
        breaker.end(now, permit, Outcome::Failure);
    }

    #[test]
    fn it_opens_tries_and_closes() {
        let mut breaker = Breaker::new(SETTINGS);
        fail(&mut breaker, ms(0));
        fail(&mut breaker, ms(0));
        assert_eq!(breaker.state(ms(0)), BreakerState::Closed);
        fail(&mut breaker, ms(0));
        assert_eq!(breaker.state(ms(99)), BreakerState::Open);
        assert!(breaker.permit(ms(99)).is_none());
        assert_eq!(breaker.state(ms(100)), BreakerState::HalfOpen);
        let trial = breaker.permit(ms(100)).expect("a trial");
        assert!(breaker.permit(ms(100)).is_none(), "one at a time");
        breaker.end(ms(110), trial, Outcome::Success);
        assert_eq!(breaker.state(ms(110)), BreakerState::Closed);
    }

    #[test]
    fn failed_trials_make_it_wait_longer_up_to_a_bound() {
        let mut breaker = Breaker::new(SETTINGS);
        (0..3).for_each(|_| fail(&mut breaker, ms(0)));
        let mut now = 0;
        for open in [100, 200, 350, 350] {
            assert!(breaker.permit(ms(now + open - 1)).is_none());
            now += open;
            fail(&mut breaker, ms(now));
        }
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..10 {
            fail(&mut breaker, ms(0));
            fail(&mut breaker, ms(0));
            let permit = breaker.permit(ms(0)).expect("closed");
            breaker.end(ms(0), permit, Outcome::Success);
        }
        assert_eq!(breaker.state(ms(0)), BreakerState::Closed);
    }

    #[test]
    fn what_was_asked_before_it_opened_says_nothing_after() {
        let mut breaker = Breaker::new(SETTINGS);
        let early = breaker.permit(ms(0)).expect("closed");
        (0..3).for_each(|_| fail(&mut breaker, ms(0)));
        breaker.end(ms(1), early, Outcome::Success);
        assert_eq!(breaker.state(ms(1)), BreakerState::Open);
    }

    #[test]
    fn an_abandoned_trial_makes_room_for_another() {
        let mut breaker = Breaker::new(SETTINGS);
        (0..3).for_each(|_| fail(&mut breaker, ms(0)));
        let trial = breaker.permit(ms(100)).expect("a trial");
        breaker.end(ms(101), trial, Outcome::Abandoned);
        assert!(breaker.permit(ms(101)).is_some());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Ask,
        End(prop::sample::Index, u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_u64..400).prop_map(Step::Wait),
            Just(Step::Ask),
            (any::<prop::sample::Index>(), 0_u8..3).prop_map(|(at, how)| Step::End(at, how)),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever happens in whatever order: open lets nothing through, half open no more than
        /// the trials, it never stays shut for longer than the bound once trials are answered,
        /// and it opens only if as many failures as configured have been told since it closed.
        #[test]
        fn it_keeps_its_promises(steps in steps(), trials in 1_u32..4) {
            let settings = BreakerSettings { trials, ..SETTINGS };
            let mut breaker = Breaker::new(settings);
            let (mut now, mut held, mut failures) = (0, Vec::new(), 0);
            for step in steps {
                let before = breaker.state(ms(now));
                match step {
                    Step::Wait(by) => now += by,
                    Step::Ask => {
                        let permit = breaker.permit(ms(now));
                        if before == BreakerState::Open { prop_assert!(permit.is_none()); }
                        if before == BreakerState::Closed { prop_assert!(permit.is_some()); }
                        held.extend(permit);
                    }
                    Step::End(at, how) if !held.is_empty() => {
                        let permit = held.swap_remove(at.index(held.len()));
                        let outcome =
                            [Outcome::Success, Outcome::Failure, Outcome::Abandoned][how as usize];
                        failures += u32::from(outcome == Outcome::Failure);
                        breaker.end(ms(now), permit, outcome);
                        let after = breaker.state(ms(now));
                        if before == BreakerState::Closed && after == BreakerState::Open {
                            prop_assert!(failures >= settings.failures);
                        }
                        if after == BreakerState::Closed && before != BreakerState::Closed {
                            prop_assert_eq!(outcome, Outcome::Success);
                            failures = 0;
                        }
                    }
                    Step::End(..) => {}
                }
                let trying = held.iter().filter(|permit| permit.round == breaker.round).count();
                if breaker.state(ms(now)) == BreakerState::HalfOpen {
                    prop_assert!(trying <= trials as usize);
                }
            }
            // With nothing under way it lets something through after the longest wait.
            for permit in held { breaker.end(ms(now), permit, Outcome::Abandoned); }
            prop_assert!(breaker.permit(ms(now + settings.open_max_ms)).is_some());
        }
    }
}
