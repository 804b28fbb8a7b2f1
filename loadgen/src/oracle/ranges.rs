//! A set of sequence numbers that is cheap while it has few holes.

use std::collections::VecDeque;

/// Sequence numbers from 1 that one receiver has: everything up to a mark, and ranges beyond it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    upto: u32,
    /// Inclusive, ascending, not touching each other nor `upto`.
    beyond: VecDeque<(u32, u32)>,
}

impl Ranges {
    /// Everything up to here is in the set.
    pub(super) fn upto(&self) -> u32 {
        self.upto
    }

    /// Whether a number above `upto` is in the set, so that there is a hole.
    pub(super) fn has_hole(&self) -> bool {
        !self.beyond.is_empty()
    }

    /// Adds a number; false when it was there.
    pub(super) fn insert(&mut self, seq: u32) -> bool {
        if seq <= self.upto {
            return false;
        }
        if seq == self.upto + 1 {
            self.upto = seq;
            self.absorb();
            return true;
        }
        self.insert_beyond(seq)
    }

    /// Adds everything up to a number.
    pub(super) fn skip_to(&mut self, seq: u32) {
        if seq > self.upto {
            self.upto = seq;
            self.absorb();
        }
    }

    fn absorb(&mut self) {
        while let Some(&(low, high)) = self.beyond.front() {
            if low > self.upto + 1 {
                return;
            }
            self.upto = self.upto.max(high);
            self.beyond.pop_front();
        }
    }

    fn insert_beyond(&mut self, seq: u32) -> bool {
        let at = self.beyond.partition_point(|&(low, _)| low <= seq);
        let left = at.checked_sub(1).and_then(|i| self.beyond.get(i).copied());
        let right = self.beyond.get(at).copied();
        if left.is_some_and(|(_, high)| seq <= high) {
            return false;
        }
        let joins_left = left.is_some_and(|(_, high)| high + 1 == seq);
        let joins_right = right.is_some_and(|(low, _)| seq + 1 == low);
        match (joins_left, joins_right) {
            (true, true) => {
                self.beyond[at - 1].1 = self.beyond[at].1;
                self.beyond.remove(at);
            }
            (true, false) => self.beyond[at - 1].1 = seq,
            (false, true) => self.beyond[at].0 = seq,
            (false, false) => self.beyond.insert(at, (seq, seq)),
        }
        true
    }

    /// How many of `1..=max` are not in the set.
    pub(super) fn missing(&self, max: u32) -> u32 {
        let beyond = self.beyond.iter().take_while(|&&(low, _)| low <= max);
        let present: u32 = beyond.map(|&(low, high)| high.min(max) - low + 1).sum();
        max - self.upto.min(max) - present
    }

    /// The lowest of `1..=max` that is not in the set.
    pub(super) fn first_missing(&self, max: u32) -> Option<u32> {
        (self.upto < max).then_some(self.upto + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in proptest::collection::vec(1_u32..60, 0..200), max in 0_u32..80) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), set.insert(number));
                let missing: Vec<u32> = (1..=max).filter(|n| !set.contains(n)).collect();
                prop_assert_eq!(ranges.missing(max) as usize, missing.len());
                prop_assert_eq!(ranges.first_missing(max), missing.first().copied());
                prop_assert_eq!(ranges.has_hole(), set.last().is_some_and(|&last| last > ranges.upto()));
            }
        }

        #[test]
        fn everything_in_any_order_leaves_no_range(seed: u64) {
            let mut numbers: Vec<u32> = (1..=200).collect();
            crate::rng::Rng::new(seed).shuffle(&mut numbers);
            let mut ranges = Ranges::default();
            for number in numbers {
                ranges.insert(number);
            }
            prop_assert_eq!(ranges.upto(), 200);
            prop_assert!(!ranges.has_hole());
        }
    }
}
