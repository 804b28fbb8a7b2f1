//! `bench idle-memory`: what an idle connection holds in the server's own memory.

use std::fmt::Write;
use std::path::Path;

use anyhow::bail;

use super::instrument::{Instrument, Report, Subject, gateway_echo};
use super::ratio::Spread;
use super::{Common, host};
use crate::build::{self, CORELANE, GATEWAY};
use crate::interrupt::Interrupt;
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;

/// Connections opened and used before growth is counted, so that buffers a server makes once,
/// at first use, do not count.
const WARM_CONNECTIONS: usize = 1_000;
/// Steps in which the others are opened. A step in which the server gives back memory (what its
/// start took) is left out.
const STEPS: &str = "14";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Fresh servers of each kind.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Which servers; both when left out.
    #[arg(long, value_enum)]
    only: Option<Kind>,
}

/// Which server holds the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// `gateway echo`: no login.
    Gateway,
    /// The embedded server: every connection logged in as a user of its own.
    Corelane,
}

/// One line of the result.
struct Row {
    kind: Kind,
    small_pages: bool,
    reports: Vec<Report>,
}

impl Row {
    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Gateway => "gateway echo",
            Kind::Corelane => "corelane, logged in",
        };
        let pages = if self.small_pages { "4 KiB pages only" } else { "as it runs" };
        format!("{kind}, {pages}")
    }
}

/// Measures the servers and writes the result.
///
/// # Errors
/// When something does not build or a server answers wrongly.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    if args.common.connections <= WARM_CONNECTIONS {
        bail!("--connections must be above the {WARM_CONNECTIONS} that growth is counted from");
    }
    raise_file_limit()?;
    let instrument = Instrument::build(repo, &args.common, interrupt)?;
    let profile = &args.common.profile;
    let gateway = build::build(repo, GATEWAY, profile, interrupt)?;
    let corelane = build::build(repo, CORELANE, profile, interrupt)?;
    let mut rows: Vec<Row> = [Kind::Gateway, Kind::Corelane]
        .into_iter()
        .filter(|kind| args.only.is_none_or(|only| only == *kind))
        .flat_map(|kind| [false, true].map(|small_pages| (kind, small_pages)))
        .map(|(kind, small_pages)| Row { kind, small_pages, reports: Vec::new() })
        .collect();
    for round in 1..=args.rounds {
        for row in &mut rows {
            let report = match row.kind {
                Kind::Gateway => measure_gateway(&instrument, &gateway, row.small_pages)?,
                Kind::Corelane => measure_corelane(args, &instrument, &corelane, row.small_pages)?,
            };
            eprintln!(
                "{round}/{} {:<38} idle {:>6.0} after {:>6.0} bytes a connection",
                args.rounds,
                row.name(),
                report.memory.idle_bytes_per_connection,
                report.memory.after_bytes_per_connection,
            );
            row.reports.push(report);
        }
    }
    let text =
        host::head("Idle memory: user bytes per WebSocket connection", repo) + &result(args, &rows);
    eprint!("{text}");
    if !args.common.dry_run {
        eprintln!("written to {}", host::write(repo, "idle-memory", &text)?.display());
    }
    Ok(())
}

fn measure_gateway(
    instrument: &Instrument<'_>,
    program: &Path,
    small_pages: bool,
) -> anyhow::Result<Report> {
    let subject = Subject { small_pages, ..gateway_echo(program.to_path_buf()) };
    let warm = WARM_CONNECTIONS.to_string();
    let warm_options = ["--warm-connections", &warm, "--warm-messages", "20000", "--steps", STEPS];
    let options = ["--messages", "100000", "--warmup", "0"];
    instrument.measure(&subject, &[&warm_options[..], &options].concat())
}

/// One heartbeat on each connection, twice: that is all an idle client sends.
fn measure_corelane(
    args: &Args,
    instrument: &Instrument<'_>,
    program: &Path,
    small_pages: bool,
) -> anyhow::Result<Report> {
    let data = Scratch::create("idle")?;
    let subject = logged_in(program, data.path(), args.common.connections, small_pages);
    let (warm, every) = (WARM_CONNECTIONS.to_string(), (2 * args.common.connections).to_string());
    let twice = (2 * WARM_CONNECTIONS).to_string();
    let warm_options = ["--warm-connections", &warm, "--warm-messages", &twice, "--steps", STEPS];
    let options = ["--messages", &every, "--warmup", "0", "--order", "sweep"];
    instrument.measure(&subject, &[&warm_options[..], &options].concat())
}

/// The embedded server; every connection logs in as a user of its own.
fn logged_in(program: &Path, data: &Path, connections: usize, small_pages: bool) -> Subject {
    let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
    let mut arguments = words("--listen 127.0.0.1:0 --dev-login --shards 1 --data-dir");
    arguments.push(data.display().to_string());
    let limit = (connections + 100).to_string();
    Subject {
        name: String::from("corelane"),
        program: program.to_path_buf(),
        arguments,
        environment: vec![(String::from("CORELANE_MAX_CONNECTIONS"), limit)],
        client_options: words("--protocol corelane --path /ws?user_id=u{n}"),
        small_pages,
        stops_cleanly: true,
    }
}

fn result(args: &Args, rows: &[Row]) -> String {
    let Common { connections, outstanding, payload, .. } = args.common;
    let mut text = format!(
        "\n{connections} connections. Idle: growth of the process's private dirty pages beyond the \
         first {WARM_CONNECTIONS} connections, which were opened and used before, divided by the \
         others; they are opened in {STEPS} steps, and a step in which the server gave memory back \
         is left out. All growth: since before the first connection, divided by all; below zero \
         when the server gave back more of what its start took.\n\
         Between idle and after: for gateway echo 100,000 echoes of {payload} bytes, \
         {outstanding} outstanding; for corelane two heartbeats on each connection, each a user \
         of its own.\nWhere huge pages are in use, memory as it runs grows in steps of 2 MiB; with \
         4 KiB pages only, the steps vanish.\n\
         Median (smallest-largest) of {} fresh servers.\n\n\
         | who | idle, bytes | after, bytes | all growth, bytes | RSS at start, MB | after | in huge pages, MB | \
         connections/s |\n|---|---|---|---|---|---|---|---|\n",
        args.rounds,
    );
    let others = (connections - WARM_CONNECTIONS) as f64;
    for row in rows {
        let spread = |figure: &dyn Fn(&Report) -> f64, decimals| {
            Spread::of(row.reports.iter().map(figure))
                .map_or(String::from("-"), |spread| spread.show(decimals))
        };
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let all = |report: &Report| {
            let (start, after) = (&report.memory.start, &report.memory.after);
            let grown = after.private_dirty_bytes as f64 - start.private_dirty_bytes as f64;
            grown / connections as f64
        };
        let columns = [
            row.name(),
            spread(&|report| report.memory.idle_bytes_per_connection, 0),
            spread(&|report| report.memory.after_bytes_per_connection, 0),
            spread(&all, 0),
            spread(&|report| mb(report.memory.start.rss_bytes), 1),
            spread(&|report| mb(report.memory.after.rss_bytes), 1),
            spread(&|report| mb(report.memory.after.huge_page_bytes), 1),
            spread(&|report| others / report.connect_ms * 1e3, 0),
        ];
        let _ = writeln!(text, "| {} |", columns.join(" | "));
    }
    text
}
