//! The counters of the shards as metrics, read every second.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};

use crate::index::Index;
use crate::uplink::Uplink;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// A name and a number for each counter of a shard.
pub type Named = Vec<(&'static str, u64)>;

/// Shows what `shards` gives, by shard, for as long as the runtime lives: `corelane_gateway_*`.
pub async fn run(
    shards: impl Fn() -> Vec<Named> + Send + 'static,
    uplink: Arc<Uplink>,
    index: Arc<Index>,
) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        for (shard, counters) in shards().into_iter().enumerate() {
            show(shard, counters);
        }
        gauge!("corelane_gateway_uplink_messages").set(uplink.messages.held() as f64);
        gauge!("corelane_gateway_uplink_calls").set(uplink.calls.held() as f64);
        gauge!("corelane_gateway_sessions").set(index.len() as f64);
    }
}

fn show(shard: usize, counters: Named) {
    for (name, value) in counters {
        let label = shard.to_string();
        if name == "connections" {
            gauge!("corelane_gateway_connections", "shard" => label).set(value as f64);
        } else {
            counter!(format!("corelane_gateway_{name}_total"), "shard" => label).absolute(value);
        }
    }
}
