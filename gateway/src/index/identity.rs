//! Which gateway this is, and in which life.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::v1::GatewayRef;

/// The name of this gateway and the epochs it has had.
///
/// A lost lease brings a new epoch while connections stay. Slots and generations of the earlier ones still
/// name the same connections, as they count through the life of the process: what was addressed to them is
/// still delivered. What was addressed to an earlier process of the same name is not.
#[derive(Debug)]
pub struct Identity {
    id: String,
    /// In rising order; the last is in force.
    epochs: Mutex<Vec<u64>>,
}

impl Identity {
    /// A gateway with its first epoch.
    #[must_use]
    pub fn new(id: impl Into<String>, epoch: u64) -> Self {
        Self { id: id.into(), epochs: Mutex::new(vec![epoch]) }
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
        self.epochs().last().copied().unwrap_or_default()
    }

    /// It was registered anew.
    pub fn renew(&self, epoch: u64) {
        self.epochs().push(epoch);
    }

    /// Whether what is addressed to this epoch is addressed to this process.
    #[must_use]
    pub fn is_ours(&self, epoch: u64) -> bool {
        self.epochs().iter().rev().any(|ours| *ours == epoch)
    }

    fn epochs(&self) -> MutexGuard<'_, Vec<u64>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
