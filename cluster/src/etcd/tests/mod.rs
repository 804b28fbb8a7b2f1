//! Against real etcd: one that is shared and never harmed (`CORELANE_TEST_ETCD`), and ones that a test
//! starts for itself to stop, kill and cut off.

mod alone;
mod link;
mod server;
mod shared;
mod workers;

use std::time::Duration;

use super::{Etcd, Settings};

/// Longest wait for what must happen by itself; far more than it takes.
const LONG: Duration = Duration::from_secs(30);

/// A root that no other test has.
fn settings(endpoint: &str) -> Settings {
    let unique = format!("{}-{}", std::process::id(), super::boottime_ns());
    Settings {
        endpoints: vec![endpoint.to_owned()],
        root: format!("/corelane-test/{unique}"),
        lease_ttl_s: 2,
        dial_timeout: Duration::from_secs(3),
        request_timeout: Duration::from_secs(3),
    }
}

/// With leases that a busy machine does not lose, for what is kept rather than runs out.
fn lasting(settings: Settings) -> Settings {
    Settings { lease_ttl_s: 10, ..settings }
}

/// Waits until `holds`; fails the test when it never does.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "never: {what}");
}

/// `future`, which must come to its end.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The ids of a kind's members.
fn ids(discovery: &super::Discovery) -> Vec<String> {
    discovery.current().iter().map(|member| member.id.clone()).collect()
}

async fn connect(settings: &Settings) -> Etcd {
    Etcd::connect(settings).await.unwrap()
}
