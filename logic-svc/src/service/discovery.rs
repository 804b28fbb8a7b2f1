//! What etcd tells: gateways that come and go, settings that change, and whether it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::etcd::{Discovery, Etcd, Member};
use cluster::settings::Values;
use hashbrown::HashSet;
use proto::v1::{ForgetGateway, GatewayRef, Task, task};
use tokio::sync::watch;

use super::parts::Parts;
use crate::gateways::LINGERS;
use crate::ports::TaskOut;
use cluster::log::SetFilter;

/// How often etcd is asked whether it answers.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Pauses after attempts to have groups switched that failed, in seconds.
const SWITCH_AGAIN_S: [u64; 5] = [1, 2, 5, 15, 60];

/// Keeps the list of gateways that live; work about those that went is handed over where `sweeps`.
pub(super) fn follow_gateways(mut discovery: Discovery, parts: Arc<Parts>, sweeps: bool) {
    let mut known = lives(&discovery.current());
    parts.gateways.set_live(known.iter().cloned());
    tokio::spawn(async move {
        loop {
            let now = lives(&discovery.changed().await);
            tracing::info!(?now, "gateways");
            parts.gateways.set_live(now.iter().cloned());
            let gone: Vec<(String, u64)> = known.difference(&now).cloned().collect();
            known = now;
            if sweeps && !gone.is_empty() {
                let parts = Arc::clone(&parts);
                tokio::spawn(async move {
                    // Until then its connections may still be there.
                    tokio::time::sleep(LINGERS).await;
                    tokio::task::spawn_blocking(move || forget(&parts, gone));
                });
            }
        }
    });
}

fn lives(members: &[Member]) -> HashSet<(String, u64)> {
    members.iter().map(|member| (member.id.clone(), member.epoch)).collect()
}

fn forget(parts: &Parts, gone: Vec<(String, u64)>) {
    for (id, epoch) in gone {
        let gateway = Some(GatewayRef { id: id.clone(), epoch });
        let task = Task { task: Some(task::Task::ForgetGateway(ForgetGateway { gateway })) };
        if let Err(error) = parts.outbox.hand_over(&id, task) {
            tracing::warn!(%error, id, "what a gateway left behind goes by itself, later");
        }
    }
}

/// Lays settings of the cluster over those of this process.
pub(super) fn follow_config(
    mut dynamic: watch::Receiver<BTreeMap<String, String>>,
    own: Values,
    parts: Arc<Parts>,
    set_filter: SetFilter,
) {
    tokio::spawn(async move {
        loop {
            let laid_over = dynamic.borrow_and_update().clone();
            apply(&own, &laid_over, &parts, &set_filter);
            if dynamic.changed().await.is_err() {
                return;
            }
        }
    });
}

fn apply(
    own: &Values,
    dynamic: &BTreeMap<String, String>,
    parts: &Arc<Parts>,
    set_filter: &SetFilter,
) {
    let (values, faults) = own.overlay(dynamic);
    for fault in faults {
        tracing::warn!(%fault, "left as it was");
    }
    match values.integer("fanout_switch_members") {
        Ok(members) if parts.threshold.set(members) => switch_groups(parts, members),
        Ok(_) => {}
        Err(fault) => tracing::warn!(%fault, "left as it was"),
    }
    let filter = values.text("log").map_err(|fault| fault.to_string());
    if let Err(error) = filter.and_then(set_filter) {
        tracing::warn!(error, "the log is left as it was");
    }
}

/// Has groups switched that another threshold moved to its other side.
fn switch_groups(parts: &Arc<Parts>, members: u32) {
    tracing::info!(members, "from so many members on a group is large now");
    let watch = parts.watch.clone();
    tokio::task::spawn_blocking(move || {
        for pause_s in SWITCH_AGAIN_S {
            match watch.threshold_changed() {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "not all groups were looked at"),
            }
            std::thread::sleep(Duration::from_secs(pause_s));
        }
    });
}

/// Notes whether etcd answers, for whoever asks how this service is.
pub(super) fn watch_etcd(etcd: Etcd, parts: Arc<Parts>) {
    tokio::spawn(async move {
        loop {
            let up = etcd.answers().await.is_ok();
            parts.etcd_up.store(up, Ordering::Relaxed);
            let gauge = |name, up| {
                metrics::gauge!("corelane_up", "server" => name).set(f64::from(u8::from(up)))
            };
            gauge("etcd", up);
            gauge("kafka", parts.outbox.health().is_up());
            gauge("redis", parts.reports.is_up());
            let operations = Arc::clone(&parts.operations);
            let database = tokio::task::spawn_blocking(move || operations.ready()).await;
            gauge("mysql", database.unwrap_or(false));
            tokio::time::sleep(ASK_EVERY).await;
        }
    });
}
