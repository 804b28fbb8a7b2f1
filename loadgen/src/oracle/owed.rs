//! Messages that a member found by asking although nobody had told it to: owed as pushes until the server
//! says why they were not.

use std::collections::VecDeque;

/// A run of sequence numbers, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    low: u32,
    high: u32,
    /// When the pull that found them was over.
    since_ns: u64,
}

/// The pull goes on.
const NOT_YET: u64 = u64::MAX;

/// What one member found and is still owed.
#[derive(Clone, Debug, Default)]
pub(super) struct Owed(VecDeque<Run>);

impl Owed {
    /// A pull that nobody had asked for gave this one.
    pub(super) fn found(&mut self, seq: u32) {
        match self.0.back_mut() {
            Some(last) if last.high + 1 == seq && last.since_ns == NOT_YET => last.high = seq,
            _ => self.0.push_back(Run { low: seq, high: seq, since_ns: NOT_YET }),
        }
    }

    /// The pull is over.
    pub(super) fn found_all(&mut self, now_ns: u64) {
        for run in self.0.iter_mut().filter(|run| run.since_ns == NOT_YET) {
            run.since_ns = now_ns;
        }
    }

    /// It was pushed after all.
    pub(super) fn pushed(&mut self, seq: u32) {
        let Some(at) = self.0.iter().position(|run| (run.low..=run.high).contains(&seq)) else {
            return;
        };
        let run = self.0[at];
        let rest = [Run { high: seq - 1, ..run }, Run { low: seq + 1, ..run }];
        self.0.remove(at);
        for rest in rest.into_iter().rev().filter(|rest| rest.low <= rest.high) {
            self.0.insert(at, rest);
        }
    }

    /// The server says that pushes were left out from this one on.
    pub(super) fn told(&mut self, from_seq: u32) {
        self.0.retain_mut(|run| {
            run.high = run.high.min(from_seq.saturating_sub(1));
            run.low <= run.high
        });
    }

    /// How many there are, and the first of them.
    pub(super) fn all(&self) -> Option<(u64, u32)> {
        count(&self.0)
    }

    /// The same of those that were found by pulls that were over before some time; they are forgotten.
    pub(super) fn take_before(&mut self, before_ns: u64) -> Option<(u64, u32)> {
        let (old, new): (VecDeque<Run>, _) =
            self.0.drain(..).partition(|run| run.since_ns < before_ns);
        self.0 = new;
        count(&old)
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn count(runs: &VecDeque<Run>) -> Option<(u64, u32)> {
    let first = runs.front()?.low;
    Some((runs.iter().map(|run| u64::from(run.high - run.low + 1)).sum(), first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_what_was_found_and_neither_pushed_nor_told_of(steps in proptest::collection::vec((0..3, 1_u32..40), 0..100)) {
            let (mut owed, mut set) = (Owed::default(), BTreeSet::new());
            for (step, seq) in steps {
                match step {
                    0 if set.insert(seq) => owed.found(seq),
                    0 => {}
                    1 => {
                        set.remove(&seq);
                        owed.pushed(seq);
                    }
                    _ => {
                        set.split_off(&seq);
                        owed.told(seq);
                    }
                }
                prop_assert_eq!(owed.is_empty(), set.is_empty());
            }
            let count = owed.all().map_or(0, |(count, _)| count);
            prop_assert_eq!(count, set.len() as u64);
        }
    }

    #[test]
    fn what_is_old_is_told_from_what_is_new() {
        let mut owed = Owed::default();
        (5..8).for_each(|seq| owed.found(seq));
        owed.found_all(100);
        // Right behind, by another pull.
        owed.found(8);
        assert_eq!(owed.take_before(100), None);
        assert_eq!(owed.all(), Some((4, 5)));
        assert_eq!(owed.take_before(101), Some((3, 5)));
        assert_eq!(owed.take_before(1_000_000), None, "its pull goes on");
        owed.found_all(200);
        assert_eq!(owed.take_before(201), Some((1, 8)));
        assert!(owed.is_empty());
    }
}
