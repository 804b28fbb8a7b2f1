//! A set of servers in a folder: started, looked at, killed, started again, ended.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::Signal;

use super::install;
use super::kind::Kind;
use super::probe;
use super::recipe::Place;
use crate::daemon::{self, Daemon, Life, Mark};
use crate::interrupt::Interrupt;
use crate::ports::{Ports, first_taken};
use crate::scratch::Scratch;

/// Names a folder for the servers instead of the one in the user's cache folder.
const FOLDER_VARIABLE: &str = "CORELANE_SERVERS_DIR";
/// All are ready within seconds; a busy machine may be slower.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Kafka and MariaDB put their files in order when asked to end.
const GRACE: Duration = Duration::from_secs(30);
const PORTS: &str = "ports.json";

/// A lock between commands on the same folder. Ends with its value.
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// Servers that belong together.
pub(crate) struct Servers {
    folder: PathBuf,
    /// Where jars are kept for all sets.
    cache: PathBuf,
    ports: Ports,
    kinds: Vec<Kind>,
    life: Life,
    /// Removed at the very end, when the set is private.
    scratch: Option<Scratch>,
    /// Further options.
    options: BTreeMap<Kind, Vec<OsString>>,
    /// The port that Kafka names to its clients, when it is not its own.
    kafka_road: Option<u16>,
}

