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

/// Many figures, sorted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Distribution(Vec<f64>);

impl Distribution {
    /// Of at least one figure.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        (!sorted.is_empty()).then_some(Self(sorted))
    }

    /// The figure below which this share lies: 0 gives the smallest, 0.5 the median, 1 the largest. Between two figures
    /// in proportion.
    pub(super) fn at(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        let place = share.clamp(0.0, 1.0) * last as f64;
        let below = self.0[place as usize];
        let above = self.0[(place as usize + 1).min(last)];
        below + (above - below) * place.fract()
    }

    /// The median, the quartiles and the range, as `0.750 | 0.721-0.790 | 0.651-0.853`.
    pub(super) fn cells(&self, decimals: usize) -> String {
        let [min, low, median, high, max] = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| self.at(share));
        format!(
            "{median:.decimals$} | {low:.decimals$}-{high:.decimals$} | {min:.decimals$}-{max:.decimals$}"
        )
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
    beside_units(series, subject).iter().map(|(cost, unit)| cost / unit).collect()
}

/// The ratio of all that `subject` cost to the mean of all that the units beside it did. Measurements count by what they
/// cost, so that a slow minute weighs more than a fast one; but what is told in coarse steps adds up to something
/// fine.
pub(super) fn ratio_of_sums(series: &[Sample], subject: usize) -> Option<f64> {
    let pairs = beside_units(series, subject);
    let (cost, unit) = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    (!pairs.is_empty()).then_some(cost / unit)
}

/// The costs of `subject`, in order, each with the mean of the units right before and after.
fn beside_units(series: &[Sample], subject: usize) -> Vec<(f64, f64)> {
    let unit_cost = |sample: &Sample| (sample.subject == 0).then_some(sample.cost);
    let is_unit = |sample: &Sample| sample.subject == 0;
    let mut pairs = Vec::new();
    for (at, sample) in series.iter().enumerate() {
        let (earlier, later) = (&series[..at], &series[at + 1..]);
        // Two units side by side are the seam between two sets of servers.
        let at_seam = earlier.last().is_some_and(is_unit) || later.first().is_some_and(is_unit);
        if sample.subject != subject || (is_unit(sample) && at_seam) {
            continue;
        }
        let before = earlier.iter().rev().find_map(unit_cost);
        let after = later.iter().find_map(unit_cost);
        if let (Some(before), Some(after)) = (before, after) {
            pairs.push((sample.cost, f64::midpoint(before, after)));
        }
    }
    pairs
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
        let two_sets = [series, series].concat();
        assert_eq!(ratios(&two_sets, 0), [2.0, 2.0], "none across the seam");
        assert_eq!(ratios(&two_sets, 1).len(), 4);
    }

    #[test]
    fn sums_weigh_by_cost_and_take_the_same_neighbours() {
        let series =
            [sample(0, 1.0), sample(1, 1.0), sample(0, 3.0), sample(1, 9.0), sample(0, 5.0)];
        // Ratios of 0.5 and 2.25; in sum 10 to 6.
        assert_eq!(ratios(&series, 1), [0.5, 2.25]);
        assert_eq!(ratio_of_sums(&series, 1), Some(10.0 / 6.0));
        assert_eq!(ratio_of_sums(&series, 0), Some(1.0), "the inner unit beside the outer ones");
        assert_eq!(ratio_of_sums(&series, 2), None);
        assert_eq!(ratio_of_sums(&series[..2], 1), None, "no unit after it");
    }

    #[test]
    fn shares_of_a_distribution() {
        assert_eq!(Distribution::of([]), None);
        let figures = Distribution::of([5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!(
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| figures.at(share)),
            [1.0, 2.0, 3.0, 4.0, 5.0]
        );
        assert!((figures.at(0.1) - 1.4).abs() < 1e-9);
        assert_eq!(figures.cells(1), "3.0 | 2.0-4.0 | 1.0-5.0");
        let even = Distribution::of([1.0, 2.0]).unwrap();
        assert_eq!(even.at(0.5), 1.5);
        assert_eq!(Distribution::of([7.0]).unwrap().at(0.9), 7.0);
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
