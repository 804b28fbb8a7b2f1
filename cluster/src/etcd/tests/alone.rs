//! etcd killed, stopped, emptied, compacted, and cut off.

use std::time::Duration;

use etcd_client::CompactionOptions;
use rustix::process::Signal;

use super::super::{Settings, State, boottime_ns};
use super::link::Link;
use super::server::Server;
use super::{connect, ids, lasting, settings, soon, until};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn a_restart_is_survived_with_everything_held() {
    let mut server = Server::start();
    // Once it is there again etcd gives every lease its whole time: so long a first renewal may take.
    let settings = Settings { lease_ttl_s: 6, ..settings(&server.url()) };
    let etcd = server.connect(&settings).await;
    let registration = etcd.register("gateways", "gw-1", "x", true).await.unwrap();
    let worker = etcd.lease_worker(1023, "test").await.unwrap();
    let discovery = etcd.discover("gateways").await.unwrap();
    let config = etcd.watch_config().await.unwrap();
    let (epoch, id) = (registration.epoch(), worker.id());

    server.process.kill();
    let standings = || (registration.standing().state, worker.standing().state);
    until("both are in doubt", || standings() == (State::InDoubt, State::InDoubt)).await;
    assert!(!registration.valid() && !worker.is_good());
    until("the list is in doubt", || discovery.in_doubt()).await;
    assert_eq!(ids(&discovery), ["gw-1"], "the last known members stay");
    // Away for longer than any lease lasts.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(ids(&discovery), ["gw-1"]);
    assert!(etcd.put_config("log", "debug").await.unwrap_err().is_temporary());

    server.start_again();
    until("held again", || registration.valid() && worker.is_good()).await;
    // etcd was not there to end the leases, so nobody can have had them.
    assert_eq!((registration.epoch(), worker.id()), (epoch, id));
    until("the list is sure again", || !discovery.in_doubt()).await;
    let other = etcd.register("gateways", "gw-2", "y", true).await.unwrap();
    until("the watch goes on", || ids(&discovery) == ["gw-1", "gw-2"]).await;
    etcd.put_config("log", "debug").await.unwrap();
    until("settings too", || config.borrow().get("log").is_some_and(|log| log == "debug")).await;
    other.revoke().await.unwrap();
    until("and sees removals", || ids(&discovery) == ["gw-1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn an_etcd_that_hangs_is_noticed_and_waited_for() {
    let server = Server::start();
    let etcd = server.connect(&settings(&server.url())).await;
    let registration = etcd.register("gateways", "gw-1", "x", true).await.unwrap();
    let discovery = etcd.discover("gateways").await.unwrap();
    server.process.signal(Signal::STOP);
    until("in doubt", || registration.standing().state == State::InDoubt).await;
    until("the list too", || discovery.in_doubt()).await;
    let start = boottime_ns();
    assert!(etcd.answers().await.unwrap_err().is_temporary());
    assert!(boottime_ns() - start < 20_000_000_000, "no request waits for good");
    server.process.signal(Signal::CONT);
    until("held again", || registration.valid()).await;
    until("the list is sure again", || !discovery.in_doubt()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn what_happened_while_cut_off_is_caught_up_with() {
    caught_up_after(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn what_was_compacted_while_cut_off_is_caught_up_with() {
    caught_up_after(true).await;
}

async fn caught_up_after(compacted: bool) {
    let server = Server::start();
    let near = settings(&server.url());
    let link = Link::to(server.address()).await;
    let (etcd, far) = (
        server.connect(&near).await,
        connect(&Settings { endpoints: vec![link.url().to_owned()], ..near.clone() }).await,
    );
    for name in ["stays", "changes", "goes"] {
        etcd.put_config(name, "before").await.unwrap();
    }
    let mut config = far.watch_config().await.unwrap();
    let discovery = far.discover("gateways").await.unwrap();
    link.cut();
    // Until the streams were given up: what waits on the line of an open one would still arrive.
    until("in doubt", || discovery.in_doubt()).await;
    etcd.put_config("changes", "after").await.unwrap();
    etcd.put_config("comes", "after").await.unwrap();
    etcd.remove_config("goes").await.unwrap();
    let registration = etcd.register("gateways", "gw-1", "x", true).await.unwrap();
    if compacted {
        compact(&etcd).await;
    }
    assert_eq!(config.borrow().len(), 3, "what was known stays");
    link.mend();
    let all = ["changes=after", "comes=after", "stays=before"];
    let caught_up =
        config.wait_for(|now| now.iter().map(|(name, value)| format!("{name}={value}")).eq(all));
    soon("all of it is seen", caught_up).await.unwrap();
    until("members too", || ids(&discovery) == ["gw-1"] && !discovery.in_doubt()).await;
    etcd.put_config("later", "x").await.unwrap();
    soon("and what comes", config.wait_for(|now| now.contains_key("later"))).await.unwrap();
    registration.revoke().await.unwrap();
    until("and what goes", || ids(&discovery).is_empty()).await;
}

/// Forgets all revisions but the newest.
async fn compact(etcd: &super::Etcd) {
    let (mut client, _) = etcd.shared.pool.client();
    let revision = client.get("/", None).await.unwrap().header().unwrap().revision();
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn an_emptied_etcd_is_noticed() {
    let mut server = Server::start();
    let etcd = server.connect(&settings(&server.url())).await;
    for number in 0..20 {
        etcd.put_config("n", &number.to_string()).await.unwrap();
    }
    let registration = etcd.register("gateways", "gw-1", "x", true).await.unwrap();
    let worker = etcd.lease_worker(1023, "test").await.unwrap();
    let config = etcd.watch_config().await.unwrap();
    server.process.kill();
    server.start_empty();
    soon("the loss is told", registration.lost()).await;
    until("both are back", || registration.valid() && worker.is_good()).await;
    until("old settings are gone", || config.borrow().is_empty()).await;
    etcd.put_config("new", "x").await.unwrap();
    until("new ones are seen", || config.borrow().contains_key("new")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn who_is_cut_off_doubts_before_others_see_it_go() {
    let server = Server::start();
    let near = settings(&server.url());
    let link = Link::to(server.address()).await;
    let etcd = server.connect(&near).await;
    let far = connect(&Settings { endpoints: vec![link.url().to_owned()], ..near.clone() }).await;
    let discovery = etcd.discover("gateways").await.unwrap();
    let registration = far.register("gateways", "gw-1", "x", true).await.unwrap();
    let epoch = registration.epoch();
    until("it is seen", || ids(&discovery) == ["gw-1"]).await;
    link.cut();
    let mut valid_when_gone = true;
    until("it is gone", || {
        // In this order: what is said after it was seen gone would prove nothing.
        valid_when_gone = registration.valid();
        discovery.current().is_empty()
    })
    .await;
    assert!(!valid_when_gone, "others saw it go while it held itself for registered");
    assert_eq!(registration.epoch(), epoch, "in doubt, not lost: it cannot know");
    link.mend();
    soon("the loss is told", registration.lost()).await;
    until("it is back", || registration.valid()).await;
    assert!(registration.epoch() > epoch);
    until("others see it", || {
        discovery.current().first().is_some_and(|m| m.epoch == registration.epoch())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn when_the_line_to_one_endpoint_dies_the_next_takes_over_in_time() {
    let server = Server::start();
    let first = Link::to(server.address()).await;
    let endpoints = vec![first.url().to_owned(), server.url()];
    let request_timeout = Duration::from_secs(1);
    let settings = Settings { endpoints, request_timeout, ..lasting(settings(&server.url())) };
    let etcd = server.connect(&settings).await;
    let registration = etcd.register("gateways", "gw-1", "x", true).await.unwrap();
    let discovery = etcd.discover("gateways").await.unwrap();
    first.cut();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(registration.valid());
    }
    let near = server.connect(&settings).await;
    let other = near.register("gateways", "gw-2", "y", true).await.unwrap();
    until("the watch goes on", || ids(&discovery) == ["gw-1", "gw-2"]).await;
    drop((registration, other));
}
