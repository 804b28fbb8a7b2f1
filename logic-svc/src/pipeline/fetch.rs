//! Before a tick, where the store is far away: what the tick will ask for and is not at hand, fetched together.

use proto::ids::check_conversation_id;
use proto::v1::UpstreamBatch;

use super::Pipeline;
use super::cache::CacheIndex;
use crate::domain::delivery::GatewayNo;
use crate::ports::{Members, MessageLog, Publisher, StoreError};

impl<L: MessageLog, M: Members, O: Publisher> Pipeline<L, M, O> {
    pub(super) fn fetch(
        &mut self,
        batches: &[(GatewayNo, UpstreamBatch)],
    ) -> Result<(), StoreError> {
        if !self.members.asks_versions() {
            return Ok(());
        }
        let (mut ids, mut users) = (Vec::new(), Vec::new());
        for frame in batches.iter().flat_map(|(_, batch)| &batch.frames) {
            let id = frame.send.as_ref().map_or("", |send| &send.conversation_id);
            if check_conversation_id(id).is_ok() && self.conversations.find(id).is_none() {
                ids.push(id);
            }
            if !self.names.contains(frame.user_id) {
                users.push(frame.user_id);
            }
        }
        if ids.is_empty() && users.is_empty() {
            return Ok(());
        }
        ids.sort_unstable();
        ids.dedup();
        users.sort_unstable();
        users.dedup();
        self.members.fetch(&ids, &users)
    }

    /// A conversation at hand, looked up if it is not yet.
    pub(super) fn load_conversation(&mut self, id: &str) -> Result<Option<CacheIndex>, StoreError> {
        if let Some(at) = self.conversations.find(id) {
            return Ok(Some(at));
        }
        let record = self.members.conversation(id)?;
        Ok(record.map(|record| self.conversations.insert(id, record)))
    }

    /// Has the name of a user at hand; false: there is no such user.
    pub(super) fn load_name(&mut self, user: u64) -> Result<bool, StoreError> {
        if self.names.contains(user) {
            return Ok(true);
        }
        let name = self.members.username(user)?;
        name.iter().for_each(|name| self.names.insert(user, name));
        Ok(name.is_some())
    }
}
