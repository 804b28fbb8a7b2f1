//! The gateway of the cluster form as a process, with real Kafka and etcd.

mod fake;
mod process;

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fake::{Fake, LARGE};
use process::{Gateway, LONG, World, wait_for};
use serde_json::{Value, json};

/// Ends the gateway, which is to go in good order, and what was made for it.
async fn end(gateway: Gateway, fake: Fake, world: World) {
    gateway.terminate();
    assert_eq!(gateway.ended().code(), Some(0));
    fake.end().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn messages_go_up_and_come_down() {
    let world = World::new().await;
    let fake = Fake::start(&world.etcd, &world.kafka).await;
    let gateway = world.gateway("g1");
    let (mut alice, mut bob) = (gateway.client("alice"), gateway.client("bob"));
    wait_for("both logins", || (fake.seen.sessions.lock().unwrap().len() == 2).then_some(()));

    // By address, and by the index of large conversations.
    for (conversation, msg_id) in [("small", "m1"), (LARGE, "m2")] {
        alice.send(conversation, msg_id);
        let ack = alice.next(2);
        assert_eq!(
            (&ack["code"], &ack["msg_id"], &ack["seq"]),
            (&json!(0), &json!(msg_id), &json!(1))
        );
        let push = bob.next(4);
        assert_eq!(push["conversation_id"], conversation);
        assert_eq!(push["payload"]["content"], msg_id);
    }
    // A run of messages keeps its order and takes few records.
    let before = fake.seen.records.load(Ordering::SeqCst);
    alice.send_all("run", (0..200).map(|n| format!("r{n}")));
    for n in 0..200 {
        assert_eq!(bob.next(4)["payload"]["content"], format!("r{n}"));
    }
    let records = fake.seen.records.load(Ordering::SeqCst) - before;
    assert!(records <= 100, "{records} records for 200 messages");
    assert!((0..200).all(|n| alice.next(2)["msg_id"] == format!("r{n}")), "answers out of order");

    alice.say(&json!({"cmd": 3, "id": 9, "conversation_id": "small", "cursor_seq": 0}));
    assert_eq!(alice.next(3)["code"], 0);

    plain_http(&gateway);
    metrics(&gateway);
    // A second one of the same name does not start beside it.
    let second = world.command("g1").stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && words.contains("another gateway of that name"), "{words}");

    gateway.terminate();
    assert_eq!(bob.next(11)["code"], 4000);
    assert_eq!((alice.closed(), bob.closed()), (4000, 4000));
    assert_eq!(gateway.ended().code(), Some(0));
    assert!(fake.seen.sessions.lock().unwrap().is_empty(), "the ends were told");
    let gateways = world.etcd.discover("gateways").await.unwrap();
    assert!(gateways.current().is_empty(), "{gateways:?}");
    fake.end().await;
    world.end().await;
}

