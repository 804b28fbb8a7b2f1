//! `bench echo`: interleaved rounds of the unit and the candidates.

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;

use super::candidates::{Builder, Echo};
use super::instrument::{Instrument, Report, Subject, gateway_echo, unit};
use super::series::{Budget, Column, Series};
use super::{Common, Load, host, slices};
use crate::build::ECHO_CLIENT;
use crate::interrupt::Interrupt;
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;

/// The program of the unit.
pub(super) const UNIT: &str = "epoll_echo";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) load: Load,
    /// Keep all servers open at once and let them take turns in short slices. The ratios scatter less; memory is not
    /// measured.
    #[arg(long)]
    slices: bool,
    /// Messages at the start of each slice that are not counted.
    #[arg(long, default_value_t = 2_000, requires = "slices")]
    slice_warmup: u64,
    /// Rounds of slices after which all servers are started afresh: one and the same program costs some hundredths more or
    /// less from start to start, and keeps to that while it stays open.
    #[arg(long, default_value_t = 4, requires = "slices")]
    reopen: usize,
    /// Measurements of each candidate (with --slices 40).
    #[arg(long, default_value_t = 7, default_value_if("slices", "true", "40"))]
    pub(super) rounds: usize,
    /// Measured messages a measurement (with --slices 30000).
    #[arg(long, default_value_t = 150_000, default_value_if("slices", "true", "30000"))]
    pub(super) messages: u64,
    /// Messages before the measured ones (with --slices 100000, once).
    #[arg(long, default_value_t = 30_000, default_value_if("slices", "true", "100000"))]
    pub(super) warmup: u64,
    /// Quiet time before memory is read, in milliseconds.
    #[arg(long, default_value_t = 200, conflicts_with = "slices")]
    settle_ms: u64,
    /// Who is measured against the unit; all but the unit itself when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    candidate: Vec<Echo>,
    /// Another gateway binary as a further candidate, such as the build of an earlier commit.
    #[arg(long, value_name = "PROGRAM")]
    other_gateway: Option<PathBuf>,
    /// Put a pair of virtual Ethernet devices between server and client, so that the client's half of the work is done on
    /// the client's core, and compare all that is done on the server's. Needs root.
    #[arg(long)]
    link: bool,
}

/// A column of the table.
type Figure = Column<Report>;

const SERVER: Figure = Figure {
    title: "us/message charged to the server",
    figure: |report| report.server_cpu_ns_per_message / 1e3,
    decimals: 2,
};
const RATE: Figure =
    Figure { title: "messages/s", figure: |report| report.messages_per_s, decimals: 0 };
const P50: Figure = Figure { title: "p50 us", figure: |report| report.p50_us, decimals: 0 };
const P99: Figure = Figure { title: "p99 us", figure: |report| report.p99_us, decimals: 0 };
const SERVER_BUSY: Figure =
    Figure { title: "server busy", figure: |report| report.server_busy, decimals: 2 };
const CLIENT_BUSY: Figure =
    Figure { title: "client busy", figure: |report| report.client_busy, decimals: 2 };
const CLIENT: Figure = Figure {
    title: "client us/message",
    figure: |report| report.client_cpu_ns_per_message / 1e3,
    decimals: 2,
};

const CORE: Figure = Figure {
    title: "us/message on the server's core",
    figure: |report| report.server_core_ns_per_message.unwrap_or(f64::NAN) / 1e3,
    decimals: 2,
};

const COLUMNS: &[Figure] = &[
    CORE,
    SERVER,
    RATE,
    P50,
    P99,
    Figure {
        title: "user bytes a connection, idle",
        figure: |report| report.memory.idle_bytes_per_connection,
        decimals: 0,
    },
    Figure {
        title: "after",
        figure: |report| report.memory.after_bytes_per_connection,
        decimals: 0,
    },
    SERVER_BUSY,
    CLIENT_BUSY,
    CLIENT,
    Figure { title: "connect ms", figure: |report| report.connect_ms, decimals: 0 },
];

const GATEWAY: &str = "gateway echo";

