//! Everything that is drawn in a trial follows from one printed number.

/// A small generator (SplitMix64); good enough to choose moments and victims.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `from` to `to`, both included.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        let span = to.saturating_sub(from).saturating_add(1);
        from + self.next() % span
    }

    /// The numbers from 1 to `count` in a drawn order.
    pub(super) fn order(&mut self, count: u32) -> Vec<u32> {
        let mut numbers: Vec<u32> = (1..=count).collect();
        for at in (1..numbers.len()).rev() {
            let other = usize::try_from(self.between(0, at as u64)).unwrap_or(0);
            numbers.swap(at, other);
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_what_was_drawn() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            ((0..50).map(|_| random.between(3, 9)).collect::<Vec<_>>(), random.order(5))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let (numbers, mut order) = draw(7);
        assert!(numbers.iter().all(|number| (3..=9).contains(number)));
        assert!([3, 9].iter().all(|end| numbers.contains(end)), "{numbers:?}");
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3, 4, 5]);
    }
}
