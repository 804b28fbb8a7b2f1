//! What a process costs: CPU time and memory, read from `/proc/PID`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use serde::Serialize;

/// Memory of one process at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident set: everything mapped and present, shared libraries included.
    pub rss_bytes: u64,
    /// Pages it has written that belong to no file: stacks, heaps, tables, what it has changed of its program. Not its
    /// private dirty pages: among those are all of a program file that is not on the disk yet, unless somebody else maps
    /// the file, too, so that they come and go by the size of the program.
    pub anonymous_bytes: u64,
    /// The part of the resident set in transparent huge pages. When it changes between two
    /// readings, the difference between them is coarse (2 MiB steps).
    pub huge_page_bytes: u64,
}

/// One process under observation.
#[derive(Debug, Clone)]
pub struct Observed {
    folder: PathBuf,
}

impl Observed {
    /// The process with this id.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self { folder: PathBuf::from(format!("/proc/{pid}")) }
    }

    /// The calling process.
    #[must_use]
    pub fn this() -> Self {
        Self { folder: PathBuf::from("/proc/self") }
    }

    /// CPU time of all its living threads so far, in nanoseconds.
    ///
    /// Taken from the scheduler's own account, which counts nanoseconds, instead of `utime` and
    /// `stime`, which count ticks of 10 ms. A thread that ended takes its time with it, so a
    /// server that starts a thread per request cannot be measured this way.
    ///
    /// It leaves out what is charged to others. When a task is woken that is to run next, the scheduler reads its
    /// clock then and not again when it switches (`rq_clock_skip_update`), so what the woken task is kept
    /// waiting for is charged to it. In a kernel without preemption that is the rest of the running system call.
    /// Seen on Linux 6.18 (250 Hz): a server that submits up to 512 sends in one `io_uring_enter` ran for 97 % of a
    /// core's time by the trace of switches and was charged 81 %, `ksoftirqd` 1 % and 16 %. One that sends by
    /// `send(2)` ran for 92 % and was charged 93 %. To compare servers, take what their core did ([`crate::accounts`]).
    ///
    /// # Errors
    /// When the process is gone or the kernel keeps no such account.
    pub fn cpu_ns(&self) -> anyhow::Result<u64> {
        let tasks = self.folder.join("task");
        let threads =
            fs::read_dir(&tasks).with_context(|| format!("cannot read {}", tasks.display()))?;
        let mut total_ns = 0;
        for thread in threads {
            let path = thread?.path().join("schedstat");
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            total_ns += parse_schedstat(&text)
                .with_context(|| format!("unexpected content of {}", path.display()))?;
        }
        if total_ns == 0 {
            bail!("{} shows no CPU time (kernel without CONFIG_SCHED_INFO?)", tasks.display());
        }
        Ok(total_ns)
    }

    /// Its memory now.
    ///
    /// # Errors
    /// When the process is gone or belongs to somebody else.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let path = self.folder.join("smaps_rollup");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        parse_smaps_rollup(&text)
    }
}

fn parse_schedstat(text: &str) -> anyhow::Result<u64> {
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    first.parse().map_err(|_| anyhow!("{first:?} is no number of nanoseconds"))
}

fn parse_smaps_rollup(text: &str) -> anyhow::Result<Memory> {
    let bytes = |key: &str| -> anyhow::Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let value = line.with_context(|| format!("smaps_rollup has no {key}"))?;
        let kib: u64 = value.trim().trim_end_matches("kB").trim_end().parse()?;
        Ok(kib * 1024)
    };
    Ok(Memory {
        rss_bytes: bytes("Rss:")?,
        anonymous_bytes: bytes("Anonymous:")?,
        huge_page_bytes: bytes("AnonHugePages:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_cpu_time() {
        let observed = Observed::this();
        let before_ns = observed.cpu_ns().unwrap();
        // Work until the account moves; it is brought up to date at every scheduler tick.
        let mut sum = 0u64;
        for round in 0..2_000_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(round));
            if round % 10_000_000 == 0 && observed.cpu_ns().unwrap() > before_ns {
                return;
            }
        }
        panic!("no CPU time was counted");
    }

    #[test]
    fn written_memory_shows_as_anonymous() {
        const BYTES: usize = 64 << 20;
        let before = Observed::this().memory().unwrap();
        let block = std::hint::black_box(vec![1u8; BYTES]);
        let after = Observed::this().memory().unwrap();
        let grown = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
        assert!(grown >= BYTES as u64 * 9 / 10, "{grown} bytes after writing {}", block.len());
        assert!(after.rss_bytes >= after.anonymous_bytes);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let nobody = Observed::new(u32::MAX);
        assert!(nobody.cpu_ns().is_err());
        assert!(nobody.memory().is_err());
    }

    #[test]
    fn kernel_formats_are_read() {
        assert_eq!(parse_schedstat("123456 789 10\n").unwrap(), 123_456);
        assert!(parse_schedstat("").is_err());
        let text = "Rss:  2048 kB\nPss: 1 kB\nAnonymous:      1024 kB\nAnonHugePages:  0 kB\n";
        let memory = parse_smaps_rollup(text).unwrap();
        assert_eq!((memory.rss_bytes, memory.anonymous_bytes), (2 << 20, 1 << 20));
        assert!(parse_smaps_rollup("Rss: 1 kB\n").is_err());
    }
}
