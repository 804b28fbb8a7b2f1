//! The machine under the instrument: cores and file limits.

use std::fs;

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

/// How long a core has been idle since the machine started, in nanoseconds; told in ticks, of 10 ms as a rule.
///
/// # Errors
/// When there is no such core.
pub fn core_idle_ns(core: usize) -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks =
        idle_ticks(&stat, core).with_context(|| format!("/proc/stat has no core {core}"))?;
    Ok(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)))
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
        assert!(core_idle_ns(usize::MAX).is_err());
    }

    #[test]
    fn a_core_is_idle_while_it_has_nothing_to_do() {
        let stat = "cpu  9 9 9 9 9\ncpu0 1 2 3 40 5 6 7\ncpu1 1 2 3 400 50 6 7\nintr 7";
        assert_eq!([0, 1, 2].map(|core| idle_ticks(stat, core)), [Some(45), Some(450), None]);
        assert!(core_idle_ns(0).unwrap() > 0);
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
