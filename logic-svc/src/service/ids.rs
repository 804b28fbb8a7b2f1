//! Message ids of a worker number that is leased: nothing is issued while the lease is in doubt.

use std::sync::{Arc, Mutex, PoisonError};

use cluster::etcd::Worker;

use crate::ports::{Clock, IdSource, StoreError};
use crate::snowflake::Snowflake;

/// The system's clock, shared.
#[derive(Clone)]
pub(super) struct Shared(pub(super) Arc<dyn Clock>);

impl Clock for Shared {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }
}

/// Ids of whatever worker number is ours.
pub(super) struct LeasedIds {
    /// The number that is ours at this moment.
    worker: Box<dyn Fn() -> Option<u16> + Send + Sync>,
    clock: Shared,
    /// The newest time in any id that was there at start, in milliseconds since 1970.
    used_until_ms: u64,
    /// The source for the number that was ours last.
    source: Mutex<Option<(u16, Snowflake<Shared>)>>,
}

impl LeasedIds {
    /// Ids above `used_until_ms`, the newest time in any id there is.
    pub(super) fn new(worker: Worker, clock: Arc<dyn Clock>, used_until_ms: u64) -> Self {
        Self::with(Box::new(move || worker.current()), clock, used_until_ms)
    }

    fn with(
        worker: Box<dyn Fn() -> Option<u16> + Send + Sync>,
        clock: Arc<dyn Clock>,
        used_until_ms: u64,
    ) -> Self {
        Self { worker, clock: Shared(clock), used_until_ms, source: Mutex::default() }
    }
}

impl IdSource for LeasedIds {
    fn take(&self, count: usize, into: &mut Vec<u64>) -> Result<(), StoreError> {
        let in_doubt =
            || StoreError::Unavailable("the worker number for ids is in doubt".to_owned());
        let number = (self.worker)().ok_or_else(in_doubt)?;
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let same = source.as_ref().is_some_and(|(of, _)| *of == number);
        if !same {
            let new = Snowflake::new(self.clock.clone(), number, self.used_until_ms);
            *source = Some((number, new));
        }
        let before = into.len();
        if let Some((_, ids)) = source.as_ref() {
            ids.take(count, into)?;
        }
        // The time in the ids was read before this look: if the number is still ours, it was ours then.
        if (self.worker)() == Some(number) {
            return Ok(());
        }
        into.truncate(before);
        Err(in_doubt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snowflake::time_ms;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct At(u64);

    impl Clock for At {
        fn now_ms(&self) -> u64 {
            self.0
        }
    }

    const NOW_MS: u64 = 1_800_000_000_000;
    const NONE: u64 = u64::MAX;

    fn ids(number: &Arc<AtomicU64>) -> LeasedIds {
        let number = Arc::clone(number);
        let worker = move || u16::try_from(number.load(Ordering::Relaxed)).ok();
        LeasedIds::with(Box::new(worker), Arc::new(At(NOW_MS)), 0)
    }

    fn worker_of(id: u64) -> u64 {
        (id >> 12) & 1023
    }

    #[test]
    fn nothing_is_issued_in_doubt_and_a_new_number_is_taken_up() {
        let number = Arc::new(AtomicU64::new(7));
        let ids = ids(&number);
        let mut out = Vec::new();
        ids.take(2, &mut out).unwrap();
        assert!(out.iter().all(|&id| worker_of(id) == 7 && time_ms(id) == NOW_MS));
        number.store(NONE, Ordering::Relaxed);
        assert!(matches!(ids.take(1, &mut out), Err(StoreError::Unavailable(_))));
        number.store(9, Ordering::Relaxed);
        ids.take(1, &mut out).unwrap();
        assert_eq!((out.len(), worker_of(out[2])), (3, 9));
    }

    #[test]
    fn ids_taken_while_the_number_was_lost_are_not_given_out() {
        let looks = AtomicU64::new(0);
        let worker = move || (looks.fetch_add(1, Ordering::Relaxed) == 0).then_some(7);
        let ids = LeasedIds::with(Box::new(worker), Arc::new(At(NOW_MS)), 0);
        let mut out = vec![1];
        assert!(ids.take(5, &mut out).is_err());
        assert_eq!(out, [1]);
    }
}
