//! Reasons to fail.

use super::{ChurnReport, FanoutReport, HostileReport, StressReport};
use crate::args::Options;

/// Every sentence is a reason for exit code 1.
pub(crate) fn failures(report: &StressReport, options: &Options) -> Vec<String> {
    match report {
        StressReport::Fanout(report) => fanout_failures(report, options),
        StressReport::Churn(report) => churn_failures(report, options),
        StressReport::Hostile(report) => hostile_failures(report, options),
        StressReport::Establish(report) => {
            let all = options.stress.total.unwrap_or(u64::from(options.connections));
            let missing = all.saturating_sub(report.logins).max(report.failed);
            at_most(missing, 0, "connections did not log in").into_iter().collect()
        }
    }
}

fn at_most(count: u64, limit: u64, what: &str) -> Option<String> {
    (count > limit).then(|| format!("{count} {what} (allowed: {limit})"))
}

fn ratio_failure(ratio: Option<f64>, limit: f64) -> Option<String> {
    let ratio = ratio.filter(|&ratio| ratio > limit)?;
    Some(format!("p99 of the others grew by the factor {ratio:.2} (allowed: {limit})"))
}

fn fanout_failures(report: &FanoutReport, options: &Options) -> Vec<String> {
    let mut failures = Vec::new();
    if !report.agreed {
        failures.push("workers saw different messages under one number".to_owned());
    }
    if let Some(slow) = &report.slow {
        let incomplete = slow.readers.saturating_sub(slow.complete);
        failures.extend(at_most(incomplete, 0, "slow readers are not complete"));
        let limit = options.stress.max_p99_ratio.unwrap_or(2.0);
        failures.extend(ratio_failure(report.p99_ratio, limit));
        if report.p99_ratio.is_none() {
            failures.push("one of the two phases saw no delivery".to_owned());
        }
    }
    failures
}

fn churn_failures(report: &ChurnReport, options: &Options) -> Vec<String> {
    let mut failures = Vec::new();
    failures.extend(at_most(report.failed, 0, "connections did not go as meant"));
    failures.extend(at_most(report.refused, options.max_refused, "connections were refused"));
    if let Some((before, after)) = report.descriptors {
        failures.extend(at_most(
            after.saturating_sub(before),
            options.stress.max_growth_descriptors,
            "more descriptors are open in the server than after the warm-up",
        ));
    }
    if let Some((before, after)) = report.private_bytes {
        failures.extend(at_most(
            after.saturating_sub(before),
            options.stress.max_growth_bytes,
            "bytes more are held by the server than after the warm-up",
        ));
    }
    failures
}

