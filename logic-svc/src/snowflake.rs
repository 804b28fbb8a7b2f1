//! Message ids: 41 bits of milliseconds, 10 bits of worker, 12 bits of sequence.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::ports::{Clock, IdSource, StoreError};

/// 2025-01-01T00:00:00Z; ids last until 2094.
const EPOCH_MS: u64 = 1_735_689_600_000;
const WORKER_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 12;
const SEQUENCE_MAX: u64 = (1 << SEQUENCE_BITS) - 1;

/// The system's time of day.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Highest worker number.
pub const WORKER_MAX: u16 = (1 << WORKER_BITS) - 1;

/// The time in an id, in milliseconds since 1970.
#[must_use]
pub fn time_ms(id: u64) -> u64 {
    (id >> (WORKER_BITS + SEQUENCE_BITS)) + EPOCH_MS
}

/// The lowest id of a millisecond since 1970.
#[must_use]
pub fn first_at(ms: u64) -> u64 {
    ms.saturating_sub(EPOCH_MS) << (WORKER_BITS + SEQUENCE_BITS)
}

/// Hands out ids that only rise.
///
/// When the clock steps back, the time in the ids stands still until the clock has caught up. If the 4096 ids of
/// one millisecond are used up (by a very large tick, or while the time stands still), the time in the ids goes
/// one millisecond ahead. So no id repeats and no message waits for the clock.
pub struct Snowflake<C> {
    clock: C,
    worker: u64,
    last: Mutex<Last>,
}

struct Last {
    ms: u64,
    sequence: u64,
}

impl<C: Clock> Snowflake<C> {
    /// Starts above `used_until_ms`, the newest time (since 1970) in any id handed out by an earlier run.
    pub fn new(clock: C, worker: u16, used_until_ms: u64) -> Self {
        let ms = used_until_ms.saturating_sub(EPOCH_MS);
        let last = Mutex::new(Last { ms, sequence: SEQUENCE_MAX });
        Self { clock, worker: u64::from(worker.min(WORKER_MAX)), last }
    }
}

impl<C: Clock> IdSource for Snowflake<C> {
    fn take(&self, count: usize, into: &mut Vec<u64>) -> Result<(), StoreError> {
        if count == 0 {
            return Ok(());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now_ms().saturating_sub(EPOCH_MS);
        if now > last.ms {
            *last = Last { ms: now, sequence: 0 };
        } else {
            last.step();
        }
        for n in 0..count {
            if n > 0 {
                last.step();
            }
            into.push(
                (last.ms << (WORKER_BITS + SEQUENCE_BITS))
                    | (self.worker << SEQUENCE_BITS)
                    | last.sequence,
            );
        }
        Ok(())
    }
}

impl Last {
    fn step(&mut self) {
        if self.sequence == SEQUENCE_MAX {
            *self = Self { ms: self.ms + 1, sequence: 0 };
        } else {
            self.sequence += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Default)]
    struct Moved(Arc<AtomicU64>);

    impl Clock for Moved {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn take(ids: &impl IdSource, count: usize) -> Vec<u64> {
        let mut out = Vec::new();
        ids.take(count, &mut out).unwrap();
        out
    }

    #[test]
    fn the_time_reads_back_and_the_worker_is_in() {
        let clock = Moved::default();
        clock.0.store(EPOCH_MS + 12_345, Ordering::Relaxed);
        let id = take(&Snowflake::new(clock, 513, 0), 1)[0];
        assert_eq!(time_ms(id), EPOCH_MS + 12_345);
        assert_eq!((id >> SEQUENCE_BITS) & u64::from(WORKER_MAX), 513);
        assert!(id < 1 << 63);
    }

    #[test]
    fn a_new_run_starts_above_the_old_even_with_the_clock_behind() {
        let clock = Moved::default();
        clock.0.store(EPOCH_MS + 1000, Ordering::Relaxed);
        let old = Snowflake::new(clock.clone(), 1, 0);
        let newest = *take(&old, 9000).last().unwrap();
        clock.0.store(EPOCH_MS + 10, Ordering::Relaxed);
        let new = Snowflake::new(clock, 1, time_ms(newest));
        assert!(take(&new, 1)[0] > newest);
    }

    proptest! {
        #[test]
        fn ids_only_rise_whatever_the_clock_does(steps in prop::collection::vec((0u64..5000, 0usize..6000), 1..40)) {
            let clock = Moved::default();
            let ids = Snowflake::new(clock.clone(), 3, 0);
            let mut newest = 0;
            for (now, count) in steps {
                clock.0.store(EPOCH_MS + now, Ordering::Relaxed);
                for id in take(&ids, count) {
                    prop_assert!(id > newest);
                    newest = id;
                }
            }
        }
    }
}
