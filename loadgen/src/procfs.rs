//! What the kernel says about a process: CPU time and memory, read from `/proc`.

use std::fs;

use serde::{Deserialize, Serialize};

/// One reading of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time since the process began, in seconds (resolution 10 ms).
    pub cpu_s: f64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// The part of it that belongs to no file.
    pub anonymous_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors; 0 when they may not be looked at.
    pub descriptors: u64,
}

/// Reads `/proc/PID`; `None` when there is no such process (any more).
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ticks = cpu_ticks(&stat)?;
    Some(Usage {
        cpu_s: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_bytes: status_kib(&status, "VmRSS")? * 1024,
        anonymous_bytes: status_kib(&status, "RssAnon")? * 1024,
        threads: status_kib(&status, "Threads")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |all| all.count() as u64),
    })
}

/// Memory that the kernel holds for TCP in this network namespace, in bytes: what is sent and not yet read
/// by the other side, on whichever side it waits.
#[must_use]
pub fn tcp_memory_bytes() -> Option<u64> {
    tcp_pages(&fs::read_to_string("/proc/net/sockstat").ok()?)
        .map(|pages| pages * rustix::param::page_size() as u64)
}

fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut fields = line.split_ascii_whitespace().skip_while(|&field| field != "mem");
    fields.nth(1)?.parse().ok()
}

/// Fields 14 and 15; the name in field 2 may hold anything, so counting starts behind its last bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there() {
        let usage = usage(std::process::id()).expect("this process runs");
        assert!(usage.rss_bytes > 100_000 && usage.anonymous_bytes > 0 && usage.threads >= 1);
        assert!(usage.descriptors >= 3);
    }

    #[test]
    fn no_process_no_reading() {
        assert_eq!(usage(u32::MAX), None);
    }

    #[test]
    fn the_kernel_tells_what_tcp_holds() {
        let sockstat =
            "sockets: used 31\nTCP: inuse 3 orphan 0 tw 469 alloc 3 mem 168\nUDP: inuse 0 mem 7\n";
        assert_eq!(tcp_pages(sockstat), Some(168));
        assert_eq!(tcp_pages("UDP: inuse 0 mem 7\n"), None);
    }

    #[test]
    fn a_name_with_brackets_and_spaces() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 3 0 99 1 1";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 broken"), None);
    }
}
