//! Events and orders to gateways, outside of ticks.

use std::sync::Arc;

use proto::v1::{EventDelivery, Kick};

use super::crowds::CrowdWatch;
use super::records::Records;
use crate::domain::delivery::{ConnectionId, ShardId};
use crate::gateways::Gateways;
use crate::ports::{Ended, MembersChanged, Notifier, PushOut, StoreError};

/// Tells the gateways concerned: one record for each and batch.
pub struct Orders {
    gateways: Arc<Gateways>,
    out: Arc<dyn PushOut>,
    crowds: CrowdWatch,
}

impl Orders {
    /// Orders that leave by `out`; changes of members go to `crowds`.
    pub fn new(gateways: Arc<Gateways>, out: Arc<dyn PushOut>, crowds: CrowdWatch) -> Self {
        Self { gateways, out, crowds }
    }

    fn send(&self, records: Records) {
        let records = records.finish();
        if !records.is_empty() {
            self.out.push(records);
        }
    }
}

impl Notifier for Orders {
    fn events(&self, events: Vec<(ShardId, EventDelivery)>) {
        let mut records = Records::new(Arc::clone(&self.gateways));
        for (to, event) in
            events.into_iter().filter(|(to, _)| self.gateways.is_reachable(to.gateway))
        {
            records.event(to, event);
        }
        self.send(records);
    }

    fn end(&self, connections: Vec<Ended>) {
        let mut records = Records::new(Arc::clone(&self.gateways));
        for Ended { connection, code, reason } in connections {
            let ConnectionId { gateway, shard, slot, generation } = connection;
            let reason = reason.into_owned();
            let kick = Kick { shard, slot, generation, code: code.into(), reason };
            if self.gateways.is_reachable(gateway) {
                records.kick(gateway, kick);
            }
        }
        self.send(records);
    }

    fn members_changed(&self, change: &MembersChanged<'_>) -> Result<(), StoreError> {
        self.crowds.changed(change)
    }
}
