//! Calls of gateways that begin and end a connection: who gets in, who is told, what is left.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{Harness, call};
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{Call, CallReply, Closed, Failure, Hello, Sync};

fn failed(reply: Reply) -> Failure {
    match reply {
        Reply::Failure(failure) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn a_name_logs_in_only_under_dev_login() {
    let hello = |name: &str| Hello { dev_user: name.into(), ..Default::default() };
    let h = Harness::new();
    assert_eq!(failed(h.call(0, Request::Login(hello("alice")))).name, "UNAUTHENTICATED");
    assert_eq!(h.count("SELECT count(*) FROM users"), 0);
    let h = Harness::dev();
    let welcome = h.login("alice", "", 0, 0);
    assert_eq!((welcome.username.as_str(), welcome.heartbeat_ms), ("alice", 30_000));
    assert_eq!(h.login("alice", "", 0, 1).user_id, welcome.user_id);
    assert_eq!(failed(h.call(0, Request::Login(hello("al ice")))).name, "BAD_REQUEST");
    assert_eq!(failed(h.call(0, Request::Login(hello("")))).name, "UNAUTHENTICATED");
}

#[test]
fn only_good_tokens_log_in() {
    let h = Harness::new();
    h.users(&["alice"]);
    let hello = |token: String| Request::Login(Hello { token, ..Default::default() });
    assert!(matches!(h.call(0, hello(h.token(1))), Reply::Welcome(_)));
    let now = 1_900_000_000u64;
    let old = h.sign(&serde_json::json!({"iss":"corelane","aud":"corelane","sub":"1","iat":1,"nbf":1,"exp":now - 900_000_000,"epoch":0}));
    for token in ["x".to_owned(), "a".repeat(1024 * 1024), old, h.token(99)] {
        assert_eq!(failed(h.call(0, hello(token))).name, "UNAUTHENTICATED");
    }
    let long = Hello { token: h.token(1), device_id: "d".repeat(65), ..Default::default() };
    assert_eq!(failed(h.call(0, Request::Login(long))).name, "TOO_LARGE");
}

#[test]
fn the_same_device_takes_over_and_the_old_connection_is_told() {
    let h = Harness::dev();
    let alice = h.login("alice", "phone", 0, 1).user_id;
    let bob = h.login("bob", "phone", 0, 2).user_id;
    h.login("alice", "web", 0, 3);
    h.login("alice", "phone", 1, 4);
    let kicks = h.sink.kicks.lock().unwrap().clone();
    assert_eq!(kicks.len(), 1);
    assert_eq!(
        (kicks[0].shard, kicks[0].slot, kicks[0].generation, kicks[0].code),
        (0, 1, 1, 4900)
    );
    h.send(bob, &format!("dm_{alice}_{bob}"), "m", "x");
    let got: BTreeSet<_> = h.delivered().iter().map(|(to, _)| *to).collect();
    // bob sent on slot 0, so his own connection of slot 2 gets it too
    assert_eq!(got, BTreeSet::from([(0, 2), (0, 3), (1, 4)]));
}

#[test]
fn a_closed_connection_gets_nothing_more_and_a_late_closing_hits_nobody() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    let bob = h.login("bob", "", 0, 2).user_id;
    let dm = format!("dm_{alice}_{bob}");
    let closed = |generation, user_id| proto::v1::Call {
        shard: 0,
        slot: 2,
        generation,
        user_id,
        request: Some(Request::Closed(Closed {})),
    };
    assert!(h.calls(vec![closed(7, bob)]).is_empty(), "no answer, and another generation");
    h.send(alice, &dm, "1", "x");
    assert_eq!(h.delivered().len(), 2, "bob and the other connection of alice");
    // The gateway may not know the user: the login was under way when the connection ended.
    h.calls(vec![closed(1, 0)]);
    h.send(alice, &dm, "2", "x");
    assert_eq!(h.delivered().len(), 1);
}

#[test]
fn a_login_and_its_end_in_one_batch_leave_nothing() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    let hello = Hello { dev_user: "bob".into(), ..Default::default() };
    let calls =
        vec![call(0, 2, 0, Request::Login(hello)), call(0, 2, 0, Request::Closed(Closed {}))];
    assert_eq!(h.calls(calls).len(), 1);
    let bob = alice + 1;
    h.send(alice, &format!("dm_{alice}_{bob}"), "1", "x");
    assert_eq!(h.delivered().len(), 1);
}

