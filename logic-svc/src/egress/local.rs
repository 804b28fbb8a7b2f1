//! Events and orders to the shards of the one gateway there is.

use std::sync::Arc;

use proto::v1::{EventDelivery, Kick};

use crate::domain::delivery::{ConnectionId, ShardId};
use crate::ports::{DeliverySink, Ended, Notifier};

/// Tells the shards of this process.
pub(crate) struct ToShards(pub(crate) Arc<dyn DeliverySink>);

impl Notifier for ToShards {
    fn events(&self, events: Vec<(ShardId, EventDelivery)>) {
        events.into_iter().for_each(|(to, event)| self.0.event(to.shard, event));
    }

    fn end(&self, connections: Vec<Ended>) {
        self.0.kicks(connections.into_iter().map(kick).collect());
    }
}

fn kick(Ended { connection, code, reason }: Ended) -> Kick {
    let ConnectionId { shard, slot, generation, .. } = connection;
    Kick { shard, slot, generation, code: code.into(), reason: reason.into_owned() }
}
