//! Worker ids for snowflakes: no two processes have the same at the same time.

use std::sync::Arc;

use tokio::sync::watch;

use super::claim::{Holding, Target};
use super::clock::boottime_ns;
use super::standing::{Standing, Word};
use super::{Etcd, EtcdError};

/// Largest id that a snowflake has bits for.
const LARGEST: u16 = 1023;

/// A worker id under a lease. After a loss it takes another id by itself. Dropping it or
/// [`WorkerLease::release`] make it good no longer at once.
#[derive(Debug)]
pub struct WorkerLease {
    holding: Holding,
}

/// What a thread that makes ids holds of a [`WorkerLease`]: looks at it without waiting and without locks.
#[derive(Clone, Debug)]
pub struct Worker {
    word: Arc<Word>,
}

impl Etcd {
    /// Takes a free worker id from 0 to `max` (at most 1023), in the name of `who`, which is only shown. The
    /// ids go round: one comes back only after all others were given out. When all are held this waits until
    /// the lease of a holder that died must have run out.
    ///
    /// # Errors
    /// [`EtcdError::NoWorkerFree`], [`EtcdError::Unavailable`], or [`EtcdError::Invalid`] for a larger `max`.
    pub async fn lease_worker(&self, max: u16, who: &str) -> Result<WorkerLease, EtcdError> {
        if max > LARGEST {
            return Err(EtcdError::Invalid(format!(
                "worker ids up to {max} are asked for but may go up to {LARGEST}"
            )));
        }
        let target = Target::Worker { max, who: who.to_owned() };
        Ok(WorkerLease { holding: Holding::take(self, target, false).await? })
    }
}

impl WorkerLease {
    /// The id, good or not; it changes after a loss.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.holding.board.word().id()
    }

    /// Until when nobody else can have the id, in nanoseconds of [`boottime_ns`]: the time before the last
    /// answered keep-alive was sent, plus the lease's time, less a fifth of it. 0 after a loss.
    #[must_use]
    pub fn good_until(&self) -> u64 {
        self.holding.board.word().good_until()
    }

    /// Whether the id may be used now. Costs one look at the clock.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.holding.board.word().id_at(boottime_ns()).is_some()
    }

    /// For threads that make ids.
    #[must_use]
    pub fn worker(&self) -> Worker {
        Worker { word: Arc::clone(self.holding.board.word()) }
    }

    /// How things stand.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.holding.board.standing()
    }

    /// Tells about every change of [`WorkerLease::standing`], new ids among them.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.holding.board.subscribe()
    }

    /// Gives the id back at once.
    ///
    /// # Errors
    /// [`EtcdError::Unavailable`] when etcd does not answer; then the id is free when its lease runs out.
    pub async fn release(self) -> Result<(), EtcdError> {
        self.holding.release().await
    }
}

impl Worker {
    /// The id that may be used now, if any. Whoever makes ids reads the time that goes into them BEFORE
    /// asking this: a thread that stood still in between then holds a time at which the id was its own.
    #[must_use]
    pub fn current(&self) -> Option<u16> {
        self.word.id_at(boottime_ns())
    }

    /// See [`WorkerLease::good_until`].
    #[must_use]
    pub fn good_until(&self) -> u64 {
        self.word.good_until()
    }

    /// See [`WorkerLease::is_good`].
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.current().is_some()
    }
}
