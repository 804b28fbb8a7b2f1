//! What a run comes to, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::args::{Options, Scenario};
use crate::oracle::{Fault, Verdict};
use crate::parts::Part;
use crate::plan::Plan;
use crate::procfs::Usage;
use crate::stats::{Counters, Percentiles, Stats};
use crate::stress_report::{self, Mark, Marks, StressReport};
use crate::talk::Outcome;

/// Readings of the server process, when its pid was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerReadings {
    pub(crate) before: Option<Usage>,
    pub(crate) connected: Option<Usage>,
    pub(crate) after: Option<Usage>,
    pub(crate) connections: u64,
    /// At the gates, beginning with the first; `None` without a pid.
    pub(crate) gates: Vec<Option<Mark>>,
}

/// The result of a run; `--json` writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether every threshold and the oracle are satisfied.
    pub passed: bool,
    /// Why not.
    pub failures: Vec<String>,
    /// The options as given.
    pub options: BTreeMap<String, serde_json::Value>,
    /// Repeats the load.
    pub seed: u64,
    /// Part of the names of all users and groups of this run.
    pub tag: String,
    /// From the first connection to the last login, in seconds.
    pub connect_s: f64,
    /// Connections established a second.
    pub connects_per_s: f64,
    /// How long the load ran, in seconds.
    pub load_s: f64,
    /// Chat, echo: the part of it, at its beginning, whose messages have no latencies here, in seconds.
    #[serde(default)]
    pub warmup_s: f64,
    /// First sends a second of the load.
    pub sent_per_s: f64,
    /// Acknowledgements a second of the load.
    pub acked_per_s: f64,
    /// First deliveries to other members a second of the load.
    pub delivered_per_s: f64,
    /// Counts.
    pub counters: Counters,
    /// Errors by name.
    pub errors: BTreeMap<String, u64>,
    /// Distributions.
    pub latency: LatencyReport,
    /// Chat: the oracle's verdict.
    pub oracle: Option<Verdict>,
    /// Fanout, churn, hostile, establish: what only these measure.
    pub stress: Option<StressReport>,
    /// The generator itself.
    pub generator: GeneratorUse,
    /// The server's process.
    pub server: Option<ServerUse>,
}

/// All distributions of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// From the start of connecting to being logged in.
    pub connect: Percentiles,
    /// From due to acknowledged (echo: back again).
    pub ack: Percentiles,
    /// From due to pushed to another member.
    pub delivery: Percentiles,
    /// From due to handed to the kernel for the first time.
    pub send_lag: Percentiles,
    /// From heartbeat to answer.
    pub heartbeat: Percentiles,
    /// How long holes were open that a pull closed.
    pub gap_fill: Percentiles,
}

/// What the generator cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorUse {
    /// Workers.
    pub workers: u64,
    /// CPU of all event loops during load and drain, in seconds.
    pub cpu_s: f64,
    /// The same per message sent, in microseconds; covers sending, the answer and all deliveries.
    pub cpu_us_per_message: f64,
    /// Largest resident memory of a worker's process.
    pub rss_bytes: u64,
}

/// What the server cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerUse {
    /// CPU during load and drain, in seconds.
    pub cpu_s: f64,
    /// The same per acknowledged message, in microseconds; 0 without messages.
    pub cpu_us_per_message: f64,
    /// Share of one core during load and drain of an idle run.
    pub rss_before_bytes: u64,
    /// Resident memory once all connections stood.
    pub rss_connected_bytes: u64,
    /// Resident memory at the end.
    pub rss_after_bytes: u64,
    /// Growth of anonymous memory while connecting, per connection; may be below 0 by noise.
    pub bytes_per_connection: f64,
    /// The same up to the end of the load.
    pub bytes_per_connection_after: f64,
}

