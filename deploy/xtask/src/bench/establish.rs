//! `bench establish`: how many connections a second, upgrade and login included.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use serde::Deserialize;

use super::candidates::{Builder, Lineup};
use super::embedded::corelane;
use super::instrument::{Instrument, Subject, gateway_echo};
use super::peers::Peer;
use super::ratio::Spread;
use super::series::{rule, show};
use super::{Common, host};
use crate::build::{self, Binary, CORELANE};
use crate::interrupt::Interrupt;
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;

/// The client.
pub(super) const CLIENT: Binary = Binary { package: "bench", name: "establish_client" };
/// For the server to notice that the connections of a run are gone.
const BETWEEN_RUNS: Duration = Duration::from_millis(500);
/// Budget P6, connections a second on two cores.
const AT_LEAST: f64 = 30_000.0;

/// What is opened, and how it logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Candidate {
    /// The embedded server, logged in by name (`?user_id=`).
    Name,
    /// The embedded server, logged in by access token in the subprotocol.
    Token,
    /// `gateway echo`: upgrade without login.
    Gateway,
    /// uWebSockets: upgrade without login.
    Uws,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Connections a run.
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Fresh servers of each kind.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Threads that open connections.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Connections of a thread that wait for their answer at any time.
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Users whose tokens are shown. Before the runs each costs two password hashes; with fewer,
    /// getting different tokens takes longer, one a second of each.
    #[arg(long, default_value_t = 500)]
    users: usize,
    /// What is measured; all when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    candidate: Vec<Candidate>,
}

/// What the client reports.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Report {
    pub(super) connections_per_s: f64,
    server_cpu_ns_per_connection: f64,
    client_cpu_ns_per_connection: f64,
}

/// The runs against one kind of server.
struct Row {
    subject: Subject,
    /// The first on each fresh server, and the one after it.
    runs: [Vec<Report>; 2],
}

/// Measures all rounds, prints them, writes the result.
///
/// # Errors
/// When something of ours does not build, or a connection is refused.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    raise_file_limit()?;
    let instrument = Instrument::build(repo, CLIENT, &args.common, interrupt)?.unpinned();
    let folder = Scratch::create("establish")?;
    let builder = Builder::new(repo, &args.common.profile, instrument.client(), interrupt)?;
    let candidates = match args.candidate.as_slice() {
        [] => Candidate::value_variants(),
        named => named,
    };
    let mut lineup = Lineup::default();
    for candidate in candidates {
        let subject = match candidate {
            Candidate::Uws => {
                builder.peer(Peer::Uws, false).map(|subject| upgrades_only(subject, "uws"))
            }
            Candidate::Gateway => {
                Ok(upgrades_only(on_all_cores(builder.gateway()?), "gateway echo"))
            }
            Candidate::Name | Candidate::Token => {
                let program = build::build(repo, CORELANE, &args.common.profile, interrupt)?;
                let by_token = (*candidate == Candidate::Token).then_some(args.users);
                logged_in(&instrument, program, folder.path(), by_token, args.connections)
            }
        };
        lineup.add(&format!("{candidate:?}").to_lowercase(), subject, interrupt)?;
    }
    let notes = lineup.notes();
    let new_row = |subject| Row { subject, runs: [Vec::new(), Vec::new()] };
    let mut rows: Vec<Row> = lineup.subjects.into_iter().map(new_row).collect();
    for round in 0..args.rounds {
        // Turned every other round, so that a drift hits all alike.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            measure(args, &instrument, &mut rows[at])?;
        }
    }
    let title = "Establishing: connections a second, upgrade and login included";
    let text = host::head(title, repo) + &result(args, &rows) + &notes;
    host::publish(repo, "establish", &text, args.common.dry_run)
}

/// Two runs on a fresh server.
fn measure(args: &Args, instrument: &Instrument<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = options(args.connections, args.threads, args.window);
    let Row { subject, runs } = row;
    instrument.with_server(subject, |server| {
        for (nth, runs) in runs.iter_mut().enumerate() {
            let report: Report = instrument.drive(server, subject, &options)?;
            eprintln!(
                "{:<24} run {} {:>8.0} connections/s {:>7.2} us server {:>7.2} us client",
                subject.name,
                nth + 1,
                report.connections_per_s,
                report.server_cpu_ns_per_connection / 1e3,
                report.client_cpu_ns_per_connection / 1e3,
            );
            runs.push(report);
            std::thread::sleep(BETWEEN_RUNS);
        }
        Ok(())
    })
}

