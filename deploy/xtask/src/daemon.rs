//! Processes that outlive this command: started in a session of their own, found again by a mark
//! in their environment, ended without ever hitting somebody else's process.
//!
//! No pid is trusted from a file. A process is ours when `/proc/PID/environ` holds the mark it was
//! started with, and a signal goes through a descriptor of that very process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};

use crate::interrupt::Interrupt;
use crate::procfs::{self, stat};

/// The variable that carries the mark.
const VARIABLE: &str = "CORELANE_DAEMON";
/// How often a starting process is looked at.
const TICK: Duration = Duration::from_millis(25);
/// More of an environment is not looked at.
const ENVIRONMENT_BYTES: usize = 256 * 1024;
/// Lines of its log that are shown when it fails.
const TAIL_LINES: usize = 20;
/// A log's end is read, not a log of gigabytes.
const TAIL_BYTES: u64 = 16 * 1024;

/// What tells one of our processes from all others: a folder of ours, and a name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl Mark {
    /// The mark of `name` among those kept in `folder`.
    ///
    /// # Errors
    /// When the folder does not exist.
    pub(crate) fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot find the folder {}", folder.display()))?;
        Ok(Self(format!("{}:{name}", folder.display())))
    }

    /// Puts it on a command, which is then found by it.
    pub(crate) fn put_on(&self, command: &mut Command) {
        command.env(VARIABLE, &self.0);
    }

    /// Whether an environment (`NAME=VALUE`, each ended by a zero byte) holds this mark.
    fn is_in(&self, environment: &[u8]) -> bool {
        let wanted = format!("{VARIABLE}={}", self.0);
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    }
}

/// How long a process may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Until somebody ends it.
    OnItsOwn,
    /// At most as long as the thread that started it: the kernel ends it when we are killed.
    WithUs,
}

/// A process to start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// What to run.
    pub(crate) path: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Further variables of its environment.
    pub(crate) environment: Vec<(String, OsString)>,
    /// Where it runs.
    pub(crate) folder: PathBuf,
    /// Where both of its output streams go, after what is there already.
    pub(crate) log: PathBuf,
}

/// A process of ours, by its number and the moment it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Daemon {
    pid: Pid,
    /// Clock ticks from the start of the machine to its own.
    started: u64,
}

impl Daemon {
    /// Its process id.
    pub(crate) fn pid(self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it still runs.
    pub(crate) fn runs(self) -> bool {
        stat(self.pid).is_some_and(|stat| !stat.ended() && stat.started == self.started)
    }

    /// Sends it a signal. False when it had ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn signal(self, signal: Signal) -> anyhow::Result<bool> {
        let Some(descriptor) = self.descriptor()? else { return Ok(false) };
        match pidfd_send_signal(&descriptor, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot signal {}", self.pid())),
        }
    }

    /// Waits until all of it is gone, with its sockets and files. False after `limit`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn wait(self, limit: Duration) -> anyhow::Result<bool> {
        let Some(descriptor) = self.descriptor()? else {
            self.reap();
            return Ok(true);
        };
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut watched = [PollFd::new(&descriptor, PollFlags::IN)];
            match poll(&mut watched, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for a process"),
            }
        }
        self.reap();
        Ok(true)
    }

    /// Ends it by force and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses, or it does not even end by force.
    pub(crate) fn kill(self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        if !self.wait(Duration::from_secs(10))? {
            bail!("process {} does not end, not even by force", self.pid());
        }
        Ok(())
    }

    /// A descriptor that can mean no other process, unless this one ended.
    fn descriptor(self) -> anyhow::Result<Option<OwnedFd>> {
        let descriptor = match pidfd_open(self.pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context("cannot open a process"),
        };
        // The number may have gone to somebody else before it was opened.
        let same = stat(self.pid).is_some_and(|stat| stat.started == self.started);
        Ok(same.then_some(descriptor))
    }

    /// Collects it if it was our child; otherwise somebody else does.
    fn reap(self) {
        let _ = waitpid(Some(self.pid), WaitOptions::NOHANG);
    }
}

