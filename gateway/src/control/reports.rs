//! The sign of life that logic services get from this gateway, and what they want in return.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::GatewayReport;
use tokio::time::{MissedTickBehavior, interval};

use super::rpc::{Doors, Logic, ReportAll};

/// How often.
const EVERY: Duration = Duration::from_secs(2);

/// Reports for as long as the runtime lives.
pub async fn run<L: Logic>(doors: Doors<L>, report_all: ReportAll) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        report(&doors, &report_all).await;
    }
}

async fn report<L: Logic>(doors: &Doors<L>, report_all: &ReportAll) {
    let report = GatewayReport {
        gateway: Some(doors.identity.current()),
        connections: u32::try_from(doors.index.len()).unwrap_or(u32::MAX),
        sessions: Vec::new(),
    };
    let logic = Arc::clone(&doors.logic);
    match logic.report(report).await {
        Ok(reply) => {
            if reply.report_all {
                tracing::info!("all sessions are asked for");
                report_all.ask();
            }
            if !reply.kicks.is_empty() {
                tokio::task::block_in_place(|| doors.mailboxes.kicks(reply.kicks));
            }
        }
        Err(error) => tracing::debug!(why = error.0, "nobody took the report"),
    }
}
