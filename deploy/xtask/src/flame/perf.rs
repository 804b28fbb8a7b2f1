//! Linux perf: may we, record, read back.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::on_path;

/// Samples a second; no multiple of what periodic work goes by.
const RATE: &str = "999";
/// Beyond the time of the recording: starting, writing, reading back.
const EXTRA: Duration = Duration::from_secs(120);

/// What this user may record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Program and kernel.
    Kernel,
    /// The program alone.
    User,
}

impl Access {
    /// What this machine allows.
    ///
    /// # Errors
    /// When perf is missing or forbidden; says what to do.
    pub(super) fn find() -> anyhow::Result<Self> {
        if !on_path("perf") {
            bail!(
                "perf is not installed (Debian: sudo apt-get install linux-perf; \
                 Ubuntu: linux-tools-generic)"
            );
        }
        let text = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
        let text = text.context("this kernel has no perf events")?;
        let level = text.trim().parse().context("perf_event_paranoid")?;
        Self::judge(rustix::process::geteuid().is_root(), level)
    }

    fn judge(root: bool, paranoid: i32) -> anyhow::Result<Self> {
        match paranoid {
            _ if root => Ok(Self::Kernel),
            ..=1 => Ok(Self::Kernel),
            2 => Ok(Self::User),
            _ => bail!(
                "kernel.perf_event_paranoid is {paranoid}: only root may record. Run this as root \
                 or allow it with: sudo sysctl kernel.perf_event_paranoid=1"
            ),
        }
    }

    /// What will be missing from the picture.
    pub(super) fn warnings(self) -> Vec<&'static str> {
        if self == Self::User {
            return vec![
                "without the kernel: that needs root or kernel.perf_event_paranoid at most 1",
            ];
        }
        let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let named = symbols.lines().take(1000).any(|line| !line.starts_with("0000000000000000"));
        if named {
            Vec::new()
        } else {
            vec!["kernel functions have no names: kernel.kptr_restrict"]
        }
    }
}

/// Records processes for some time.
///
/// # Errors
/// When perf fails; with what it said.
pub(super) fn record(
    pids: &[u32],
    access: Access,
    time: Duration,
    data: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    // The CPU's own counters are not there on most virtual machines; the clock is everywhere.
    let event = if access == Access::Kernel { "cpu-clock" } else { "cpu-clock:u" };
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut command = Command::new("perf");
    command.args(["record", "--event", event, "--freq", RATE, "--call-graph", "fp"]);
    command.args(["--pid", &pids.join(","), "--output"]).arg(data);
    command.args(["--", "sleep", &time.as_secs().to_string()]);
    run(&mut command, time + EXTRA, interrupt, |_| {})
}

/// Reads a recording back: for each sample a line with thread and numbers, then a line for each
/// function from the innermost out, then an empty one.
///
/// # Errors
/// When perf fails; with what it said.
pub(super) fn script(
    data: &Path,
    interrupt: &Interrupt,
    on_line: impl FnMut(&str),
) -> anyhow::Result<()> {
    let mut command = Command::new("perf");
    command.args(["script", "--no-inline", "--fields", "comm,pid,tid,ip,sym", "--input"]).arg(data);
    run(&mut command, EXTRA * 5, interrupt, on_line)
}

fn run(
    command: &mut Command,
    limit: Duration,
    interrupt: &Interrupt,
    mut on_line: impl FnMut(&str),
) -> anyhow::Result<()> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut said = String::new();
    let ending = job::run(command, limit, interrupt, |line| match line {
        Line::Out(text) => on_line(&text),
        Line::Err(text) => said += &format!("\n  {text}"),
    })?;
    ending.check("perf").with_context(|| format!("perf said:{said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_recorded_follows_from_user_and_setting() {
        for (root, paranoid, expected) in [
            (true, 4, Some(Access::Kernel)),
            (false, -1, Some(Access::Kernel)),
            (false, 1, Some(Access::Kernel)),
            (false, 2, Some(Access::User)),
            (false, 3, None),
            (false, 4, None),
        ] {
            assert_eq!(Access::judge(root, paranoid).ok(), expected, "{root} {paranoid}");
        }
        let error = Access::judge(false, 3).unwrap_err().to_string();
        assert!(error.contains("sysctl"), "{error}");
    }
}
