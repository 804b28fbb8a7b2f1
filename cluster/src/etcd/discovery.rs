//! Who is there of a kind.

use std::sync::Arc;

use tokio::sync::watch;

use super::mirror::{self, Entries, Shown};
use super::{Etcd, EtcdError};

/// One registered process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// What it says about itself.
    pub value: String,
    /// The revision at which it registered: rises with every start. See [`super::Registration::epoch`].
    pub epoch: u64,
}

/// The members of one kind, by id, as they come and go. While etcd is away the last known ones stay.
pub struct Discovery {
    shown: Shown<Arc<Vec<Member>>>,
}

impl Etcd {
    /// Finds the members of `kind` and follows their coming and going.
    ///
    /// # Errors
    /// [`EtcdError::Unavailable`] when etcd does not answer, [`EtcdError::Invalid`] for a kind that cannot be.
    pub async fn discover(&self, kind: &str) -> Result<Discovery, EtcdError> {
        let prefix = self.shared.names.kind(kind)?;
        Ok(Discovery { shown: mirror::start(self, prefix, members).await? })
    }
}

fn members(entries: &Entries) -> Arc<Vec<Member>> {
    let member = |(id, entry): (&String, &mirror::Entry)| Member {
        id: id.clone(),
        value: entry.value.clone(),
        epoch: entry.epoch,
    };
    Arc::new(entries.iter().map(member).collect())
}

impl Discovery {
    /// The members known now, ordered by id.
    #[must_use]
    pub fn current(&self) -> Arc<Vec<Member>> {
        Arc::clone(&self.shown.value.borrow())
    }

    /// Waits until the members differ from those of the last [`Discovery::changed`], and returns them. What
    /// happened in quick succession is seen as one change.
    pub async fn changed(&mut self) -> Arc<Vec<Member>> {
        if self.shown.value.changed().await.is_err() {
            // The task ends only with the runtime.
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.shown.value.borrow_and_update())
    }

    /// A further view of the same list.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.shown.value.clone()
    }

    /// Whether the list may be behind, as etcd does not answer.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        *self.shown.in_doubt.borrow()
    }
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery")
            .field("members", &self.current())
            .field("in_doubt", &self.in_doubt())
            .finish()
    }
}
