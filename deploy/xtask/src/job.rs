//! Running one child: its own process group, a time limit, its lines as they come.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::interrupt::Interrupt;

/// How often limits and signals are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Between the request to end and the end by force.
const GRACE: Duration = Duration::from_secs(5);
/// How long a grandchild that outlived its parent may keep the pipe open.
const DRAIN: Duration = Duration::from_secs(2);

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself.
    Exited(ExitStatus),
    /// By us, after its time limit.
    TimedOut,
    /// By us, because we were asked to stop.
    Interrupted,
}

impl Ending {
    /// Whether the child ended by itself and well.
    pub(crate) fn success(self) -> bool {
        matches!(self, Self::Exited(status) if status.success())
    }

    /// An error that says how `what` failed, unless it succeeded.
    pub(crate) fn check(self, what: &str) -> anyhow::Result<()> {
        match self {
            Self::Exited(status) if status.success() => Ok(()),
            Self::Exited(status) => bail!("{what} failed ({status})"),
            Self::TimedOut => bail!("{what} was stopped at its time limit"),
            Self::Interrupted => bail!("{what} was interrupted"),
        }
    }
}

/// A line a child wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// On standard output.
    Out(String),
    /// On standard error.
    Err(String),
}

/// Runs a command to its end and hands over each line it writes.
///
/// Streams the command already redirected are left alone; by default both are read.
///
/// # Errors
/// When the command cannot be started.
pub(crate) fn run(
    command: &mut Command,
    limit: Duration,
    interrupt: &Interrupt,
    mut on_line: impl FnMut(Line),
) -> anyhow::Result<Ending> {
    let deadline = Instant::now() + limit;
    let mut child = spawn(command, Stdio::null())?;
    let lines = read_lines(&mut child);
    let mut group = Group::of(&child);
    let mut open = true;
    let cut_short = loop {
        if open {
            open = forward(&lines, TICK, &mut on_line);
        } else {
            thread::sleep(TICK);
        }
        if group.leader_ended()? {
            break None;
        }
        if interrupt.raised() {
            break Some(Ending::Interrupted);
        }
        if Instant::now() >= deadline {
            break Some(Ending::TimedOut);
        }
    };
    // Whatever the child left behind in its group goes with it.
    group.end(|| {
        let _ = open && forward(&lines, TICK, &mut on_line);
    })?;
    let status = child.wait().context("cannot wait for a child")?;
    let drained = Instant::now() + DRAIN;
    while open && Instant::now() < drained {
        open = forward(&lines, TICK, &mut on_line);
    }
    Ok(cut_short.unwrap_or(Ending::Exited(status)))
}

/// Starts a command in its own process group, without standard input, with both output streams
/// piped.
pub(crate) fn spawn_piped(command: &mut Command) -> anyhow::Result<Child> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command, Stdio::null())
}

/// The same with standard input piped as well.
pub(crate) fn spawn_all_piped(command: &mut Command) -> anyhow::Result<Child> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command, Stdio::piped())
}

fn spawn(command: &mut Command, input: Stdio) -> anyhow::Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(input).process_group(0).spawn().with_context(|| format!("cannot start {program}"))
}

/// Reads both piped streams on threads of their own. The channel ends when both streams do.
pub(crate) fn read_lines(child: &mut Child) -> Receiver<Line> {
    let (sender, receiver) = channel();
    if let Some(out) = child.stdout.take() {
        pump(out, sender.clone(), Line::Out);
    }
    if let Some(err) = child.stderr.take() {
        pump(err, sender, Line::Err);
    }
    receiver
}

fn pump(stream: impl Read + Send + 'static, sender: Sender<Line>, make: fn(String) -> Line) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(length) if length > 0) {
            let text = String::from_utf8_lossy(&bytes);
            let line = make(text.trim_end_matches(['\n', '\r']).to_owned());
            if sender.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
}

/// Hands over what is there, waiting at most `patience` for the first line. False when no line
/// can come any more.
fn forward(lines: &Receiver<Line>, patience: Duration, on_line: &mut impl FnMut(Line)) -> bool {
    match lines.recv_timeout(patience) {
        Ok(line) => {
            on_line(line);
            lines.try_iter().for_each(on_line);
            true
        }
        Err(RecvTimeoutError::Timeout) => true,
        Err(RecvTimeoutError::Disconnected) => false,
    }
}

/// The process group of a child that is not yet reaped: its number cannot be anybody else's.
pub(crate) struct Group {
    leader: Pid,
}

impl Group {
    /// The group of a child started here.
    pub(crate) fn of(child: &Child) -> Self {
        Self { leader: Pid::from_child(child) }
    }

    /// Whether the child ended. Does not reap it.
    pub(crate) fn leader_ended(&self) -> anyhow::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            match waitid(WaitId::Pid(self.leader), options) {
                Ok(status) => return Ok(status.is_some()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for a child"),
            }
        }
    }

    /// Sends a signal to every process of the group; none left is no error.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match kill_process_group(self.leader, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).context("cannot signal a child"),
        }
    }

    /// Ends the group: asks, waits, then forces. `meanwhile` runs at every tick.
    pub(crate) fn end(&mut self, mut meanwhile: impl FnMut()) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + GRACE;
        while !self.leader_ended()? && Instant::now() < deadline {
            meanwhile();
            thread::sleep(TICK);
        }
        self.signal(Signal::KILL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run_script(script: &str, limit: Duration, interrupt: &Interrupt) -> (Ending, Vec<Line>) {
        let mut lines = Vec::new();
        let ending = run(&mut shell(script), limit, interrupt, |line| lines.push(line)).unwrap();
        (ending, lines)
    }

    #[test]
    fn lines_and_status_come_back() {
        let script = "echo one; echo two >&2; printf three; exit 3";
        let (ending, lines) = run_script(script, LONG, &Interrupt::default());
        assert!(matches!(ending, Ending::Exited(status) if status.code() == Some(3)));
        for line in [Line::Out("one".into()), Line::Err("two".into()), Line::Out("three".into())] {
            assert!(lines.contains(&line), "{line:?} in {lines:?}");
        }
        assert!(ending.check("it").unwrap_err().to_string().contains('3'));
    }

    #[test]
    fn a_child_over_its_limit_goes_with_its_children() {
        let script = "sleep 1000 & echo $!; wait";
        let limit = Duration::from_millis(300);
        let (ending, lines) = run_script(script, limit, &Interrupt::default());
        assert_eq!(ending, Ending::TimedOut);
        let Some(Line::Out(pid)) = lines.first() else { panic!("{lines:?}") };
        let grandchild = std::path::PathBuf::from(format!("/proc/{pid}/stat"));
        for _ in 0..100 {
            // Gone, or a zombie until the machine's first process collects it.
            let state = std::fs::read_to_string(&grandchild).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            thread::sleep(TICK);
        }
        panic!("process {pid} is still there");
    }

    #[test]
    fn an_interrupt_ends_a_child_that_does_not_listen() {
        let interrupt = Interrupt::default();
        interrupt.raise();
        let (ending, _) = run_script("trap '' TERM; sleep 1000", LONG, &interrupt);
        assert_eq!(ending, Ending::Interrupted);
    }

    #[test]
    fn a_missing_program_is_named() {
        let mut command = Command::new("no-such-program-here");
        let error = run(&mut command, LONG, &Interrupt::default(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    }
}