/// What the client is told, whoever serves.
pub(super) fn options(connections: usize, threads: usize, window: usize) -> Vec<String> {
    vec![
        format!("--connections={connections}"),
        format!("--threads={threads}"),
        format!("--window={window}"),
    ]
}

/// The gateway with as many shards as it chooses.
fn on_all_cores(program: PathBuf) -> Subject {
    let mut subject = gateway_echo(program, None);
    subject.arguments.truncate(3);
    subject
}

fn upgrades_only(subject: Subject, name: &str) -> Subject {
    let name = format!("{name}, upgrade only");
    Subject { name, client_options: vec![String::from("--by=none")], ..subject }
}

/// The embedded server on a data folder where the users exist: those of the names by an
/// unmeasured run, those of the tokens by registering.
///
/// # Errors
/// When a user is refused.
pub(super) fn logged_in(
    instrument: &Instrument<'_>,
    program: PathBuf,
    folder: &Path,
    by_token: Option<usize>,
    connections: usize,
) -> anyhow::Result<Subject> {
    let data = folder.join(if by_token.is_some() { "by-token" } else { "by-name" });
    std::fs::create_dir_all(&data)?;
    let mut subject = corelane(program, &data, "--access-token-s 86400");
    let prepare = match by_token {
        Some(users) => {
            let tokens = format!("--tokens={}", folder.join("tokens").display());
            subject.name += ", by token";
            subject.client_options = vec![String::from("--by=token"), tokens];
            vec![format!("--users={users}"), format!("--connections={connections}")]
        }
        None => {
            subject.name += ", by name";
            subject.client_options = vec![String::from("--by=name")];
            options(connections, 1, 256)
        }
    };
    eprintln!("making the users of {}", subject.name);
    instrument.with_server(&subject, |server| {
        instrument.run_client(server, &subject, &prepare).map(drop)
    })?;
    Ok(subject)
}

fn result(args: &Args, rows: &[Row]) -> String {
    let mut text = format!(
        "\n{} connections a run from {} thread(s), {} of each waiting for their answer at any time; \
         server and generator share all cores. By name: each connection another user, who exists. \
         By token: each connection another access token, of {} users. A connection counts when the \
         heartbeat sent right behind the handshake is answered, which is after the login; without \
         login, when the upgrade is.\n\
         First: the first run on a fresh server, which also takes its memory from the system and \
         sees each token for the first time; again: the same connections once more on the same \
         server. Median (smallest-largest) of {} servers.\n\n\
         | who | run | connections/s | server us each | generator us each |\n{}\n",
        args.connections,
        args.threads,
        args.window,
        args.users,
        args.rounds,
        rule(5),
    );
    let mut budgets = String::new();
    for Row { subject, runs } in rows {
        for (name, runs) in ["first", "again"].into_iter().zip(runs) {
            let spread =
                |figure: fn(&Report) -> f64, decimals| show(runs.iter().map(figure), decimals);
            let _ = writeln!(
                text,
                "| {} | {name} | {} | {} | {} |",
                subject.name,
                spread(|report| report.connections_per_s, 0),
                spread(|report| report.server_cpu_ns_per_connection / 1e3, 1),
                spread(|report| report.client_cpu_ns_per_connection / 1e3, 1),
            );
        }
        let rates = runs.iter().flatten().map(|report| report.connections_per_s);
        if let (Some(spread), true) = (Spread::of(rates), subject.name.starts_with("corelane")) {
            let kept = if spread.median >= AT_LEAST { "kept" } else { "missed" };
            let (who, spread) = (&subject.name, spread.show(0));
            let _ = writeln!(budgets, "| P6 | {who} | {AT_LEAST:.0} | {spread} | {kept} |");
        }
    }
    if !budgets.is_empty() {
        let rule = rule(5);
        let _ =
            write!(text, "\n| budget | who | at least a second | all runs | |\n{rule}\n{budgets}");
    }
    text
}
