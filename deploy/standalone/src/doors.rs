//! The gateway's doors in the shape that the logic service asks for.

use std::sync::Arc;
use std::time::Duration;

use gateway::bus::direct::{Calls, Messages, Taken};
use gateway::mailbox::{Mailbox, Order};
use logic_svc::ports::{CallSource, DeliverySink, Received, UpstreamSource};
use proto::v1::{Call, CallReply, DeliveryBatch, EventDelivery, Kick, UpstreamBatch};

/// The way back: the mailboxes of all shards.
pub(crate) struct Mailboxes(pub(crate) Vec<Arc<Mailbox>>);

impl Mailboxes {
    fn order(&self, shard: u32, order: Order) {
        if let Some(mailbox) = self.0.get(shard as usize) {
            mailbox.order(order);
        }
    }

    /// Hands orders over, each shard's with one wake.
    fn order_all(&self, orders: impl Iterator<Item = (u32, Order)>) {
        let mut shards: Vec<Vec<Order>> = self.0.iter().map(|_| Vec::new()).collect();
        for (shard, order) in orders {
            if let Some(orders) = shards.get_mut(shard as usize) {
                orders.push(order);
            }
        }
        for (mailbox, orders) in self.0.iter().zip(shards) {
            if !orders.is_empty() {
                mailbox.order_all(orders);
            }
        }
    }
}

/// A kick as its shard is told.
fn close(kick: Kick) -> (u32, Order) {
    let Kick { shard, slot, generation, code, reason } = kick;
    let code = u16::try_from(code).unwrap_or(proto::error::close_code::GOING_AWAY);
    (shard, Order::Close { slot, generation, code, reason })
}

impl DeliverySink for Mailboxes {
    fn deliver(&self, batch: DeliveryBatch) {
        if let Some(mailbox) = self.0.get(batch.shard as usize) {
            mailbox.deliver(batch);
        }
    }

    fn reply(&self, reply: CallReply) {
        self.order(reply.shard, Order::Reply(Box::new(reply)));
    }

    fn event(&self, shard: u32, event: EventDelivery) {
        self.order(shard, Order::Event(Box::new(event)));
    }

    fn replies(&self, replies: Vec<CallReply>) {
        self.order_all(
            replies.into_iter().map(|reply| (reply.shard, Order::Reply(Box::new(reply)))),
        );
    }

    fn kick(&self, kick: Kick) {
        let (shard, order) = close(kick);
        self.order(shard, order);
    }

    fn kicks(&self, kicks: Vec<Kick>) {
        self.order_all(kicks.into_iter().map(close));
    }
}

fn received(taken: Taken) -> Received {
    match taken {
        Taken::Some => Received::Some,
        Taken::Nothing => Received::Timeout,
        Taken::Closed => Received::Closed,
    }
}

/// Messages on their way to the pipeline.
pub(crate) struct MessageDoor(pub(crate) Messages);

impl UpstreamSource for MessageDoor {
    fn recv(&mut self, into: &mut Vec<UpstreamBatch>, timeout: Duration) -> Received {
        received(self.0.take(into, timeout))
    }
}

/// Requests on their way to the logic service.
pub(crate) struct CallDoor(pub(crate) Calls);

impl CallSource for CallDoor {
    fn recv(&mut self, into: &mut Vec<Call>, timeout: Duration) -> Received {
        received(self.0.take(into, timeout))
    }
}
