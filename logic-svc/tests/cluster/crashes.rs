//! Ends of the process at the worst moments, and a handler that panics.

use proto::ids::direct_conversation_id;

use crate::world::{World, replies_to};

/// Sends a message to a service that ends itself at `point`, and looks what its successor makes of it.
fn survives(point: &str) {
    let mut world = World::new();
    let a = world.start("a", &["--roles", "rpc"], &[]);
    let (alice, bob) = (world.login(a, "alice", 1).0, world.login(a, "bob", 2).0);
    world.report(a, &[(alice, 1), (bob, 2)]);
    let id = direct_conversation_id(alice.min(bob), alice.max(bob));
    // Offsets of both may be committed together.
    let after = if point == "before_offsets" { "1" } else { "2" };
    let env = [("CORELANE_CRASH_AT", point), ("CORELANE_CRASH_AFTER", after)];
    let doomed = world.start("doomed", &["--roles", "ingest"], &env);
    assert_eq!(world.sent((alice, 1), &id, "before").seq, 1);
    let sent = world.send((alice, 1), &id, "at the worst moment");
    assert!(!world.ended(doomed).success());
    world.start("successor", &["--roles", "ingest"], &[]);
    assert_eq!(world.acked(&sent).seq, 2, "{point}");
    assert_eq!(world.sent((bob, 2), &id, "after").seq, 3, "{point}");
    assert!(world.targets(&sent).contains(&2), "{point}: delivered");
    let places: Vec<u64> =
        replies_to(&world.mail, &sent).into_iter().map(|reply| reply.ack.unwrap().seq).collect();
    assert!(places.iter().all(|seq| *seq == 2), "{point}: {places:?}");
    let texts: Vec<String> = world.history(a, bob, &id).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["before", "at the worst moment", "after"], "{point}: each once");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn an_end_before_the_commit() {
    survives("before_commit");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn an_end_after_the_commit() {
    survives("after_commit");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn an_end_after_the_publishing() {
    survives("after_publish");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn an_end_before_the_offsets() {
    survives("before_offsets");
}

/// Control run: what the tests above would see if nothing recognised a record that is read again.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn without_the_unique_key_a_record_that_is_read_again_is_stored_again() {
    let mut world = World::new();
    let env = [("CORELANE_FAULT", "no_dedupe")];
    let a = world.start("a", &[], &env);
    let alice = world.login(a, "alice", 1).0;
    let id = direct_conversation_id(alice, alice);
    let (first, payload) = world.message((alice, 1), &id, "twice");
    world.produce(&id, &payload);
    world.acked(&first);
    world.produce(&id, &payload);
    world.wait_for("two answers", |mail| (replies_to(mail, &first).len() == 2).then_some(()));
    assert_eq!(world.history(a, alice, &id).len(), 2, "this is what the key is for");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_message_that_makes_the_handler_panic_is_set_apart() {
    let mut world = World::new();
    let a = world.start("a", &[], &[("CORELANE_PANIC_ON", "poison")]);
    let alice = world.login(a, "alice", 1).0;
    let id = direct_conversation_id(alice, alice);
    let poison = world.send((alice, 1), &id, "poison");
    assert_eq!(world.sent((alice, 1), &id, "behind it").seq, 1);
    assert!(replies_to(&world.mail, &poison).is_empty());
    let dead = world.read(&world.kafka.dead_letters(), 1);
    let letter =
        <proto::v1::DeadLetter as prost::Message>::decode(dead[0].payload.clone()).unwrap();
    assert_eq!(letter.attempts, 3);
    assert!(letter.reason.contains("panicked"), "{}", letter.reason);
}
