//! The gateway's doors in the shape that the logic service asks for.

use std::time::Duration;

use gateway::bus::direct::{Calls, Messages, Taken};
use gateway::mailbox::{Mailboxes, Order, close};
use logic_svc::ports::{CallSource, DeliverySink, Received, UpstreamSource};
use proto::v1::{Call, CallReply, DeliveryBatch, EventDelivery, Kick, UpstreamBatch};

/// The way back: the mailboxes of all shards.
pub(crate) struct WayBack(pub(crate) Mailboxes);

impl DeliverySink for WayBack {
    fn deliver(&self, batch: DeliveryBatch) {
        self.0.deliver(batch);
    }

    fn reply(&self, reply: CallReply) {
        self.0.order(reply.shard, Order::Reply(Box::new(reply)));
    }

    fn event(&self, shard: u32, event: EventDelivery) {
        self.0.order(shard, Order::Event(Box::new(event)));
    }

    fn replies(&self, replies: Vec<CallReply>) {
        self.0.replies(replies);
    }

    fn kick(&self, kick: Kick) {
        self.0.order(kick.shard, close(kick));
    }

    fn kicks(&self, kicks: Vec<Kick>) {
        self.0.kicks(kicks);
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
