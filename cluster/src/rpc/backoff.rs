//! How long to wait before asking again.

use std::time::Duration;

/// The wait before the `attempt`th repetition (counted from 0): doubled each time up to `longest`,
/// and of that between a half and all, by `random`, so that many callers do not come back at once.
pub(crate) fn wait(first: Duration, longest: Duration, attempt: u32, random: u32) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
    let full = doubled.min(longest);
    let share = 0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX);
    full.mul_f64(share)
}

/// Chance; without entropy everybody waits equally long.
pub(crate) fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(attempt: u32, random: u32) {
            let (first, longest) = (Duration::from_millis(10), Duration::from_millis(200));
            let wait = wait(first, longest, attempt, random);
            prop_assert!(wait >= first / 2 && wait <= longest);
        }
    }

    #[test]
    fn it_grows() {
        let at =
            |attempt| wait(Duration::from_millis(8), Duration::from_secs(9), attempt, u32::MAX);
        assert_eq!(at(0), Duration::from_millis(8));
        assert_eq!(at(3), Duration::from_millis(64));
        assert_eq!(at(99), Duration::from_secs(9));
    }
}
