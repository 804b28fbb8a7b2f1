//! When each message is due: an open loop. The times follow from the rate alone, never from how fast the
//! server answers, so a stalled server shows up as latency and not as a lower rate.

use crate::clock::SECOND_NS;

/// Which part of the run's messages a worker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Connections here that take part.
    pub active: u32,
    /// Connections of the whole run that take part.
    pub total: u32,
    /// Which worker, from 0.
    pub worker: u32,
    /// Of how many.
    pub workers: u32,
}

/// The due times of one worker: its part of the rate, phase-shifted against the other workers so that
/// together they make an even stream.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    duration_ns: u64,
    /// Messages a second of the whole run.
    rate: u64,
    part: Part,
    taken: u64,
}

impl Schedule {
    /// The part of one worker in a run of `rate` messages a second; 0: nothing is ever due.
    #[must_use]
    pub fn new(start_ns: u64, duration_ns: u64, rate: u64, part: Part) -> Self {
        Self { start_ns, duration_ns, rate, part, taken: 0 }
    }

    /// When the next message is due, or `None` when all have been taken.
    #[must_use]
    pub fn peek_ns(&self) -> Option<u64> {
        let Part { active, total, worker, workers } = self.part;
        let divisor = u128::from(self.rate) * u128::from(active) * u128::from(workers);
        if divisor == 0 {
            return None;
        }
        let number = u128::from(self.taken) * u128::from(workers) + u128::from(worker);
        let offset = number * u128::from(SECOND_NS) * u128::from(total) / divisor;
        let offset = u64::try_from(offset).ok().filter(|&offset| offset < self.duration_ns)?;
        Some(self.start_ns + offset)
    }

    /// Takes the next message if it is due at `now_ns`: its number in this worker and its due time.
    pub fn take_due(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let due_ns = self.peek_ns().filter(|&due| due <= now_ns)?;
        let number = self.taken;
        self.taken += 1;
        Some((number, due_ns))
    }

    /// Ends the run at `now_ns`: nothing due later is sent.
    pub fn cut(&mut self, now_ns: u64) {
        self.duration_ns = self.duration_ns.min(now_ns.saturating_sub(self.start_ns));
    }

    /// Messages taken so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: Part = Part { active: 8, total: 8, worker: 0, workers: 1 };

    fn all(mut schedule: Schedule) -> Vec<u64> {
        std::iter::from_fn(|| schedule.take_due(u64::MAX)).map(|(_, due)| due).collect()
    }

    #[test]
    fn a_run_has_rate_times_duration_messages() {
        let due = all(Schedule::new(5, 2 * SECOND_NS, 1000, WHOLE));
        assert_eq!(due.len(), 2000);
        assert_eq!((due[0], due[1], due[1000]), (5, 1_000_005, SECOND_NS + 5));
    }

    #[test]
    fn nothing_is_taken_before_it_is_due() {
        let mut schedule = Schedule::new(100, SECOND_NS, 10, WHOLE);
        assert_eq!(schedule.take_due(99), None);
        assert_eq!(schedule.take_due(100), Some((0, 100)));
        assert_eq!(schedule.take_due(100), None);
        assert_eq!(schedule.peek_ns(), Some(100_000_100));
    }

    #[test]
    fn a_late_caller_gets_everything_with_its_own_due_time() {
        let mut schedule = Schedule::new(0, SECOND_NS, 1000, WHOLE);
        let late: Vec<_> = std::iter::from_fn(|| schedule.take_due(3_000_000)).collect();
        assert_eq!(late, [(0, 0), (1, 1_000_000), (2, 2_000_000), (3, 3_000_000)]);
    }

    #[test]
    fn a_cut_schedule_ends() {
        let mut schedule = Schedule::new(0, 10 * SECOND_NS, 10, WHOLE);
        schedule.cut(SECOND_NS);
        assert_eq!(all(schedule).len(), 10);
    }

    #[test]
    fn rate_zero_has_no_schedule() {
        assert_eq!(Schedule::new(0, SECOND_NS, 0, WHOLE).peek_ns(), None);
    }

    proptest! {
        #[test]
        fn equal_workers_together_are_the_whole_run(rate in 1_u64..5000, workers in 1_u32..9) {
            let whole = all(Schedule::new(0, SECOND_NS, rate, WHOLE));
            let part = |worker| Part { active: 3, total: 3 * workers, worker, workers };
            let mut parts: Vec<u64> = (0..workers)
                .flat_map(|worker| all(Schedule::new(0, SECOND_NS, rate, part(worker))))
                .collect();
            parts.sort_unstable();
            prop_assert_eq!(parts, whole);
        }

        #[test]
        fn each_worker_sends_by_its_connections(rate in 100_u64..5000, active in 0_u32..100, rest in 1_u32..100) {
            let part = Part { active, total: active + rest, worker: 1, workers: 2 };
            let sent = all(Schedule::new(0, 10 * SECOND_NS, rate, part)).len() as f64;
            let owed = rate as f64 * 10.0 * f64::from(active) / f64::from(active + rest);
            prop_assert!((sent - owed).abs() <= 1.0, "{} of {}", sent, owed);
        }
    }
}
