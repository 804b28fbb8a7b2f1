//! Before a tick: what others changed is taken in, and where the store is far away what the tick will ask for and is
//! not at hand is fetched together.

use std::time::Instant;

use proto::ids::check_conversation_id;
use proto::v1::UpstreamBatch;

use super::Pipeline;
use super::cache::{CacheIndex, Cached};
use crate::domain::delivery::GatewayNo;
use crate::ports::{Known, Members, MessageLog, Publisher, StoreError};

impl<L: MessageLog, M: Members, O: Publisher> Pipeline<L, M, O> {
    /// Bounds what is at hand and takes in what others changed.
    pub(super) fn refresh(
        &mut self,
        batches: &[(GatewayNo, UpstreamBatch)],
    ) -> Result<(), StoreError> {
        self.began = Instant::now();
        self.ticks += 1;
        self.conversations.trim(self.settings.cached_conversations, self.settings.cached_members);
        self.names.trim();
        let asked = if self.members.asks_versions() { self.doubtful(batches) } else { Vec::new() };
        let conversations = &self.conversations;
        let cached = asked.iter().filter_map(|&at| conversations.get(at));
        let known: Vec<Known<'_>> = cached.map(Cached::known).collect();
        self.members.changes(&known, &mut self.changes)?;
        for change in self.changes.drain(..) {
            self.conversations.apply(&change);
        }
        for at in asked {
            if let Some(cached) = self.conversations.get_mut(at) {
                cached.asked = Some(self.began);
            }
        }
        Ok(())
    }

    /// The conversations at hand that a tick is about and others may have changed, each once. Nobody is refused as a
    /// stranger by what is at hand alone.
    fn doubtful(&mut self, batches: &[(GatewayNo, UpstreamBatch)]) -> Vec<CacheIndex> {
        let (now, hold) = (self.began, self.settings.versions_hold);
        let frames = batches.iter().flat_map(|(_, batch)| &batch.frames);
        let came = frames.filter_map(|frame| Some((frame.user_id, frame.send.as_ref()?)));
        let owed = self.doubts.iter().map(|item| (item.sender, &item.send));
        let mut asked = Vec::new();
        for (sender, send) in came.chain(owed) {
            let id = &send.conversation_id;
            let Some(at) = self.conversations.find(id) else { continue };
            let Some(cached) = self.conversations.get_mut(at) else { continue };
            let is_stranger = || !cached.record.members.contains(sender);
            if cached.tick != self.ticks && (cached.is_doubtful(now, hold) || is_stranger()) {
                cached.tick = self.ticks;
                asked.push(at);
            }
        }
        asked
    }

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
        match self.members.fetch(&ids, &users) {
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            // Asked for one by one only that is refused which is damaged.
            Err(error) => {
                tracing::warn!(%error, "what a tick needs is asked for one by one");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// A conversation at hand, looked up if it is not yet.
    pub(super) fn load_conversation(&mut self, id: &str) -> Result<Option<CacheIndex>, StoreError> {
        if let Some(at) = self.conversations.find(id) {
            return Ok(Some(at));
        }
        let record = self.members.conversation(id)?;
        Ok(record.map(|record| self.conversations.insert(id, record, self.began)))
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