/// The processes that carry a mark, parents before children.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn find_all(mark: &Mark) -> anyhow::Result<Vec<Daemon>> {
    let (mut found, mut text) = (Vec::new(), vec![0; ENVIRONMENT_BYTES]);
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some(pid) = Pid::from_raw(pid) else { continue };
        // The start is read on both sides of the environment: both belong to one process then.
        let Some(before) = stat(pid).filter(|stat| !stat.ended()) else { continue };
        let environment = procfs::environment(pid, before, &mut text);
        let after = stat(pid).map(|stat| stat.started);
        if mark.is_in(environment) && after == Some(before.started) {
            found.push((before.parent, Daemon { pid, started: before.started }));
        }
    }
    let pids: Vec<i32> = found.iter().map(|(_, daemon)| daemon.pid()).collect();
    found.sort_by_key(|(parent, daemon)| (pids.contains(parent), daemon.started));
    Ok(found.into_iter().map(|(_, daemon)| daemon).collect())
}

/// The process that carries a mark (not one it has forked), if it runs.
///
/// # Errors
/// As [`find_all`].
pub(crate) fn find(mark: &Mark) -> anyhow::Result<Option<Daemon>> {
    Ok(find_all(mark)?.first().copied())
}

/// Starts a process with a mark, in a session of its own, without standard input.
///
/// # Errors
/// When its log cannot be opened or it cannot be started.
pub(crate) fn spawn(program: &Program, mark: &Mark, life: Life) -> anyhow::Result<Daemon> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(&program.log)
        .with_context(|| format!("cannot open {}", program.log.display()))?;
    let mut command = Command::new("setsid");
    if life == Life::WithUs {
        command.args(["setpriv", "--pdeathsig", "KILL"]);
    }
    // Settings in our own environment would speak over the files that these are started with.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CORELANE_")) {
            command.env_remove(name);
        }
    }
    command
        .arg(&program.path)
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&program.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log")?)
        .stderr(log);
    mark.put_on(&mut command);
    // The child is not waited for: it is to stay. `Daemon` collects it when it ends before us.
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {} by setsid", program.path.display()))?;
    let pid = Pid::from_child(&child);
    let started = stat(pid).context("a process just started has no entry in /proc")?.started;
    Ok(Daemon { pid, started })
}

/// Waits until `ready` holds for a process.
///
/// # Errors
/// When it ends before, is not ready within `limit`, or we are interrupted; with its log.
pub(crate) fn wait_ready(
    name: &str,
    daemon: Daemon,
    log: &Path,
    limit: Duration,
    interrupt: &Interrupt,
    mut ready: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        if !daemon.runs() {
            daemon.reap();
            bail!("{name} ended before it was ready{}", tail(log));
        }
        if ready() {
            return Ok(());
        }
        if interrupt.raised() {
            bail!("interrupted");
        }
        if Instant::now() >= deadline {
            bail!("{name} was not ready within {} s{}", limit.as_secs(), tail(log));
        }
        thread::sleep(TICK);
    }
}

/// Whether a log has a line, complete and at or after `from`, for which `wanted` holds.
pub(crate) fn said(log: &Path, from: u64, wanted: impl Fn(&str) -> bool) -> bool {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut bytes)
    });
    let text = String::from_utf8_lossy(&bytes);
    read.is_ok() && text.split_inclusive('\n').any(|line| line.ends_with('\n') && wanted(line))
}

/// Ends by force whatever carries a mark, also what was forked meanwhile.
///
/// # Errors
/// As [`Daemon::kill`]; also when there is always another one.
pub(crate) fn kill_all(mark: &Mark) -> anyhow::Result<()> {
    for _ in 0..100 {
        let found = find_all(mark)?;
        if found.is_empty() {
            return Ok(());
        }
        found.into_iter().try_for_each(Daemon::kill)?;
    }
    bail!("{} starts processes faster than they can be ended", mark.0)
}

/// Ends several: asks all at once, waits, then forces.
///
/// # Errors
/// As [`Daemon::kill`].
pub(crate) fn end_all(daemons: &[Daemon], grace: Duration) -> anyhow::Result<()> {
    for daemon in daemons {
        if daemon.signal(Signal::TERM)? {
            // One that was stopped would not hear the request.
            daemon.signal(Signal::CONT)?;
        }
    }
    let deadline = Instant::now() + grace;
    for daemon in daemons {
        if !daemon.wait(deadline.saturating_duration_since(Instant::now()))? {
            daemon.kill()?;
        }
    }
    Ok(())
}

