//! Groups that grow by being written to are watched like those that are joined.

use crate::domain::UserId;
use crate::egress::cluster::CrowdWatch;
use crate::ports::{
    Change, ConversationRecord, Ensure, Known, Members, MembersChanged, StoreError,
};

/// Members whose growth is told before the message that made them grow is stored.
pub(super) struct Watched<M> {
    inner: M,
    watch: CrowdWatch,
}

impl<M> Watched<M> {
    pub(super) fn new(inner: M, watch: CrowdWatch) -> Self {
        Self { inner, watch }
    }
}

impl<M: Members> Members for Watched<M> {
    fn conversation(&mut self, id: &str) -> Result<Option<ConversationRecord>, StoreError> {
        self.inner.conversation(id)
    }

    fn username(&mut self, user: UserId) -> Result<Option<String>, StoreError> {
        self.inner.username(user)
    }

    fn fetch(&mut self, ids: &[&str], users: &[UserId]) -> Result<(), StoreError> {
        self.inner.fetch(ids, users)
    }

    fn ensure(
        &mut self,
        wanted: &[Ensure],
        made_id: u64,
    ) -> Result<Vec<Option<ConversationRecord>>, StoreError> {
        let records = self.inner.ensure(wanted, made_id)?;
        for (ensure, record) in wanted.iter().zip(&records) {
            let (Ensure::DevGroup { id, user }, Some(record)) = (ensure, record) else { continue };
            let members = u32::try_from(record.members.len()).unwrap_or(u32::MAX);
            if members >= self.watch.threshold().down() {
                let joined = [*user];
                let change =
                    MembersChanged { conversation_id: id, joined: &joined, ..Default::default() };
                self.watch.crowd_changed(&change)?;
            }
        }
        Ok(records)
    }

    fn asks_versions(&self) -> bool {
        self.inner.asks_versions()
    }

    fn changes(&mut self, known: &[Known<'_>], into: &mut Vec<Change>) -> Result<(), StoreError> {
        self.inner.changes(known, into)
    }
}
