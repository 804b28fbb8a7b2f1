//! Which gateway this is, and in which life.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1::GatewayRef;

/// The name of this gateway and the epochs it has had.
///
/// A lost lease brings a new epoch while connections stay. Slots and generations of the earlier ones still
/// name the same connections, as they count through the life of the process: what was addressed to them is
/// still delivered. What was addressed to an earlier process of the same name is not.
#[derive(Debug)]
pub struct Identity {
    id: String,
    lives: Mutex<Lives>,
    renewed: Condvar,
}

#[derive(Debug)]
struct Lives {
    /// In rising order; the last is in force.
    epochs: Vec<u64>,
    /// Up to here later epochs turned out to be another process's.
    foreign: u64,
}

impl Identity {
    /// A gateway with its first epoch.
    #[must_use]
    pub fn new(id: impl Into<String>, epoch: u64) -> Self {
        let lives = Lives { epochs: vec![epoch], foreign: 0 };
        Self { id: id.into(), lives: Mutex::new(lives), renewed: Condvar::new() }
    }

    /// Its stable name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name with the epoch in force.
    #[must_use]
    pub fn current(&self) -> GatewayRef {
        GatewayRef { id: self.id.clone(), epoch: self.epoch() }
    }

    /// The epoch in force.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lives().epochs.last().copied().unwrap_or_default()
    }

    /// It was registered anew.
    pub fn renew(&self, epoch: u64) {
        self.lives().epochs.push(epoch);
        self.renewed.notify_all();
    }

    /// Whether what is addressed to this epoch is addressed to this process. A later epoch than its own may be one
    /// that it is about to get: whoever watches etcd may know of a registration before its owner does. So much time
    /// is given to it, once for each such epoch.
    #[must_use]
    pub fn is_ours(&self, epoch: u64, patience: Duration) -> bool {
        let lives = self.lives();
        let unknown = |lives: &mut Lives| {
            !lives.epochs.contains(&epoch)
                && epoch > lives.foreign
                && lives.epochs.last().is_none_or(|newest| epoch > *newest)
        };
        let (mut lives, _) = self
            .renewed
            .wait_timeout_while(lives, patience, unknown)
            .unwrap_or_else(PoisonError::into_inner);
        if unknown(&mut lives) {
            lives.foreign = epoch;
        }
        lives.epochs.contains(&epoch)
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn all_epochs_of_this_process_are_ours_and_earlier_ones_are_not() {
        let identity = Identity::new("g", 5);
        identity.renew(9);
        assert_eq!(identity.epoch(), 9);
        // None of these is waited for.
        assert!(identity.is_ours(5, LONG) && identity.is_ours(9, LONG));
        assert!(!identity.is_ours(4, LONG) && !identity.is_ours(7, LONG));
    }

    #[test]
    fn an_epoch_that_others_know_first_is_waited_for() {
        let identity = Identity::new("g", 5);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| identity.is_ours(6, LONG));
            std::thread::sleep(Duration::from_millis(20));
            identity.renew(6);
            assert!(asked.join().unwrap());
        });
    }

    #[test]
    fn an_epoch_of_a_later_process_is_waited_for_once() {
        let identity = Identity::new("g", 5);
        assert!(!identity.is_ours(6, Duration::from_millis(1)));
        let began = Instant::now();
        assert!(!identity.is_ours(6, LONG));
        assert!(began.elapsed() < LONG);
        identity.renew(8);
        assert!(identity.is_ours(8, LONG) && !identity.is_ours(6, LONG));
    }
}
