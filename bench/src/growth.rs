//! What one more connection costs, from readings taken while connections are opened.

use serde::Serialize;

/// A server's memory while it held this many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Open connections.
    pub connections: usize,
    /// Its anonymous pages, in bytes.
    pub anonymous_bytes: u64,
}

/// Bytes per connection over the steps in which the process grew.
///
/// A server gives memory back at moments of its own choosing, such as what its start needed; a
/// step with such a moment in it says nothing about connections and is left out. Sudden growth
/// (a table that doubles) stays in. Where memory goes up and down by itself, the figure errs
/// upwards.
#[must_use]
pub fn per_connection(readings: &[Reading]) -> f64 {
    let (mut bytes, mut connections) = (0, 0);
    for step in readings.windows(2) {
        let grown = step[1].anonymous_bytes.saturating_sub(step[0].anonymous_bytes);
        if step[1].anonymous_bytes >= step[0].anonymous_bytes {
            bytes += grown;
            connections += step[1].connections.saturating_sub(step[0].connections);
        }
    }
    if connections == 0 { 0.0 } else { bytes as f64 / connections as f64 }
}

/// Cuts `total` into `steps` parts that differ by at most one.
#[must_use]
pub fn parts(total: usize, steps: usize) -> Vec<usize> {
    let steps = steps.clamp(1, total.max(1));
    (0..steps).map(|step| total * (step + 1) / steps - total * step / steps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(list: &[(usize, u64)]) -> Vec<Reading> {
        list.iter()
            .map(|&(connections, anonymous_bytes)| Reading { connections, anonymous_bytes })
            .collect()
    }

    #[test]
    fn steady_growth_is_found_whatever_was_there_before() {
        let steady = readings(&[(0, 9_000), (10, 10_000), (20, 11_000)]);
        assert_eq!(per_connection(&steady), 100.0);
        assert_eq!(per_connection(&steady[..1]), 0.0);
    }

    #[test]
    fn memory_given_back_hides_nothing() {
        let given_back = readings(&[(0, 9_000), (10, 10_000), (20, 1_000), (30, 2_000)]);
        assert_eq!(per_connection(&given_back), 100.0);
    }

    #[test]
    fn a_table_that_doubles_counts() {
        let doubled = readings(&[(0, 0), (10, 1_000), (20, 4_000), (30, 5_000)]);
        assert_eq!(per_connection(&doubled), 5_000.0 / 30.0);
    }

    #[test]
    fn quiet_steps_count_too() {
        assert_eq!(per_connection(&readings(&[(0, 0), (10, 1_000), (20, 1_000)])), 50.0);
    }

    #[test]
    fn parts_add_up() {
        assert_eq!(parts(10, 3), [3, 3, 4]);
        assert_eq!(parts(2, 5), [1, 1]);
        assert_eq!(parts(7, 1), [7]);
        assert_eq!(parts(7, 0), [7]);
    }
}
