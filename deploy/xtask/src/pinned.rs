//! Starting children on chosen cores: a child inherits the cores of the thread that starts it.

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CpuSet, disable_transparent_huge_pages, sched_getaffinity, sched_setaffinity,
};

/// Runs `start` with this thread bound to `core`, then gives the thread its cores back.
///
/// # Errors
/// When the core is not among those this process may use, or `start` fails.
pub(crate) fn on_core<T>(
    core: usize,
    start: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let before = sched_getaffinity(None).context("cannot read the cores of this thread")?;
    if core >= CpuSet::MAX_CPU || !before.is_set(core) {
        anyhow::bail!("core {core} is not among the {} this process may use", before.count());
    }
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).with_context(|| format!("cannot run on core {core}"))?;
    let outcome = start();
    sched_setaffinity(None, &before).context("cannot give the thread its cores back")?;
    outcome
}

/// Runs `start` so that the child gets its memory in pages of 4 KiB only, if `small`.
///
/// # Errors
/// When the kernel does not allow it, or `start` fails.
pub(crate) fn with_small_pages<T>(
    small: bool,
    start: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if !small {
        return start();
    }
    disable_transparent_huge_pages(true).context("cannot switch huge pages off")?;
    let outcome = start();
    disable_transparent_huge_pages(false).context("cannot switch huge pages on again")?;
    outcome
}

/// Raises the soft limit of open files to the hard one, for the children too. Returns it.
pub(crate) fn raise_file_limit() -> anyhow::Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the soft limit of open files")?;
    Ok(maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_gets_small_pages_when_asked() {
        let enabled = |small| {
            with_small_pages(small, || {
                let status = std::process::Command::new("cat").arg("/proc/self/status").output()?;
                let text = String::from_utf8_lossy(&status.stdout).into_owned();
                let line = text.lines().find(|line| line.starts_with("THP_enabled:"));
                Ok(line.and_then(|line| line.split_whitespace().last()).map(String::from))
            })
        };
        assert_eq!(enabled(true).unwrap().as_deref(), Some("0"));
        assert_eq!(enabled(false).unwrap().as_deref(), Some("1"));
    }

    #[test]
    fn a_child_runs_where_it_was_put() {
        let mask = on_core(0, || {
            let status = std::process::Command::new("cat").arg("/proc/self/status").output()?;
            Ok(String::from_utf8_lossy(&status.stdout).into_owned())
        })
        .unwrap();
        let line = mask.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
        assert_eq!(line.split_whitespace().last(), Some("0"));
    }

    #[test]
    fn a_core_that_cannot_exist_is_refused() {
        assert!(on_core(usize::MAX, || Ok(())).is_err());
    }
}