const BUDGETS: &[Budget] = &[
    Budget { name: "P2", who: GATEWAY, by: "unit", at_most: 0.85 },
    Budget { name: "P3", who: GATEWAY, by: "uws", at_most: 0.80 },
    Budget { name: "P3", who: GATEWAY, by: "fastwebsockets", at_most: 0.65 },
    Budget { name: "P3", who: GATEWAY, by: "tokio-tungstenite", at_most: 0.60 },
];

/// Measures all rounds, prints them, writes the result.
///
/// # Errors
/// When something of ours does not build or a server answers wrongly.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if args.rounds == 0 || args.messages == 0 || args.reopen == 0 {
        bail!("--rounds, --messages and --reopen must be at least 1");
    }
    raise_file_limit()?;
    let instrument = Instrument::build(repo, ECHO_CLIENT, &args.common, interrupt)?;
    let folder = Scratch::create("echo")?;
    let unit = unit(UNIT, repo, folder.path(), interrupt)?;
    let builder = Builder::new(repo, &args.common.profile, instrument.client(), interrupt)?;
    let mut lineup = builder.echo(&candidates(args), &unit, &instrument)?;
    if let Some(program) = &args.other_gateway {
        let name = String::from("other gateway echo");
        lineup.subjects.push(Subject { name, ..gateway_echo(program.clone(), None) });
    }
    let notes = lineup.notes();
    let subjects = [vec![unit], lineup.subjects].concat();
    let instrument = if args.link { instrument.over_link()? } else { instrument };
    if args.slices {
        let plan = plan(args);
        let text = slices::measure(&plan, &instrument, subjects, interrupt)?;
        let text = host::head(slices::title(&plan), repo) + &text + &notes;
        return host::publish(repo, "echo-slices", &text, args.common.dry_run);
    }
    let options = options(args);
    let series = Series::measure(subjects, COLUMNS, args.rounds, |subject| {
        instrument.measure(subject, &options)
    })?;
    let text = host::head(title(args), repo) + &result(args, &series) + &notes;
    host::publish(repo, "echo", &text, args.common.dry_run)
}

fn plan(args: &Args) -> slices::Plan {
    slices::Plan {
        load: args.load.clone(),
        rounds: args.rounds,
        reopen: args.reopen,
        messages: args.messages,
        warmup: args.warmup,
        slice_warmup: args.slice_warmup,
        link: args.link,
        budgets: BUDGETS,
    }
}

fn title(args: &Args) -> &'static str {
    if args.link {
        "Echo over a link: time of the server's core a message, as a ratio to a bare epoll echo in C"
    } else {
        "Echo: time of the server's core a message, as a ratio to a bare epoll echo in C"
    }
}

fn candidates(args: &Args) -> Vec<Echo> {
    match args.candidate.as_slice() {
        [] => Echo::value_variants().iter().copied().filter(|one| *one != Echo::Unit).collect(),
        named => named.to_vec(),
    }
}

/// What the client is told, whoever serves.
fn options(args: &Args) -> Vec<String> {
    let Load { connections, outstanding, payload } = args.load;
    vec![
        format!("--connections={connections}"),
        format!("--outstanding={outstanding}"),
        format!("--payload={payload}"),
        format!("--messages={}", args.messages),
        format!("--warmup={}", args.warmup),
        format!("--settle-ms={}", args.settle_ms),
    ]
}

fn result(args: &Args, series: &Series<Report>) -> String {
    let Load { connections, outstanding, payload } = args.load;
    let head = format!(
        "\n{connections} connections, {outstanding} messages of {payload} bytes outstanding on \
         random ones; {} messages measured each time. The unit speaks raw TCP, all others \
         WebSocket.\nCompared is all that was done on the server's core, by whomever.\nRatio: to the \
         mean of the units right before and after. Median (smallest-largest).\n\n",
        args.messages,
    );
    if !args.link {
        return head + &series.table() + &series.budgets(BUDGETS) + &series.in_order();
    }
    // The budgets are those of loopback.
    let how = "A pair of virtual Ethernet devices lies between server and client; what arrives is worked on by \
               the core of whom it is for.\n\n";
    head + how + &series.table() + &series.in_order()
}