/// The last lines of a log, each on a line of its own.
pub(crate) fn tail(log: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        file.take(TAIL_BYTES).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    let shown: String = shown.iter().map(|line| format!("\n  {line}")).collect();
    format!(" (log: {}){shown}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path, script: &str) -> Program {
        Program {
            path: PathBuf::from("sh"),
            arguments: ["-c", script].map(OsString::from).to_vec(),
            environment: Vec::new(),
            folder: folder.to_path_buf(),
            log: folder.join("log"),
        }
    }

    #[test]
    fn a_mark_is_a_whole_entry() {
        let mark = Mark(String::from("/data:cache"));
        assert!(mark.is_in(b"A=1\0CORELANE_DAEMON=/data:cache\0B=2\0"));
        assert!(!mark.is_in(b"A=1\0CORELANE_DAEMON=/data:cache2\0"));
        assert!(!mark.is_in(b"XCORELANE_DAEMON=/data:cache\0"));
        assert!(!mark.is_in(b""));
    }

    #[test]
    fn a_process_is_found_while_it_becomes_another() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path(), "one").unwrap();
        let script = "n=${N:-0}; [ $n -lt 20000 ] && N=$((n + 1)) exec sh -c \"$SCRIPT\"";
        let mut program = sleeper(folder.path(), script);
        program.environment.push((String::from("SCRIPT"), script.into()));
        let daemon = spawn(&program, &mark, Life::WithUs).unwrap();
        for look in 0..300 {
            assert_eq!(find(&mark).unwrap(), Some(daemon), "look {look}");
        }
        kill_all(&mark).unwrap();
    }

    #[test]
    fn a_process_is_found_by_its_mark_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path(), "one").unwrap();
        let other = Mark::new(folder.path(), "two").unwrap();
        assert_eq!(find(&mark).unwrap(), None);
        let script = "echo begun; sleep 1000 & wait";
        let daemon = spawn(&sleeper(folder.path(), script), &mark, Life::OnItsOwn).unwrap();
        let log = folder.path().join("log");
        let said = || fs::read_to_string(&log).is_ok_and(|text| text.contains("begun"));
        let interrupt = Interrupt::default();
        wait_ready("it", daemon, &log, Duration::from_secs(20), &interrupt, said).unwrap();
        while find_all(&mark).unwrap().len() < 2 {
            thread::sleep(TICK);
        }
        assert_eq!(find(&mark).unwrap(), Some(daemon), "the parent comes first");
        assert_eq!(find(&other).unwrap(), None);
        for process in find_all(&mark).unwrap() {
            end_all(&[process], Duration::from_secs(5)).unwrap();
        }
        assert!(!daemon.runs());
        assert_eq!(find_all(&mark).unwrap(), []);
        assert!(!daemon.signal(Signal::KILL).unwrap(), "there is nobody to signal");
    }

    #[test]
    fn a_number_that_went_to_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path(), "one").unwrap();
        let daemon =
            spawn(&sleeper(folder.path(), "exec sleep 1000"), &mark, Life::WithUs).unwrap();
        let earlier = Daemon { pid: daemon.pid, started: daemon.started - 1 };
        assert!(!earlier.runs());
        assert!(!earlier.signal(Signal::KILL).unwrap());
        earlier.kill().unwrap();
        assert!(daemon.runs());
        daemon.kill().unwrap();
        assert!(!daemon.runs());
    }

    #[test]
    fn an_early_end_shows_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path(), "one").unwrap();
        let program = sleeper(folder.path(), "echo the reason >&2; exit 2");
        let daemon = spawn(&program, &mark, Life::OnItsOwn).unwrap();
        let interrupt = Interrupt::default();
        let limit = Duration::from_secs(20);
        let error =
            wait_ready("it", daemon, &program.log, limit, &interrupt, || false).unwrap_err();
        assert!(error.to_string().contains("the reason"), "{error}");
    }
}
