//! `cargo xtask cluster`: servers, gateways and logic services on this machine.

mod binaries;
mod config;
mod layout;
mod node;
mod set;
#[cfg(test)]
mod tests;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

pub(crate) use binaries::Binaries;
pub(crate) use config::Scope;
use layout::Layout;
pub(crate) use node::{Node, Size};
pub(crate) use set::{Cluster, Plan};

use crate::interrupt::Interrupt;
use crate::repo::Repo;
use crate::servers::{self, Kind, Servers};

/// How often the processes are looked at while `up` stays.
const TICK: Duration = Duration::from_millis(200);

/// What to do with the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Build and start everything, stay until Ctrl-C, then end what was started.
    Up(Shape),
    /// End what `up` started, from elsewhere.
    Down,
    /// The lines that `up` printed, as things are now.
    Status,
    /// Bring back a process or server that ended, with the same configuration and ports.
    Start {
        /// gateway-1, logic-2, kafka and so on.
        name: String,
    },
    /// Run a command beside a fresh cluster with servers of its own; all of it ends with the
    /// command. The gateways' addresses are in CORELANE_TEST_GATEWAYS, separated by commas, the
    /// servers' as `cargo xtask servers env` names them.
    Run {
        #[command(flatten)]
        shape: Shape,
        /// A setting of every gateway or logic service, as it stands in their files:
        /// `gateway.linger_ms=1`, `logic.log="debug"`. May be given several times.
        #[arg(long, value_name = "SETTING", value_parser = config::setting)]
        set: Vec<(Scope, String, String)>,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

/// What the cluster is made of.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Shape {
    /// How many gateways.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    gateways: u32,
    /// How many logic services.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    logic: u32,
    /// Logins by mere name (`ws://HOST/ws?user_id=alice`).
    #[arg(long)]
    dev_login: bool,
}

impl Shape {
    fn size(self) -> Size {
        Size { gateways: self.gateways, logic: self.logic }
    }
}

/// The variable that tells tests where the gateways are.
const GATEWAYS_VARIABLE: &str = "CORELANE_TEST_GATEWAYS";

