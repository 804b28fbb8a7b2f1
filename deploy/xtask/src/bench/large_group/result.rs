//! What a run came to, as a table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use anyhow::Context;
use serde::Deserialize;

use super::{Args, Measured, switch};

/// The report of the load generator, as far as it matters here.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Report {
    passed: bool,
    failures: Vec<String>,
    connect_s: f64,
    load_s: f64,
    counters: Counters,
    latency: Latency,
    oracle: Option<Verdict>,
    generator: Generator,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Counters {
    sent: u64,
    acked: u64,
    lagged: u64,
    pulls: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Latency {
    ack: Percentiles,
    delivery: Percentiles,
    send_lag: Percentiles,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Percentiles {
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    max_us: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Verdict {
    stored: u64,
    expected_deliveries: u64,
    delivered: u64,
    recovered_lagged: u64,
    audited: u64,
    faults: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Generator {
    cpu_s: f64,
}

/// Reads a report.
///
/// # Errors
/// When it is none.
pub(super) fn read(text: &str) -> anyhow::Result<Report> {
    serde_json::from_str(text).context("the load generator wrote a report that cannot be read")
}

/// CPU that processes have used, by kind, in hundredths of a second.
pub(super) struct CpuTime(BTreeMap<String, u64>);

impl CpuTime {
    /// Of these processes, each with its kind; what ended meanwhile counts nothing.
    pub(super) fn of(processes: &[(String, i32)]) -> Self {
        let mut times = BTreeMap::new();
        for (kind, pid) in processes {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            *times.entry(kind.clone()).or_default() += ticks(&stat).unwrap_or_default();
        }
        Self(times)
    }

    /// Seconds used since an earlier reading.
    pub(super) fn since(&self, before: &Self) -> Vec<(String, f64)> {
        let earlier = |kind: &str| before.0.get(kind).copied().unwrap_or_default();
        let used = |(kind, now): (&String, &u64)| {
            (kind.clone(), now.saturating_sub(earlier(kind)) as f64 / 100.0)
        };
        self.0.iter().map(used).collect()
    }
}

/// User and system time in `/proc/PID/stat`, fields 14 and 15; the name before may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn ms(us: u64) -> String {
    format!("{:.1}", us as f64 / 1e3)
}

fn quantiles(of: &Percentiles) -> String {
    let Percentiles { p50_us, p90_us, p99_us, max_us } = *of;
    format!("{} / {} / {} / {} ms", ms(p50_us), ms(p90_us), ms(p99_us), ms(max_us))
}

impl Measured {
    /// Why it is not good.
    pub(super) fn shortcomings(&self, args: &Args) -> Vec<String> {
        let mut found = self.report.failures.clone();
        if !self.report.passed && found.is_empty() {
            found.push(String::from("the load generator is not content"));
        }
        let planned = switch::planned(args.members, args.switch_every, args.seconds);
        let wanted = [planned.len() / 2, planned.len().div_ceil(2)];
        if self.became != wanted {
            found.push(format!(
                "the group became large {} times and small {} times, instead of {} and {}",
                self.became[0], self.became[1], wanted[0], wanted[1]
            ));
        }
        found
    }

    /// What goes into the result's file below its head.
    pub(super) fn text(&self, args: &Args) -> String {
        let Report { counters, latency, oracle, .. } = &self.report;
        let verdict = oracle.clone().unwrap_or_default();
        let Args { members, online, senders, rate, seconds, gateways, logic, .. } = args;
        let mut text = format!(
            "\n{members} members, {online} of them online over {gateways} gateways, {logic} logic services; {senders} of \
             them send {rate} messages a second for {seconds} s. Kafka, MariaDB, Redis, etcd and the generator run on \
             the same machine. The group is large at first (its messages go to gateways as a whole); then the threshold in \
             etcd is moved so that it is small (its messages are addressed to each member), and back.\n\n\
             | what | value |\n|---|---|\n"
        );
        let mut row = |what: &str, value: String| {
            let _ = writeln!(text, "| {what} | {value} |");
        };
        row("messages sent, acknowledged, stored", {
            format!("{}, {}, {}", counters.sent, counters.acked, verdict.stored)
        });
        row("deliveries, owed", format!("{}, {}", verdict.delivered, verdict.expected_deliveries));
        row("deliveries a second", {
            format!("{:.0}", verdict.delivered as f64 / self.report.load_s.max(1.0))
        });
        row("due to delivered, p50 / p90 / p99 / max", quantiles(&latency.delivery));
        row("due to acknowledged", quantiles(&latency.ack));
        row("how late the generator was", quantiles(&latency.send_lag));
        row("notices to lag, messages pulled for them, pulls", {
            format!("{}, {}, {}", counters.lagged, verdict.recovered_lagged, counters.pulls)
        });
        row("became small, large again", format!("{}, {}", self.became[1], self.became[0]));
        row("threshold set", {
            let set = self.set.iter().map(|(at, members)| format!("{members} at {at:.1} s"));
            set.collect::<Vec<_>>().join(", ")
        });
        row("faults found by the oracle", faults(&verdict));
        row(
            "history read back and compared",
            if verdict.audited > 0 { "yes" } else { "no" }.into(),
        );
        row("online members connected within", format!("{:.1} s", self.report.connect_s));
        row("CPU from first message to end of run, generator", {
            let cpu = self.cpu.iter().map(|(kind, seconds)| format!("{kind} {seconds:.1} s"));
            let all: Vec<_> = cpu.collect();
            format!("{}; {:.1} s", all.join(", "), self.report.generator.cpu_s)
        });
        let found = self.shortcomings(args);
        let verdict = if found.is_empty() { "passed".into() } else { found.join("; ") };
        text + &format!("\nResult: {verdict}.\n")
    }
}

fn faults(verdict: &Verdict) -> String {
    let found = verdict.faults.iter().filter(|(_, count)| **count > 0);
    let all: Vec<String> = found.map(|(name, count)| format!("{count} {name}")).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::One;
    use crate::bench::What;
    use clap::Parser;

    fn args(line: &str) -> Args {
        let words = ["bench", "large-group"].into_iter().chain(line.split_whitespace());
        let What::LargeGroup(args) = One::try_parse_from(words).unwrap().what else { panic!() };
        args
    }

    const REPORT: &str = r#"{"passed":true,"failures":[],"connect_s":2.0,"load_s":60.0,
        "counters":{"sent":3000,"acked":3000,"lagged":4,"pulls":9},
        "latency":{"ack":{"p50_us":1,"p90_us":2,"p99_us":3,"max_us":4},
            "delivery":{"p50_us":10500,"p90_us":2,"p99_us":90000,"max_us":4},
            "send_lag":{"p50_us":1,"p90_us":2,"p99_us":3,"max_us":4}},
        "oracle":{"stored":3000,"expected_deliveries":5997000,"delivered":5997000,"recovered_lagged":1,
            "audited":1,"faults":{"lost":0,"missed":2}},
        "generator":{"cpu_s":9.5}}"#;

    #[test]
    fn a_result_names_numbers_and_shortcomings() {
        let mut measured = Measured { report: read(REPORT).unwrap(), ..Measured::default() };
        let args = args("");
        assert!(measured.shortcomings(&args)[0].contains("instead of 2 and 2"));
        measured.became = [2, 2];
        assert!(measured.shortcomings(&args).is_empty());
        let text = measured.text(&args);
        for words in ["5997000, 5997000", "| 99950 |", "10.5 / 0.0 / 90.0", "2 missed", "passed"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        measured.report.failures.push(String::from("2 times missed"));
        assert!(measured.text(&args).ends_with("Result: 2 times missed.\n"));
    }

    #[test]
    fn processor_time_is_read_whatever_the_name() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194304 100 0 0 0 120 30 0 0 20 0 9 0 55 1";
        assert_eq!(ticks(stat), Some(150));
        assert_eq!(ticks(""), None);
        let time = |ticks| CpuTime(BTreeMap::from([(String::from("kafka"), ticks)]));
        assert_eq!(time(250).since(&time(100)), [(String::from("kafka"), 1.5)]);
    }
}
