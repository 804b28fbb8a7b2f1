//! The load of a trial: `loadgen chat` as a child, and what its oracle says.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde::Deserialize;

use crate::daemon;
use crate::interrupt::Interrupt;
use crate::job::Group;

/// Longest load; it ends before, with its script.
const LONGEST_S: u64 = 1200;
/// Between the end of the load and a verdict: reconnecting, answers, reading everything back.
const FINISH: Duration = Duration::from_secs(150);
/// Sixty connections and their conversations take well under a second, on a machine that is not busy.
const SETUP: Duration = Duration::from_secs(120);
/// What the load generator says when messages begin.
const BEGUN: &str = "stage: load";
/// Between its first message and the moment that many are surely under way.
const SETTLE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);
/// Faults that clients put right by themselves: a message pushed again is dropped by its seq.
const HARMLESS: [&str; 1] = ["duplicate"];

/// A load that runs.
pub(super) struct Load {
    child: Child,
    /// With its end the load ends.
    input: Option<ChildStdin>,
    json: PathBuf,
    log: PathBuf,
}

/// What a load generator is told.
pub(super) struct Plan<'a> {
    pub(super) loadgen: &'a Path,
    /// `ws://HOST/ws` of each gateway.
    pub(super) urls: &'a [String],
    pub(super) seed: u64,
    /// Members of a conversation.
    pub(super) group_size: u64,
    /// What the load generator is to do without.
    pub(super) without: Option<&'static str>,
    /// Where its files go.
    pub(super) folder: &'a Path,
}

/// The report, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Report {
    pub(super) passed: bool,
    pub(super) failures: Vec<String>,
    pub(super) latency: Latency,
    pub(super) oracle: Option<Verdict>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(super) struct Latency {
    pub(super) ack: Percentiles,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(super) struct Percentiles {
    pub(super) max_us: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Verdict {
    pub(super) acked: u64,
    pub(super) delivered: u64,
    pub(super) unaudited: u64,
    pub(super) faults: BTreeMap<String, u64>,
    pub(super) examples: Vec<String>,
}

impl Verdict {
    /// How often these promises were broken.
    pub(super) fn count(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.faults.get(*name)).sum()
    }

    /// How often a promise was broken that clients cannot put right by themselves.
    pub(super) fn anomalies(&self) -> u64 {
        let counted = self.faults.iter().filter(|(name, _)| !HARMLESS.contains(&name.as_str()));
        counted.map(|(_, count)| count).sum()
    }
}

impl Load {
    /// Starts a load and waits until messages are under way.
    ///
    /// # Errors
    /// When it does not start, or ends before.
    pub(super) fn start(plan: &Plan<'_>, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let json = plan.folder.join("load.json");
        let log = plan.folder.join("load.log");
        let _ = std::fs::remove_file(&json);
        let output = std::fs::File::create(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(plan.loadgen);
        command.arg("chat");
        for url in plan.urls {
            command.args(["--url", url]);
        }
        let fixed = "--reconnect --until-input-ends --stages --audit all --connections 60 --rate 100 \
                     --heartbeat 2s --ack-timeout 3s --drain 60s --max-duplicates 1000000000";
        command
            .args(fixed.split_whitespace())
            .args(["--group-size", &plan.group_size.to_string()])
            .args(plan.without)
            .args(["--duration", &format!("{LONGEST_S}s")])
            .args(["--seed", &plan.seed.to_string()])
            .arg("--json")
            .arg(&json)
            .stdin(Stdio::piped())
            .process_group(0)
            .stdout(output.try_clone().context("cannot share a log")?)
            .stderr(output);
        let mut child = command.spawn().context("cannot start loadgen")?;
        let input = child.stdin.take();
        let mut load = Self { child, input, json, log };
        load.wait_for_messages(interrupt)?;
        Ok(load)
    }

    fn wait_for_messages(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETUP;
        while !daemon::said(&self.log, 0, |line| line.trim_end() == BEGUN) {
            if Instant::now() > deadline {
                bail!("loadgen does not come to its load{}", daemon::tail(&self.log));
            }
            self.go_on(interrupt)?;
        }
        let settled = Instant::now() + SETTLE;
        while Instant::now() < settled {
            self.go_on(interrupt)?;
        }
        Ok(())
    }

    /// Waits for a moment; an error when it ended.
    fn go_on(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait().context("cannot wait for loadgen")? {
            bail!("loadgen ended before the load ({status}){}", daemon::tail(&self.log));
        }
        if interrupt.raised() {
            bail!("interrupted");
        }
        thread::sleep(TICK);
        Ok(())
    }

    /// Ends the load, waits until everything is answered and checked, and reads the report.
    ///
    /// # Errors
    /// When it ended by itself, ends without a report or not in time.
    pub(super) fn finish(mut self, interrupt: &Interrupt) -> anyhow::Result<Report> {
        if let Some(status) = self.child.try_wait().context("cannot wait for loadgen")? {
            bail!("the load ended before its script ({status}){}", daemon::tail(&self.log));
        }
        drop(self.input.take());
        let deadline = Instant::now() + FINISH;
        while self.child.try_wait().context("cannot wait for loadgen")?.is_none() {
            if interrupt.raised() {
                bail!("interrupted");
            }
            if Instant::now() > deadline {
                bail!("loadgen does not come to an end{}", daemon::tail(&self.log));
            }
            thread::sleep(TICK);
        }
        let text = std::fs::read_to_string(&self.json)
            .with_context(|| format!("loadgen wrote no report{}", daemon::tail(&self.log)))?;
        read(&text)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Its workers are of its group.
            let _ = Group::of(&self.child).signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn read(text: &str) -> anyhow::Result<Report> {
    serde_json::from_str(text).context("loadgen wrote a report that cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_far_as_it_matters() {
        let text = r#"{"passed":false,"failures":["2 times lost"],"seed":7,
            "latency":{"ack":{"count":9,"max_us":1500000},"delivery":{"count":0,"max_us":0}},
            "oracle":{"acked":100,"delivered":400,"unaudited":0,"examples":["m1"],
                "faults":{"lost":2,"duplicate":5,"two_seqs":1}}}"#;
        let report = read(text).unwrap();
        let verdict = report.oracle.unwrap();
        assert_eq!(verdict.anomalies(), 3);
        assert_eq!(verdict.count(&["duplicate", "two_seqs", "other"]), 6);
        assert_eq!(report.latency.ack.max_us, 1_500_000);
        assert!(read("{}").is_err());
    }
}
