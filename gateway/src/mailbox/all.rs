//! The doors into all shards.

use std::sync::Arc;

use proto::error::close_code;
use proto::v1::{CallReply, DeliveryBatch, Kick};

use super::{Mailbox, Order};

/// The mailboxes of all shards, by number. What is for a shard that does not exist is dropped.
#[derive(Clone)]
pub struct Mailboxes(pub Vec<Arc<Mailbox>>);

impl Mailboxes {
    /// Puts a batch of deliveries in; waits while its shard is behind.
    pub fn deliver(&self, batch: DeliveryBatch) {
        if let Some(mailbox) = self.0.get(batch.shard as usize) {
            mailbox.deliver(batch);
        }
    }

    /// Puts one order in; waits while the lane is full.
    pub fn order(&self, shard: u32, order: Order) {
        if let Some(mailbox) = self.0.get(shard as usize) {
            mailbox.order(order);
        }
    }

    /// Hands orders over, each shard's in their order and with one wake.
    pub fn order_all(&self, orders: impl IntoIterator<Item = (u32, Order)>) {
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

    /// Hands answers to requests over.
    pub fn replies(&self, replies: impl IntoIterator<Item = CallReply>) {
        self.order_all(
            replies.into_iter().map(|reply| (reply.shard, Order::Reply(Box::new(reply)))),
        );
    }

    /// Has connections closed.
    pub fn kicks(&self, kicks: impl IntoIterator<Item = Kick>) {
        self.order_all(kicks.into_iter().map(|kick| (kick.shard, close(kick))));
    }
}

/// A kick as its shard is told.
#[must_use]
pub fn close(kick: Kick) -> Order {
    let Kick { slot, generation, code, reason, .. } = kick;
    let code = u16::try_from(code).unwrap_or(close_code::GOING_AWAY);
    Order::Close { slot, generation, code, reason }
}
