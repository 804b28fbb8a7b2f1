//! `bench idle-memory`: what an idle connection holds in the server's own memory.

use std::fmt::Write;
use std::path::Path;

use anyhow::bail;
use clap::ValueEnum;

use super::candidates::{Builder, Echo, Lineup};
use super::embedded::corelane;
use super::instrument::{Instrument, Report, Subject, unit, words};
use super::ratio::Spread;
use super::series::{rule, show};
use super::{Common, Load, echo, host};
use crate::build::{self, CORELANE, ECHO_CLIENT};
use crate::interrupt::Interrupt;
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;

/// Connections opened and used before growth is counted, so that buffers a server makes once,
/// at first use, do not count.
const WARM_CONNECTIONS: usize = 1_000;
/// Steps in which the others are opened. A step in which the server gives back memory (what its
/// start took) is left out.
const STEPS: usize = 14;
/// Budget P1, bytes a connection: idle, and after an echo phase.
const AT_MOST: (f64, f64) = (200.0, 300.0);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// Fresh servers of each kind.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Quiet time before each reading, in milliseconds.
    #[arg(long, default_value_t = 300)]
    settle_ms: u64,
    /// Which servers; all when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    candidate: Vec<Candidate>,
}

/// Who holds the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Candidate {
    /// `gateway echo`: no login.
    Gateway,
    /// The embedded server: every connection logged in as a user of its own.
    Corelane,
    /// uWebSockets, C++.
    Uws,
    /// fastwebsockets on tokio, Rust.
    Fastwebsockets,
    /// tokio-tungstenite, Rust.
    TokioTungstenite,
    /// tokio-websockets, Rust.
    TokioWebsockets,
    /// gws, Go.
    Gws,
    /// gorilla/websocket, Go.
    Gorilla,
    /// ws, Node.js.
    Ws,
}

/// One line of the result.
struct Row {
    subject: Subject,
    /// What the client does between the readings.
    options: Vec<String>,
    reports: Vec<Report>,
}

/// Measures the servers and writes the result.
///
/// # Errors
/// When something of ours does not build or a server answers wrongly.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    if args.load.connections <= WARM_CONNECTIONS {
        bail!("--connections must be above the {WARM_CONNECTIONS} that growth is counted from");
    }
    raise_file_limit()?;
    let instrument = Instrument::build(repo, ECHO_CLIENT, &args.common, interrupt)?;
    let folder = Scratch::create("idle")?;
    let lineup = lineup(args, repo, folder.path(), &instrument, interrupt)?;
    let notes = lineup.notes();
    let mut rows: Vec<Row> =
        lineup.subjects.into_iter().flat_map(|subject| rows_of(args, subject)).collect();
    for round in 1..=args.rounds {
        for row in &mut rows {
            let report: Report = instrument.measure(&row.subject, &row.options)?;
            eprintln!(
                "{round}/{} {:<38} idle {:>6.0} after {:>6.0} bytes a connection",
                args.rounds,
                row.subject.name,
                report.memory.idle_bytes_per_connection,
                report.memory.after_bytes_per_connection,
            );
            row.reports.push(report);
        }
    }
    let text = host::head("Idle memory: user bytes per WebSocket connection", repo)
        + &result(args, &rows)
        + &notes;
    host::publish(repo, "idle-memory", &text, args.common.dry_run)
}

fn lineup(
    args: &Args,
    repo: &Repo,
    folder: &Path,
    instrument: &Instrument<'_>,
    interrupt: &Interrupt,
) -> anyhow::Result<Lineup> {
    let builder = Builder::new(repo, &args.common.profile, instrument.client(), interrupt)?;
    let unit = unit(echo::UNIT, repo, folder, interrupt)?;
    let candidates = match args.candidate.as_slice() {
        [] => Candidate::value_variants(),
        named => named,
    };
    let mut lineup = Lineup::default();
    for candidate in candidates {
        let echo = match candidate {
            Candidate::Corelane => {
                let program = build::build(repo, CORELANE, &args.common.profile, interrupt)?;
                lineup.subjects.push(logged_in(corelane(program, folder, "--shards 1")));
                continue;
            }
            Candidate::Gateway => Echo::Gateway,
            Candidate::Uws => Echo::Uws,
            Candidate::Fastwebsockets => Echo::Fastwebsockets,
            Candidate::TokioTungstenite => Echo::TokioTungstenite,
            Candidate::TokioWebsockets => Echo::TokioWebsockets,
            Candidate::Gws => Echo::Gws,
            Candidate::Gorilla => Echo::Gorilla,
            Candidate::Ws => Echo::Ws,
        };
        let one = builder.echo(&[echo], &unit, instrument)?;
        lineup.subjects.extend(one.subjects);
        lineup.left_out.extend(one.left_out);
    }
    Ok(lineup)
}

