//! What holds while etcd is well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::{Etcd, EtcdError, Settings, State};
use super::{LONG, connect, ids, lasting, settings, soon, until};
use crate::own_address::own_address;

fn shared() -> Settings {
    let endpoint = std::env::var("CORELANE_TEST_ETCD").expect("CORELANE_TEST_ETCD");
    // Nobody harms it: what it takes longer for is a busy machine's.
    let long = Duration::from_secs(10);
    Settings { dial_timeout: long, request_timeout: long, ..settings(&endpoint) }
}

/// For what is asked for in vain: that takes a lease's time and more.
fn short(settings: Settings) -> Settings {
    Settings { lease_ttl_s: 2, ..settings }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn a_registration_is_seen_changed_and_removed() {
    let etcd = connect(&lasting(shared())).await;
    let mut discovery = etcd.discover("gateways").await.unwrap();
    assert!(discovery.current().is_empty());
    let first = etcd.register("gateways", "gw-1", "{\"port\":1}", true).await.unwrap();
    let members = soon("it is seen", discovery.changed()).await;
    assert_eq!((members[0].id.as_str(), members[0].value.as_str()), ("gw-1", "{\"port\":1}"));
    assert_eq!(members[0].epoch, first.epoch());
    assert!(first.valid());

    first.update("{\"port\":2}").await.unwrap();
    let members = soon("the change is seen", discovery.changed()).await;
    assert_eq!(members[0].value, "{\"port\":2}");
    assert_eq!(members[0].epoch, first.epoch(), "a change is no new start");

    // Others that come later see the same; other kinds are other lists.
    assert_eq!(etcd.discover("gateways").await.unwrap().current(), members);
    assert!(etcd.discover("logic").await.unwrap().current().is_empty());

    let old = first.epoch();
    first.revoke().await.unwrap();
    // At once, not when the lease runs out.
    assert!(etcd.discover("gateways").await.unwrap().current().is_empty());
    assert!(soon("the end is seen", discovery.changed()).await.is_empty());
    let second = etcd.register("gateways", "gw-1", "x", true).await.unwrap();
    assert!(second.epoch() > old);
    second.revoke().await.unwrap();
    etcd.remove_root().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn a_lease_is_kept_for_longer_than_it_lasts() {
    let etcd = connect(&lasting(shared())).await;
    let registration = etcd.register("gateways", "gw-1", "x", true).await.unwrap();
    let worker = etcd.lease_worker(1023, "test").await.unwrap();
    let (epoch, id, first) = (registration.epoch(), worker.id(), worker.good_until());
    for _ in 0..65 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(registration.valid() && worker.is_good());
    }
    assert_eq!((registration.epoch(), worker.id()), (epoch, id));
    assert!(worker.good_until() > first + 8_000_000_000);
    assert_eq!(worker.worker().current(), Some(id));
    etcd.remove_root().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn who_dies_without_a_word_is_forgotten() {
    let etcd = connect(&shared()).await;
    let discovery = etcd.discover("gateways").await.unwrap();
    let dead = etcd.register("gateways", "gw-1", "old", true).await.unwrap();
    let epoch = dead.epoch();
    drop(dead);
    // Waits for the lease of the dead one to run out, then takes its place.
    let next = etcd.register("gateways", "gw-1", "new", true).await.unwrap();
    assert!(next.epoch() > epoch);
    until("the new one is seen", || discovery.current().iter().any(|m| m.value == "new")).await;
    drop(next);
    until("it is forgotten", || discovery.current().is_empty()).await;
    etcd.remove_root().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn a_living_holder_is_taken_over_only_when_asked_for() {
    let settings = lasting(shared());
    let etcd = connect(&settings).await;
    let first = etcd.register("gateways", "gw-1", "first", true).await.unwrap();
    let old = first.epoch();
    match connect(&short(settings)).await.register("gateways", "gw-1", "second", true).await {
        Err(EtcdError::Taken { key, holder }) => {
            assert!(key.ends_with("/gateways/gw-1") && holder == "first");
        }
        other => panic!("{other:?}"),
    }
    let second = etcd.register("gateways", "gw-1", "second", false).await.unwrap();
    assert!(second.epoch() > old);
    soon("the first one notices", first.lost()).await;
    assert!(!first.valid());
    assert_eq!(first.standing().state, State::Lost);

    // It waits for its turn, and does not fight for the entry.
    let epoch = second.epoch();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(second.valid() && second.standing().state == State::Held);
    assert_eq!(second.epoch(), epoch, "a higher one would tell of a loss meanwhile");
    second.revoke().await.unwrap();
    until("the first one is back", || first.valid()).await;
    assert!(first.epoch() > epoch);
    etcd.remove_root().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn an_entry_removed_by_hand_is_made_anew() {
    let etcd = connect(&shared()).await;
    let registration = etcd.register("gateways", "gw-1", "x", false).await.unwrap();
    let (old, mut changes) = (registration.epoch(), registration.watch());
    etcd.remove_root().await.unwrap();
    soon("the loss is told", registration.lost()).await;
    let back =
        |standing: &super::super::Standing| standing.state == State::Held && standing.epoch > old;
    soon("a higher epoch is told", changes.wait_for(back)).await.unwrap();
    let seen = etcd.discover("gateways").await.unwrap();
    assert_eq!(seen.current()[0].epoch, registration.epoch());
    etcd.remove_root().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn dynamic_settings_are_followed() {
    let etcd = connect(&shared()).await;
    etcd.put_config("log", "info").await.unwrap();
    let mut config = etcd.watch_config().await.unwrap();
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(*config.borrow(), map(&[("log", "info")]));
    etcd.put_config("drain/gw-1", "true").await.unwrap();
    etcd.put_config("log", "debug").await.unwrap();
    let all = map(&[("drain/gw-1", "true"), ("log", "debug")]);
    soon("both are seen", config.wait_for(|now| *now == all)).await.unwrap();
    assert!(etcd.remove_config("log").await.unwrap());
    assert!(!etcd.remove_config("log").await.unwrap());
    let rest = map(&[("drain/gw-1", "true")]);
    soon("the removal is seen", config.wait_for(|now| *now == rest)).await.unwrap();
    // Nothing written, nothing told.
    config.borrow_and_update();
    let more = tokio::time::timeout(Duration::from_millis(1500), config.changed()).await;
    assert!(more.is_err());
    etcd.remove_root().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn many_who_ask_at_once_get_different_worker_ids() {
    let settings = lasting(shared());
    let asking: Vec<_> = (0..12)
        .map(|_| {
            let settings = settings.clone();
            tokio::spawn(
                async move { connect(&settings).await.lease_worker(11, "many").await.unwrap() },
            )
        })
        .collect();
    let mut leases = Vec::new();
    for lease in asking {
        leases.push(soon("it gets one", lease).await.unwrap());
    }
    let ids: BTreeSet<u16> = leases.iter().map(super::super::WorkerLease::id).collect();
    assert_eq!(ids, (0..=11).collect());
    assert!(leases.iter().all(super::super::WorkerLease::is_good));

    let etcd = connect(&settings).await;
    match connect(&short(settings)).await.lease_worker(11, "late").await {
        Err(EtcdError::NoWorkerFree { max: 11 }) => (),
        other => panic!("{other:?}"),
    }
    let released = leases.remove(4);
    let id = released.id();
    let worker = released.worker();
    released.release().await.unwrap();
    assert_eq!(worker.current(), None);
    assert_eq!(etcd.lease_worker(11, "late").await.unwrap().id(), id);
    etcd.remove_root().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn a_worker_id_comes_back_after_all_others() {
    let etcd = connect(&lasting(shared())).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        let lease = etcd.lease_worker(3, "round").await.unwrap();
        ids.push(lease.id());
        lease.release().await.unwrap();
    }
    assert_eq!(ids, [0, 1, 2, 3, 0, 1]);
    etcd.remove_root().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn a_dead_endpoint_is_passed_over() {
    let mut settings = lasting(shared());
    settings.endpoints.insert(0, nobody());
    let etcd = connect(&settings).await;
    let registration = etcd.register("gateways", "gw-1", "x", true).await.unwrap();
    let discovery = etcd.discover("gateways").await.unwrap();
    assert_eq!(ids(&discovery), ["gw-1"]);
    let mut more = discovery.watch();
    let second = etcd.register("gateways", "gw-2", "y", true).await.unwrap();
    soon("it is seen", more.wait_for(|members| members.len() == 2)).await.unwrap();
    assert_ne!(registration.standing().state, State::Lost);
    drop(second);
    etcd.remove_root().await.unwrap();
}

/// An address at which nobody listens.
fn nobody() -> String {
    format!("http://{}", own_address())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_are_refused_and_absence_is_told() {
    let good = Settings { endpoints: vec![nobody()], ..Settings::default() };
    let mut bad = vec![
        Settings { endpoints: vec![], ..good.clone() },
        Settings { root: "corelane".to_owned(), ..good.clone() },
        Settings { lease_ttl_s: 0, ..good.clone() },
    ];
    for endpoint in ["", "127.0.0.1:2379", "https://127.0.0.1:2379", "http://", "http://a b"] {
        bad.push(Settings { endpoints: vec![endpoint.to_owned()], ..good.clone() });
    }
    for settings in bad {
        let error = Etcd::connect(&settings).await.unwrap_err();
        assert!(matches!(error, EtcdError::Invalid(_)), "{settings:?}: {error:?}");
    }
    let error = tokio::time::timeout(LONG, Etcd::connect(&good)).await.unwrap().unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
}
