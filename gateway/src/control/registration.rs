//! The life of this gateway's entry in etcd: a lost lease brings a new epoch.

use std::sync::Arc;

use cluster::etcd::{Registration, State};
use tokio::task::JoinHandle;

use super::rpc::ReportAll;
use crate::index::Identity;

/// Follows the registration for as long as the runtime lives: with a new epoch all routes that others know
/// of this gateway are void, so all sessions are reported under it. Connections stay. The task is to be
/// aborted before the entry is removed on purpose.
pub fn follow(
    registration: &Registration,
    identity: Arc<Identity>,
    report_all: ReportAll,
) -> JoinHandle<()> {
    let mut changes = registration.watch();
    tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            let standing = *changes.borrow_and_update();
            match standing.state {
                State::Held if standing.epoch != identity.epoch() => {
                    tracing::warn!(
                        epoch = standing.epoch,
                        "registered anew: all sessions are reported"
                    );
                    identity.renew(standing.epoch);
                    report_all.ask();
                }
                State::Held => tracing::info!("etcd answers again; the registration still holds"),
                State::InDoubt => {
                    tracing::warn!("etcd does not answer; the registration is in doubt")
                }
                State::Lost => tracing::warn!("the registration is lost; registering anew"),
            }
        }
    })
}
