//! A server of ours as a child: started, waited for, ended.

use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use crate::interrupt::Interrupt;
use crate::job::{Group, Line, read_lines, spawn_piped};

/// Servers of ours are ready within a second; a busy machine may be slower.
const READY_LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);

/// A running server. Ends with its value.
pub(crate) struct Server {
    name: String,
    child: Child,
    group: Group,
    /// Standard error so far, for the case that something goes wrong.
    log: Vec<String>,
    lines: Receiver<Line>,
    address: String,
}

impl Server {
    /// Starts a server and waits for its line `NAME ready on ADDRESS` on standard output.
    ///
    /// # Errors
    /// When it does not start, ends early, or says nothing within a minute; with its log.
    pub(crate) fn start(
        name: &str,
        command: &mut Command,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let mut child = spawn_piped(command)?;
        let lines = read_lines(&mut child);
        let group = Group::of(&child);
        let name = name.to_owned();
        let mut server =
            Self { name, child, group, log: Vec::new(), lines, address: String::new() };
        server.address = server.wait_ready(interrupt)?;
        Ok(server)
    }

    fn wait_ready(&mut self, interrupt: &Interrupt) -> anyhow::Result<String> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let ended = self.group.leader_ended()?;
            match self.lines.recv_timeout(TICK) {
                Ok(Line::Out(line)) => {
                    if let Some(address) = ready_address(&line) {
                        return Ok(address);
                    }
                }
                Ok(Line::Err(line)) => self.log.push(line),
                Err(_) if ended => return Err(self.fault("ended before it was ready")),
                Err(RecvTimeoutError::Timeout) => {}
                // It closed both streams but lives.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK),
            }
            if interrupt.raised() {
                bail!("interrupted");
            }
            if Instant::now() >= deadline {
                let seconds = READY_LIMIT.as_secs();
                return Err(self.fault(&format!("was not ready within {seconds} s")));
            }
        }
    }

    /// The address it serves, as it wrote it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its log.
    pub(crate) fn tail(&mut self) -> String {
        self.log.extend(self.lines.try_iter().filter_map(|line| match line {
            Line::Err(text) => Some(text),
            Line::Out(_) => None,
        }));
        let from = self.log.len().saturating_sub(20);
        self.log[from..].iter().map(|line| format!("\n  {line}")).collect()
    }

    fn fault(&mut self, what: &str) -> anyhow::Error {
        let tail = self.tail();
        anyhow!("{} {what}{tail}", self.name)
    }

    /// Asks it to end and expects it to do so by itself, with exit code 0.
    ///
    /// # Errors
    /// When it had ended before, had to be killed, or failed.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        if self.group.leader_ended()? {
            return Err(self.fault("had ended by itself"));
        }
        self.group.end(|| {})?;
        let status = self.child.wait().context("cannot wait for a child")?;
        if !status.success() {
            return Err(self.fault(&format!("ended with {status} when asked to stop")));
        }
        Ok(())
    }

    /// Ends a server that does not handle signals.
    pub(crate) fn kill(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        // A reaped child's number may be somebody else's by now.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.group.signal(rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The address in a line such as `corelane ready on http://127.0.0.1:8080`.
fn ready_address(line: &str) -> Option<String> {
    line.split_once(" ready on ").map(|(_, address)| address.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> anyhow::Result<Server> {
        Server::start("it", Command::new("sh").args(["-c", script]), &Interrupt::default())
    }

    #[test]
    fn a_server_is_waited_for_and_stopped() {
        let script = "trap 'exit 0' TERM; echo log >&2; echo it ready on 127.0.0.1:7; \
                      while :; do sleep 0.05; done";
        let server = start(script).unwrap();
        assert_eq!(server.address(), "127.0.0.1:7");
        server.stop().unwrap();
    }

    #[test]
    fn a_server_that_stops_badly_is_an_error() {
        let server = start("trap 'exit 9' TERM; echo it ready on x; while :; do sleep 0.05; done");
        assert!(server.unwrap().stop().is_err());
    }

    #[test]
    fn an_early_end_shows_the_log() {
        let Err(error) = start("echo the reason >&2; exit 2") else { panic!("it started") };
        assert!(error.to_string().contains("the reason"), "{error}");
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let server = start("echo it ready on x; exec sleep 1000").unwrap();
        let folder = std::path::PathBuf::from(format!("/proc/{}", server.pid()));
        assert!(folder.exists());
        server.kill();
        assert!(!folder.exists());
    }
}
