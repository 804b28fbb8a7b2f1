//! What the kernel tells of a process in `/proc`.

use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// Longest time for which a program that replaces itself by another is waited for.
const EXEC_LIMIT: Duration = Duration::from_secs(2);

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    state: char,
    /// Whose child it is.
    pub(crate) parent: i32,
    /// Clock ticks from the start of the machine to its own.
    pub(crate) started: u64,
    /// Its environment is empty, and not just not to be seen at the moment.
    has_none: bool,
}

impl Stat {
    /// Whether it is a thread of the kernel, which has no environment.
    fn is_kernel(self, pid: Pid) -> bool {
        const KTHREADD: i32 = 2;
        self.parent == KTHREADD || pid.as_raw_nonzero().get() == KTHREADD
    }

    /// Whether it only waits to be collected.
    pub(crate) fn ended(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// None when it is gone.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// The name in brackets may hold anything, brackets and spaces included.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Fields 3 and 4 are taken; the start is field 22.
    let started = fields.nth(17)?.parse().ok()?;
    // Where the program begins in memory, and where its environment begins and ends: fields 26, 50 and 51. While one
    // program replaces another they are zeros, and the environment has a beginning and an end before the program has.
    let (program, begins, ends) = (fields.nth(3), fields.nth(23), fields.next());
    let has_none =
        begins == ends && [program, ends].iter().all(|at| at.is_some_and(|at| at != "0"));
    Some(Stat { state, parent, started, has_none })
}

/// The environment of a process as far as it fits here; empty where it is somebody else's. While a program replaces itself
/// by another the kernel shows none, and to whoever is reading no more: hence one call for all of it. That is over in a
/// moment, or whenever the process gets a processor again.
pub(crate) fn environment(pid: Pid, before: Stat, text: &mut [u8]) -> &[u8] {
    let deadline = Instant::now() + EXEC_LIMIT;
    let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
    loop {
        match File::open(&path).and_then(|mut file| file.read(text)) {
            Ok(0) => {}
            Ok(length) => return &text[..length],
            Err(_) => return &[],
        }
        let lives = |now: &Stat| now.started == before.started && !now.ended();
        let may_come = |now: &Stat| lives(now) && !now.has_none && !now.is_kernel(pid);
        if !stat(pid).as_ref().is_some_and(may_come) || Instant::now() >= deadline {
            return &[];
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_start_is_read_whatever_the_name() {
        let fields = "S 7 1 1 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 98765 1000 2";
        for name in ["a", "a b", ") S 1", "(x) ("] {
            let stat = parse_stat(&format!("12 ({name}) {fields}")).unwrap();
            let expected = Stat { state: 'S', parent: 7, started: 98765, has_none: false };
            assert_eq!(stat, expected, "{name}");
        }
        let memory = |program: &str, end: &str| {
            let more = format!("3 {program} {} 500 {end} 0", "0 ".repeat(23));
            parse_stat(&format!("12 (a) {fields} {more}")).unwrap().has_none
        };
        assert!(memory("100", "500") && !memory("100", "600") && !memory("0", "500"));
        for broken in ["", "12 (a", "12 (a) S", "12 (a) S 7 1 1"] {
            assert_eq!(parse_stat(broken), None, "{broken}");
        }
    }

    #[test]
    fn an_empty_environment_is_told_from_one_that_is_not_shown() {
        let this = stat(rustix::process::getpid()).unwrap();
        assert!(!this.has_none, "{this:?}");
        let mut child = Command::new("sleep").arg("1000").env_clear().spawn().unwrap();
        let pid = Pid::from_child(&child);
        let begun = Instant::now();
        // It becomes `sleep` in a moment.
        while !stat(pid).unwrap().has_none && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
        let now = stat(pid).unwrap();
        let (before, mut text) = (Instant::now(), [0; 64]);
        assert_eq!(environment(pid, now, &mut text), b"");
        let waited = before.elapsed();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(now.has_none && waited < EXEC_LIMIT, "{now:?} {waited:?}");
    }
}