fn hostile_failures(report: &HostileReport, options: &Options) -> Vec<String> {
    let stress = &options.stress;
    let latest_ms = stress.deadline_ms + stress.tolerance_ms;
    let mut failures = Vec::new();
    for (name, kind) in report.kinds.iter().filter(|(name, _)| *name != "ping_flood") {
        failures.extend(at_most(kind.open, 0, &format!("{name} connections were not closed")));
        failures.extend(at_most(kind.early, 0, &format!("{name} connections were closed early")));
        let latest = kind.closed_after_ms.map_or(0, |(.., last)| last);
        if latest > latest_ms {
            failures.push(format!("a {name} was closed after {latest} ms (allowed: {latest_ms})"));
        }
    }
    if let Some(limit) = stress.max_p99_ratio {
        failures.extend(ratio_failure(report.p99_ratio, limit));
    }
    if let Some(bytes) = report.server_bytes_each.filter(|&b| b > stress.max_hostile_bytes as f64) {
        failures.push(format!(
            "the server grew by {bytes:.0} bytes for each flooder (allowed: {})",
            stress.max_hostile_bytes
        ));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn options(line: &str) -> Options {
        Options::from_args(line.split_whitespace()).expect("a command line")
    }

    fn usage(cpu_s: f64, bytes: u64, descriptors: u64) -> Usage {
        Usage { cpu_s, anonymous_bytes: bytes, descriptors, ..Usage::default() }
    }

    fn marks(after: Usage) -> Marks {
        Marks { connected: Some(usage(1.0, 1000, 40)), after: Some(after), gates: Vec::new() }
    }

    #[test]
    fn a_churn_that_leaves_something_behind_fails() {
        let part = ChurnPart { done: [("x".to_owned(), 100)].into(), ..ChurnPart::default() };
        let judged = |after: Usage, line: &str| {
            let options = options(line);
            let report = report(&options, &Part::Churn(part.clone()), &marks(after), 2.0, 0.0);
            failures(&report, &options)
        };
        assert!(judged(usage(1.5, 1000, 40), "churn").is_empty());
        assert!(judged(usage(1.5, 900, 30), "churn").is_empty());
        assert_eq!(judged(usage(1.5, 1000, 41), "churn").len(), 1);
        assert!(judged(usage(1.5, 1000, 41), "churn --max-growth-descriptors 1").is_empty());
        assert_eq!(judged(usage(1.5, 1501, 40), "churn --max-growth-bytes 500").len(), 1);
        assert!(judged(usage(1.5, 1500, 40), "churn --max-growth-bytes 500").is_empty());
        let Marks { connected, after, .. } = marks(usage(1.5, 1000, 40));
        let each = cpu_us(connected, after, 100).expect("readings");
        assert!((each - 5000.0).abs() < 1e-6);
    }

    #[test]
    fn slow_readers_must_be_complete_and_the_others_unharmed() {
        let options = options("fanout --slow 2");
        let judged = |complete: u64, second_ns: u64, agreements: Vec<(u64, u32)>| {
            let mut part =
                FanoutPart { slow: 2, slow_complete: complete, agreements, ..Default::default() };
            part.phases[0].record_ns(1_000_000);
            part.phases[1].record_ns(second_ns);
            let part = Part::Fanout(Box::new(part));
            let report = report(&options, &part, &Marks::default(), 1.0, 1.0);
            failures(&report, &options)
        };
        assert!(judged(2, 1_900_000, vec![(1, 1), (1, 1)]).is_empty());
        assert_eq!(judged(1, 1_900_000, vec![]).len(), 1);
        assert_eq!(judged(2, 2_100_000, vec![]).len(), 1);
        assert_eq!(judged(2, 1_000_000, vec![(1, 1), (2, 1)]).len(), 1);
    }

    #[test]
    fn parts_of_workers_become_one() {
        let mut part = Part::Establish(EstablishPart {
            logins: 10,
            failed: 0,
            rounds_ns: vec![1_000_000_000],
        });
        part.merge(&Part::Establish(EstablishPart {
            logins: 20,
            failed: 1,
            rounds_ns: vec![500_000_000, 500_000_000],
        }));
        let options = options("establish --connections 15 --total 30");
        let report = report(&options, &part, &Marks::default(), 1.5, 0.3);
        assert_eq!(failures(&report, &options).len(), 1);
        let StressReport::Establish(report) = report else { panic!("an establish report") };
        assert_eq!((report.logins, report.failed), (30, 1));
        assert!((report.logins_per_s - 20.0).abs() < 1e-9);
        assert!((report.rounds_per_s[1] - 30.0).abs() < 1e-9);
        assert!((report.generator_cpu_us_each - 10_000.0).abs() < 1e-6);
    }

    #[test]
    fn the_hostile_must_be_closed_in_time() {
        let options = options("hostile --deadline-ms 1000 --tolerance-ms 100");
        let judged = |name: &str, change: fn(&mut HostileKind)| {
            let mut kind = HostileKind { count: 1, first_ms: Some(1000), ..Default::default() };
            kind.life.record_ns(1_000_000_000);
            change(&mut kind);
            let mut part = HostilePart::default();
            part.kinds.insert(name.to_owned(), kind);
            let part = Part::Hostile(Box::new(part));
            failures(&report(&options, &part, &Marks::default(), 1.0, 1.0), &options).len()
        };
        assert_eq!(judged("silent", |_| {}), 0);
        assert_eq!(judged("silent", |kind| kind.open = 1), 1);
        assert_eq!(judged("silent", |kind| kind.early = 1), 1);
        assert_eq!(judged("silent", |kind| kind.refused = 1), 0);
        assert_eq!(judged("silent", |kind| kind.life.record_ns(1_200_000_000)), 1);
        assert_eq!(judged("ping_flood", |kind| kind.open = 1), 0);
    }
}
