//! Collects what one tick has for each shard: answers and deliveries, one batch a shard.

use hashbrown::HashMap;
use proto::v1::{DeliveryBatch, Message, SendReply, Target};

use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::domain::member::MemberSet;
use crate::ports::PresenceView;

/// Batches under way.
#[derive(Debug, Default)]
pub(crate) struct Router {
    batches: Vec<DeliveryBatch>,
    by_shard: HashMap<u32, usize>,
    /// The shard asked for last and its batch: neighbours mostly share it.
    last: Option<(u32, usize)>,
}

/// Which batches the message at hand is in already, and under which index.
#[derive(Debug, Default)]
struct Placed {
    at: Vec<(usize, u32)>,
}

/// A message about to be delivered; built only when somebody is there to get it.
pub(crate) struct Delivery<'a, F: FnOnce() -> Message> {
    /// The connection that sent it.
    pub origin: ConnectionId,
    /// Whom it concerns.
    pub members: &'a MemberSet,
    /// Makes the message.
    pub build: F,
}

impl Router {
    /// Adds the answer to a send.
    pub(crate) fn reply(&mut self, shard: u32, reply: SendReply) {
        let batch = self.batch(shard);
        self.batches[batch].replies.push(reply);
    }

    /// Adds a message for every connection of its members but the one that sent it.
    pub(crate) fn deliver<V: PresenceView, F: FnOnce() -> Message>(
        &mut self,
        presence: &V,
        delivery: Delivery<'_, F>,
    ) {
        let Delivery { origin, members, build } = delivery;
        let mut build = Some(build);
        let mut placed = Placed::default();
        let mut to = |connection: ConnectionId| {
            if connection.receives_from(origin) {
                self.target(connection, &mut placed, &mut build);
            }
        };
        if members.len() > presence.len() {
            // More members than connections: ask each connection whether its user is a member.
            presence.all(|user: UserId, connection| {
                if members.contains(user) {
                    to(connection);
                }
            });
        } else {
            for &user in members.as_slice() {
                presence.connections(user, &mut to);
            }
        }
    }

    fn target(
        &mut self,
        to: ConnectionId,
        placed: &mut Placed,
        build: &mut Option<impl FnOnce() -> Message>,
    ) {
        let batch = self.batch(to.shard);
        let known = placed.at.iter().find(|(at, _)| *at == batch).map(|&(_, message)| message);
        let message = known.unwrap_or_else(|| {
            let message = match (build.take(), placed.at.first()) {
                (Some(build), _) => build(),
                (None, Some(&(first, index))) => {
                    self.batches[first].messages[index as usize].clone()
                }
                (None, None) => Message::default(),
            };
            let messages = &mut self.batches[batch].messages;
            messages.push(message);
            let index = (messages.len() - 1) as u32;
            placed.at.push((batch, index));
            index
        });
        let target = Target { message, slot: to.slot, generation: to.generation };
        self.batches[batch].targets.push(target);
    }

    fn batch(&mut self, shard: u32) -> usize {
        if let Some((last, batch)) = self.last
            && last == shard
        {
            return batch;
        }
        let Self { batches, by_shard, last } = self;
        let batch = *by_shard.entry(shard).or_insert_with(|| {
            batches.push(DeliveryBatch { shard, ..Default::default() });
            batches.len() - 1
        });
        *last = Some((shard, batch));
        batch
    }

    /// All batches, for the sink.
    #[must_use]
    pub(crate) fn finish(self) -> Vec<DeliveryBatch> {
        self.batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Online(Vec<(UserId, ConnectionId)>);

    impl PresenceView for Online {
        fn connections(&self, user: UserId, found: impl FnMut(ConnectionId)) {
            self.0.iter().filter(|(u, _)| *u == user).map(|&(_, c)| c).for_each(found);
        }
        fn len(&self) -> usize {
            self.0.len()
        }
        fn all(&self, mut found: impl FnMut(UserId, ConnectionId)) {
            self.0.iter().for_each(|&(user, connection)| found(user, connection));
        }
    }

    fn on(shard: u32, slot: u32) -> ConnectionId {
        ConnectionId { shard, slot, generation: 1 }
    }

    fn route(online: &Online, members: &[u64], origin: ConnectionId) -> Vec<DeliveryBatch> {
        let mut router = Router::default();
        for seq in [1, 2] {
            let build = || Message { seq, ..Default::default() };
            let members = &MemberSet::new(members.iter().copied());
            router.deliver(online, Delivery { origin, members, build });
        }
        router.finish()
    }

    #[test]
    fn every_device_but_the_sending_connection_gets_it_once_per_shard_message() {
        let online = Online(vec![(1, on(0, 1)), (1, on(1, 5)), (2, on(1, 6)), (3, on(0, 9))]);
        // three members, four connections, and the other way round
        for members in [&[1, 2, 8][..], &[1, 2, 10, 11, 12, 13]] {
            let mut batches = route(&online, members, on(0, 1));
            assert_eq!(batches.len(), 1);
            let batch = batches.remove(0);
            assert_eq!(batch.shard, 1);
            assert_eq!(batch.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), [1, 2]);
            let targets: Vec<_> = batch.targets.iter().map(|t| (t.message, t.slot)).collect();
            assert_eq!(targets, [(0, 5), (0, 6), (1, 5), (1, 6)]);
        }
    }

    #[test]
    fn shards_get_equal_copies() {
        let online = Online(vec![(1, on(0, 1)), (2, on(1, 6)), (2, on(2, 7)), (2, on(1, 8))]);
        let batches = route(&online, &[1, 2], on(9, 9));
        assert_eq!(batches.iter().map(|b| b.shard).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(batches.iter().all(|b| b.messages == batches[0].messages));
        assert_eq!(batches[1].targets.len(), 4);
    }

    #[test]
    fn nobody_there_builds_nothing() {
        let members = &MemberSet::new([1]);
        let build = || -> Message { panic!("nobody is there") };
        let mut router = Router::default();
        router.deliver(&Online(vec![]), Delivery { origin: on(0, 0), members, build });
        assert!(router.finish().is_empty());
    }
}