impl Report {
    pub(crate) fn new(plan: &Plan, outcomes: Vec<Outcome>, readings: &ServerReadings) -> Self {
        let mut stats = Stats::default();
        let mut oracle: Option<Verdict> = None;
        let mut part: Option<Part> = None;
        let workers = outcomes.len() as u64;
        let longest = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).max().unwrap_or(0);
        let (connect_ns, load_ns) = (longest(|o| o.connect_ns), longest(|o| o.load_ns));
        let (cpu_ns, rss_bytes) =
            (outcomes.iter().map(|o| o.cpu_ns).sum::<u64>(), longest(|o| o.rss_bytes));
        for outcome in &outcomes {
            stats.merge(&outcome.stats);
            if let Some(verdict) = &outcome.verdict {
                oracle.get_or_insert_default().merge(verdict);
            }
            match (&mut part, &outcome.part) {
                (Some(part), Some(other)) => part.merge(other),
                (part @ None, other) => *part = other.clone(),
                (Some(_), None) => {}
            }
        }
        let counters = stats.counters;
        let (connect_s, load_s) = (seconds(connect_ns), seconds(load_ns));
        let cpu_s = seconds(cpu_ns);
        let marks = Marks {
            connected: readings.connected,
            after: readings.after,
            gates: readings.gates.clone(),
        };
        let stress =
            part.map(|part| stress_report::report(&plan.options, &part, &marks, load_s, cpu_s));
        let mut report = Self {
            options: options_map(&plan.options),
            seed: plan.seed,
            tag: plan.tag.clone(),
            connect_s,
            connects_per_s: per(counters.established as f64, connect_s),
            load_s,
            warmup_s: plan.options.warmup.as_secs_f64(),
            sent_per_s: per(counters.sent as f64, load_s),
            acked_per_s: per(counters.acked as f64, load_s),
            delivered_per_s: per(counters.delivered as f64, load_s),
            latency: latency(&stats),
            errors: stats.errors,
            generator: GeneratorUse {
                workers,
                cpu_s,
                cpu_us_per_message: per(cpu_s * 1e6, counters.sent as f64),
                rss_bytes,
            },
            server: server_use(readings, counters.acked),
            counters,
            oracle,
            stress,
            ..Self::default()
        };
        report.failures = failures(&report, &plan.options);
        report.passed = report.failures.is_empty();
        report
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn per(value: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { value / divisor } else { 0.0 }
}

fn options_map(options: &Options) -> BTreeMap<String, serde_json::Value> {
    let value = serde_json::to_value(options).unwrap_or_default();
    serde_json::from_value(value).unwrap_or_default()
}

fn latency(stats: &Stats) -> LatencyReport {
    let latencies = &stats.latencies;
    LatencyReport {
        connect: latencies.connect.percentiles(),
        ack: latencies.ack.percentiles(),
        delivery: latencies.delivery.percentiles(),
        send_lag: latencies.send_lag.percentiles(),
        heartbeat: latencies.heartbeat.percentiles(),
        gap_fill: latencies.gap_fill.percentiles(),
    }
}

fn server_use(readings: &ServerReadings, acked: u64) -> Option<ServerUse> {
    let (before, connected) = (readings.before?, readings.connected?);
    let after = readings.after.unwrap_or(connected);
    let cpu_s = (after.cpu_s - connected.cpu_s).max(0.0);
    let grown = |usage: Usage| usage.anonymous_bytes as f64 - before.anonymous_bytes as f64;
    Some(ServerUse {
        cpu_s,
        cpu_us_per_message: per(cpu_s * 1e6, acked as f64),
        rss_before_bytes: before.rss_bytes,
        rss_connected_bytes: connected.rss_bytes,
        rss_after_bytes: after.rss_bytes,
        bytes_per_connection: per(grown(connected), readings.connections as f64),
        bytes_per_connection_after: per(grown(after), readings.connections as f64),
    })
}

/// Every sentence is a reason for exit code 1.
fn failures(report: &Report, options: &Options) -> Vec<String> {
    let mut failures = Vec::new();
    let mut limit = |count: u64, limit: u64, what: &str| {
        if count > limit {
            failures.push(format!("{count} {what} (allowed: {limit})"));
        }
    };
    let counters = &report.counters;
    let wanted = match options.scenario {
        Scenario::Churn | Scenario::Establish => 0,
        Scenario::Hostile => u64::from(options.connections),
        _ => u64::from(options.connections) + u64::from(options.extra_connections()),
    };
    limit(wanted.saturating_sub(counters.established), 0, "connections were not established");
    limit(counters.setup_failures, 0, "conversations could not be made");
    let disconnects =
        options.max_disconnects.unwrap_or(if options.reconnect { u64::MAX } else { 0 });
    limit(counters.disconnects, disconnects, "connections broke");
    limit(counters.refused, options.max_refused, "messages were refused");
    let unanswered =
        report.oracle.as_ref().map_or(0, |verdict| verdict.unanswered) + counters.unsent;
    limit(unanswered, options.max_unanswered, "messages have no final answer or were never sent");
    limit(counters.echo_lost, options.max_lost, "messages did not come back");
    limit(counters.echo_disordered, 0, "messages came back out of order or twice");
    limit(counters.echo_corrupt, 0, "messages came back changed");
    if options.scenario == Scenario::Idle {
        limit(counters.heartbeats_missed, 0, "heartbeats were not answered");
    }
    if let Some(verdict) = &report.oracle {
        limit(verdict.unaudited, 0, "conversations with something open could not be read back");
        for &fault in Fault::ALL {
            limit(
                verdict.count(fault),
                allowed(fault, options),
                &format!("times {}", fault.name()),
            );
        }
    }
    let sends = !matches!(options.scenario, Scenario::Idle | Scenario::Churn | Scenario::Establish);
    if sends && counters.sent == 0 {
        failures.push("no message was sent".to_owned());
    }
    match &report.stress {
        Some(stress) => failures.extend(stress_report::failures(stress, options)),
        None if stress_report::is_expected(options.scenario) => {
            failures.push("the load never began".to_owned());
        }
        None => {}
    }
    failures.extend(slow(report, options));
    failures
}

fn allowed(fault: Fault, options: &Options) -> u64 {
    match fault {
        Fault::Lost => options.max_lost,
        Fault::Duplicate => options.max_duplicates,
        Fault::Missed => options.max_missed,
        _ => 0,
    }
}

fn slow(report: &Report, options: &Options) -> Vec<String> {
    let Some(max_ms) = options.max_p99_ms else { return Vec::new() };
    let latency = &report.latency;
    let named = match options.scenario {
        Scenario::Idle => vec![("heartbeat", latency.heartbeat)],
        Scenario::Echo => vec![("echo", latency.ack)],
        Scenario::Chat => vec![("ack", latency.ack), ("delivery", latency.delivery)],
        Scenario::Fanout => vec![("delivery", latency.delivery)],
        Scenario::Hostile => vec![("heartbeat", latency.ack)],
        Scenario::Churn | Scenario::Establish => vec![("connect", latency.connect)],
    };
    let over = named.into_iter().filter(|(_, p)| p.p99_us as f64 > max_ms * 1000.0);
    over.map(|(name, p)| {
        format!("{name} p99 is {:.3} ms (allowed: {max_ms})", p.p99_us as f64 / 1000.0)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(line: &str, change: impl FnOnce(&mut Report)) -> Vec<String> {
        let options = Options::from_args(line.split_whitespace()).expect("a command line");
        let mut report = Report::default();
        report.counters.established = u64::from(options.connections);
        report.counters.sent = 1;
        change(&mut report);
        failures(&report, &options)
    }

    fn fault(report: &mut Report, fault: Fault, count: u64) {
        let verdict = report.oracle.get_or_insert_default();
        verdict.faults.insert(fault.name().to_owned(), count);
    }

    #[test]
    fn a_quiet_run_passes() {
        assert_eq!(judged("chat", |_| {}), Vec::<String>::new());
    }

    #[test]
    fn every_fault_fails_and_its_threshold_permits() {
        for &each in Fault::ALL {
            assert_eq!(judged("chat", |r| fault(r, each, 1)).len(), 1, "{each:?}");
        }
        assert!(judged("chat --max-lost 2", |r| fault(r, Fault::Lost, 2)).is_empty());
        assert!(!judged("chat --max-lost 2", |r| fault(r, Fault::Lost, 3)).is_empty());
        assert!(judged("chat --max-duplicates 1", |r| fault(r, Fault::Duplicate, 1)).is_empty());
        assert!(judged("chat --max-missed 1", |r| fault(r, Fault::Missed, 1)).is_empty());
    }

    #[test]
    fn counters_fail_too() {
        type Change = fn(&mut Counters);
        let cases: [(&str, Change); 8] = [
            ("chat", |c| c.established -= 1),
            ("chat", |c| c.disconnects = 1),
            ("chat", |c| c.refused = 1),
            ("chat", |c| c.unsent = 1),
            ("chat", |c| c.sent = 0),
            ("echo", |c| c.echo_lost = 1),
            ("echo", |c| c.echo_disordered = 1),
            ("idle", |c| c.heartbeats_missed = 1),
        ];
        for (line, change) in cases {
            assert_eq!(judged(line, |r| change(&mut r.counters)).len(), 1, "{line}");
        }
        assert!(judged("chat --reconnect", |r| r.counters.disconnects = 5).is_empty());
        assert!(
            !judged("chat --reconnect --max-disconnects 4", |r| r.counters.disconnects = 5)
                .is_empty()
        );
    }

    #[test]
    fn p99_is_a_threshold_for_acks_and_deliveries() {
        let failures = judged("chat --max-p99-ms 8", |r| {
            r.latency.ack.p99_us = 8_000;
            r.latency.delivery.p99_us = 8_001;
        });
        assert_eq!(failures.len(), 1);
        assert!(failures[0].starts_with("delivery p99"), "{failures:?}");
    }

    #[test]
    fn the_server_is_charged_for_what_it_grew() {
        let usage = |cpu_s, bytes| {
            Some(Usage { cpu_s, rss_bytes: bytes, anonymous_bytes: bytes, ..Usage::default() })
        };
        let readings = ServerReadings {
            before: usage(1.0, 1000),
            connected: usage(2.0, 3000),
            after: usage(4.0, 5000),
            connections: 10,
            gates: Vec::new(),
        };
        let used = server_use(&readings, 1000).expect("readings");
        assert!((used.cpu_us_per_message - 2000.0).abs() < 1e-6);
        assert!((used.bytes_per_connection - 200.0).abs() < 1e-6);
        assert!((used.bytes_per_connection_after - 400.0).abs() < 1e-6);
    }
}
