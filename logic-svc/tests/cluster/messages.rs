use std::time::{Duration, Instant};

use proto::ids::direct_conversation_id;
use proto::v1::PushRecord;

use crate::proxy::Proxy;
use crate::world::{World, replies_to};

/// A world with one service and two users, on slots 1 and 2.
fn two(world: &mut World, more: &[&str]) -> (u64, u64, String) {
    let a = world.start("a", more, &[]);
    let (alice, bob) = (world.login(a, "alice", 1).0, world.login(a, "bob", 2).0);
    world.report(a, &[(alice, 1), (bob, 2)]);
    let id = direct_conversation_id(alice.min(bob), alice.max(bob));
    (alice, bob, id)
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_message_is_stored_answered_and_delivered() {
    let mut world = World::new();
    let (alice, bob, id) = two(&mut world, &[]);
    let (first, payload) = world.message((alice, 1), &id, "hello");
    world.produce(&id, &payload);
    let ack = world.acked(&first);
    assert_eq!((ack.seq, ack.request_id), (1, 7));
    assert_eq!(world.targets(&first), [2], "the other connection, by its number");
    assert_eq!(world.history(0, bob, &id), [(1, "hello".to_owned())]);
    // The same record again: the same place, and no second message.
    world.produce(&id, &payload);
    world.wait_for("two answers", |mail| (replies_to(mail, &first).len() == 2).then_some(()));
    let acks = replies_to(&world.mail, &first);
    assert_eq!(acks[0].ack, acks[1].ack);
    assert_eq!(world.sent((bob, 2), &id, "hi").seq, 2);
    assert_eq!(world.targets(&first), [2]);
    let stranger = world.login(0, "eve", 3).0;
    let refused = world.send((stranger, 3), &id, "let me in");
    let refused = world.answered(&refused).failure.expect("not a member");
    assert_eq!(refused.name, "NOT_A_MEMBER");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn stopping_in_good_order_leaves_nothing_to_be_done_again() {
    let mut world = World::new();
    let (alice, _, id) = two(&mut world, &[]);
    for n in 0..20 {
        world.send((alice, 1), &id, &format!("{n}"));
    }
    let last = world.sent((alice, 1), &id, "last");
    assert_eq!(last.seq, 21);
    assert!(world.stop(0).success());
    let before: usize = world.mail.len();
    let b = world.start("b", &[], &[]);
    assert_eq!(world.sent((alice, 1), &id, "next").seq, 22);
    let again = world.mail[before..].iter().flat_map(|record| &record.messages);
    assert!(again.clone().all(|message| message.seq == 22), "{:?}", again.collect::<Vec<_>>());
    assert_eq!(world.history(b, alice, &id).len(), 22);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn two_services_share_the_work_and_one_takes_over() {
    let mut world = World::new();
    let (alice, _, _) = two(&mut world, &[]);
    let b = world.start("b", &[], &[]);
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(world.send((alice, 1), &format!("room-{}", n % 8), &format!("{n}")));
    }
    ids.iter().for_each(|id| drop(world.acked(id)));
    world.kill(0);
    let more: Vec<String> =
        (0..16).map(|n| world.send((alice, 1), &format!("room-{}", n % 8), "more")).collect();
    more.iter().for_each(|id| drop(world.acked(id)));
    for room in 0..8 {
        let seqs: Vec<u64> =
            world.history(b, alice, &format!("room-{room}")).iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, (1..=7).collect::<Vec<_>>(), "room-{room}");
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_database_that_is_away_for_a_moment_costs_time_and_longer_costs_refusals() {
    let mut world = World::new();
    let server = world.mysql.rsplit('@').next().unwrap().to_owned();
    let proxy = Proxy::to(&server);
    world.mysql = world.mysql.replace(&server, &proxy.address.to_string());
    let (alice, _, id) = two(&mut world, &[]);
    assert_eq!(world.sent((alice, 1), &id, "before").seq, 1);
    proxy.cut();
    let waited = world.send((alice, 1), &id, "waits");
    std::thread::sleep(Duration::from_millis(700));
    proxy.mend();
    assert_eq!(world.acked(&waited).seq, 2);
    proxy.cut();
    let (refused, payload) = world.message((alice, 1), &id, "refused");
    world.produce(&id, &payload);
    let failure = world.answered(&refused).failure.expect("the database is away");
    assert!(failure.temporary && failure.name == "BUSY", "{failure:?}");
    proxy.mend();
    // The client repeats with the same id until it is taken.
    let until = Instant::now() + crate::world::LIMIT;
    loop {
        let before = replies_to(&world.mail, &refused).len();
        world.produce(&id, &payload);
        world.wait_for("an answer", |mail| {
            (replies_to(mail, &refused).len() > before).then_some(())
        });
        let last = replies_to(&world.mail, &refused).pop().unwrap();
        if last.failure.is_none() {
            assert_eq!(last.ack.unwrap().seq, 3);
            return;
        }
        assert!(Instant::now() < until, "{last:?}");
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn without_redis_every_gateway_is_asked() {
    let mut world = World::new();
    let server = world.redis.trim_start_matches("redis://").to_owned();
    let proxy = Proxy::to(&server);
    world.redis = format!("redis://{}", proxy.address);
    // As it is usually: so one slow tick may ask every gateway, too.
    let (alice, bob, id) = two(&mut world, &["--redis-tick-timeout", "100ms"]);
    let before = until_by_number(&mut world, (alice, 1), &id);
    proxy.cut();
    let second = world.send((alice, 1), &id, "by name");
    assert_eq!(world.acked(&second).seq, before + 1);
    let users = |mail: &[PushRecord]| {
        mail.iter().find_map(|record| {
            let push = record.users.first()?;
            let sent = push.message?;
            let message = &record.messages[sent.message as usize];
            (message.client_msg_id == second).then(|| (push.user_ids.clone(), sent.origin))
        })
    };
    let (mut users, origin) = world.wait_for("the message by user", users);
    users.sort_unstable();
    assert_eq!(users, [alice.min(bob), alice.max(bob)]);
    assert_eq!(origin.map(|origin| origin.slot), Some(1));
    proxy.mend();
    until_by_number(&mut world, (alice, 1), &id);
}

/// Sends until a message goes to the connection on slot 2 by its number; the seq of that one.
fn until_by_number(world: &mut World, from: (u64, u32), id: &str) -> u64 {
    let until = Instant::now() + crate::world::LIMIT;
    loop {
        let sent = world.send(from, id, "by number");
        let seq = world.acked(&sent).seq;
        if world.targets(&sent) == [2] {
            return seq;
        }
        assert!(Instant::now() < until, "routes are not used");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A service that stood still while its partitions went to another one finds its places taken and counts anew.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_service_that_stood_still_writes_nothing_wrong() {
    let mut world = World::new();
    let rpc = world.start("rpc", &["--roles", "rpc"], &[]);
    let alice = world.login(rpc, "alice", 1).0;
    let id = direct_conversation_id(alice, alice);
    let first = world.start("first", &["--roles", "ingest"], &[]);
    assert_eq!(world.sent((alice, 1), &id, "1").seq, 1);
    world.signal(first, rustix::process::Signal::STOP);
    let held = world.send((alice, 1), &id, "2");
    world.start("second", &["--roles", "ingest"], &[]);
    assert_eq!(world.acked(&held).seq, 2);
    world.signal(first, rustix::process::Signal::CONT);
    let rest: Vec<String> = (3..40).map(|n| world.send((alice, 1), &id, &format!("{n}"))).collect();
    for (sent, seq) in rest.iter().zip(3..) {
        assert_eq!(world.acked(sent).seq, seq);
    }
    let texts = world.history(rpc, alice, &id);
    assert_eq!(texts, (1..40).map(|n| (n, n.to_string())).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_a_gateway_leaves_behind_is_taken_out() {
    let mut world = World::new();
    let (alice, bob, _) = two(&mut world, &[]);
    assert_eq!((world.connections(alice), world.connections(bob)), (1, 1));
    world.leave();
    let until = Instant::now() + crate::world::LIMIT;
    while world.connections(alice) + world.connections(bob) > 0 {
        assert!(Instant::now() < until, "entries of a gateway that is gone stay");
        std::thread::sleep(Duration::from_millis(50));
    }
}
