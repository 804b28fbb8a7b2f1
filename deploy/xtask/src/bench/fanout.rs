//! `bench fanout`: one sender, many receivers, in interleaved rounds.

use std::path::Path;

use anyhow::bail;
use clap::ValueEnum;
use serde::Deserialize;

use super::candidates::{Builder, Lineup};
use super::embedded::corelane;
use super::instrument::{Instrument, Subject, unit, words};
use super::peers::Peer;
use super::series::{Budget, Column, Series};
use super::{Common, host};
use crate::build::{self, Binary, CORELANE};
use crate::interrupt::Interrupt;
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;

/// The client.
pub(super) const CLIENT: Binary = Binary { package: "bench", name: "fanout_client" };
/// The program of the unit.
pub(super) const UNIT: &str = "send_loop";

/// A server that sends every message to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Candidate {
    /// The embedded server: a group with everybody in it, every message stored.
    Corelane,
    /// uWebSockets, C++: publish and subscribe.
    Uws,
    /// gws, Go: its broadcaster.
    Gws,
    /// ws, Node.js: a loop over its clients.
    Ws,
    /// The unit against itself, which shows the instrument's noise.
    Unit,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Connections that receive, beside the one that sends.
    #[arg(long, default_value_t = 10_000)]
    receivers: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Measurements of each candidate.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Measured messages a measurement, each to all receivers.
    #[arg(long, default_value_t = 40)]
    messages: u64,
    /// Messages before the measured ones.
    #[arg(long, default_value_t = 5)]
    warmup: u64,
    /// Messages under way at any time.
    #[arg(long, default_value_t = 1)]
    window: u64,
    /// The members of corelane's group joined in another order than they connect in now, as the people in a group do. The
    /// unit and the peers send in the order of the connections in any case.
    #[arg(long)]
    scattered: bool,
    /// Who is measured against the unit; all but the unit itself when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    candidate: Vec<Candidate>,
}

/// What the client reports; the fields used here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Report {
    server_cpu_ns_per_delivery: f64,
    client_cpu_ns_per_delivery: f64,
    deliveries_per_s: f64,
    complete_p50_ms: f64,
    complete_p99_ms: f64,
    server_busy: f64,
    client_busy: f64,
    /// What was done on the server's core, by whomever; where that was asked for.
    server_core_ns_per_delivery: Option<f64>,
}

pub(super) const COLUMNS: &[Column<Report>] = &[
    Column {
        title: "us/delivery on the server's core",
        figure: |report| report.server_core_ns_per_delivery.unwrap_or(f64::NAN) / 1e3,
        decimals: 2,
    },
    Column {
        title: "us/delivery charged to the server",
        figure: |report| report.server_cpu_ns_per_delivery / 1e3,
        decimals: 2,
    },
    Column { title: "deliveries/s", figure: |report| report.deliveries_per_s, decimals: 0 },
    Column { title: "p50 ms to all", figure: |report| report.complete_p50_ms, decimals: 1 },
    Column { title: "p99 ms to all", figure: |report| report.complete_p99_ms, decimals: 1 },
    Column { title: "server busy", figure: |report| report.server_busy, decimals: 2 },
    Column { title: "client busy", figure: |report| report.client_busy, decimals: 2 },
    Column {
        title: "client us/delivery",
        figure: |report| report.client_cpu_ns_per_delivery / 1e3,
        decimals: 2,
    },
];

const BUDGETS: &[Budget] = &[Budget { name: "P4", who: "corelane", by: "unit", at_most: 0.95 }];

