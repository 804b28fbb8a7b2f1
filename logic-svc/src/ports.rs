//! The doors of this service: what it needs from the outside, as traits.
//!
//! Knows: the shared messages and the domain. Must not know: who stands behind a door.

use std::time::Duration;

use proto::v1::{Call, CallReply, DeliveryBatch, EventDelivery, Kick, UpstreamBatch};

/// Where answers and deliveries leave for the gateway.
pub trait DeliverySink: Send + Sync {
    /// Hands over all that one pipeline tick has for one shard. May block while the shard's mailbox is full.
    fn deliver(&self, batch: DeliveryBatch);
    /// Hands over the answer to one [`Call`].
    fn reply(&self, reply: CallReply);
    /// Hands over a conversation event for some connections of `shard`.
    fn event(&self, shard: u32, event: EventDelivery);
    /// Orders a connection closed.
    fn kick(&self, kick: Kick);
}

/// What a source had within the time given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// At least one item was appended.
    Some,
    /// Nothing came within the timeout.
    Timeout,
    /// Nothing will come any more.
    Closed,
}

/// Where messages on their way to the pipeline come from.
pub trait UpstreamSource: Send {
    /// Appends everything that is queued to `into`; waits at most `timeout` when nothing is.
    fn recv(&mut self, into: &mut Vec<UpstreamBatch>, timeout: Duration) -> Received;
}

/// Where requests that are not messages come from.
pub trait CallSource: Send {
    /// Appends everything that is queued to `into`; waits at most `timeout` when nothing is.
    fn recv(&mut self, into: &mut Vec<Call>, timeout: Duration) -> Received;
}
