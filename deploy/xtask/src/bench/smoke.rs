//! `bench smoke`: every candidate of every measurement with small numbers. Fails when one that
//! builds here answers wrongly; says who could not be built.

use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;

use super::candidates::{Builder, Echo, Lineup};
use super::embedded::corelane;
use super::instrument::{Instrument, Report, Subject, unit, words};
use super::peers::Peer;
use super::{Common, Load, echo, establish, fanout, slices};
use crate::build::{self, CORELANE, ECHO_CLIENT};
use crate::interrupt::Interrupt;
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;

const CONNECTIONS: usize = 200;
const USERS: usize = 100;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
}

/// What came out.
#[derive(Debug, Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    fn count(&mut self, what: &str, who: &str, outcome: anyhow::Result<String>) {
        match outcome {
            Ok(figure) => {
                self.passed += 1;
                eprintln!("ok      {what:<10} {who:<24} {figure}");
            }
            Err(error) => {
                self.failed += 1;
                eprintln!("FAILED  {what:<10} {who:<24} {error:#}");
            }
        }
    }
}

/// Runs everything once and small.
///
/// # Errors
/// When something of ours does not build, or somebody wants us to stop.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    raise_file_limit()?;
    let folder = Scratch::create("smoke")?;
    let mut tally = Tally::default();
    let mut left_out = Vec::new();
    let echo_client = Instrument::build(repo, ECHO_CLIENT, &args.common, interrupt)?;
    let builder = Builder::new(repo, &args.common.profile, echo_client.client(), interrupt)?;
    left_out.extend(echoes(&builder, &echo_client, repo, folder.path(), interrupt, &mut tally)?);

    let corelane = build::build(repo, CORELANE, &args.common.profile, interrupt)?;
    let client = Instrument::build(repo, fanout::CLIENT, &args.common, interrupt)?;
    let lineup = fanouts(&builder, repo, folder.path(), interrupt)?;
    left_out.extend(lineup.left_out);
    for subject in &lineup.subjects {
        tally.count("fanout", &subject.name, fan_out(&client, subject));
    }
    let subject = in_data(&corelane, folder.path(), "fanout", fanout::group)?;
    let joined = fanout::join(&client, &subject, CONNECTIONS, true);
    tally.count("fanout", &subject.name, joined.and_then(|()| fan_out(&client, &subject)));

    let client = Instrument::build(repo, establish::CLIENT, &args.common, interrupt)?.unpinned();
    for by_token in [None, Some(USERS)] {
        let program = corelane.clone();
        let path = folder.path();
        let outcome = establish::logged_in(&client, program, path, by_token, CONNECTIONS)
            .and_then(|subject| open(&client, &subject));
        tally.count("establish", if by_token.is_some() { "by token" } else { "by name" }, outcome);
    }
    left_out.iter().for_each(|line| eprintln!("{line}"));
    eprintln!("{} passed, {} failed, {} left out", tally.passed, tally.failed, left_out.len());
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn echoes(
    builder: &Builder<'_>,
    client: &Instrument<'_>,
    repo: &Repo,
    folder: &Path,
    interrupt: &Interrupt,
    tally: &mut Tally,
) -> anyhow::Result<Vec<String>> {
    let unit = unit(echo::UNIT, repo, folder, interrupt)?;
    let lineup = builder.echo(Echo::value_variants(), &unit, client)?;
    let options = words(
        "--connections=200 --outstanding=50 --payload=512 --messages=5000 --warmup=500 \
         --settle-ms=10",
    );
    for subject in &lineup.subjects {
        let report: anyhow::Result<Report> = client.measure(subject, &options);
        let figure = report
            .map(|report| format!("{:.2} us/message", report.server_cpu_ns_per_message / 1e3));
        tally.count("echo", &subject.name, figure);
    }
    let subjects = [vec![unit], lineup.subjects].concat();
    let outcome = slices::measure(&small_slices(), client, subjects, interrupt);
    tally.count("slices", "all of them", outcome.map(|_| String::from("taking turns")));
    Ok(lineup.left_out)
}

fn small_slices() -> slices::Plan {
    slices::Plan {
        load: Load { connections: CONNECTIONS, outstanding: 50, payload: 512 },
        rounds: 2,
        reopen: 1,
        messages: 2_000,
        warmup: 500,
        slice_warmup: 100,
        link: false,
        budgets: &[],
    }
}

fn fanouts(
    builder: &Builder<'_>,
    repo: &Repo,
    folder: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Lineup> {
    let mut lineup = Lineup::default();
    lineup.subjects.push(unit(fanout::UNIT, repo, folder, interrupt)?);
    for peer in [Peer::Uws, Peer::Gws, Peer::Ws] {
        lineup.add(peer.name(), builder.peer(peer, true), interrupt)?;
    }
    Ok(lineup)
}

fn fan_out(client: &Instrument<'_>, subject: &Subject) -> anyhow::Result<String> {
    let options = fanout::options(CONNECTIONS, 128, 20, 2, 1);
    let report: fanout::Report = client.measure(subject, &options)?;
    let cost = &fanout::COLUMNS[0];
    Ok(format!("{:.2} {}", (cost.figure)(&report), cost.title))
}

fn open(client: &Instrument<'_>, subject: &Subject) -> anyhow::Result<String> {
    let options = establish::options(CONNECTIONS, 1, 64);
    let report: establish::Report = client.measure(subject, &options)?;
    Ok(format!("{:.0} connections/s", report.connections_per_s))
}

fn in_data(
    program: &Path,
    folder: &Path,
    name: &str,
    finish: fn(Subject) -> Subject,
) -> anyhow::Result<Subject> {
    let data = folder.join(name);
    std::fs::create_dir_all(&data)?;
    Ok(finish(corelane(program.to_path_buf(), &data, "--shards 1")))
}
