//! Telling connected members that something other than a message changed.

use hashbrown::HashMap;
use proto::v1::{Event, EventDelivery, Peer};

use super::{Operations, Result};
use crate::domain::delivery::{ConnectionId, ShardId};
use crate::domain::{ConversationNo, UserId};
use crate::ports::StoreError;

/// Something that happened in a conversation.
pub(super) struct Happening<'a> {
    pub(super) no: ConversationNo,
    pub(super) conversation_id: &'a str,
    /// "created", "joined" or "left".
    pub(super) event: &'static str,
    pub(super) user: UserId,
    pub(super) username: &'a str,
    /// The connection that caused it; has its answer instead.
    pub(super) origin: Option<ConnectionId>,
}

impl Operations {
    /// Tells all connected members and the user concerned. Not stored: a failure here costs the news, which the
    /// next sync brings, so it is logged and not passed on.
    pub(super) fn tell(&self, happening: &Happening<'_>) {
        match self.receivers(happening) {
            Ok(shards) => {
                let event = || Event {
                    conversation_id: happening.conversation_id.to_owned(),
                    event: happening.event.to_owned(),
                    user_id: happening.user,
                    username: happening.username.to_owned(),
                };
                let told = |(shard, peers)| {
                    let event = Some(event());
                    (shard, EventDelivery { event, peers, presence: None })
                };
                self.notifier.events(shards.into_iter().map(told).collect());
            }
            Err(error) => tracing::warn!(%error, "an event was not told"),
        }
    }

    fn receivers(
        &self,
        happening: &Happening<'_>,
    ) -> Result<HashMap<ShardId, Vec<Peer>>, StoreError> {
        let max = self.settings.event_members_max;
        let mut users = self.store.member_ids(happening.no, max + 1)?;
        if users.len() > max {
            users.clear();
        }
        if !users.contains(&happening.user) {
            users.push(happening.user);
        }
        let mut shards: HashMap<ShardId, Vec<Peer>> = HashMap::new();
        for connection in self.sessions.of(&users)? {
            if Some(connection) != happening.origin {
                let peer = Peer { slot: connection.slot, generation: connection.generation };
                shards.entry(connection.shard_id()).or_default().push(peer);
            }
        }
        Ok(shards)
    }
}
