//! A process's entry in the list of its kind.

use std::sync::{Arc, Mutex, PoisonError};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use tokio::sync::watch;

use super::claim::{Holding, Target};
use super::clock::boottime_ns;
use super::standing::{Standing, State};
use super::{Etcd, EtcdError};

/// An entry under a lease of its own. When the lease is lost it registers again by itself, under a higher
/// epoch. Dropped without [`Registration::revoke`] it disappears once its lease has run out.
#[derive(Debug)]
pub struct Registration {
    holding: Holding,
    key: String,
    value: Arc<Mutex<String>>,
}

impl Etcd {
    /// Registers `id` among the members of `kind` (such as `gateways`) with `value`, which others see.
    ///
    /// With `exclusive` an id that is registered already is not taken: this waits until the lease of a
    /// predecessor that died must have run out. Without, the newcomer takes the entry over, and whoever had
    /// it sees its registration lost and waits.
    ///
    /// # Errors
    /// [`EtcdError::Taken`] when `exclusive` and another lives, [`EtcdError::Unavailable`] when etcd does
    /// not answer, [`EtcdError::Invalid`] for names that cannot be.
    pub async fn register(
        &self,
        kind: &str,
        id: &str,
        value: impl Into<String>,
        exclusive: bool,
    ) -> Result<Registration, EtcdError> {
        let key = self.shared.names.member(kind, id)?;
        let value = Arc::new(Mutex::new(value.into()));
        let target = Target::Member { key: key.clone(), value: Arc::clone(&value) };
        let holding = Holding::take(self, target, !exclusive).await?;
        Ok(Registration { holding, key, value })
    }
}

impl Registration {
    /// The revision of etcd at which this entry was made: higher with every start and every loss, and the
    /// same that others see as [`super::Member::epoch`].
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.holding.board.standing().epoch
    }

    /// Whether the entry is certainly still there. No waiting; may be asked from any thread.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.holding.board.word().good_until() > boottime_ns()
    }

    /// How things stand: held, in doubt or lost, and under which epoch.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.holding.board.standing()
    }

    /// Tells about every change of [`Registration::standing`], new epochs among them.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.holding.board.subscribe()
    }

    /// Waits until the entry is lost for sure, not just in doubt. It is being made anew by then, or was
    /// already: [`Registration::watch`] tells its new epoch.
    pub async fn lost(&self) {
        let mut changes = self.holding.board.subscribe();
        let epoch = changes.borrow().epoch;
        let gone = |standing: &Standing| standing.state == State::Lost || standing.epoch != epoch;
        // The board lives as long as `self`, so the channel does not close before.
        let _ = changes.wait_for(gone).await;
    }

    /// Changes what others see, without a new epoch. While the registration is lost the new value is kept
    /// for the next entry, and the call fails as temporary.
    ///
    /// # Errors
    /// [`EtcdError::Unavailable`] when etcd does not answer or the entry is not there.
    pub async fn update(&self, value: impl Into<String>) -> Result<(), EtcdError> {
        let what = "changing a registration";
        let value = value.into();
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&value);
        let epoch = i64::try_from(self.epoch()).unwrap_or(i64::MAX);
        let ours = Compare::create_revision(self.key.as_str(), CompareOp::Equal, epoch);
        let under_its_lease = PutOptions::new().with_ignore_lease();
        let put = TxnOp::put(self.key.as_str(), value, Some(under_its_lease));
        let txn = Txn::new().when([ours]).and_then([put]);
        let pool = &self.holding.etcd().shared.pool;
        let answer = pool.call(what, |mut client| async move { client.txn(txn).await }).await?;
        if answer.succeeded() {
            return Ok(());
        }
        Err(EtcdError::Unavailable { what, reason: "the registration is lost".to_owned() })
    }

    /// Removes the entry at once.
    ///
    /// # Errors
    /// [`EtcdError::Unavailable`] when etcd does not answer; then the entry goes when its lease runs out.
    pub async fn revoke(self) -> Result<(), EtcdError> {
        self.holding.release().await
    }
}
