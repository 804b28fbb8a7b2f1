//! A cluster in a folder: its servers, its processes, and what may be done to them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::Signal;

use super::binaries::Binaries;
use super::config::{self, Common, Scope};
use super::node::{Node, Size};
use crate::daemon::{self, Daemon, Life, Mark, Program};
use crate::interrupt::Interrupt;
use crate::ports::{Ports, first_taken};
use crate::servers::{Kind, Servers, ask};

/// A process of ours is ready within seconds of its servers; a busy machine may be slower.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A gateway tells its clients to go, a logic service finishes its tick.
const GRACE: Duration = Duration::from_secs(15);
const PORTS: &str = "ports.json";

/// What a cluster is made of besides its servers.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) size: Size,
    pub(crate) dev_login: bool,
    /// Further settings: for whom, the key, and the value as it stands in the file.
    pub(crate) settings: Vec<(Scope, String, String)>,
}

/// A cluster. What it holds ends with it only when its servers are a private set.
pub(crate) struct Cluster {
    folder: PathBuf,
    ports: Ports,
    binaries: Binaries,
    plan: Plan,
    servers: Servers,
    life: Life,
    /// Variables for a process, at its next start.
    environment: BTreeMap<Node, Vec<(String, OsString)>>,
    /// Whether the ready line is believed only together with `/readyz`.
    pub(super) asks_readyz: bool,
}

impl Cluster {
    /// A cluster in the folder `cluster` of a set of servers; nothing is started yet.
    ///
    /// # Errors
    /// When its folder cannot be made or its file of ports is damaged.
    pub(crate) fn beside(
        servers: Servers,
        binaries: &Binaries,
        plan: Plan,
    ) -> anyhow::Result<Self> {
        let folder = servers.folder().join("cluster");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let ports = Ports::open(&folder.join(PORTS))?;
        let life = servers.life();
        let (binaries, environment) = (binaries.clone(), BTreeMap::new());
        let asks_readyz = true;
        Ok(Self { folder, ports, binaries, plan, servers, life, environment, asks_readyz })
    }

    /// A cluster of its own with servers of its own, started. It ends with this value; keep it on
    /// the thread that made it.
    ///
    /// # Errors
    /// When a server or process does not start.
    pub(crate) fn private(
        purpose: &str,
        binaries: &Binaries,
        plan: Plan,
        interrupt: &Interrupt,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let servers = Servers::private(purpose, &Kind::ALL, interrupt, say)?;
        let mut cluster = Self::beside(servers, binaries, plan)?;
        cluster.up(interrupt)?;
        Ok(cluster)
    }

    /// Starts every process that does not run; servers must be up. On an error it ends what it
    /// started.
    ///
    /// # Errors
    /// When a port is taken or a process is not ready in time.
    pub(crate) fn up(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let mut started = Vec::new();
        let outcome = self.start_missing(interrupt, &mut started);
        if outcome.is_err() {
            for node in started {
                self.kill(node)?;
            }
        }
        outcome
    }

    /// Logic services first, all of a kind side by side.
    fn start_missing(
        &mut self,
        interrupt: &Interrupt,
        started: &mut Vec<Node>,
    ) -> anyhow::Result<()> {
        let (logic, gateways): (Vec<_>, Vec<_>) =
            self.plan.size.nodes().into_iter().partition(|node| matches!(node, Node::Logic(_)));
        for nodes in [logic, gateways] {
            let mut waiting = Vec::new();
            for node in nodes {
                if self.running(node)?.is_none() {
                    started.push(node);
                    waiting.push((node, self.launch(node)?));
                }
            }
            for (node, launched) in waiting {
                self.wait_ready(node, &launched, interrupt)?;
            }
        }
        Ok(())
    }

    /// Brings back one that ended, with the same configuration and ports, and waits until it is
    /// ready. One that runs is left alone.
    ///
    /// # Errors
    /// When it is not part of this cluster, or not ready in time.
    pub(crate) fn start(&mut self, node: Node, interrupt: &Interrupt) -> anyhow::Result<()> {
        if !self.plan.size.nodes().contains(&node) {
            bail!("this cluster has no {node}");
        }
        if self.running(node)?.is_some() {
            return Ok(());
        }
        let launched = self.launch(node)?;
        let outcome = self.wait_ready(node, &launched, interrupt);
        if outcome.is_err() {
            self.kill(node)?;
        }
        outcome
    }

