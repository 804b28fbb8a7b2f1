//! What a step works with: the checkout, its time, its output and its count.

use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::tally::Tally;
use crate::build::{self, CORELANE};
use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::{Repo, cargo};

/// A step that did not fail.
pub(super) enum Verdict {
    /// It ran.
    Done,
    /// It cannot run here, for this reason, and nobody is to blame.
    Skipped(String),
}

/// The surroundings of a step.
pub(super) struct Context {
    pub(super) repo: Repo,
    pub(super) interrupt: Interrupt,
    deadline: Instant,
    step_deadline: Instant,
    tally: Tally,
    corelane: Option<PathBuf>,
}

impl Context {
    /// Surroundings for steps that together take at most `limit`.
    pub(super) fn new(repo: Repo, interrupt: Interrupt, limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        let tally = Tally::default();
        Self { repo, interrupt, deadline, step_deadline: deadline, tally, corelane: None }
    }

    /// Starts the clock of a step.
    pub(super) fn begin(&mut self, limit: Duration) {
        self.step_deadline = self.deadline.min(Instant::now() + limit);
    }

    /// What was counted since the last time.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Writes a line. A closed pipe on the other side must not end the checks.
    pub(super) fn say(&self, line: &str) {
        let mut out = stdout().lock();
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
    }

    /// What is left of the step's time.
    pub(super) fn time_left(&self) -> Duration {
        self.step_deadline.saturating_duration_since(Instant::now())
    }

    /// Writes a line and counts what it reports.
    pub(super) fn report(&mut self, line: &str) {
        self.tally.read(line);
        self.say(line);
    }

    /// A cargo command in this checkout.
    pub(super) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.args(arguments).current_dir(self.repo.root());
        if stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        command
    }

    /// An npm command in the web workspace.
    pub(super) fn npm(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("npm");
        command.args(arguments).current_dir(self.repo.web());
        command
    }

    /// Runs a command, shows and counts its lines.
    ///
    /// # Errors
    /// When it does not start, fails, or is out of time.
    pub(super) fn run(&mut self, mut command: Command) -> anyhow::Result<()> {
        // Where the program lies is of no interest, which it is and how it is called are.
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let words = [program].into_iter().chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let shown = words.join(" ");
        self.say(&format!("$ {shown}"));
        let left = self.time_left();
        if left.is_zero() {
            bail!("no time left for {shown}");
        }
        if self.interrupt.raised() {
            bail!("interrupted before {shown}");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tally = self.take_tally();
        let ending = job::run(&mut command, left, &self.interrupt, |line| {
            let (Line::Out(text) | Line::Err(text)) = line;
            tally.read(&text);
            self.say(&text);
        });
        self.tally = tally;
        ending?.check(&shown)
    }

    /// The release build of the embedded server.
    ///
    /// # Errors
    /// When it does not build.
    pub(super) fn corelane(&mut self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.corelane {
            return Ok(path.clone());
        }
        let path = build::build(&self.repo, CORELANE, "release", &self.interrupt)?;
        self.corelane = Some(path.clone());
        Ok(path)
    }
}
