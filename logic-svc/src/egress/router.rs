//! Collects what one tick has for each shard: answers and deliveries, one batch a shard.

use std::sync::Arc;

use hashbrown::HashMap;
use proto::v1::{DeliveryBatch, Message, SendReply, Target};
use smallvec::SmallVec;

use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::ports::{ConversationRecord, Presence, PresenceView, PublishTick, Publisher};

/// Routes by presence.
pub struct Egress<P>(Arc<P>);

impl<P: Presence> Egress<P> {
    /// Routes to whoever `presence` says is connected.
    pub fn new(presence: Arc<P>) -> Self {
        Self(presence)
    }
}

impl<P: Presence> Publisher for Egress<P> {
    type Out = Vec<DeliveryBatch>;
    type Tick<'a>
        = Routing<P::View<'a>>
    where
        P: 'a;

    fn begin(&mut self) -> Self::Tick<'_> {
        Routing { view: self.0.view(), batches: Batches::default() }
    }
}

/// A tick under way, with one look at presence for all of it.
pub struct Routing<V> {
    view: V,
    batches: Batches,
}

impl<V: PresenceView> PublishTick for Routing<V> {
    type Out = Vec<DeliveryBatch>;

    fn reply(&mut self, origin: ConnectionId, reply: SendReply) {
        self.batches.of(origin.shard).1.replies.push(reply);
    }

    fn deliver(
        &mut self,
        origin: ConnectionId,
        conversation: &ConversationRecord,
        build: impl FnOnce() -> Message,
    ) {
        let members = &conversation.members;
        let Self { view, batches } = self;
        let mut build = Some(build);
        let mut placed = Placed::default();
        let mut to = |connection: ConnectionId| {
            if connection.receives_from(origin) {
                batches.target(connection, &mut placed, &mut build);
            }
        };
        if members.len() > view.len() {
            // More members than connections: ask each connection whether its user is a member.
            view.all(|user: UserId, connection| {
                if members.contains(user) {
                    to(connection);
                }
            });
        } else {
            for &user in members.as_slice() {
                view.connections(user, &mut to);
            }
        }
    }

    fn finish(self) -> Vec<DeliveryBatch> {
        self.batches.all
    }
}

/// The batches collected so far.
#[derive(Debug, Default)]
struct Batches {
    all: Vec<DeliveryBatch>,
    by_shard: HashMap<u32, usize>,
    /// The shard asked for last and its batch: neighbours mostly share it.
    last: Option<(u32, usize)>,
}

/// Which batches the message at hand is in already, and under which index.
#[derive(Debug, Default)]
struct Placed {
    at: SmallVec<[(usize, u32); 4]>,
}

impl Batches {
    fn target(
        &mut self,
        to: ConnectionId,
        placed: &mut Placed,
        build: &mut Option<impl FnOnce() -> Message>,
    ) {
        let (at, _) = self.of(to.shard);
        let known = placed.at.iter().find(|(batch, _)| *batch == at).map(|&(_, message)| message);
        let message = known.unwrap_or_else(|| {
            let message = match (build.take(), placed.at.first()) {
                (Some(build), _) => build(),
                (None, Some(&(first, index))) => self.all[first].messages[index as usize].clone(),
                (None, None) => Message::default(),
            };
            let messages = &mut self.all[at].messages;
            messages.push(message);
            let index = (messages.len() - 1) as u32;
            placed.at.push((at, index));
            index
        });
        self.all[at].targets.push(Target { message, slot: to.slot, generation: to.generation });
    }

    /// The batch of a shard and its index.
    fn of(&mut self, shard: u32) -> (usize, &mut DeliveryBatch) {
        let Self { all, by_shard, last } = self;
        let at = match *last {
            Some((same, at)) if same == shard => at,
            _ => *by_shard.entry(shard).or_insert_with(|| {
                all.push(DeliveryBatch { shard, ..Default::default() });
                all.len() - 1
            }),
        };
        *last = Some((shard, at));
        (at, &mut all[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::conversation::Kind;
    use crate::domain::member::MemberSet;
    use crate::ports::Fanout;

    fn of(members: impl IntoIterator<Item = UserId>) -> ConversationRecord {
        let members = MemberSet::new(members);
        let (kind, fanout) = (Kind::Group, Fanout::Write);
        ConversationRecord { no: 1, kind, dev_made: false, members, version: 0, fanout }
    }

    struct Online(Vec<(UserId, ConnectionId)>);

    impl Presence for Online {
        type View<'a> = &'a Online;

        fn view(&self) -> &Online {
            self
        }
    }

    impl PresenceView for &Online {
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
        ConnectionId { gateway: 0, shard, slot, generation: 1 }
    }

    fn route(online: Online, members: &[u64], origin: ConnectionId) -> Vec<DeliveryBatch> {
        let mut egress = Egress::new(Arc::new(online));
        let mut tick = egress.begin();
        for seq in [1, 2] {
            let build = || Message { seq, ..Default::default() };
            tick.deliver(origin, &of(members.iter().copied()), build);
        }
        tick.finish()
    }

    #[test]
    fn every_device_but_the_sending_connection_gets_it_once_per_shard_message() {
        let online = || Online(vec![(1, on(0, 1)), (1, on(1, 5)), (2, on(1, 6)), (3, on(0, 9))]);
        // three members, four connections, and the other way round
        for members in [&[1, 2, 8][..], &[1, 2, 10, 11, 12, 13]] {
            let mut batches = route(online(), members, on(0, 1));
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
        let batches = route(online, &[1, 2], on(9, 9));
        assert_eq!(batches.iter().map(|b| b.shard).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(batches.iter().all(|b| b.messages == batches[0].messages));
        assert_eq!(batches[1].targets.len(), 4);
    }

    #[test]
    fn nobody_there_builds_nothing() {
        let build = || -> Message { panic!("nobody is there") };
        let mut egress = Egress::new(Arc::new(Online(vec![])));
        let mut tick = egress.begin();
        tick.deliver(on(0, 0), &of([1]), build);
        assert!(tick.finish().is_empty());
    }
}
