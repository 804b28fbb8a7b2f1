//! The members who stop reading for a while.

use crate::clock::SECOND_NS;

/// Slow readers that wake up at a time.
const AWAKE_MAX: usize = 256;
/// Nothing arrived at one that is awake for so long: nothing will.
const PATIENCE_NS: u64 = 15 * SECOND_NS;

/// One of them, awake.
#[derive(Clone, Copy, Debug)]
struct Awake {
    conn: u32,
    since_ns: u64,
    progress_ns: u64,
}

/// All of one worker: the connections behind those that always read.
#[derive(Debug)]
pub(super) struct SlowReaders {
    first: u32,
    count: u32,
    logged_in: u32,
    lost: u32,
    asleep: bool,
    next: u32,
    awake: Vec<Awake>,
}

impl SlowReaders {
    pub(super) fn new(first: u32, count: u32) -> Self {
        Self { first, count, logged_in: 0, lost: 0, asleep: false, next: 0, awake: Vec::new() }
    }

    pub(super) fn connections(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.count
    }

    pub(super) fn is_slow(&self, conn: u32) -> bool {
        conn >= self.first
    }

    /// Whether the connection must not read now.
    pub(super) fn sleeps(&self, conn: u32) -> bool {
        self.asleep && self.is_slow(conn)
    }

    pub(super) fn on_login(&mut self, conn: u32) {
        self.logged_in += u32::from(self.is_slow(conn));
    }

    pub(super) fn on_down(&mut self, conn: u32) {
        self.lost += u32::from(self.is_slow(conn));
    }

    /// Whether all stand, or some never will.
    pub(super) fn are_there(&self) -> bool {
        self.logged_in >= self.count
    }

    pub(super) fn fall_asleep(&mut self) {
        self.asleep = true;
    }

    /// Something came for one of them.
    pub(super) fn progressed(&mut self, conn: u32, now_ns: u64) {
        if let Some(awake) = self.awake.iter_mut().find(|awake| awake.conn == conn) {
            awake.progress_ns = now_ns;
        }
    }

    /// The next that may wake up.
    pub(super) fn wake_next(&mut self, now_ns: u64) -> Option<u32> {
        if self.awake.len() >= AWAKE_MAX || self.next >= self.count {
            return None;
        }
        let conn = self.first + self.next;
        self.next += 1;
        self.awake.push(Awake { conn, since_ns: now_ns, progress_ns: now_ns });
        Some(conn)
    }

    /// Takes those out that are complete, each with the time it took, or that nothing comes for any more
    /// (`None`).
    pub(super) fn settle(
        &mut self,
        now_ns: u64,
        is_complete: impl Fn(u32) -> bool,
        mut settled: impl FnMut(Option<u64>),
    ) {
        self.awake.retain(|awake| {
            if is_complete(awake.conn) {
                settled(Some(awake.progress_ns.saturating_sub(awake.since_ns)));
                return false;
            }
            let given_up = now_ns.saturating_sub(awake.progress_ns) > PATIENCE_NS;
            if given_up {
                settled(None);
            }
            !given_up
        });
    }

    /// Whether all have been awake and are settled.
    pub(super) fn are_settled(&self) -> bool {
        self.next >= self.count && self.awake.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_wake_in_turns_and_settle() {
        let mut slow = SlowReaders::new(10, 300);
        assert!(!slow.sleeps(10) && slow.is_slow(10) && !slow.is_slow(9));
        slow.fall_asleep();
        assert!(slow.sleeps(10) && !slow.sleeps(9));
        let awake = std::iter::from_fn(|| slow.wake_next(5)).count();
        assert_eq!(awake, AWAKE_MAX);
        slow.progressed(10, 9);
        let mut times = Vec::new();
        slow.settle(20, |conn| conn < 60, |time| times.push(time));
        assert_eq!((times.len(), times[0], times[1]), (50, Some(4), Some(0)));
        assert_eq!(std::iter::from_fn(|| slow.wake_next(5)).count(), 300 - AWAKE_MAX);
        assert!(!slow.are_settled());
        times.clear();
        slow.settle(u64::MAX, |_| false, |time| times.push(time));
        assert_eq!((times.len(), times[0]), (250, None));
        assert!(slow.are_settled());
    }
}