/// Measures all rounds, prints them, writes the result.
///
/// # Errors
/// When something of ours does not build, a server answers wrongly or loses a delivery.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    raise_file_limit()?;
    let instrument = Instrument::build(repo, CLIENT, &args.common, interrupt)?;
    let folder = Scratch::create("fanout")?;
    let unit = unit(UNIT, repo, folder.path(), interrupt)?;
    let builder = Builder::new(repo, &args.common.profile, instrument.client(), interrupt)?;
    let candidates = match args.candidate.as_slice() {
        [] => &Candidate::value_variants()[..4],
        named => named,
    };
    let mut lineup = Lineup::default();
    for candidate in candidates {
        let subject = match candidate {
            Candidate::Unit => Ok(Subject { name: String::from("unit again"), ..unit.clone() }),
            Candidate::Uws => builder.peer(Peer::Uws, true),
            Candidate::Gws => builder.peer(Peer::Gws, true),
            Candidate::Ws => builder.peer(Peer::Ws, true),
            Candidate::Corelane => {
                let program = build::build(repo, CORELANE, &args.common.profile, interrupt)?;
                let subject = group(corelane(program, &data(folder.path())?, "--shards 1"));
                join(&instrument, &subject, args.receivers, args.scattered)?;
                Ok(subject)
            }
        };
        let name = format!("{candidate:?}").to_lowercase();
        lineup.add(&name, subject, interrupt)?;
    }
    let notes = lineup.notes();
    let subjects = [vec![unit], lineup.subjects].concat();
    let options = options(args.receivers, args.payload, args.messages, args.warmup, args.window);
    let series = Series::measure(subjects, COLUMNS, args.rounds, |subject| {
        instrument.measure(subject, &options)
    })?;
    let title =
        "Fan-out: time of the server's core a delivery, as a ratio to a bare send loop in C";
    let text = host::head(title, repo) + &result(args, &series) + &notes;
    host::publish(repo, "fanout", &text, args.common.dry_run)
}

/// A data folder of its own below `folder`.
fn data(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let data = folder.join("data");
    std::fs::create_dir_all(&data)?;
    Ok(data)
}

/// The chat server's side: every connection a user of its own, all in one group.
pub(super) fn group(subject: Subject) -> Subject {
    let client_options = words("--protocol=corelane --path=/ws?user_id=u{n}");
    Subject { client_options, ..subject }
}

/// Makes members of all users, once: the group is on disk for every later start.
///
/// # Errors
/// When the server refuses one.
pub(super) fn join(
    instrument: &Instrument<'_>,
    subject: &Subject,
    receivers: usize,
    scattered: bool,
) -> anyhow::Result<()> {
    eprintln!("{receivers} users join the group");
    let mut options = vec![String::from("--join"), format!("--receivers={receivers}")];
    options.extend(scattered.then(|| String::from("--scattered")));
    instrument
        .with_server(subject, |server| instrument.run_client(server, subject, &options).map(drop))
}

/// What the client is told, whoever serves.
pub(super) fn options(
    receivers: usize,
    payload: usize,
    messages: u64,
    warmup: u64,
    window: u64,
) -> Vec<String> {
    vec![
        format!("--receivers={receivers}"),
        format!("--payload={payload}"),
        format!("--messages={messages}"),
        format!("--warmup={warmup}"),
        format!("--window={window}"),
    ]
}

fn result(args: &Args, series: &Series<Report>) -> String {
    let Args { receivers, payload, messages, window, .. } = args;
    let order = if args.scattered {
        "in an order other than that of the connections"
    } else {
        "in the order of the connections"
    };
    let head = format!(
        "\nOne sender, {receivers} receivers, {payload} bytes; {messages} messages measured each \
         time, {window} under way: the next goes out when one is with everybody. Every delivery is \
         checked. The unit and the peers send to the sender too, who is not counted; corelane \
         stores each message (fsync), acknowledges it to the sender and pushes it as JSON to the \
         others, with one shard; its members joined {order}.\nCompared is all that was done on the server's core, by whomever.\n\
         Ratio: to the mean of the units right before and after. Median (smallest-largest).\n\n",
    );
    head + &series.table() + &series.budgets(BUDGETS) + &series.in_order()
}
