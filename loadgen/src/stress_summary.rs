//! The straining scenarios' part of the report for people.

use crate::stats::Percentiles;
use crate::stress_report::{
    ChurnReport, EstablishReport, FanoutReport, HostileReport, PhaseReport, SlowReport,
    StressReport,
};
use crate::summary_line::{line, list, quantiles};

/// A few lines.
pub(crate) fn stress(out: &mut String, report: &StressReport) {
    match report {
        StressReport::Fanout(report) => fanout(out, report),
        StressReport::Churn(report) => churn(out, report),
        StressReport::Hostile(report) => hostile(out, report),
        StressReport::Establish(report) => establish(out, report),
    }
}

fn us(value: Option<f64>) -> String {
    value.map_or_else(|| "? (no --server-pid)".to_owned(), |us| format!("{us:.2} us"))
}

fn phase(out: &mut String, name: &str, phase: &PhaseReport) {
    let text =
        format!("{:.0} deliveries/s, {}", phase.deliveries_per_s, quantiles(&phase.delivery));
    line(out, name, &text);
}

fn fanout(out: &mut String, report: &FanoutReport) {
    match &report.second {
        None => phase(out, "fan-out", &report.first),
        Some(second) => {
            phase(out, "all read", &report.first);
            phase(out, "slow beside", second);
            let ratio = report.p99_ratio.map_or_else(|| "?".to_owned(), |r| format!("{r:.2}"));
            line(out, "p99 ratio", &ratio);
        }
    }
    let text = format!(
        "{} of server CPU each ({} in the first phase), {} notices to lag for those who read",
        us(report.server_cpu_us_per_delivery),
        us(report.first_server_cpu_us_per_delivery),
        report.others_lagged
    );
    line(out, "delivery", &text);
    if let Some(slow_report) = &report.slow {
        slow(out, slow_report);
    }
}

fn slow(out: &mut String, slow: &SlowReport) {
    let text = format!(
        "{} of {} complete; {} notices to lag, {} pushed, {} pulled",
        slow.complete, slow.readers, slow.lagged, slow.pushed, slow.pulled
    );
    line(out, "slow readers", &text);
    if let (Some(bytes), Some(kernel), Some(rss)) =
        (slow.server_bytes_each, slow.kernel_bytes_each, slow.server_rss_bytes)
    {
        let text = format!(
            "{bytes:.0} B of the server and {kernel:.0} B of the kernel each; RSS {} MiB",
            rss >> 20
        );
        line(out, "", &text);
    }
    line(out, "recovery", &quantiles(&slow.recovery));
}

fn churn(out: &mut String, report: &ChurnReport) {
    let done = list(report.done.iter().map(|(name, count)| format!("{name} {count}")));
    line(out, "churn", &format!("{:.0}/s: {done}", report.per_s));
    line(out, "", &format!("{} refused, {} went wrong", report.refused, report.failed));
    line(out, "life", &quantiles(&report.life));
    if let (Some(files), Some(bytes)) = (report.descriptors, report.private_bytes) {
        let text = format!(
            "descriptors {} -> {}, private memory {} -> {} KiB, {} of CPU each",
            files.0,
            files.1,
            bytes.0 >> 10,
            bytes.1 >> 10,
            us(report.server_cpu_us_each)
        );
        line(out, "left behind", &text);
    }
}

fn compared(out: &mut String, name: &str, percentiles: &Percentiles) {
    line(out, name, &format!("{} answers, {}", percentiles.count, quantiles(percentiles)));
}

fn hostile(out: &mut String, report: &HostileReport) {
    compared(out, "alone", &report.alone);
    compared(out, "together", &report.together);
    if let Some(ratio) = report.p99_ratio {
        line(out, "p99 ratio", &format!("{ratio:.2}"));
    }
    for (name, kind) in &report.kinds {
        let after = kind.closed_after_ms.map_or_else(String::new, |(first, median, last)| {
            format!("closed after {first} / {median} / {last} ms (first / median / last)")
        });
        let ends = list(kind.ends.iter().map(|(end, count)| format!("{end}: {count}")));
        let text = format!(
            "{} {name}: {after}, {} refused, {} early, {} open, {:.0} B taken of each; {ends}",
            kind.count, kind.refused, kind.early, kind.open, kind.sent_bytes_each
        );
        line(out, "hostile", &text);
    }
    if let Some(bytes) = report.server_bytes_each {
        line(out, "", &format!("the server grew by at most {bytes:.0} B for each flooder"));
    }
}

fn establish(out: &mut String, report: &EstablishReport) {
    let rounds = list(report.rounds_per_s.iter().map(|rate| format!("{rate:.0}")));
    let text = format!("{} in all, {:.0}/s ({rounds})", report.logins, report.logins_per_s);
    line(out, "logins", &text);
    let text = format!(
        "server {} each, generator {:.2} us each; {} failed",
        us(report.server_cpu_us_each),
        report.generator_cpu_us_each,
        report.failed
    );
    line(out, "cpu", &text);
}