/// The embedded server with every connection a user of its own. All its rounds use one data
/// folder: the users exist from the second on.
fn logged_in(subject: Subject) -> Subject {
    let client_options = words("--protocol=corelane --path=/ws?user_id=u{n}");
    Subject { name: String::from(CORELANE_ROW), client_options, ..subject }
}

const CORELANE_ROW: &str = "corelane, logged in";
const GATEWAY_ROW: &str = "gateway echo";

/// A server as it runs; ours with small pages besides.
fn rows_of(args: &Args, subject: Subject) -> Vec<Row> {
    let ours = [CORELANE_ROW, GATEWAY_ROW].contains(&subject.name.as_str());
    let Load { connections, outstanding, payload } = args.load;
    let mut options = vec![
        format!("--connections={connections}"),
        format!("--outstanding={outstanding}"),
        format!("--payload={payload}"),
        format!("--settle-ms={}", args.settle_ms),
        format!("--warm-connections={WARM_CONNECTIONS}"),
        format!("--steps={STEPS}"),
        String::from("--warmup=0"),
    ];
    options.extend(if subject.name == CORELANE_ROW {
        // One heartbeat on each connection, twice: that is all an idle client sends.
        vec![
            format!("--warm-messages={}", 2 * WARM_CONNECTIONS),
            format!("--messages={}", 2 * connections),
            String::from("--order=sweep"),
        ]
    } else {
        words("--warm-messages=20000 --messages=100000")
    });
    let row = |small_pages| {
        let pages = if small_pages { "4 KiB pages only" } else { "as it runs" };
        let name = if ours { format!("{}, {pages}", subject.name) } else { subject.name.clone() };
        let subject = Subject { name, small_pages, ..subject.clone() };
        Row { subject, options: options.clone(), reports: Vec::new() }
    };
    if ours { vec![row(false), row(true)] } else { vec![row(false)] }
}

fn result(args: &Args, rows: &[Row]) -> String {
    let Load { connections, outstanding, payload } = args.load;
    let mut text = format!(
        "\n{connections} connections. Idle: growth of the process's anonymous pages beyond the \
         first {WARM_CONNECTIONS} connections, which were opened and used before, divided by the \
         others; they are opened in {STEPS} steps, and a step in which the server gave memory back \
         is left out. All growth: since before the first connection, divided by all; below zero \
         when the server gave back more of what its start took.\n\
         Between idle and after: 100,000 echoes of {payload} bytes, {outstanding} outstanding; \
         for corelane two heartbeats on each connection, each a user of its own.\nWhere huge pages are in use, memory as it runs grows in steps of 2 MiB; with \
         4 KiB pages only, the steps vanish. Garbage collectors give memory back at their own \
         times: for gws, gorilla and ws \"all growth\" is the sounder figure.\n\
         Median (smallest-largest) of {} fresh servers.\n\n\
         | who | idle, bytes | after, bytes | all growth, bytes | RSS at start, MB | after | in huge pages, MB | \
         connections/s |\n{}\n",
        args.rounds,
        rule(8),
    );
    let others = (connections - WARM_CONNECTIONS) as f64;
    for row in rows {
        let spread = |figure: &dyn Fn(&Report) -> f64, decimals| {
            show(row.reports.iter().map(figure), decimals)
        };
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let all = |report: &Report| {
            let (start, after) = (&report.memory.start, &report.memory.after);
            let grown = after.anonymous_bytes as f64 - start.anonymous_bytes as f64;
            grown / connections as f64
        };
        let columns = [
            row.subject.name.clone(),
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
    text + &budgets(rows)
}

/// P1: idle for a user who is logged in, after an echo phase for the gateway.
fn budgets(rows: &[Row]) -> String {
    let mut lines = String::new();
    for row in rows {
        let (what, at_most, figure): (_, _, fn(&Report) -> f64) =
            if row.subject.name.starts_with(CORELANE_ROW) {
                ("idle", AT_MOST.0, |report| report.memory.idle_bytes_per_connection)
            } else if row.subject.name.starts_with(GATEWAY_ROW) {
                ("after echoes", AT_MOST.1, |report| report.memory.after_bytes_per_connection)
            } else {
                continue;
            };
        let Some(spread) = Spread::of(row.reports.iter().map(figure)) else { continue };
        let kept = if spread.median <= at_most { "kept" } else { "missed" };
        let (who, spread) = (&row.subject.name, spread.show(0));
        let _ = writeln!(lines, "| P1 | {who}: {what} | {at_most:.0} | {spread} | {kept} |");
    }
    if lines.is_empty() {
        return lines;
    }
    format!("\n| budget | what | at most, bytes | measured | |\n{}\n{lines}", rule(5))
}