/// Does it.
///
/// # Errors
/// When something does not build, start or end.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::on_signals()?;
    match &args.action {
        Action::Up(shape) => {
            let (size, dev_login) = (shape.size(), shape.dev_login);
            let page = Repo::find()?.web_dist();
            let web_dir = page.join("index.html").is_file().then_some(page);
            up(Layout { size, dev_login, web_dir, servers: Vec::new() }, &interrupt)?;
        }
        Action::Run { shape, set, command } => {
            let (size, dev_login) = (shape.size(), shape.dev_login);
            let plan = Plan { size, dev_login, settings: set.clone() };
            return run_beside(plan, command, &interrupt);
        }
        Action::Down => down(&interrupt)?,
        Action::Status => {
            let Some((cluster, _)) = known()? else { bail!("no cluster is up") };
            print_status(&cluster)?;
        }
        Action::Start { name } => start(name, &interrupt)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(mut layout: Layout, interrupt: &Interrupt) -> anyhow::Result<()> {
    let begun = Instant::now();
    let servers = Servers::shared()?;
    let folder = layout::folder(&servers);
    if let Some((cluster, _)) = known()?
        && cluster.some_runs()?
    {
        bail!("a cluster is up already; end it with: cargo xtask cluster down");
    }
    let binaries = Binaries::build(&Repo::find()?, false, interrupt)?;
    let lock = servers.lock(interrupt)?;
    let binaries = binaries.keep(&folder.join("bin"))?;
    let mut cluster = Cluster::beside(servers, &binaries, layout.plan())?;
    // Written first: whoever ends us now, `down` finds what we started.
    layout.servers = cluster.servers().missing()?;
    layout.save(&folder)?;
    let outcome = cluster
        .servers()
        .up(interrupt, &mut |line| eprintln!("{line}"))
        .and_then(|_| cluster.up(interrupt));
    if let Err(error) = outcome {
        end(&mut cluster, &layout)?;
        return Err(error);
    }
    print_status(&cluster)?;
    eprintln!("started in {:.1} s; Ctrl-C ends it", begun.elapsed().as_secs_f64());
    drop(lock);
    watch(&mut cluster, interrupt)?;
    // `down` may be at work on it from elsewhere.
    let _lock = cluster.servers().lock(&Interrupt::default())?;
    if layout::Layout::load(&folder)?.is_some() { end(&mut cluster, &layout) } else { Ok(()) }
}

/// Stays until asked to end or ended from elsewhere, and tells of every process that ends.
fn watch(cluster: &mut Cluster, interrupt: &Interrupt) -> anyhow::Result<()> {
    let folder = layout::folder(cluster.servers());
    let mut down: Vec<Node> = Vec::new();
    while !interrupt.raised() && Layout::load(&folder)?.is_some() {
        for node in newly_ended(cluster, &mut down)? {
            eprintln!("{node} ended; bring it back with: cargo xtask cluster start {node}");
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// Which processes ended since the last look; `down` are those told of. None while another command is at work: what
/// `down` ends from elsewhere nobody has to bring back.
fn newly_ended(cluster: &mut Cluster, down: &mut Vec<Node>) -> anyhow::Result<Vec<Node>> {
    let Some(_lock) = cluster.servers().try_lock()? else { return Ok(Vec::new()) };
    if Layout::load(&layout::folder(cluster.servers()))?.is_none() {
        return Ok(Vec::new());
    }
    let mut ended = Vec::new();
    for node in cluster.nodes() {
        match (cluster.running(node)?.is_some(), down.contains(&node)) {
            (true, true) => down.retain(|other| *other != node),
            (false, false) => {
                down.push(node);
                ended.push(node);
            }
            _ => {}
        }
    }
    Ok(ended)
}

fn end(cluster: &mut Cluster, layout: &Layout) -> anyhow::Result<()> {
    cluster.stop_all()?;
    cluster.servers().down(&layout.servers)?;
    Layout::remove(&layout::folder(cluster.servers()))
}

fn down(interrupt: &Interrupt) -> anyhow::Result<()> {
    let _lock = Servers::shared()?.lock(interrupt)?;
    match known()? {
        Some((mut cluster, layout)) => end(&mut cluster, &layout),
        None => Ok(()),
    }
}

fn start(name: &str, interrupt: &Interrupt) -> anyhow::Result<()> {
    let (mut cluster, _) = known()?.context("no cluster is up")?;
    let _lock = Servers::shared()?.lock(interrupt)?;
    match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
        Some(kind) => {
            cluster.servers().start(kind, interrupt, &mut |line| eprintln!("{line}"))?;
        }
        None => cluster.start(name.parse()?, interrupt)?,
    }
    print_status(&cluster)
}

fn run_beside(plan: Plan, command: &[String], interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    let binaries = Binaries::build(&Repo::find()?, false, interrupt)?;
    let mut say = |line: &str| eprintln!("{line}");
    let mut cluster = Cluster::private("cluster-run", &binaries, plan, interrupt, &mut say)?;
    let urls: Vec<_> =
        cluster.nodes().into_iter().filter_map(|node| cluster.gateway(node)).collect();
    let mut environment = vec![(GATEWAYS_VARIABLE, urls.join(","))];
    environment.extend(servers::test_environment(cluster.servers())?);
    let code = servers::run_command(command, &environment, interrupt)?;
    if code != ExitCode::SUCCESS {
        for node in cluster.nodes() {
            eprintln!("{node}{}", crate::daemon::tail(&cluster.log(node)));
        }
    }
    Ok(code)
}

/// The cluster that was started, whoever started it.
fn known() -> anyhow::Result<Option<(Cluster, Layout)>> {
    let servers = Servers::shared()?;
    let folder = layout::folder(&servers);
    let Some(layout) = Layout::load(&folder)? else { return Ok(None) };
    let binaries = Binaries::kept_in(&folder.join("bin"));
    let cluster = Cluster::beside(servers, &binaries, layout.plan())?;
    Ok(Some((cluster, layout)))
}

fn print_status(cluster: &Cluster) -> anyhow::Result<()> {
    let (lines, complete) = cluster.status()?;
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    if complete {
        writeln!(out, "cluster ready")?;
    }
    Ok(out.flush()?)
}
