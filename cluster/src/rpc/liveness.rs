//! Whether an endpoint is well, as far as known.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Nobody has asked yet: it may be picked.
    Unknown,
    /// It answers.
    Alive,
    /// It does not answer in time: picked only if nobody else is there.
    Suspect,
    /// It refuses connections, or says that it does not serve: never picked.
    Dead,
}

/// What the prober and the calls have found out.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    liveness: AtomicU8,
    /// Wakes the prober: somebody wants to know now.
    pub(crate) doubt: Notify,
}

impl Mark {
    pub(crate) fn get(&self) -> Liveness {
        match self.liveness.load(Ordering::Relaxed) {
            0 => Liveness::Unknown,
            1 => Liveness::Alive,
            2 => Liveness::Suspect,
            _ => Liveness::Dead,
        }
    }

    pub(crate) fn set(&self, liveness: Liveness) -> Liveness {
        let before = self.get();
        self.liveness.store(liveness as u8, Ordering::Relaxed);
        before
    }
}
