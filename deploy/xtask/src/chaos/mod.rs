//! `cargo xtask chaos`: faults on real processes and servers under load, judged by the oracle, each
//! beside a control run in which a safeguard is off.

mod cache_file;
mod evidence;
mod load;
mod panics;
mod poison;
mod random;
mod rows;
mod table;
mod trial;
mod twins;
mod valve;

use std::fs::File;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use evidence::{Evidence, Logs};
use random::Random;
use rows::{Off, ROWS, Row};
use table::{Kind, Run};
use trial::Bench;
use valve::Valve;

use crate::build::{self, LOADGEN};
use crate::cluster::{Binaries, Cluster, Plan, Scope};
use crate::interrupt::Interrupt;
use crate::repo::Repo;
use crate::scratch::Scratch;
use crate::servers::{self, Servers};

/// The variable by which a build with fault injection is told what to do without.
const GUARD_VARIABLE: &str = "CORELANE_FAULT";

/// The variable by which it is told which content makes the handler of a message panic.
const PANIC_VARIABLE: &str = "CORELANE_PANIC_ON";
/// Whoever has this file locked builds: other builds put other programs under the same names.
const BUILDS: &str = "target/chaos-builds.lock";

/// Which rows, and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Trials of each row [default: 50, with --short 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: Option<u32>,
    /// Trials of each control run; it ends with the first that shows damage.
    #[arg(long, default_value_t = 10, value_name = "N")]
    control_trials: u32,
    /// Only these rows, such as F1,F4.
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,
    /// A few rows, one trial each, without control runs.
    #[arg(long)]
    short: bool,
    /// Repeats what was drawn; printed when it is not given.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Leave the control runs out.
    #[arg(long)]
    no_control: bool,
    /// Nothing but the control runs.
    #[arg(long, conflicts_with_all = ["no_control", "short", "trials"])]
    control_only: bool,
    /// List the rows and end.
    #[arg(long)]
    list: bool,
    /// Write the results as JSON; the logs of broken trials go beside it, to FILE with the ending
    /// `.logs`. Without it they go to a temporary folder.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the rows asked for and prints the table of results.