impl Servers {
    /// The set of this user: started once, used by many. Servers that the environment names are
    /// not part of it.
    ///
    /// # Errors
    /// When its folder cannot be made or its file of ports is damaged.
    pub(crate) fn shared() -> anyhow::Result<Self> {
        let cache = cache_folder()?;
        let folder = shared_folder()?;
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.external().is_none()).collect();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Self::new(folder, cache, kinds, Life::OnItsOwn)
    }

    fn new(folder: PathBuf, cache: PathBuf, kinds: Vec<Kind>, life: Life) -> anyhow::Result<Self> {
        let ports = Ports::open(&folder.join(PORTS))?;
        let options = BTreeMap::new();
        Ok(Self { folder, cache, ports, kinds, life, scratch: None, options, kafka_road: None })
    }

    /// A set of its own in a scratch folder, started. It ends with this value, and by the kernel's
    /// hand when this process is killed; keep it on the thread that made it.
    ///
    /// # Errors
    /// When something is missing, or a server is not ready in time.
    pub(crate) fn private(
        purpose: &str,
        kinds: &[Kind],
        interrupt: &Interrupt,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let mut servers = Self::prepare_private(purpose, kinds)?;
        servers.up(interrupt, say)?;
        Ok(servers)
    }

    /// The same, not yet started.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub(crate) fn prepare_private(purpose: &str, kinds: &[Kind]) -> anyhow::Result<Self> {
        let scratch = Scratch::create(purpose)?;
        let folder = scratch.path().to_path_buf();
        let mut servers = Self::new(folder, cache_folder()?, kinds.to_vec(), Life::WithUs)?;
        servers.scratch = Some(scratch);
        Ok(servers)
    }

    /// A further option of a server, from its next start.
    pub(crate) fn add_option(&mut self, kind: Kind, option: &str) {
        self.options.entry(kind).or_default().push(option.into());
    }

    /// Clients of Kafka are sent to this port from its next start. Returns where it is itself.
    ///
    /// # Errors
    /// When no port is free.
    pub(crate) fn lead_kafka_through(&mut self, port: u16) -> anyhow::Result<u16> {
        self.kafka_road = Some(port);
        let own = self.ports.choose(Kind::Kafka.name(), Kind::Kafka.ports())?;
        own.first().copied().context("Kafka has no port")
    }

    /// Where Kafka's programs are.
    pub(crate) fn kafka_jars(&self) -> PathBuf {
        install::jars(&self.cache)
    }

    /// No server at all: addresses for processes that ask nobody.
    #[cfg(test)]
    pub(crate) fn none(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.to_path_buf();
        let mut servers = Self::new(path.clone(), path, Kind::ALL.to_vec(), Life::WithUs)?;
        for kind in Kind::ALL {
            servers.ports.choose(kind.name(), kind.ports())?;
        }
        Ok(servers)
    }

    /// The folder of this set.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How long what belongs to this set may live.
    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// The servers of this set.
    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Waits until no other command works on this set.
    ///
    /// # Errors
    /// When interrupted.
    pub(crate) fn lock(&self, interrupt: &Interrupt) -> anyhow::Result<Lock> {
        loop {
            match self.try_lock()? {
                Some(lock) => return Ok(lock),
                None if interrupt.raised() => bail!("interrupted"),
                None => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// The same without waiting: `None` while another command works on this set.
    ///
    /// # Errors
    /// When the lock's file is not to be had.
    pub(crate) fn try_lock(&self) -> anyhow::Result<Option<Lock>> {
        let path = self.folder.join("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Starts what does not run. Returns what it started; on an error it ends that again.
    ///
    /// # Errors
    /// When something is missing, a port is taken, or a server is not ready in time.
    pub(crate) fn up(
        &mut self,
        interrupt: &Interrupt,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Vec<Kind>> {
        let missing = self.missing()?;
        if missing.is_empty() {
            return Ok(missing);
        }
        let jars = install::ensure(&missing, &self.cache, interrupt, say)?;
        let mut places = Vec::new();
        for kind in &missing {
            self.kill(*kind)?; // what an earlier start left that was itself killed
            places.push(self.place(*kind, &jars)?);
        }
        prepare(&places, interrupt)?;
        let outcome = self.launch(&places, interrupt);
        if outcome.is_err() {
            for kind in &missing {
                self.kill(*kind)?;
            }
        }
        outcome.map(|()| missing)
    }

    /// Those of this set that do not run.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn missing(&self) -> anyhow::Result<Vec<Kind>> {
        let mut missing = Vec::new();
        for kind in &self.kinds {
            if self.running(*kind)?.is_none() {
                missing.push(*kind);
            }
        }
        Ok(missing)
    }

    fn launch(&self, places: &[Place], interrupt: &Interrupt) -> anyhow::Result<()> {
        let mut started = Vec::new();
        for place in places {
            let mark = self.mark(place.kind)?;
            started.push(daemon::spawn(&place.program()?, &mark, self.life)?);
        }
        for (place, daemon) in places.iter().zip(started) {
            let (kind, port) = (place.kind, place.ports.first().copied().unwrap_or_default());
            daemon::wait_ready(kind.name(), daemon, &place.log(), READY_LIMIT, interrupt, || {
                probe::answers(kind, port)
            })?;
        }
        Ok(())
    }

    /// Brings back one that ended, on the same ports and data. One that runs is left alone.
    ///
    /// # Errors
    /// As [`Self::up`]; also when it is not part of this set.
    pub(crate) fn start(
        &mut self,
        kind: Kind,
        interrupt: &Interrupt,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        if !self.kinds.contains(&kind) {
            let variable = kind.variable();
            bail!("{} is not ours to start: {variable} names another server", kind.name());
        }
        if self.running(kind)?.is_some() {
            return Ok(());
        }
        let jars = install::ensure(&[kind], &self.cache, interrupt, say)?;
        self.kill(kind)?;
        let place = self.place(kind, &jars)?;
        prepare(std::slice::from_ref(&place), interrupt)?;
        let outcome = self.launch(&[place], interrupt);
        if outcome.is_err() {
            self.kill(kind)?;
        }
        outcome
    }

    /// The process of a server, if it runs.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn running(&self, kind: Kind) -> anyhow::Result<Option<Daemon>> {
        daemon::find(&self.mark(kind)?)
    }

    /// The port clients use, once it was chosen.
    pub(crate) fn port(&self, kind: Kind) -> Option<u16> {
        self.ports.get(kind.name())?.first().copied()
    }

    /// The address for clients: the one in the environment, or ours.
    ///
    /// # Errors
    /// When it was never started.
    pub(crate) fn address(&self, kind: Kind) -> anyhow::Result<String> {
        if !self.kinds.contains(&kind)
            && let Some(address) = kind.external()
        {
            return Ok(address);
        }
        let road = self.kafka_road.filter(|_| kind == Kind::Kafka);
        let port = road.or_else(|| self.port(kind)).with_context(|| {
            format!("{} was never started; run: cargo xtask servers up", kind.name())
        })?;
        Ok(kind.address(port))
    }

    /// The log of a server, both its streams.
    pub(crate) fn log(&self, kind: Kind) -> PathBuf {
        self.folder.join(kind.name()).join(super::recipe::LOG)
    }

    /// Ends one by force (SIGKILL), with all it forked, and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn kill(&self, kind: Kind) -> anyhow::Result<()> {
        daemon::kill_all(&self.tools_mark(kind)?)?;
        daemon::kill_all(&self.mark(kind)?)
    }

    /// A server, what it forked, and tools still at work on its data folder.
    fn processes(&self, kind: Kind) -> anyhow::Result<Vec<Daemon>> {
        let mut found = daemon::find_all(&self.tools_mark(kind)?)?;
        found.extend(daemon::find_all(&self.mark(kind)?)?);
        Ok(found)
    }

    /// Sends one a signal, such as SIGSTOP and SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn signal(&self, kind: Kind, signal: Signal) -> anyhow::Result<()> {
        let daemon = self.running(kind)?.ok_or_else(|| anyhow!("{} does not run", kind.name()))?;
        if daemon.signal(signal)? { Ok(()) } else { bail!("{} ended", kind.name()) }
    }

    /// Ends these: asks all at once, waits, then forces. Data and ports stay. Whether the
    /// environment names other servers by now does not matter.
    ///
    /// # Errors
    /// When one does not end.
    pub(crate) fn down(&self, kinds: &[Kind]) -> anyhow::Result<()> {
        let mut running = Vec::new();
        for kind in kinds {
            running.extend(self.processes(*kind)?);
        }
        daemon::end_all(&running, GRACE)?;
        kinds.iter().try_for_each(|kind| self.kill(*kind))
    }

    /// Throws away data and ports of a set that is down.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        for kind in Kind::ALL {
            remove(&self.folder.join(kind.name()))?;
        }
        remove(&self.folder.join(PORTS))
    }

    fn mark(&self, kind: Kind) -> anyhow::Result<Mark> {
        Mark::new(&self.folder, kind.name())
    }

    fn tools_mark(&self, kind: Kind) -> anyhow::Result<Mark> {
        Mark::new(&self.folder, &format!("{} tools", kind.name()))
    }

    fn place(&mut self, kind: Kind, jars: &Path) -> anyhow::Result<Place> {
        let ports = self.ports.choose(kind.name(), kind.ports())?;
        if let Some(port) = first_taken(&ports) {
            bail!(
                "port {port} of {} is used by another process (ports are kept in {}); end that \
                 one, or give up data and ports with: cargo xtask servers down --forget",
                kind.name(),
                self.folder.join(PORTS).display()
            );
        }
        let folder = self.folder.join(kind.name());
        // Kafka and Redis would take a quote or a line's end in a path for their own.
        let odd = |c: char| c.is_control() || "\"\\".contains(c);
        if folder.to_str().is_none_or(|path| path.contains(odd)) {
            bail!("{FOLDER_VARIABLE}: {} has unusual characters", folder.display());
        }
        let tools = self.tools_mark(kind)?;
        let advertised = self.kafka_road.or(ports.first().copied()).unwrap_or_default();
        let options = self.options.get(&kind).cloned().unwrap_or_default();
        Ok(Place { kind, folder, ports, advertised, options, jars: jars.to_path_buf(), tools })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if self.scratch.is_some() {
            for kind in &self.kinds {
                let _ = self.kill(*kind);
            }
        }
    }
}

/// Prepares several side by side: the tools of Kafka and MariaDB take seconds each.
fn prepare(places: &[Place], interrupt: &Interrupt) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let prepare = |place| scope.spawn(move || Place::prepare(place, interrupt));
        let threads: Vec<_> = places.iter().map(prepare).collect();
        // All are waited for, then the first error counts.
        let outcomes: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        for (place, outcome) in places.iter().zip(outcomes) {
            let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("preparing panicked")));
            outcome.with_context(|| format!("cannot prepare {}", place.kind.name()))?;
        }
        Ok(())
    })
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let outcome = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn cache_folder() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = named.filter(|path| path.is_absolute()).or_else(home);
    Ok(cache.context("neither HOME nor XDG_CACHE_HOME is set")?.join("corelane"))
}

fn shared_folder() -> anyhow::Result<PathBuf> {
    match std::env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty()) {
        Some(folder) => std::path::absolute(folder).context("cannot read the current folder"),
        None => Ok(cache_folder()?.join("servers")),
    }
}
