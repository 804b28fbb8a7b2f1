//! A measuring client that stays: told by a line how many messages to measure, it answers with a line of what they
//! showed.

use std::io::Write;
use std::process::{Child, ChildStdin, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde::de::DeserializeOwned;

use crate::interrupt::Interrupt;
use crate::job::{Ending, Group, Line, read_lines, spawn_all_piped};

/// Far beyond connecting, and beyond any slice.
const LIMIT: Duration = Duration::from_secs(2 * 60);
/// How often signals are looked at. Seldom, compared with a slice: nothing but the slice is to run meanwhile.
const TICK: Duration = Duration::from_secs(1);

/// A client that waits for its turns. Ends with its value.
pub(super) struct SliceClient<'a> {
    child: Child,
    group: Group,
    input: Option<ChildStdin>,
    lines: Receiver<Line>,
    /// Standard error so far.
    faults: String,
    interrupt: &'a Interrupt,
}

impl<'a> SliceClient<'a> {
    /// Starts a client and waits for its first line.
    ///
    /// # Errors
    /// When it does not start, or ends before that line.
    pub(super) fn start<R: DeserializeOwned>(
        command: &mut Command,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<(Self, R)> {
        let mut child = spawn_all_piped(command)?;
        let lines = read_lines(&mut child);
        let (group, input) = (Group::of(&child), child.stdin.take());
        let faults = String::new();
        let mut client = Self { child, group, input, lines, faults, interrupt };
        let ready = client.answer()?;
        Ok((client, ready))
    }

    /// Measures a slice.
    ///
    /// # Errors
    /// When the client has ended, or ends instead of an answer.
    pub(super) fn slice<R: DeserializeOwned>(&mut self, messages: u64) -> anyhow::Result<R> {
        if let Some(input) = &mut self.input {
            // A client that has ended says why on standard error, which `answer` reports.
            let _ = writeln!(input, "{messages}");
        }
        self.answer()
    }

    fn answer<R: DeserializeOwned>(&mut self) -> anyhow::Result<R> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(TICK) {
                Ok(Line::Out(line)) => {
                    return serde_json::from_str(&line).context("the measuring client's answer");
                }
                Ok(Line::Err(line)) => self.faults += &format!("\n  {line}"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the measuring client ended{}", self.faults)
                }
            }
            if self.interrupt.raised() {
                bail!("interrupted");
            }
            if Instant::now() >= deadline {
                bail!("the measuring client is silent{}", self.faults);
            }
        }
    }

    /// Ends the input and expects the client to end well by that.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        let deadline = Instant::now() + LIMIT;
        // Its output ends with it.
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Line::Err(line) = line {
                self.faults += &format!("\n  {line}");
            }
        }
        let Some(status) = self.ended_by(deadline)? else {
            bail!("the measuring client does not end{}", self.faults);
        };
        Ending::Exited(status).check("the measuring client").with_context(|| self.faults.clone())
    }

    fn ended_by(&mut self, deadline: Instant) -> anyhow::Result<Option<std::process::ExitStatus>> {
        loop {
            let status = self.child.try_wait().context("cannot wait for a child")?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for SliceClient<'_> {
    fn drop(&mut self) {
        // A reaped child's number may be somebody else's by now.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.group.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn each_turn_has_an_answer_until_the_input_ends() {
        let interrupt = Interrupt::default();
        let mut command = script("echo 1; while read line; do echo $((line * 2)); done; exit 0");
        let (mut client, ready) = SliceClient::start::<u64>(&mut command, &interrupt).unwrap();
        assert_eq!(ready, 1);
        assert_eq!(client.slice::<u64>(7).unwrap(), 14);
        assert_eq!(client.slice::<u64>(30_000).unwrap(), 60_000);
        client.finish().unwrap();
    }

    #[test]
    fn a_client_that_fails_says_why() {
        let interrupt = Interrupt::default();
        let mut early = script("echo no server >&2; exit 1");
        let error = SliceClient::start::<u64>(&mut early, &interrupt).err().unwrap().to_string();
        assert!(error.contains("no server"), "{error}");

        let mut later = script("echo 1; read line; echo wrong echo >&2; exit 1");
        let (mut client, _) = SliceClient::start::<u64>(&mut later, &interrupt).unwrap();
        let error = client.slice::<u64>(7).unwrap_err().to_string();
        assert!(error.contains("wrong echo"), "{error}");
        assert!(client.slice::<u64>(7).is_err(), "it stays ended");
        assert!(client.finish().is_err());
    }

    #[test]
    fn a_client_that_ends_badly_is_an_error() {
        let interrupt = Interrupt::default();
        let mut command = script("echo 1; cat; exit 3");
        let (client, _) = SliceClient::start::<u64>(&mut command, &interrupt).unwrap();
        let error = format!("{:#}", client.finish().unwrap_err());
        assert!(error.contains("the measuring client failed"), "{error}");
    }

    #[test]
    fn an_interrupt_ends_the_wait() {
        let interrupt = Interrupt::default();
        let (mut client, _) =
            SliceClient::start::<u64>(&mut script("echo 1; sleep 1000"), &interrupt).unwrap();
        interrupt.raise();
        assert!(client.slice::<u64>(7).unwrap_err().to_string().contains("interrupted"));
    }
}