/// A login by name and one by token, on shard 0 unless said otherwise.
fn by_name(slot: u32, name: &str, device: &str) -> Call {
    let hello = Hello { dev_user: name.into(), device_id: device.into(), ..Default::default() };
    call(0, slot, 0, Request::Login(hello))
}

fn by_token(slot: u32, token: &str) -> Call {
    call(0, slot, 0, Request::Login(Hello { token: token.into(), ..Default::default() }))
}

/// What each slot was told: the user's id, or the name of the failure.
fn told(replies: &[CallReply]) -> Vec<(u32, String)> {
    let one = |reply: &CallReply| match reply.reply.as_ref().unwrap() {
        Reply::Welcome(welcome) => format!("{} {}", welcome.user_id, welcome.username),
        Reply::Failure(failure) => failure.name.clone(),
        other => panic!("{other:?}"),
    };
    replies.iter().map(|reply| (reply.slot, one(reply))).collect()
}

#[test]
fn good_and_bad_logins_of_one_batch_each_get_their_own_answer() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    let commits = || h.count("SELECT count(*) FROM users");
    let good = h.token(alice);
    let mut forged = good.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    let long = Hello { device_id: "d".repeat(65), dev_user: "x".into(), ..Default::default() };
    h.sink.handovers.lock().unwrap().clear();
    let replies = h.calls(vec![
        by_token(10, &good),
        by_name(11, "bob", ""),
        by_token(12, &forged),
        by_name(13, "not a name", ""),
        by_token(14, &h.token(99)),
        by_name(15, "alice", ""),
        call(0, 16, 0, Request::Login(long)),
        by_name(17, "carol", ""),
        by_token(18, &"x".repeat(1024 * 1024)),
        by_name(19, "bob", ""),
        by_token(20, &good),
        by_name(21, "", ""),
    ]);
    let bad = "UNAUTHENTICATED";
    let want = [
        (10, "1 alice"),
        (11, "2 bob"),
        (12, bad),
        (13, "BAD_REQUEST"),
        (14, bad),
        (15, "1 alice"),
        (16, "TOO_LARGE"),
        (17, "3 carol"),
        (18, bad),
        (19, "2 bob"),
        (20, "1 alice"),
        (21, bad),
    ];
    assert_eq!(told(&replies), want.map(|(slot, what)| (slot, what.to_owned())));
    assert_eq!(*h.sink.handovers.lock().unwrap(), [12], "all answers in one go");
    assert_eq!(commits(), 3, "who was refused was not made");
}

#[test]
fn one_device_twice_in_one_batch_has_one_winner_and_the_other_is_told() {
    let h = Harness::dev();
    let bob = h.login("bob", "", 1, 1).user_id;
    let replies = h.calls(vec![
        by_name(1, "alice", "phone"),
        by_name(2, "alice", "web"),
        by_name(3, "alice", "phone"),
        by_name(4, "alice", "phone"),
    ]);
    let alice = bob + 1;
    let dm = format!("dm_{bob}_{alice}");
    let welcome = format!("{alice} alice");
    assert_eq!(told(&replies), [1, 2, 3, 4].map(|slot| (slot, welcome.clone())));
    let kicked: Vec<_> =
        h.sink.kicks.lock().unwrap().iter().map(|kick| (kick.slot, kick.code)).collect();
    assert_eq!(kicked, [(1, 4900), (3, 4900)], "each by the one behind it");
    h.send(bob, &dm, "m", "x");
    let got: BTreeSet<_> = h.delivered().iter().map(|(to, _)| *to).collect();
    assert_eq!(got, BTreeSet::from([(0, 2), (0, 4), (1, 1)]));
}

