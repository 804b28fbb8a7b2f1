//! Records of the push topic become what each shard gets: one batch of answers and deliveries and one
//! run of orders, however many records there were.

use proto::v1::{
    Connection, DeliveryBatch, EventDelivery, GroupPush, Kick, Message, PushRecord, Sent,
    ShardEvent, ShardPush, Target, UserPush,
};

use crate::ids::ConnId;
use crate::index::State;
use crate::mailbox::{Mailboxes, Order, close};

/// A message of the record at hand that is not in the shard's batch yet.
const NOT_THERE: u32 = u32::MAX;

/// What one shard gets.
#[derive(Default)]
struct Share {
    batch: DeliveryBatch,
    orders: Vec<Order>,
    /// For the record at hand: where in the batch each of its messages is.
    places: Vec<u32>,
    /// Where the targets of the record at hand begin.
    begin: usize,
}

impl Share {
    fn begin_record(&mut self, messages: usize) {
        self.places.clear();
        self.places.resize(messages, NOT_THERE);
        self.begin = self.batch.targets.len();
    }

    fn target(&mut self, messages: &[Message], message: u32, slot: u32, generation: u32) {
        let at = message as usize;
        let (Some(place), Some(known)) = (self.places.get_mut(at), messages.get(at)) else {
            return;
        };
        if *place == NOT_THERE {
            *place = u32::try_from(self.batch.messages.len()).unwrap_or(NOT_THERE);
            // The content is shared, not copied.
            self.batch.messages.push(known.clone());
        }
        self.batch.targets.push(Target { message: *place, slot, generation });
    }

    /// The batch has to be ordered by message; what came by group or by user stands behind.
    fn end_record(&mut self) {
        let targets = &mut self.batch.targets[self.begin..];
        if !targets.is_sorted_by_key(|target| target.message) {
            targets.sort_by_key(|target| target.message);
        }
    }
}

/// Collects what records have for each shard.
pub(super) struct Expansion {
    shares: Vec<Share>,
    pushes: usize,
}

impl Expansion {
    /// For so many shards.
    #[must_use]
    pub(super) fn new(shards: usize) -> Self {
        Self { shares: (0..shards).map(|_| Share::default()).collect(), pushes: 0 }
    }

    /// Takes one record in: changes of interest first, then answers and addressed deliveries, then those
    /// to groups and users, then events and kicks. Gives how many connections its messages go to.
    pub(super) fn add(&mut self, record: PushRecord, index: &mut State) -> usize {
        let PushRecord { messages, shards, groups, users, events, kicks, interests, .. } = record;
        self.pushes = 0;
        for change in interests {
            index.apply(change);
        }
        for share in &mut self.shares {
            share.begin_record(messages.len());
        }
        for push in shards {
            self.add_addressed(push, &messages);
        }
        let expanded = groups.iter().flat_map(|group| &group.messages);
        for sent in expanded.chain(users.iter().filter_map(|user| user.message.as_ref())) {
            if let Some(message) = messages.get(sent.message as usize) {
                index.note(&message.conversation_id, message.seq);
            }
        }
        for group in &groups {
            self.add_group(group, &messages, index);
        }
        for user in &users {
            self.add_users(user, &messages, index);
        }
        for share in &mut self.shares {
            share.end_record();
        }
        self.add_orders(events, kicks);
        self.pushes
    }

    fn add_addressed(&mut self, push: ShardPush, messages: &[Message]) {
        let Some(share) = self.shares.get_mut(push.shard as usize) else { return };
        share.batch.replies.extend(push.replies);
        self.pushes += push.targets.len();
        for Target { message, slot, generation } in push.targets {
            share.target(messages, message, slot, generation);
        }
    }

    fn add_group(&mut self, group: &GroupPush, messages: &[Message], index: &State) {
        for sent in &group.messages {
            let mut target = self.receiver(sent, messages);
            index.of_conversation(&group.conversation_id, &mut target);
        }
    }

    fn add_users(&mut self, push: &UserPush, messages: &[Message], index: &State) {
        let Some(sent) = &push.message else { return };
        let mut target = self.receiver(sent, messages);
        for &user_id in &push.user_ids {
            index.of_user(user_id, &mut target);
        }
    }

    /// Takes connections in as receivers of a message, all but the one that sent it.
    fn receiver(&mut self, sent: &Sent, messages: &[Message]) -> impl FnMut(ConnId) {
        let origin = sent.origin.map(|origin| {
            let Connection { shard, slot, generation } = origin;
            ConnId { shard, slot, generation }
        });
        let message = sent.message;
        move |connection| {
            if Some(connection) == origin {
                return;
            }
            if let Some(share) = self.shares.get_mut(connection.shard as usize) {
                share.target(messages, message, connection.slot, connection.generation);
                self.pushes += 1;
            }
        }
    }

    fn add_orders(&mut self, events: Vec<ShardEvent>, kicks: Vec<Kick>) {
        for ShardEvent { shard, event } in events {
            if let (Some(share), Some(event)) = (self.shares.get_mut(shard as usize), event) {
                share.orders.push(order_of(event));
            }
        }
        for kick in kicks {
            if let Some(share) = self.shares.get_mut(kick.shard as usize) {
                share.orders.push(close(kick));
            }
        }
    }

    /// Whether so much is collected that it should leave before more is added.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        const TARGETS: usize = 65_536;
        const MESSAGES: usize = 16_384;
        self.shares.iter().any(|share| {
            share.batch.targets.len() >= TARGETS || share.batch.messages.len() >= MESSAGES
        })
    }

    /// Hands everything collected to the shards: to each its orders with one wake, and one batch. Waits
    /// for a shard whose mailbox is full.
    pub(super) fn flush(&mut self, mailboxes: &Mailboxes) {
        for (shard, (share, mailbox)) in (0_u32..).zip(self.shares.iter_mut().zip(&mailboxes.0)) {
            if !share.orders.is_empty() {
                mailbox.order_all(std::mem::take(&mut share.orders));
            }
            let mut batch = std::mem::take(&mut share.batch);
            if !batch.replies.is_empty() || !batch.targets.is_empty() {
                batch.shard = shard;
                mailbox.deliver(batch);
            }
        }
    }
}

fn order_of(event: EventDelivery) -> Order {
    Order::Event(Box::new(event))
}
