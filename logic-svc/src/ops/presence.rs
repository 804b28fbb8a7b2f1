//! Who is there, asked by those who may know; and word of it when it changes.

use hashbrown::{HashMap, HashSet};
use proto::error::ErrorCode;
use proto::limits::PRESENCE_USERS_MAX;
use proto::v1::{EventDelivery, Peer, Presence, PresenceChange, PresenceQuery, UserPresence};

use super::{Names, Operations, Result};
use crate::domain::UserId;
use crate::domain::delivery::{ConnectionId, ShardId};
use crate::ports::{Turned, UserState};
use crate::store::failure;

/// So many conversations of whoever asks are looked at for whom they are shared with: the newest.
const CONVERSATIONS_MAX: u32 = 1000;

impl Operations {
    /// Which of the users named are there. About those with whom `user` shares no conversation nothing is told: they
    /// look as if they had never been there.
    pub(crate) fn presence(
        &self,
        user: UserId,
        connection: ConnectionId,
        query: &PresenceQuery,
    ) -> Result<Presence> {
        if query.users.len() > PRESENCE_USERS_MAX {
            let detail = format!("users must name at most {PRESENCE_USERS_MAX} users");
            return Err(ErrorCode::BadRequest.failure(detail));
        }
        let asked = self.named(&query.users)?;
        let known = self.may_know(user, asked.iter().map(|&(_, id)| id).collect())?;
        let states = if query.subscribe || query.users.is_empty() {
            self.sessions.watch(connection, &known)
        } else {
            self.sessions.states(&known)
        };
        let states = states.map_err(|error| failure(&error))?;
        let mut states: HashMap<UserId, UserState> = known.into_iter().zip(states).collect();
        let item = |(name, id): (&str, UserId)| {
            let state = states.remove(&id).unwrap_or_default();
            let online = state.is_online();
            UserPresence {
                user_id: id,
                username: name.to_owned(),
                online,
                devices: state.devices,
                last_seen_ms: if online { 0 } else { state.last_seen_ms },
            }
        };
        let items = asked.into_iter().map(item).collect();
        Ok(Presence { request_id: query.request_id, items })
    }

    /// The users of these names that there are, each once.
    fn named<'a>(&self, names: &'a [String]) -> Result<Vec<(&'a str, UserId)>> {
        let mut seen = HashSet::new();
        let names: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| seen.insert(*name)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let ids = self.store.ids_of(&names).map_err(|error| failure(&error))?;
        Ok(names.into_iter().zip(ids).filter_map(|(name, id)| Some((name, id?))).collect())
    }

    fn may_know(&self, user: UserId, mut others: Vec<UserId>) -> Result<Vec<UserId>> {
        let oneself = others.contains(&user);
        others.retain(|&other| other != user);
        let mut known = match &others[..] {
            [] => Vec::new(),
            others => {
                let found = self.store.acquainted(user, others, CONVERSATIONS_MAX);
                found.map_err(|error| failure(&error))?
            }
        };
        if oneself {
            known.push(user);
        }
        Ok(known)
    }

    /// Tells those who want to know of users who came or went. A failure costs the news, and is logged.
    pub(crate) fn tell_presence(&self, turned: Vec<Turned>) {
        let mut names = Names::new(self);
        let mut events = Vec::new();
        for Turned { user, online, last_seen_ms, watchers } in turned {
            let username = match names.get(user) {
                Ok(name) => name,
                Err(error) => {
                    tracing::warn!(%error, user, "nobody was told that a user came or went");
                    continue;
                }
            };
            let mut shards: HashMap<ShardId, Vec<Peer>> = HashMap::new();
            for connection in watchers {
                let peer = Peer { slot: connection.slot, generation: connection.generation };
                shards.entry(connection.shard_id()).or_default().push(peer);
            }
            events.extend(shards.into_iter().map(|(shard, peers)| {
                let username = username.clone();
                let change = PresenceChange { user_id: user, username, online, last_seen_ms };
                (shard, EventDelivery { event: None, peers, presence: Some(change) })
            }));
        }
        if !events.is_empty() {
            self.notifier.events(events);
        }
    }
}
