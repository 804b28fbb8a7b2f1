//! What the cluster's dynamic configuration changes while the gateway runs: rates, the log, and whether
//! it is to be drained.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::mailbox::{Mailboxes, Order};
use crate::session::bucket::Rate;

/// What holds when the dynamic configuration says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Messages a connection may send in the long run (`rate_per_second`).
    pub per_second: f64,
    /// Messages it may send at once (`rate_burst`).
    pub burst: u32,
    /// What is logged (`log`).
    pub log: String,
}

pub use cluster::log::SetFilter;

/// Who is told of changes.
pub struct Told {
    /// The shards.
    pub mailboxes: Mailboxes,
    /// The log.
    pub log: SetFilter,
    /// Told once when the gateway is to be drained.
    pub drain: Arc<Notify>,
}

impl Wanted {
    /// With the dynamic configuration laid over it, and what of that cannot be.
    fn overlaid(&self, config: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let (mut wanted, mut faults) = (self.clone(), Vec::new());
        if let Some(text) = config.get("rate_per_second") {
            match text.parse().ok().filter(|rate| (0.001..=1e6).contains(rate)) {
                Some(rate) => wanted.per_second = rate,
                None => {
                    faults.push(fault("rate_per_second", text, "a number from 0.001 to 1000000"))
                }
            }
        }
        if let Some(text) = config.get("rate_burst") {
            match text.parse().ok().filter(|burst| (1..=1_000_000).contains(burst)) {
                Some(burst) => wanted.burst = burst,
                None => faults.push(fault("rate_burst", text, "a number from 1 to 1000000")),
            }
        }
        if let Some(text) = config.get("log") {
            wanted.log.clone_from(text);
        }
        (wanted, faults)
    }
}

fn fault(name: &str, text: &str, allowed: &str) -> String {
    format!(
        "{name} in the dynamic configuration is \"{}\" but must be {allowed}",
        text.escape_debug()
    )
}

/// Whether a gateway is to be drained.
#[must_use]
pub fn is_drained(config: &BTreeMap<String, String>, gateway_id: &str) -> bool {
    config.get(&format!("drain/{gateway_id}")).is_some_and(|text| text == "true")
}

/// Follows the dynamic configuration for as long as the runtime lives.
pub async fn follow(
    mut config: watch::Receiver<BTreeMap<String, String>>,
    gateway_id: String,
    base: Wanted,
    told: Told,
) {
    let mut in_force = base.clone();
    loop {
        let current = config.borrow_and_update().clone();
        let (wanted, faults) = base.overlaid(&current);
        for fault in faults {
            tracing::warn!("{fault}");
        }
        tell(&in_force, &wanted, &told);
        in_force = wanted;
        if is_drained(&current, &gateway_id) {
            tracing::info!("to be drained, says the dynamic configuration");
            told.drain.notify_one();
        }
        if config.changed().await.is_err() {
            return;
        }
    }
}

fn tell(before: &Wanted, now: &Wanted, told: &Told) {
    if (before.per_second, before.burst) != (now.per_second, now.burst) {
        tracing::info!(per_second = now.per_second, burst = now.burst, "rate of messages");
        let rate = Rate::new(now.per_second, now.burst);
        tokio::task::block_in_place(|| {
            for mailbox in &told.mailboxes.0 {
                mailbox.order(Order::MessageRate(rate));
            }
        });
    }
    if before.log != now.log {
        match (told.log)(&now.log) {
            Ok(()) => tracing::info!(log = now.log, "what is logged"),
            Err(why) => tracing::warn!(log = now.log, why, "the log stays as it was"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Wanted {
        Wanted { per_second: 1.0, burst: 5, log: "info".into() }
    }

    fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_is_said_wins_and_what_cannot_be_is_told_and_left() {
        let said = config(&[("rate_per_second", "20"), ("rate_burst", "0"), ("log", "debug")]);
        let (wanted, faults) = base().overlaid(&said);
        assert_eq!(wanted, Wanted { per_second: 20.0, burst: 5, log: "debug".into() });
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("rate_burst") && faults[0].contains("\"0\""), "{}", faults[0]);
        assert_eq!(base().overlaid(&config(&[("rate_per_second", "NaN")])).0, base());
        assert_eq!(base().overlaid(&BTreeMap::new()), (base(), vec![]));
    }

    #[test]
    fn a_drain_is_for_one_gateway() {
        let said = config(&[("drain/g1", "true"), ("drain/g2", "false")]);
        assert!(is_drained(&said, "g1"));
        assert!(!is_drained(&said, "g2") && !is_drained(&said, "g3"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn changes_reach_the_shards_and_their_end_brings_back_what_was() {
        let (sender, receiver) = watch::channel(BTreeMap::new());
        let mailbox = Arc::new(crate::mailbox::Mailbox::new().unwrap());
        let drain = Arc::new(Notify::new());
        let told = Told {
            mailboxes: Mailboxes(vec![Arc::clone(&mailbox)]),
            log: Box::new(|_| Ok(())),
            drain: Arc::clone(&drain),
        };
        let task = tokio::spawn(follow(receiver, "g1".into(), base(), told));
        let rates = async || {
            for _ in 0..500 {
                if let Some(order) = mailbox.next_order() {
                    return format!("{order:?}");
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            panic!("no order came");
        };
        sender.send_replace(config(&[("rate_burst", "50")]));
        assert!(rates().await.contains("burst: 50"));
        sender.send_replace(config(&[("drain/g1", "true")]));
        assert!(rates().await.contains("burst: 5."));
        drain.notified().await;
        drop(sender);
        task.await.unwrap();
    }
}