#[test]
fn a_storm_of_logins_and_ends_loses_nobody_and_leaves_nobody() {
    const STORM: u32 = 3000;
    let h = Harness::dev();
    let alice = h.login("alice", "", 1, 0).user_id;
    let closed = |slot| call(0, slot, 0, Request::Closed(Closed {}));
    let name = |slot: u32| format!("user{}", slot % 500);
    // Every third ends in the batch it came with.
    let storm = (0..STORM).flat_map(|slot| {
        let end = (slot % 3 == 0).then(|| closed(slot));
        std::iter::once(by_name(slot, &name(slot), "")).chain(end)
    });
    let slots: Vec<u32> = h.calls(storm.collect()).iter().map(|reply| reply.slot).collect();
    assert_eq!(slots, (0..STORM).collect::<Vec<_>>());
    assert_eq!(h.count("SELECT count(*) FROM users"), 501);
    let online = |h: &Harness, id: &str| {
        h.send(alice, &format!("dm_{alice}_{}", alice + 2), id, "x");
        h.delivered().iter().filter(|((shard, _), _)| *shard == 0).count()
    };
    // user1 is slots 1, 501, 1001 ... 2501: six of them, two divisible by three.
    assert_eq!(online(&h, "before"), 4);
    assert!(h.calls((0..STORM).map(closed).collect()).is_empty());
    assert_eq!(online(&h, "after"), 0);
}

#[test]
fn requests_of_those_who_are_in_go_before_logins() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    let sync = Request::Sync(Sync { request_id: 5, ..Default::default() });
    let replies = h.calls(vec![by_name(2, "bob", ""), call(0, 1, alice, sync)]);
    let slots: Vec<_> = replies.iter().map(|reply| reply.slot).collect();
    assert_eq!(slots, [1, 2]);
}

#[test]
fn a_token_shown_before_is_refused_after_its_user_logged_out() {
    let h = Harness::new();
    h.users(&["alice", "bob"]);
    let (alice, bob) = (h.token(1), h.token(2));
    let all = |h: &Harness| {
        told(&h.calls(vec![by_token(1, &alice), by_token(2, &bob), by_token(3, &alice)]))
    };
    let names = |what: [&str; 3]| [1, 2, 3].map(|slot| (slot, what[slot as usize - 1].to_owned()));
    assert_eq!(all(&h), names(["1 alice", "2 bob", "1 alice"]));
    assert_eq!(all(&h), names(["1 alice", "2 bob", "1 alice"]), "remembered");
    h.database().execute("UPDATE users SET token_epoch = 1 WHERE id = 1", []).unwrap();
    let bad = "UNAUTHENTICATED";
    assert_eq!(all(&h), names([bad, "2 bob", bad]));
    h.database().execute("DELETE FROM users WHERE id = 2", []).unwrap();
    assert_eq!(all(&h), names([bad, bad, bad]));
}

#[test]
fn answers_are_handed_over_before_the_pipeline_sees_the_connection() {
    let h = Arc::new(Harness::dev());
    let alice = h.login("alice", "", 0, 1).user_id;
    // Long enough for several ticks of the pipeline.
    h.sink.slow.store(true, Ordering::Relaxed);
    let storms = std::thread::spawn({
        let h = Arc::clone(&h);
        move || {
            for round in 0..10 {
                let logins = (0..20).map(|n| by_name(100 + round * 20 + n, "bob", "")).collect();
                h.service().run_calls(common::Once(logins));
            }
        }
    });
    let dm = format!("dm_{alice}_{}", alice + 1);
    let mut number = 0;
    while !storms.is_finished() {
        number += 1;
        let frames = vec![common::frame(1, alice, &dm, &format!("m{number}"), "x")];
        h.tick(vec![common::batch(0, frames)]);
        // Taken before the answers are looked at, as a shard takes its mail.
        let delivered = h.delivered();
        let answered: BTreeSet<u32> =
            h.sink.replies.lock().unwrap().iter().map(|reply| reply.slot).collect();
        for ((_, slot), _) in delivered {
            assert!(slot == 1 || answered.contains(&slot), "{slot} got a message unanswered");
        }
    }
    storms.join().unwrap();
}
