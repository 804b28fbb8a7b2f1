//! The machine under the instrument: cores and file limits.

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
