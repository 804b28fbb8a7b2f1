//! `cargo xtask flame`: where a server's CPU time goes under load, as a flame graph.

mod fold;
mod load;
mod perf;
mod scenario;
mod svg;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};

use fold::Fold;
use load::Load;
use scenario::{Plan, Scenario};

use crate::build;
use crate::interrupt::Interrupt;
use crate::pinned::{on_core, raise_file_limit};
use crate::repo::Repo;
use crate::scratch::Scratch;
use crate::server::Server;

/// Files a server needs beside its connections.
const SPARE_FILES: u64 = 500;

/// What to record, how long, and where the picture goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The load.
    #[arg(value_enum)]
    scenario: Scenario,
    /// How long to record.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Connections [default: the scenario's own, fewer where open files are scarce].
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    connections: Option<u64>,
    /// Where the picture goes [default: flame in the build folder, where the folded stacks are].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Builds server and load, records, draws.
///
/// # Errors
/// When perf is missing or forbidden, when something does not build or start, or when the load
/// ends before the recording.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (repo, interrupt) = (Repo::find()?, Interrupt::on_signals()?);
    let access = perf::Access::find()?;
    access.warnings().iter().for_each(|line| eprintln!("{line}"));
    let files = raise_file_limit()?;
    let connections = connections(args, files)?;

    let server = build::build_to_profile(&repo, args.scenario.server(), &interrupt)?;
    let client = build::build(&repo, args.scenario.client(), "release", &interrupt)?;
    let scratch = Scratch::create("flame")?;
    let plan = Plan { scenario: args.scenario, connections, seconds: args.seconds };
    let stacks = record(&plan, access, [&server, &client], scratch.path(), &interrupt)?;
    if stacks.samples() == 0 {
        bail!("perf took no sample: the server did nothing, or this machine has no cpu-clock");
    }

    // TARGET/profiling/corelane
    let target = server.ancestors().nth(2).unwrap_or_else(|| Path::new("."));
    let folded = target.join("flame");
    let out = args.out.as_deref().unwrap_or(&folded);
    let picture = svg::draw(stacks.iter(), &caption(&plan, &repo, stacks.samples()));
    write(&folded, &format!("flame-{}.folded", plan.scenario.name()), &stacks.text())?;
    write(out, &format!("flame-{}.svg", plan.scenario.name()), &picture)?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("written to {} ({} KB)", path.display(), text.len().div_ceil(1000));
    Ok(())
}

/// As many as asked for, or as this machine lets a process open.
fn connections(args: &Args, files: u64) -> anyhow::Result<u64> {
    let most = files.saturating_sub(SPARE_FILES);
    match args.connections {
        Some(asked) if asked > most => {
            bail!("{asked} connections need more open files than the {files} allowed (ulimit -Hn)")
        }
        Some(asked) => Ok(asked),
        None => Ok(args.scenario.connections().min(most)),
    }
}

/// Starts server and load, records, ends both. All of it on loopback.
fn record(
    plan: &Plan,
    access: perf::Access,
    [program, client]: [&Path; 2],
    scratch: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Fold> {
    let mut command = Command::new(program);
    command.args(plan.server_arguments(&scratch.join("data")));
    let mut server = apart(plan, 0, || Server::start("server", &mut command, interrupt))?;
    let outcome = (|| {
        let mut command = plan.client_command(client, server.address());
        let load = apart(plan, 1, || Load::start(&mut command))?;
        if plan.scenario.records_connected() {
            eprintln!("connecting {}", plan.connections);
            load.wait_connected(server.address(), plan.connections, interrupt)?;
        }
        eprintln!("recording {} s", plan.seconds);
        let data = scratch.join("perf.data");
        let time = Duration::from_secs(plan.seconds);
        perf::record(server.pid(), access, time, &data, interrupt)?;
        load.end()?;
        Ok(data)
    })();
    let data = outcome.map_err(|error: anyhow::Error| error.context(server.tail()))?;
    server.stop()?;
    let mut stacks = Fold::default();
    perf::script(&data, interrupt, |line| stacks.read(line))?;
    stacks.read("");
    Ok(stacks)
}

/// Runs `start` on one core where the scenario gives server and load one each.
fn apart<T>(
    plan: &Plan,
    core: usize,
    start: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if plan.scenario.one_core_each() && cores > 1 { on_core(core, start) } else { start() }
}

fn caption(plan: &Plan, repo: &Repo, samples: u64) -> [String; 2] {
    let git = Command::new("git")
        .current_dir(repo.root())
        .args(["rev-parse", "--short=12", "HEAD"])
        .output();
    let commit = git.ok().filter(|output| output.status.success());
    let commit = commit.map_or_else(
        || String::from("unknown"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    let title = format!("{}: CPU time of the server", plan.scenario.title());
    let details = format!(
        "{} connections, {samples} samples in {} s, commit {commit}, cargo xtask flame {}",
        plan.connections,
        plan.seconds,
        plan.scenario.name()
    );
    [title, details]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_open_files() {
        let args =
            |connections| Args { scenario: Scenario::Echo, seconds: 1, connections, out: None };
        assert_eq!(connections(&args(None), 20_000).unwrap(), 15_000);
        assert_eq!(connections(&args(None), 1_024).unwrap(), 524);
        assert_eq!(connections(&args(Some(1_000)), 20_000).unwrap(), 1_000);
        assert!(connections(&args(Some(30_000)), 20_000).is_err());
    }
}
