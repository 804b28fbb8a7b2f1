//! Ratios to neighbouring measurements of a yardstick.
//!
//! Machines are shared and drift by a factor of two within a minute, so a time alone proves
//! nothing. Each measurement is divided by the mean of the two units measured right before and
//! right after it.

/// Median and range of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    /// The middle one, or the mean of the two middle ones.
    pub(super) median: f64,
    /// The smallest.
    pub(super) min: f64,
    /// The largest.
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Some(Self { median, min, max })
    }

    /// As `0.750 (0.651-0.853)`.
    pub(super) fn show(self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.decimals$} ({min:.decimals$}-{max:.decimals$})")
    }
}

/// One measurement of a series: who was measured, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// 0 is the unit.
    pub(super) subject: usize,
    /// CPU nanoseconds a message.
    pub(super) cost: f64,
}

/// The ratios of `subject` to the mean of the neighbouring units, in order. For the unit
/// itself: each inner one to the mean of the units before and after it, which shows the noise.
pub(super) fn ratios(series: &[Sample], subject: usize) -> Vec<f64> {
    let unit_cost = |sample: &Sample| (sample.subject == 0).then_some(sample.cost);
    let mut ratios = Vec::new();
    for (at, sample) in series.iter().enumerate() {
        let before = series[..at].iter().rev().find_map(unit_cost);
        let after = series[at + 1..].iter().find_map(unit_cost);
        if let (true, Some(before), Some(after)) = (sample.subject == subject, before, after) {
            ratios.push(sample.cost / f64::midpoint(before, after));
        }
    }
    ratios
}

/// What one costs in terms of another, round by round: both as ratios to the units around them, so
/// that a drift between the two measurements of a round cancels out.
pub(super) fn quotients(ones: &[f64], others: &[f64]) -> Vec<f64> {
    ones.iter().zip(others).map(|(one, other)| one / other).collect()
}

/// Who is measured when: a unit between any two candidates, and candidates in turned order
/// every other round, so that a drift hits all of them alike.
pub(super) fn order(candidates: usize, rounds: usize) -> Vec<usize> {
    let mut order = vec![0];
    for round in 0..rounds {
        for place in 0..candidates {
            let candidate = if round % 2 == 0 { place } else { candidates - 1 - place };
            order.extend([candidate + 1, 0]);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(subject: usize, cost: f64) -> Sample {
        Sample { subject, cost }
    }

    #[test]
    fn the_median_stands_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(odd.show(2), "2.00 (1.00-3.00)");
    }

    #[test]
    fn a_drift_cancels_out() {
        // The machine gets slower and slower; the candidate costs half a unit throughout.
        let series: Vec<_> = (0..9)
            .map(|at| {
                let speed = 1.0 + f64::from(at) * 0.1;
                if at % 2 == 0 { sample(0, speed) } else { sample(1, speed / 2.0) }
            })
            .collect();
        let ratios = ratios(&series, 1);
        assert_eq!(ratios.len(), 4);
        assert!(ratios.iter().all(|ratio| (ratio - 0.5).abs() < 1e-9), "{ratios:?}");
    }

    #[test]
    fn a_unit_is_compared_with_other_units() {
        let series =
            [sample(0, 1.0), sample(1, 9.0), sample(0, 3.0), sample(1, 9.0), sample(0, 2.0)];
        assert_eq!(ratios(&series, 0), [2.0]);
    }

    #[test]
    fn rounds_are_divided_pairwise() {
        assert_eq!(quotients(&[1.0, 3.0], &[2.0, 2.0]), [0.5, 1.5]);
        assert_eq!(quotients(&[1.0], &[]), [0.0; 0]);
    }

    #[test]
    fn candidates_turn_and_units_surround_them() {
        assert_eq!(order(1, 3), [0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(order(2, 2), [0, 1, 0, 2, 0, 2, 0, 1, 0]);
    }
}
