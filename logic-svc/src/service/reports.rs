//! What gateways report, taken into the shared routes.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use proto::v1::GatewayReport;

use crate::domain::ConversationNo;
use crate::domain::UserId;
use crate::domain::delivery::GatewayNo;
use crate::egress::cluster::Threshold;
use crate::ports::{Crowds, Reported, Reports, StoreError};
use crate::store::redis::{Client, SessionTable};

/// Reports into Redis.
pub(super) struct RedisReports {
    pub(super) table: Arc<SessionTable>,
    pub(super) client: Client,
    pub(super) crowds: Arc<dyn Crowds>,
    pub(super) threshold: Threshold,
    counts: Mutex<HashMap<GatewayNo, u32>>,
}

impl RedisReports {
    pub(super) fn new(
        table: Arc<SessionTable>,
        client: Client,
        crowds: Arc<dyn Crowds>,
        threshold: Threshold,
    ) -> Self {
        Self { table, client, crowds, threshold, counts: Mutex::default() }
    }

    /// Sessions that are registered again are listened to again: the gateway may have another epoch now.
    fn listen(&self, gateway: GatewayNo, report: &GatewayReport) -> Result<(), StoreError> {
        let mut users: Vec<UserId> = report.sessions.iter().map(|one| one.user_id).collect();
        users.sort_unstable();
        users.dedup();
        let large = self.crowds.large_of(&users, self.threshold.down())?;
        let mut nos: Vec<ConversationNo> = large.iter().flatten().map(|one| one.no).collect();
        nos.sort_unstable();
        nos.dedup();
        if nos.is_empty() { Ok(()) } else { self.interested(gateway, &nos) }
    }
}

impl Reports for RedisReports {
    fn report(&self, gateway: GatewayNo, report: &GatewayReport) -> Result<Reported, StoreError> {
        // A part of all sessions: the report without any that follows says whether they are whole.
        if !report.sessions.is_empty() {
            self.listen(gateway, report)?;
            let replaced = self.table.register_all(gateway, &report.sessions)?;
            return Ok(Reported { report_all: false, replaced });
        }
        let report_all = self.table.report(gateway, report.connections)?;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.insert(gateway, report.connections);
        Ok(Reported { report_all, replaced: Vec::new() })
    }

    fn interested(
        &self,
        gateway: GatewayNo,
        conversations: &[ConversationNo],
    ) -> Result<(), StoreError> {
        self.table.interested(gateway, conversations)
    }

    fn group(&self, conversation: ConversationNo, large: bool) -> Result<(), StoreError> {
        if large {
            self.table.begin_group(conversation)
        } else {
            self.table.end_group(conversation)
        }
    }

    fn forget(&self, gateway: GatewayNo) -> Result<(), StoreError> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(&gateway);
        let connections = self.table.forget(gateway)?;
        tracing::info!(gateway, connections, "the routes of a gateway that is gone are taken out");
        Ok(())
    }

    fn count(&self, gateway: GatewayNo) -> Option<u32> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(&gateway).copied()
    }

    fn is_up(&self) -> bool {
        self.client.is_up()
    }
}
