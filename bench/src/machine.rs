//! The machine under the instrument: cores and file limits.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Descriptors the instrument needs beside its connections: epoll, standard streams, `/proc`.
const SPARE_DESCRIPTORS: u64 = 64;

/// Binds the calling thread to one core.
///
/// # Errors
/// When the core does not exist or is not among those this process may use.
pub fn pin_to_core(core: usize) -> anyhow::Result<()> {
    if core >= CpuSet::MAX_CPU {
        bail!("core {core} is above the highest number a CPU set holds ({})", CpuSet::MAX_CPU - 1);
    }
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}

/// Where a core's idle time is read. The kernel keeps one account of it and shows it in two places.
///
/// A third account, `cpuidle/state*/time` in `/sys`, is of no use here: it takes the interrupts that arrive while a core
/// is halted, and the packets they bring, for idle time. Seen on Linux 6.18: 1 % more than the account in either place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleSource {
    /// `/proc/stat`: true at any moment, told in ticks, of 10 ms as a rule.
    Ticks,
    /// `/proc/timer_list`: told in nanoseconds, to root only, and without the idle time that has not ended yet. So it
    /// is for moments at which the core has work, when that is next to nothing.
    Nanoseconds,
}

impl IdleSource {
    /// The finest that can be read for this core.
    #[must_use]
    pub fn finest(core: usize) -> Self {
        if Self::Nanoseconds.idle_ns(core).is_ok() { Self::Nanoseconds } else { Self::Ticks }
    }

    /// The step in which it is told, in nanoseconds.
    #[must_use]
    pub fn step_ns(self) -> u64 {
        match self {
            Self::Ticks => 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            Self::Nanoseconds => 1,
        }
    }

    /// How long a core has been idle since the machine started, in nanoseconds.
    ///
    /// # Errors
    /// When there is no such core, or this source is not for us.
    pub fn idle_ns(self, core: usize) -> anyhow::Result<u64> {
        match self {
            Self::Ticks => {
                let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
                let ticks = idle_ticks(&stat, core);
                let ticks = ticks.with_context(|| format!("/proc/stat has no core {core}"))?;
                Ok(ticks * self.step_ns())
            }
            Self::Nanoseconds => {
                let path = "/proc/timer_list";
                let list = File::open(path).with_context(|| format!("cannot read {path}"))?;
                timer_list_idle_ns(BufReader::new(list), core)
                    .with_context(|| format!("{path} has no idle time of core {core}"))
            }
        }
    }
}

/// The core's `idle_sleeptime` and `iowait_sleeptime`. Reads no further than to them.
fn timer_list_idle_ns(list: impl BufRead, core: usize) -> Option<u64> {
    let head = format!("cpu: {core}");
    let mut lines = list.lines().map_while(Result::ok).skip_while(|line| *line != head).skip(1);
    let mut field = |name: &str| {
        let lines = lines.by_ref().take_while(|line| !line.starts_with("cpu: "));
        let line = { lines }.find(|line| line.trim_start().starts_with(name))?;
        let value = line.split_once(':')?.1;
        value.trim().strip_suffix(" nsecs")?.parse::<u64>().ok()
    };
    Some(field(".idle_sleeptime")? + field(".iowait_sleeptime")?)
}

/// The core's fields 4 and 5: idle, and idle while something waits for a disk.
fn idle_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core}");
    let fields = stat.lines().map(|line| line.split_ascii_whitespace());
    let mut fields = fields.filter_map(|mut line| (line.next()? == name).then_some(line)).next()?;
    Some(fields.nth(3)?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Raises the soft limit of open files to the hard one and checks that `connections` fit.
///
/// # Errors
/// When the hard limit is too low; the message names both numbers.
pub fn reserve_descriptors(connections: usize) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the soft limit of open files")?;
    let needed = connections as u64 + SPARE_DESCRIPTORS;
    match limit.maximum {
        Some(maximum) if maximum < needed => bail!(
            "{connections} connections need {needed} open files, the hard limit is {maximum} (ulimit -Hn)"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_cannot_exist_is_refused() {
        assert!(pin_to_core(usize::MAX).is_err());
        for source in [IdleSource::Ticks, IdleSource::Nanoseconds] {
            assert!(source.idle_ns(usize::MAX).is_err());
        }
    }

    #[test]
    fn a_core_is_idle_while_it_has_nothing_to_do() {
        let stat = "cpu  9 9 9 9 9\ncpu0 1 2 3 40 5 6 7\ncpu1 1 2 3 400 50 6 7\nintr 7";
        assert_eq!([0, 1, 2].map(|core| idle_ticks(stat, core)), [Some(45), Some(450), None]);
        assert!(IdleSource::Ticks.idle_ns(0).unwrap() > 0);
    }

    #[test]
    fn idle_time_in_nanoseconds_is_that_of_the_core_named() {
        let core = |number: u32, idle: &str| {
            format!("cpu: {number}\n clock 0:\n  .idle_sleeps    : 7\n{idle}jiffies: 5\n\n")
        };
        let idle = |ns: u32| {
            format!(
                "  .idle_sleeptime : {ns} nsecs\n  .iowait_sleeptime: 1 nsecs\n  .last_jiffies: 9\n"
            )
        };
        let list = format!("now at 9 nsecs\n\n{}{}", core(0, &idle(40)), core(1, &idle(400)));
        let read = |list: &str, core| timer_list_idle_ns(list.as_bytes(), core);
        assert_eq!([0, 1, 2].map(|core| read(&list, core)), [Some(41), Some(401), None]);
        // A kernel without the account for one core must not answer with that of the next.
        let list = core(0, "") + &core(1, &idle(400));
        assert_eq!(read(&list, 0), None);
    }

    /// Both places show one account. On the core that this test runs on, no idle time is under way.
    #[test]
    fn both_sources_agree() {
        // Nanoseconds are for root, and a core may be forbidden to us.
        let (Ok(_), Ok(())) = (IdleSource::Nanoseconds.idle_ns(0), pin_to_core(0)) else { return };
        assert_eq!(IdleSource::finest(0), IdleSource::Nanoseconds);
        let [coarse, fine] =
            [IdleSource::Ticks, IdleSource::Nanoseconds].map(|source| source.idle_ns(0).unwrap());
        // Two accounts, idle and waiting for a disk, each cut off to whole ticks.
        let cut_off = fine.checked_sub(coarse).expect("idle time passed while we ran");
        assert!(cut_off <= 2 * IdleSource::Ticks.step_ns(), "{coarse} and {fine}");
    }

    #[test]
    fn a_limit_too_low_is_named() {
        let limit = getrlimit(Resource::Nofile).maximum;
        if let Some(maximum) = limit {
            let refusal = reserve_descriptors(maximum as usize).unwrap_err().to_string();
            assert!(refusal.contains(&maximum.to_string()), "{refusal}");
        }
        assert!(reserve_descriptors(1).is_ok());
    }
}
