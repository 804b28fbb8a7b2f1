//! `bench large-group`: one large group on a cluster, some of its members online, while it goes to and fro between the
//! two ways in which messages reach members.

mod result;
mod switch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::host;
use crate::build::{self, LOADGEN};
use crate::cluster::{Binaries, Cluster, Node, Plan, Scope, Size};
use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;
use crate::servers::Kind;
use result::{CpuTime, Report};
use switch::Switches;

/// Joining, one member after the other, is most of it.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// What the load generator says when messages begin.
const LOAD_BEGINS: &str = "stage: load";

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Members of the group.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    members: u32,
    /// How many of them are online.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(2..=18_000))]
    online: u32,
    /// How many of those send.
    #[arg(long, default_value_t = 10)]
    senders: u32,
    /// Messages a second.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// How long messages are sent, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The group is switched so often, in seconds: first to be written to each member, then to be read.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    switch_every: u64,
    /// How many gateways.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    gateways: u32,
    /// How many logic services.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    logic: u32,
    /// Write no result file.
    #[arg(long)]
    dry_run: bool,
}

/// Runs it once and writes the result, good or bad.
///
/// # Errors
/// When something does not build or start, a promise was broken, or the group was not switched as often as it should.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if args.members < args.online {
        bail!("--online are members: no more than --members");
    }
    raise_file_limit()?;
    let loadgen = match Binaries::also_kept(LOADGEN.name) {
        Some(path) => path,
        None => build::build(repo, LOADGEN, "release", interrupt)?,
    };
    let binaries = Binaries::build(repo, false, interrupt)?;
    let folder = Scratch::create("large-group")?;
    let size = Size { gateways: args.gateways, logic: args.logic };
    let plan = Plan { size, dev_login: true, settings: settings(args.members) };
    let mut say = |line: &str| eprintln!("{line}");
    let mut cluster =
        Cluster::private("large-group-servers", &binaries, plan, interrupt, &mut say)?;
    let measured = measure(args, &mut cluster, &loadgen, folder.path(), interrupt)?;
    let head = host::head("Large group on the cluster form", repo);
    host::publish(repo, "large-group", &(head + &measured.text(args)), args.dry_run)?;
    match measured.shortcomings(args).as_slice() {
        [] => Ok(()),
        found => bail!("{}", found.join("; ")),
    }
}

/// No message of the few who send may be refused for its rate; the group is large when all have joined.
fn settings(members: u32) -> Vec<(Scope, String, String)> {
    let limit = |key: &str| (Scope::Gateways, key.to_owned(), String::from("1000000"));
    let threshold = String::from("fanout_switch_members");
    vec![
        limit("messages_per_second"),
        limit("message_burst"),
        (Scope::Logic, threshold, switch::low(members).to_string()),
    ]
}

/// What a run came to.
#[derive(Debug, Default)]
struct Measured {
    report: Report,
    /// When the threshold was set to what, in seconds of the load.
    set: Vec<(f64, u32)>,
    /// How often the group became large and small, as the logic services said.
    became: [usize; 2],
    /// From the beginning of the load to the end of the run, by kind of process.
    cpu: Vec<(String, f64)>,
}

fn measure(
    args: &Args,
    cluster: &mut Cluster,
    loadgen: &Path,
    folder: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Measured> {
    let etcd = cluster.servers().port(Kind::Etcd).context("etcd has no port")?;
    let processes = processes(cluster)?;
    let logs: Vec<PathBuf> = logic(cluster).map(|node| cluster.log(node)).collect();
    let json = folder.join("report.json");
    let mut switches = Switches::new(etcd, args.members, args.switch_every, args.seconds);
    let mut before = None;
    let ending = job::run(&mut load(args, cluster, loadgen, &json), LIMIT, interrupt, |line| {
        let (Line::Out(text) | Line::Err(text)) = line;
        eprintln!("{text}");
        if text == LOAD_BEGINS {
            switches.begin();
            before = Some((CpuTime::of(&processes), lengths(&logs)));
        }
    })?;
    let after = CpuTime::of(&processes);
    let set = switches.end()?;
    let text = fs::read_to_string(&json)
        .with_context(|| format!("the load generator wrote no report ({ending:?})"))?;
    let report = result::read(&text)?;
    let Some((before, lengths)) = before else { bail!("the load never began") };
    let became = ["a conversation is large now", "a conversation is small now"]
        .map(|said| logs.iter().zip(&lengths).map(|(log, from)| count(log, *from, said)).sum());
    Ok(Measured { report, set, became, cpu: after.since(&before) })
}

fn load(args: &Args, cluster: &Cluster, loadgen: &Path, json: &Path) -> Command {
    let mut command = Command::new(loadgen);
    command.arg("fanout");
    let gateways = cluster.nodes().into_iter().filter_map(|node| cluster.gateway(node));
    for url in gateways {
        command.args(["--url", &format!("{}/ws", url.replacen("http", "ws", 1))]);
    }
    let number = |name: &str, value: u64| [name.to_owned(), value.to_string()];
    command
        .args(number("--connections", args.online.into()))
        .args(number("--offline", (args.members - args.online).into()))
        .args(number("--senders", args.senders.into()))
        .args(number("--rate", args.rate.into()))
        .args(number("--duration", args.seconds))
        .args("--stages --drain 60s --setup-timeout 1200s --json".split(' '))
        .arg(json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn logic(cluster: &Cluster) -> impl Iterator<Item = Node> {
    cluster.nodes().into_iter().filter(|node| matches!(node, Node::Logic(_)))
}

/// The processes that are measured, each with its kind.
fn processes(cluster: &mut Cluster) -> anyhow::Result<Vec<(String, i32)>> {
    let mut found = Vec::new();
    for node in cluster.nodes() {
        let kind = if matches!(node, Node::Gateway(_)) { "gateways" } else { "logic services" };
        let daemon = cluster.running(node)?.with_context(|| format!("{node} does not run"))?;
        found.push((kind.to_owned(), daemon.pid()));
    }
    for kind in Kind::ALL {
        if let Some(daemon) = cluster.servers().running(kind)? {
            found.push((kind.name().to_owned(), daemon.pid()));
        }
    }
    Ok(found)
}

fn lengths(logs: &[PathBuf]) -> Vec<usize> {
    logs.iter().map(|log| fs::read(log).map_or(0, |bytes| bytes.len())).collect()
}

/// Lines of a log, from a place on, with these words.
fn count(log: &Path, from: usize, words: &str) -> usize {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default());
    text.lines().filter(|line| line.contains(words)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_since_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "x is large now\n").unwrap();
        let from = lengths(&[log.clone(), folder.path().join("none")]);
        assert_eq!(from, [15, 0]);
        fs::write(&log, "x is large now\nx is small now\nx is large now\n").unwrap();
        assert_eq!(count(&log, from[0], "is large now"), 1);
        assert_eq!(count(&log, 1000, "is large now"), 0);
    }
}
