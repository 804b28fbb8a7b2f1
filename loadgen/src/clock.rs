//! The clocks of the generator. Every latency is a difference of [`now_ns`] values; they are comparable
//! between the worker processes of one machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds in a millisecond.
pub const MILLISECOND_NS: u64 = 1_000_000;

/// `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// CPU time of the calling thread in nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// Wall clock in milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in nanoseconds, at most some 580 years.
#[must_use]
pub fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A timeout for the kernel.
#[must_use]
pub(crate) fn timespec(ns: u64) -> Timespec {
    let seconds = i64::try_from(ns / SECOND_NS).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: (ns % SECOND_NS).cast_signed() }
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec
        .cast_unsigned()
        .saturating_mul(SECOND_NS)
        .saturating_add(time.tv_nsec.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_step_back() {
        let (a, b) = (now_ns(), now_ns());
        assert!(b >= a);
        assert!(a > 0);
    }

    #[test]
    fn a_timeout_keeps_its_parts() {
        let time = timespec(3 * SECOND_NS + 17);
        assert_eq!((time.tv_sec, time.tv_nsec), (3, 17));
    }
}
