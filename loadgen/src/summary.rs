//! The report for people.

use crate::coordinator::{Progress, Stage};
use crate::oracle::Verdict;
use crate::report::Report;
use crate::stress_report::StressReport;
use crate::stress_summary;
use crate::summary_line::{line, list, quantiles};

/// Some twenty lines.
#[must_use]
pub fn summary(report: &Report) -> String {
    let mut out = String::new();
    if !matches!(report.stress, Some(StressReport::Churn(_))) {
        connections(&mut out, report);
    }
    messages(&mut out, report);
    latencies(&mut out, report);
    if let Some(stress) = &report.stress {
        stress_summary::stress(&mut out, stress);
    }
    if let Some(verdict) = &report.oracle {
        oracle(&mut out, verdict);
    }
    usage(&mut out, report);
    if !report.errors.is_empty() {
        line(
            &mut out,
            "errors",
            &list(report.errors.iter().map(|(name, count)| format!("{name} {count}"))),
        );
    }
    line(&mut out, "seed", &report.seed.to_string());
    for failure in &report.failures {
        line(&mut out, "FAILED", failure);
    }
    line(&mut out, "result", if report.passed { "passed" } else { "failed" });
    out
}

fn connections(out: &mut String, report: &Report) {
    let c = &report.counters;
    line(
        out,
        "connections",
        &format!(
            "{} established in {:.2} s ({:.0}/s), {} failed, {} broke, {} came back",
            c.established,
            report.connect_s,
            report.connects_per_s,
            c.connect_failures,
            c.disconnects,
            c.reconnects
        ),
    );
    if c.deflating > 0 {
        line(out, "deflate", &format!("agreed on {} connections", c.deflating));
    }
    if c.heartbeats > 0 {
        line(
            out,
            "heartbeats",
            &format!(
                "{} sent, {} answered, {} missed",
                c.heartbeats, c.heartbeats_answered, c.heartbeats_missed
            ),
        );
    }
}

fn messages(out: &mut String, report: &Report) {
    let c = &report.counters;
    if c.due == 0 {
        return;
    }
    line(
        out,
        "messages",
        &format!(
            "{} due, {} sent, {} acked, {} delivered, {} refused, {} never sent",
            c.due, c.sent, c.acked, c.delivered, c.refused, c.unsent
        ),
    );
    line(
        out,
        "again",
        &format!(
            "{} retries, {} rate limited, {} lagged, {} pulls, {} goaways",
            c.retries, c.rate_limited, c.lagged, c.pulls, c.goaways
        ),
    );
    line(
        out,
        "throughput",
        &format!(
            "{:.0} sent/s, {:.0} acked/s, {:.0} delivered/s over {:.2} s",
            report.sent_per_s, report.acked_per_s, report.delivered_per_s, report.load_s
        ),
    );
    if c.echo_lost + c.echo_disordered + c.echo_corrupt > 0 {
        line(
            out,
            "echo",
            &format!(
                "{} lost, {} out of order or twice, {} changed",
                c.echo_lost, c.echo_disordered, c.echo_corrupt
            ),
        );
    }
}

fn latencies(out: &mut String, report: &Report) {
    let l = &report.latency;
    if report.warmup_s > 0.0 {
        let text =
            format!("the latencies leave out what was due in the first {} s", report.warmup_s);
        line(out, "warm-up", &text);
    }
    let all = [
        ("connect", l.connect),
        ("ack", l.ack),
        ("delivery", l.delivery),
        ("send lag", l.send_lag),
        ("heartbeat", l.heartbeat),
        ("gap fill", l.gap_fill),
    ];
    for (name, p) in all.into_iter().filter(|(_, p)| p.count > 0) {
        line(out, name, &quantiles(&p));
    }
}

fn oracle(out: &mut String, v: &Verdict) {
    line(
        out,
        "oracle",
        &format!(
            "{} conversations ({} read back, {} could not be), {} stored, {} unanswered ({} stored)",
            v.conversations, v.audited, v.unaudited, v.stored, v.unanswered, v.unanswered_stored
        ),
    );
    line(
        out,
        "deliveries",
        &format!(
            "{} of {}; {} after reconnect, {} after lag; {} overlaps, {} to the sender, {} repeated acks, {} of {} gaps filled",
            v.delivered,
            v.expected_deliveries,
            v.recovered_reconnect,
            v.recovered_lagged,
            v.overlaps,
            v.own_echoes,
            v.repeated_acks,
            v.gaps_filled,
            v.gaps_seen
        ),
    );
    line(out, "faults", &list(v.faults.iter().map(|(name, count)| format!("{name} {count}"))));
    for example in &v.examples {
        line(out, "  e.g.", example);
    }
}

fn usage(out: &mut String, report: &Report) {
    let g = &report.generator;
    line(
        out,
        "generator",
        &format!(
            "{} worker(s), {:.2} s CPU, {:.2} us a message, {} MiB",
            g.workers,
            g.cpu_s,
            g.cpu_us_per_message,
            g.rss_bytes >> 20
        ),
    );
    if let Some(s) = &report.server {
        line(
            out,
            "server",
            &format!(
                "{:.2} s CPU, {:.2} us a message, RSS {} -> {} -> {} KiB, {:.0} B a connection ({:.0} after)",
                s.cpu_s,
                s.cpu_us_per_message,
                s.rss_before_bytes >> 10,
                s.rss_connected_bytes >> 10,
                s.rss_after_bytes >> 10,
                s.bytes_per_connection,
                s.bytes_per_connection_after
            ),
        );
    }
}

/// One line for a terminal.
#[must_use]
pub fn progress_line(progress: &Progress) -> String {
    let c = &progress.counters;
    match progress.stage {
        Stage::Setup => {
            format!("connecting: {} connected, {} failed", c.connected, c.connect_failures)
        }
        Stage::Load => format!(
            "load: {} connected, {} sent, {} acked, {} delivered, p99 {:.2} ms",
            c.connected,
            c.sent,
            c.acked,
            c.delivered,
            progress.ack.p99_us as f64 / 1000.0
        ),
        Stage::Finish => {
            format!("checking: {} acked, {} delivered, {} pulls", c.acked, c.delivered, c.pulls)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_every_failure_and_the_seed() {
        let report = Report {
            failures: vec!["3 times lost (allowed: 0)".into()],
            seed: 77,
            ..Report::default()
        };
        let text = summary(&report);
        assert!(
            text.contains("3 times lost") && text.contains("77") && text.ends_with("failed\n"),
            "{text}"
        );
    }
}
