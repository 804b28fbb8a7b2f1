//! `cargo xtask flame`: where a server's CPU time goes under load, as a flame graph.

mod attach;
mod fold;
mod load;
mod perf;
mod scenario;
mod svg;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};

use attach::Process;
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
    #[arg(value_enum, required_unless_present = "process")]
    scenario: Option<Scenario>,
    /// Instead of a load and a server of its own: a process that runs already. May be given
    /// several times; each stands under its name in the picture.
    #[arg(long, value_name = "NAME=PID", value_parser = Process::parse, conflicts_with_all = ["scenario", "connections"])]
    process: Vec<Process>,
    /// What the picture of running processes is called: flame-NAME.svg.
    #[arg(long, default_value = "processes", requires = "process")]
    name: String,
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

/// Records a server under load, or processes that run already, and draws.
///
/// # Errors
/// When perf is missing or forbidden, when something does not build or start, or when the load
/// ends before the recording.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (repo, interrupt) = (Repo::find()?, Interrupt::on_signals()?);
    let access = perf::Access::find()?;
    access.warnings().iter().for_each(|line| eprintln!("{line}"));
    match args.scenario {
        Some(scenario) => under_load(args, scenario, access, &repo, &interrupt)?,
        None => attached(args, access, &repo, &interrupt)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds server and load, records, draws.
fn under_load(
    args: &Args,
    scenario: Scenario,
    access: perf::Access,
    repo: &Repo,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let files = raise_file_limit()?;
    let connections = connections(args.connections, scenario, files)?;
    let server = build::build_to_profile(repo, scenario.server(), interrupt)?;
    let client = build::build(repo, scenario.client(), "release", interrupt)?;
    let scratch = Scratch::create("flame")?;
    let plan = Plan { scenario, connections, seconds: args.seconds };
    let stacks = record(&plan, access, [&server, &client], scratch.path(), interrupt)?;
    let title = format!("{}: CPU time of the server", scenario.title());
    let details = format!(
        "{connections} connections, {}, cargo xtask flame {}",
        measured(&stacks, args.seconds, repo),
        scenario.name()
    );
    // TARGET/profiling/corelane
    let folded = server.ancestors().nth(2).unwrap_or_else(|| Path::new(".")).join("flame");
    keep(&stacks, [title, details], scenario.name(), &folded, args.out.as_deref())
}

/// Records what runs already.
fn attached(
    args: &Args,
    access: perf::Access,
    repo: &Repo,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let (pids, names) = attach::split(&args.process);
    let title = names.values().map(String::as_str).collect::<Vec<_>>().join(", ");
    let scratch = Scratch::create("flame")?;
    let data = scratch.path().join("perf.data");
    eprintln!("recording {} s", args.seconds);
    perf::record(&pids, access, Duration::from_secs(args.seconds), &data, interrupt)?;
    let stacks = read(&data, Fold::of(names), interrupt)?;
    let details = format!("{}, cargo xtask flame --process", measured(&stacks, args.seconds, repo));
    // TARGET/debug/xtask
    let own = std::env::current_exe().context("where this program is")?;
    let folder = own.ancestors().nth(2).unwrap_or_else(|| Path::new(".")).join("flame");
    keep(
        &stacks,
        [format!("CPU time of {title}"), details],
        &args.name,
        &folder,
        args.out.as_deref(),
    )
}

/// Writes stacks and picture; the picture to `out`, if there is one.
fn keep(
    stacks: &Fold,
    caption: [String; 2],
    name: &str,
    folded: &Path,
    out: Option<&Path>,
) -> anyhow::Result<()> {
    if stacks.samples() == 0 {
        bail!("perf took no sample: the server did nothing, or this machine has no cpu-clock");
    }
    let picture = svg::draw(stacks.iter(), &caption);
    write(folded, &format!("flame-{name}.folded"), &stacks.text())?;
    write(out.unwrap_or(folded), &format!("flame-{name}.svg"), &picture)
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("written to {} ({} KB)", path.display(), text.len().div_ceil(1000));
    Ok(())
}

/// As many as asked for, or as this machine lets a process open.
fn connections(asked: Option<u64>, scenario: Scenario, files: u64) -> anyhow::Result<u64> {
    let most = files.saturating_sub(SPARE_FILES);
    match asked {
        Some(asked) if asked > most => {
            bail!("{asked} connections need more open files than the {files} allowed (ulimit -Hn)")
        }
        Some(asked) => Ok(asked),
        None => Ok(scenario.connections().min(most)),
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
        perf::record(&[server.pid()], access, time, &data, interrupt)?;
        load.end()?;
        Ok(data)
    })();
    let data = outcome.map_err(|error: anyhow::Error| error.context(server.tail()))?;
    server.stop()?;
    read(&data, Fold::default(), interrupt)
}

fn read(data: &Path, mut stacks: Fold, interrupt: &Interrupt) -> anyhow::Result<Fold> {
    perf::script(data, interrupt, |line| stacks.read(line))?;
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

/// What the picture rests on.
fn measured(stacks: &Fold, seconds: u64, repo: &Repo) -> String {
    let git = Command::new("git")
        .current_dir(repo.root())
        .args(["rev-parse", "--short=12", "HEAD"])
        .output();
    let commit = git.ok().filter(|output| output.status.success());
    let commit = commit.map_or_else(
        || String::from("unknown"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    format!("{} samples in {seconds} s, commit {commit}", stacks.samples())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_open_files() {
        let connections = |asked, files| connections(asked, Scenario::Echo, files);
        assert_eq!(connections(None, 20_000).unwrap(), 15_000);
        assert_eq!(connections(None, 1_024).unwrap(), 524);
        assert_eq!(connections(Some(1_000), 20_000).unwrap(), 1_000);
        assert!(connections(Some(30_000), 20_000).is_err());
    }

    #[test]
    fn a_load_or_processes_are_named() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let parse = |line: &str| <Line as clap::Parser>::try_parse_from(line.split(' '));
        assert_eq!(parse("flame chat").unwrap().args.scenario, Some(Scenario::Chat));
        let args = parse("flame --process a=1 --process b=2 --name pair").unwrap().args;
        assert_eq!((args.process.len(), args.name.as_str()), (2, "pair"));
        for bad in ["flame", "flame chat --process a=1", "flame --name x", "flame --process a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
