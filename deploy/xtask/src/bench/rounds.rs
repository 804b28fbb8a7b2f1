//! `bench echo`: interleaved rounds of the unit and the candidates.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;

use super::instrument::{Instrument, Report, Subject, gateway_echo, unit};
use super::ratio::{Sample, Spread, order, ratios};
use super::{Common, host};
use crate::build::{self, GATEWAY};
use crate::interrupt::Interrupt;
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;

/// Who is measured against the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Candidate {
    /// `gateway echo`, WebSocket.
    Gateway,
    /// The unit against itself, which shows the instrument's noise.
    Unit,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Measurements of each candidate.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Measured messages a measurement.
    #[arg(long, default_value_t = 300_000)]
    messages: u64,
    /// Messages before the measured ones.
    #[arg(long, default_value_t = 50_000)]
    warmup: u64,
    /// Who is measured against the unit.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gateway")]
    candidate: Vec<Candidate>,
    /// Another gateway binary as a further candidate, such as the build of an earlier commit.
    #[arg(long, value_name = "PROGRAM")]
    other_gateway: Option<PathBuf>,
}

/// One measurement of the series.
struct Measured {
    subject: usize,
    report: Report,
}

/// Measures all rounds, prints them, writes the result.
///
/// # Errors
/// When something does not build or a server answers wrongly.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    raise_file_limit()?;
    let instrument = Instrument::build(repo, &args.common, interrupt)?;
    let folder = Scratch::create("echo")?;
    let unit = unit(repo, folder.path(), interrupt)?;
    let mut subjects = vec![unit.clone()];
    for candidate in &args.candidate {
        subjects.push(match candidate {
            Candidate::Gateway => {
                gateway_echo(build::build(repo, GATEWAY, &args.common.profile, interrupt)?)
            }
            Candidate::Unit => Subject { name: String::from("unit again"), ..unit.clone() },
        });
    }
    if let Some(program) = &args.other_gateway {
        let name = String::from("other gateway echo");
        subjects.push(Subject { name, ..gateway_echo(program.clone()) });
    }
    let series = measure_all(args, &instrument, &subjects)?;
    let text = host::head("Echo: server CPU a message, as a ratio to a bare epoll echo in C", repo)
        + &result(args, &subjects, &series);
    eprint!("{text}");
    if !args.common.dry_run {
        eprintln!("written to {}", host::write(repo, "echo", &text)?.display());
    }
    Ok(())
}

fn measure_all(
    args: &Args,
    instrument: &Instrument<'_>,
    subjects: &[Subject],
) -> anyhow::Result<Vec<Measured>> {
    let (messages, warmup) = (args.messages.to_string(), args.warmup.to_string());
    let order = order(subjects.len() - 1, args.rounds);
    let mut series = Vec::with_capacity(order.len());
    for (at, &subject) in order.iter().enumerate() {
        let more = ["--messages", &messages, "--warmup", &warmup];
        let report = instrument.measure(&subjects[subject], &more)?;
        eprintln!(
            "{:>3}/{}  {:<18} {:>8.2} us/message  {:>7.0} messages/s  server {:.2} client {:.2}",
            at + 1,
            order.len(),
            subjects[subject].name,
            report.server_cpu_ns_per_message / 1e3,
            report.messages_per_s,
            report.server_busy,
            report.client_busy,
        );
        series.push(Measured { subject, report });
    }
    Ok(series)
}

/// The tables of a result.
fn result(args: &Args, subjects: &[Subject], series: &[Measured]) -> String {
    let Common { connections, outstanding, payload, .. } = args.common;
    let costs: Vec<Sample> = series
        .iter()
        .map(|one| Sample { subject: one.subject, cost: one.report.server_cpu_ns_per_message })
        .collect();
    let mut text = format!(
        "\n{connections} connections, {outstanding} messages of {payload} bytes outstanding on \
         random ones; {} messages measured each time.\nRatio: to the mean of the units right \
         before and after. Median (smallest-largest).\n\n\
         | who | n | ratio | us/message | messages/s | p50 us | p99 us | user bytes a connection, \
         idle | after | server busy | client busy | client us/message |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
        args.messages,
    );
    for (number, subject) in subjects.iter().enumerate() {
        let reports: Vec<&Report> =
            series.iter().filter(|one| one.subject == number).map(|one| &one.report).collect();
        let spread = |figure: fn(&Report) -> f64, decimals| {
            Spread::of(reports.iter().map(|report| figure(report)))
                .map_or(String::from("-"), |spread| spread.show(decimals))
        };
        let ratio = Spread::of(ratios(&costs, number));
        let columns = [
            subject.name.clone(),
            reports.len().to_string(),
            ratio.map_or(String::from("-"), |spread| spread.show(3)),
            spread(|report| report.server_cpu_ns_per_message / 1e3, 2),
            spread(|report| report.messages_per_s, 0),
            spread(|report| report.p50_us, 0),
            spread(|report| report.p99_us, 0),
            spread(|report| report.memory.idle_bytes_per_connection, 0),
            spread(|report| report.memory.after_bytes_per_connection, 0),
            spread(|report| report.server_busy, 2),
            spread(|report| report.client_busy, 2),
            spread(|report| report.client_cpu_ns_per_message / 1e3, 2),
        ];
        let _ = writeln!(text, "| {} |", columns.join(" | "));
    }
    text + &in_order(subjects, series)
}

/// Every measurement, in the order it was made.
fn in_order(subjects: &[Subject], series: &[Measured]) -> String {
    let mut text = String::from(
        "\nEvery measurement in order:\n\n| who | us/message | messages/s | p50 us | p99 us | connect ms |\n\
         |---|---|---|---|---|---|\n",
    );
    for Measured { subject, report } in series {
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.0} | {:.0} | {:.0} | {:.0} |",
            subjects[*subject].name,
            report.server_cpu_ns_per_message / 1e3,
            report.messages_per_s,
            report.p50_us,
            report.p99_us,
            report.connect_ms,
        );
    }
    text
}