///
/// # Errors
/// When there is no such row, or the cluster cannot be built or started.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.list {
        let lines = ROWS.iter().map(|row| format!("{:<4} {}", row.id, row.fault));
        return print(&lines.collect::<Vec<_>>()).map(|()| ExitCode::SUCCESS);
    }
    let interrupt = Interrupt::on_signals()?;
    let rows = choose(&args.rows, args.short)?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    eprintln!("seed {seed}");
    let mut say = |line: &str| eprintln!("{line}");
    let usual = if args.short { 1 } else { 50 };
    let trials = if args.control_only { 0 } else { args.trials.unwrap_or(usual) };
    let controls = if args.short || args.no_control { 0 } else { args.control_trials };
    let mut evidence = Evidence::beside(args.json.as_deref());
    let runs = run_rows(&rows, [trials, controls], seed, &interrupt, &mut evidence, &mut say)?;
    print(&table::lines(&runs))?;
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&runs)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(folder) = evidence.folder() {
        eprintln!("the logs of broken trials are in {}", folder.display());
    }
    let good = runs.iter().all(Run::is_good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs rows; what is said meanwhile is one line a trial.
///
/// # Errors
/// When something does not build or start, or on an interrupt.
fn run_rows(
    rows: &[&'static Row],
    [trials, controls]: [u32; 2],
    seed: u64,
    interrupt: &Interrupt,
    evidence: &mut Evidence,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Run>> {
    let repo = Repo::find()?;
    let loadgen = match Binaries::also_kept(LOADGEN.name) {
        Some(path) => path,
        None => build::build(&repo, LOADGEN, "release", interrupt)?,
    };
    let kept = Scratch::create("chaos")?;
    let builds = lock(&repo.path(BUILDS))?;
    let product = Binaries::build(&repo, false, interrupt)?.keep(&kept.path().join("product"))?;
    let with_faults = controls > 0 || rows.iter().any(|row| row.needs_faults());
    let faulty = match with_faults {
        true => Some(Binaries::build(&repo, true, interrupt)?.keep(&kept.path().join("faulty"))?),
        false => None,
    };
    drop(builds);
    let mut seeds = Random::new(seed);
    let mut runs = Vec::new();
    for row in rows {
        let seed = seeds.next();
        let mut workshop = Workshop { row, loadgen: &loadgen, folder: &kept, interrupt, evidence };
        let binaries = if row.needs_faults() { faulty.as_ref() } else { None };
        if trials > 0 {
            runs.push(workshop.run(binaries.unwrap_or(&product), None, trials, seed, say)?);
        }
        let offs = if controls > 0 { row.controls } else { &[] };
        for off in offs {
            let binaries = faulty.as_ref().unwrap_or(&product);
            runs.push(workshop.run(binaries, Some(*off), controls, seed, say)?);
        }
        if controls > 0 && offs.is_empty() {
            say(&format!("{}: no control run", row.id));
        }
    }
    Ok(runs)
}

/// Waits until nobody else has this file; nobody has it until the value ends.
fn lock(path: &Path) -> anyhow::Result<File> {
    let open = || {
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        let file = File::create(path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    open().with_context(|| format!("cannot lock {}", path.display()))
}

/// What all trials of a row share.
struct Workshop<'a> {
    row: &'static Row,
    loadgen: &'a Path,
    folder: &'a Scratch,
    interrupt: &'a Interrupt,
    evidence: &'a mut Evidence,
}

impl Workshop<'_> {
    /// Starts a cluster and runs trials on it; a control run ends with the first that shows
    /// damage.
    fn run(
        &mut self,
        binaries: &Binaries,
        off: Option<Off>,
        trials: u32,
        seed: u64,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Run> {
        let mut run = Run::new(self.row, off);
        let valve = if self.row.needs_valve() { Some(Valve::listen()?) } else { None };
        let mut cluster = match self.cluster(binaries, off, valve.as_ref(), say) {
            Ok(cluster) => cluster,
            Err(error) if self.interrupt.raised() => return Err(error),
            Err(error) => {
                say(&format!("{}: no cluster: {error:#}", self.row.id));
                run.errors.push(format!("{error:#}"));
                return Ok(run);
            }
        };
        let mut seeds = Random::new(seed);
        let mut bench = Bench {
            cluster: &mut cluster,
            valve: valve.as_ref(),
            loadgen: self.loadgen,
            load_without: match off {
                Some(Off::Load(option)) => Some(option),
                _ => None,
            },
            folder: self.folder.path(),
            interrupt: self.interrupt,
            halted: Vec::new(),
        };
        for number in 1..=trials {
            let seed = seeds.next();
            let name = format!("{} {} {number}/{trials}", self.row.id, run.kind().word());
            let logs = Logs::of(bench.cluster);
            let outcome = bench.run(self.row, seed);
            let is_clean = outcome.as_ref().is_ok_and(|outcome| outcome.clean);
            if !is_clean && run.kind() == Kind::Product && !self.interrupt.raised() {
                let trial = format!("{}-{seed}", self.row.id);
                self.evidence.keep(&trial, &logs, self.folder.path())?;
            }
            match outcome {
                Ok(outcome) => {
                    say(&format!("{name}: {}", table::trial_line(&outcome)));
                    run.outcomes.push(outcome);
                }
                Err(error) if self.interrupt.raised() => return Err(error),
                Err(error) => {
                    let error = format!("seed {seed}: {error:#}");
                    say(&format!("{name}: {error}"));
                    run.errors.push(error);
                    // What is left of this cluster shows nothing any more.
                    break;
                }
            }
            if run.kind() == Kind::Control && run.shows_damage() {
                break;
            }
        }
        Ok(run)
    }

    fn cluster(
        &self,
        binaries: &Binaries,
        off: Option<Off>,
        valve: Option<&Valve>,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Cluster> {
        let mut servers = Servers::prepare_private("chaos-servers", &servers::Kind::ALL)?;
        if let Some(valve) = valve {
            valve.lead_to(servers.lead_kafka_through(valve.port())?);
        }
        // Nothing of the load may be refused for its rate.
        let limits =
            ["messages_per_second", "message_burst", "requests_per_second", "request_burst"];
        let mut settings: Vec<_> = limits
            .iter()
            .map(|key| (Scope::Gateways, (*key).to_owned(), String::from("1000000")))
            .collect();
        for (scope, key, value) in self.row.settings {
            settings.push((*scope, (*key).to_owned(), (*value).to_owned()));
        }
        // Services may be out of their group sooner than Kafka has it by itself.
        for option in ["--override", "group.min.session.timeout.ms=1000"] {
            servers.add_option(servers::Kind::Kafka, option);
        }
        let mut guard = None;
        match off {
            Some(Off::Setting(scope, key, value)) => {
                settings.push((scope, key.to_owned(), value.to_owned()));
            }
            Some(Off::Option(kind, option)) => servers.add_option(kind, option),
            Some(Off::Guard(scope, name)) => guard = Some((scope, name)),
            Some(Off::Load(_)) | None => {}
        }
        servers.up(self.interrupt, say)?;
        let plan = Plan { size: self.row.size, dev_login: true, settings };
        let mut cluster = Cluster::beside(servers, binaries, plan)?;
        let panic_on = (Scope::Logic, PANIC_VARIABLE, panics::CONTENT);
        let variables = guard.map(|(scope, name)| (scope, GUARD_VARIABLE, name));
        for (scope, variable, value) in
            variables.into_iter().chain(self.row.panics().then_some(panic_on))
        {
            for node in cluster.nodes().into_iter().filter(|node| scope.holds(*node)) {
                cluster.set_environment(node, variable, Some(value.into()));
            }
        }
        cluster.up(self.interrupt)?;
        Ok(cluster)
    }
}

fn choose(names: &[String], short: bool) -> anyhow::Result<Vec<&'static Row>> {
    let known = |name: &&String| ROWS.iter().any(|row| row.id.eq_ignore_ascii_case(name));
    if let Some(name) = names.iter().find(|name| !known(name)) {
        let ids: Vec<_> = ROWS.iter().map(|row| row.id).collect();
        bail!("there is no row {name:?}; the rows are {}", ids.join(", "));
    }
    let named = |row: &&Row| names.iter().any(|name| row.id.eq_ignore_ascii_case(name));
    let wanted = |row: &&Row| if names.is_empty() { !short || row.short } else { named(row) };
    Ok(ROWS.iter().filter(wanted).collect())
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Random::new(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)).next()
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_name() {
        let ids = |names: &[&str], short| -> Vec<&str> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            choose(&names, short).unwrap().iter().map(|row| row.id).collect()
        };
        assert_eq!(ids(&["f4", "F1"], false), ["F1", "F4"]);
        assert_eq!(ids(&[], false).len(), ROWS.len());
        assert!((1..ROWS.len()).contains(&ids(&[], true).len()));
        let error = choose(&["F99".into()], false).unwrap_err().to_string();
        assert!(error.contains("F99") && error.contains("F10"), "{error}");
    }
}
