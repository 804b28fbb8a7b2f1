//! Records that a producer has taken and not told of yet.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Records taken whose delivery has not been told yet.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    records: AtomicUsize,
    /// Held for a moment by whoever makes it zero, so that a waiting flush cannot miss it.
    gate: Mutex<()>,
    empty: Condvar,
}

impl InFlight {
    pub(super) fn add(&self) {
        self.records.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn remove(&self) {
        if self.records.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
            self.empty.notify_all();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.records.load(Ordering::Acquire)
    }

    pub(super) fn wait(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        while self.count() > 0 {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            gate = self.empty.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