fn plain_http(gateway: &Gateway) {
    assert_eq!(gateway.get("/healthz"), (200, "ok\n".to_owned()));
    let (status, body) =
        wait_for("readiness", || Some(gateway.get("/readyz")).filter(|(status, _)| *status == 200));
    assert_eq!(status, 200, "{body}");
    assert_eq!(gateway.get("/api/v1/me?x=1"), (201, "GET /api/v1/me?x=1 HTTP/1.1".to_owned()));
    let (status, body) = gateway.request(
        "POST /api/v1/login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    );
    assert_eq!((status, body.as_str()), (201, "POST /api/v1/login HTTP/1.1"));
    assert_eq!(gateway.get("/nothing").0, 404);
    assert_eq!(gateway.get("/").0, 200);
}

fn metrics(gateway: &Gateway) {
    let rows = [
        ("corelane_gateway_messages_total", 202.0),
        ("corelane_gateway_connections", 2.0),
        ("corelane_gateway_sessions", 2.0),
        ("corelane_gateway_logins_total", 2.0),
        ("corelane_gateway_pushes_total", 202.0),
        ("corelane_gateway_upstream_messages_total", 202.0),
        ("corelane_gateway_refused_total", 0.0),
        ("corelane_gateway_uplink_messages", 0.0),
        ("corelane_gateway_upstream_under_way", 0.0),
    ];
    // Those of shards are read once a second.
    let (mut shown, begun) = (Vec::new(), Instant::now());
    while shown != rows.map(|(name, value)| (name, Some(value))) && begun.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(50));
        shown = rows.map(|(name, _)| (name, gateway.metric(name))).to_vec();
    }
    assert_eq!(shown, rows.map(|(name, value)| (name, Some(value))));
    for name in [
        "corelane_gateway_accepted_total",
        "corelane_kafka_queue_records",
        "corelane_kafka_consumer_lag",
        "corelane_rpc_calls_total",
        "corelane_rpc_endpoints",
    ] {
        wait_for(name, || gateway.metric(name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn without_a_logic_service_everybody_is_told_so() {
    let world = World::new().await;
    let mut fake = Fake::start(&world.etcd, &world.kafka).await;
    let gateway = world.gateway("g1");
    let mut alice = gateway.client("alice");
    wait_for("the login", || (fake.seen.sessions.lock().unwrap().len() == 1).then_some(()));
    fake.stop_answering().await;
    let (_, body) = wait_for("unreadiness", || {
        Some(gateway.get("/readyz")).filter(|(status, _)| *status == 503)
    });
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&ready["checks"]["logic"], &ready["checks"]["lease"]),
        (&json!(false), &json!(true))
    );

    alice.say(&json!({"cmd": 3, "id": 9, "conversation_id": "small", "cursor_seq": 0}));
    let refused = alice.next(3);
    assert_eq!((&refused["code"], &refused["id"]), (&json!(503), &json!(9)));
    assert_eq!(refused["error"]["temporary"], true);
    assert!(refused["error"]["retry_after_ms"].as_u64().unwrap() > 0);
    assert!(refused["error"]["detail"].as_str().unwrap().contains("logic service"), "{refused}");
    let mut bob = gateway.client("bob");
    let goaway = bob.next(11);
    assert_eq!(goaway["code"], 4100);
    assert!(goaway["reconnect_after_ms"].as_u64().unwrap() > 0);
    let (status, problem) = gateway.get("/api/v1/me");
    assert_eq!(status, 503);
    assert_eq!(serde_json::from_str::<Value>(&problem).unwrap()["code"], "BUSY");
    // Messages do not need it.
    alice.send("small", "m1");
    assert_eq!(alice.next(2)["code"], 0);
    end(gateway, fake, world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn a_lost_lease_brings_a_new_epoch_and_connections_stay() {
    let world = World::new().await;
    let fake = Fake::start(&world.etcd, &world.kafka).await;
    let gateway = world.gateway("g1");
    let mut alice = gateway.client("alice");
    alice.send("small", "m1");
    assert_eq!(alice.next(2)["seq"], 1);
    let first = *fake.seen.epochs.lock().unwrap().last().unwrap();
    // As if the lease had run out.
    world.etcd.remove_root().await.unwrap();
    let (epoch, session) = wait_for("a report of all sessions", || {
        fake.seen.reported.lock().unwrap().first().cloned()
    });
    assert!(epoch > first, "{epoch} is not above {first}");
    let key = session.connection.map(|at| (at.shard, at.slot, at.generation)).unwrap();
    assert_eq!(fake.seen.sessions.lock().unwrap()[&key], "alice");
    alice.send("small", "m2");
    assert_eq!(alice.next(2)["seq"], 2);
    assert_eq!(*fake.seen.epochs.lock().unwrap().last().unwrap(), epoch);
    end(gateway, fake, world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn the_dynamic_configuration_sets_rates_and_drains() {
    let world = World::new().await;
    let fake = Fake::start(&world.etcd, &world.kafka).await;
    let gateway = world.gateway("g1");
    // With the burst of before nobody is refused: where it is the new one, so is the rate.
    world.etcd.put_config("rate_per_second", "0.001").await.unwrap();
    world.etcd.put_config("rate_burst", "3").await.unwrap();
    let mut alice = wait_for("the new rate", || {
        let mut alice = gateway.client("alice");
        (0..4).for_each(|n| alice.send("small", &format!("m{n}")));
        let codes: Vec<Value> = (0..4).map(|_| alice.next(2)["code"].clone()).collect();
        let refused = codes.iter().filter(|code| **code == 429).count();
        assert!(refused <= 1, "{codes:?}");
        (refused == 1).then_some(alice)
    });
    world.etcd.put_config("drain/g1", "true").await.unwrap();
    assert_eq!(alice.next(11)["code"], 4000);
    assert_eq!(gateway.ended().code(), Some(0));
    // And it does not come back before that is taken away.
    let again = world.command("g1").stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && words.contains("drain/g1"), "{words}");
    fake.end().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the servers of `cargo xtask servers up`"]
async fn the_successor_of_a_killed_gateway_waits_for_its_lease() {
    let world = World::new().await;
    let fake = Fake::start(&world.etcd, &world.kafka).await;
    let first = world.gateway("g1");
    let mut alice = first.client("alice");
    alice.send("small", "m1");
    alice.next(2);
    let epoch = *fake.seen.epochs.lock().unwrap().last().unwrap();
    first.kill();
    let second = world.gateway("g1");
    let mut alice = second.client("alice");
    alice.send("small", "m2");
    assert_eq!(alice.next(2)["code"], 0);
    assert!(*fake.seen.epochs.lock().unwrap().last().unwrap() > epoch);
    end(second, fake, world).await;
}
