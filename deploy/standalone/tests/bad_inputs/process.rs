//! What a server holds.

use std::time::{Duration, Instant};

use crate::common::PATIENCE;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) descriptors: usize,
    pub(crate) anonymous_kib: u64,
}

pub(crate) fn held(pid: u32) -> Held {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    // Not `Private_Dirty`: pages of the program's file count there while they are not on the disk yet, if no other
    // test runs the same file just then.
    let anonymous = rollup.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    let anonymous_kib = anonymous.split_whitespace().nth(1).unwrap().parse().unwrap();
    Held { descriptors, anonymous_kib }
}

/// What it holds once its descriptors have not changed for longer than closed connections linger.
pub(crate) fn settled(pid: u32) -> Held {
    let deadline = Instant::now() + PATIENCE;
    let mut last = held(pid);
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(3_500) {
        assert!(Instant::now() < deadline, "the server does not come to rest: {last:?}");
        std::thread::sleep(Duration::from_millis(100));
        let now = held(pid);
        if now.descriptors != last.descriptors {
            since = Instant::now();
        }
        last = now;
    }
    last
}

/// Processor time used so far, in clock ticks of 10 ms.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