    /// Starts one without waiting for anything: one that is to end by itself.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn launch_only(&mut self, node: Node) -> anyhow::Result<Daemon> {
        Ok(self.launch(node)?.daemon)
    }

    fn launch(&mut self, node: Node) -> anyhow::Result<Launched> {
        let name = node.to_string();
        let ports = self.ports.choose(&name, config::ports(node))?;
        if let Some(port) = first_taken(&ports) {
            let path = self.folder.join(PORTS);
            bail!("port {port} of {name} is used by another process (see {})", path.display());
        }
        let folder = self.folder.join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join("config.toml");
        fs::write(&file, config::text(&self.common()?, node, &ports))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut arguments: Vec<OsString> = vec!["--config".into(), file.into()];
        if matches!(node, Node::Logic(_)) {
            arguments.extend(["--roles", "ingest,rpc,tasks"].map(OsString::from));
        }
        let program = Program {
            path: self.binaries.of(node).to_path_buf(),
            arguments,
            environment: self.environment.get(&node).cloned().unwrap_or_default(),
            log: folder.join("log"),
            folder,
        };
        let said_before = fs::metadata(&program.log).map_or(0, |log| log.len());
        let daemon = daemon::spawn(&program, &self.mark(node)?, self.life)?;
        Ok(Launched { daemon, log: program.log, said_before })
    }

    fn wait_ready(
        &self,
        node: Node,
        launched: &Launched,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let Launched { daemon, log, said_before } = launched;
        let begins = config::ready_line(node);
        let ports = self.ports.get(&node.to_string()).unwrap_or_default();
        let health = ports.get(config::health_port(node)).copied().unwrap_or_default();
        daemon::wait_ready(&node.to_string(), *daemon, log, READY_LIMIT, interrupt, || {
            daemon::said(log, *said_before, |line| line.starts_with(begins))
                && (!self.asks_readyz || is_ready(health))
        })
    }

    fn common(&self) -> anyhow::Result<Common> {
        Ok(Common {
            kafka: self.servers.address(Kind::Kafka)?,
            database: self.servers.address(Kind::MariaDb)?,
            cache: self.servers.address(Kind::Redis)?,
            etcd: self.servers.address(Kind::Etcd)?,
            logic: self.plan.size.logic,
            dev_login: self.plan.dev_login,
            more: self.plan.settings.clone(),
        })
    }

    /// Sets a variable for the next starts of a process, or takes it back.
    pub(crate) fn set_environment(&mut self, node: Node, name: &str, value: Option<OsString>) {
        let variables = self.environment.entry(node).or_default();
        variables.retain(|(other, _)| other != name);
        variables.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// The servers.
    pub(crate) fn servers(&mut self) -> &mut Servers {
        &mut self.servers
    }

    /// Its processes, in the order they are listed.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.plan.size.listed()
    }

    /// Its first port as an address: `http://127.0.0.1:PORT`. None before its first start.
    fn url(&self, node: Node) -> Option<String> {
        let port = self.ports.get(&node.to_string())?.first()?;
        Some(format!("http://127.0.0.1:{port}"))
    }

    /// Where clients reach it, if it is a gateway that was started once.
    pub(crate) fn gateway(&self, node: Node) -> Option<String> {
        matches!(node, Node::Gateway(_)).then(|| self.url(node)).flatten()
    }

    /// The log of a process, both its streams.
    pub(crate) fn log(&self, node: Node) -> PathBuf {
        self.folder.join(node.to_string()).join("log")
    }

    /// The process, if it runs.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn running(&self, node: Node) -> anyhow::Result<Option<Daemon>> {
        daemon::find(&self.mark(node)?)
    }

    /// Whether any of its processes runs.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn some_runs(&self) -> anyhow::Result<bool> {
        for node in self.nodes() {
            if self.running(node)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends a process by force (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn kill(&self, node: Node) -> anyhow::Result<()> {
        daemon::kill_all(&self.mark(node)?)
    }

    /// Asks a process to end (SIGTERM), waits, then forces.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) fn stop(&self, node: Node) -> anyhow::Result<()> {
        let mark = self.mark(node)?;
        daemon::end_all(&daemon::find_all(&mark)?, GRACE)?;
        daemon::kill_all(&mark)
    }

    /// Sends a process a signal, such as SIGSTOP and SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn signal(&self, node: Node, signal: Signal) -> anyhow::Result<()> {
        let daemon = self.running(node)?.ok_or_else(|| anyhow!("{node} does not run"))?;
        if daemon.signal(signal)? { Ok(()) } else { bail!("{node} ended") }
    }

    /// Ends all processes, gateways before logic services; the servers stay.
    ///
    /// # Errors
    /// When one does not end.
    pub(crate) fn stop_all(&self) -> anyhow::Result<()> {
        let (logic, gateways): (Vec<_>, Vec<_>) =
            self.plan.size.nodes().into_iter().partition(|node| matches!(node, Node::Logic(_)));
        for nodes in [gateways, logic] {
            let mut running = Vec::new();
            for node in &nodes {
                running.extend(daemon::find_all(&self.mark(*node)?)?);
            }
            daemon::end_all(&running, GRACE)?;
            nodes.into_iter().try_for_each(|node| self.kill(node))?;
        }
        Ok(())
    }

    /// One line for each process: `gateway-1 ready on http://127.0.0.1:P pid N`, `logic-1 ready
    /// pid N`, or `logic-1 down`; and whether all run.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn status(&self) -> anyhow::Result<(Vec<String>, bool)> {
        let (mut lines, mut complete) = (Vec::new(), true);
        for node in self.nodes() {
            let running = self.running(node)?;
            complete &= running.is_some();
            lines.push(match (node, running, self.url(node)) {
                (Node::Gateway(_), Some(daemon), Some(url)) => {
                    format!("{node} ready on {url} pid {}", daemon.pid())
                }
                (_, Some(daemon), _) => format!("{node} ready pid {}", daemon.pid()),
                (_, None, _) => format!("{node} down"),
            });
        }
        Ok((lines, complete))
    }

    fn mark(&self, node: Node) -> anyhow::Result<Mark> {
        Mark::new(&self.folder, &node.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.life == Life::WithUs {
            for node in self.plan.size.nodes() {
                let _ = self.kill(node);
            }
        }
    }
}

/// Whether `/readyz` says yes: servers are reached and others of ours were found.
fn is_ready(port: u16) -> bool {
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    ask(port, request).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A process just started.
struct Launched {
    daemon: Daemon,
    log: PathBuf,
    /// Length of its log before.
    said_before: u64,
}
