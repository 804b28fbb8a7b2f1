//! The pipeline with the real store.
#![allow(missing_docs)]

mod common;

use common::{Harness, batch, failure, frame, seq};
use proto::v1::{UpstreamFrame, call::Request, call_reply::Reply};

/// Alice, Bob and Eve; Alice and Bob share `dm_1_2`.
fn three() -> (Harness, u64, u64, u64) {
    let h = Harness::new();
    let users = h.users(&["alice", "bob", "eve"]);
    assert_eq!(users, [1, 2, 3]);
    (h, 1, 2, 3)
}

#[test]
fn seqs_are_dense_per_conversation_and_go_on_after_a_restart() {
    let (mut h, alice, bob, eve) = three();
    for round in 0..3u64 {
        let frames = (0..30u64).map(|n| {
            let (user, conversation) =
                [(alice, "dm_1_2"), (bob, "dm_1_2"), (eve, "dm_1_3")][n as usize % 3];
            frame(n as u32, user, conversation, &format!("m-{round}-{n}"), "x")
        });
        let replies = h.tick(vec![batch(0, frames.collect())]);
        let of = |keep: &dyn Fn(usize) -> bool| -> Vec<u64> {
            replies
                .iter()
                .enumerate()
                .filter(|(at, _)| keep(*at))
                .map(|(_, reply)| seq(reply))
                .collect()
        };
        let first = round * 20 + 1;
        assert_eq!(of(&|at| at % 3 != 2), (first..first + 20).collect::<Vec<_>>());
        let first = round * 10 + 1;
        assert_eq!(of(&|at| at % 3 == 2), (first..first + 10).collect::<Vec<_>>());
        h.restart();
    }
}

#[test]
fn message_ids_rise_also_across_restarts() {
    let (mut h, alice, ..) = three();
    let mut newest = 0;
    for n in 0..5 {
        let ack = h.send(alice, "dm_1_2", &format!("m-{n}"), "x").ack.unwrap();
        assert!(ack.message_id > newest);
        assert!(ack.created_at_ms > 1_700_000_000_000);
        newest = ack.message_id;
        h.restart();
    }
}

#[test]
fn a_retry_gets_the_same_answer_and_has_no_second_effect() {
    let (mut h, alice, bob, _) = three();
    h.login_as(bob, 1, 5);
    let id = "0190a6b2-7c3d-7e4f-8a9b-0c1d2e3f4a5b";
    let first = h.send(alice, "dm_1_2", id, "once");
    assert_eq!(h.delivered().len(), 1);
    for round in 0..2 {
        // The second round meets an empty cache: the index of sends answers.
        for n in 0..10 {
            let new = format!("new-{round}-{n}");
            let frames = vec![
                frame(1, alice, "dm_1_2", &new, "y"),
                frame(0, alice, "dm_1_2", id, "once"),
                frame(0, alice, "dm_1_2", id, "changed"),
            ];
            let replies = h.tick(vec![batch(0, frames)]);
            assert_eq!(seq(&replies[0]), 2 + round * 10 + n);
            assert_eq!((&replies[1].ack, &replies[2].ack), (&first.ack, &first.ack));
            assert_eq!(h.delivered().iter().filter(|(_, m)| m.client_msg_id == id).count(), 0);
        }
        h.restart();
        h.login_as(bob, 1, 5);
    }
    assert_eq!(h.count("SELECT count(*) FROM dedupe WHERE length(client_msg_id) = 16"), 1);
}

#[test]
fn duplicates_inside_a_tick_are_one_message() {
    let (h, alice, bob, _) = three();
    h.login_as(bob, 0, 7);
    let frames: Vec<UpstreamFrame> =
        (0..100).map(|_| frame(3, alice, "dm_1_2", "same", "z")).collect();
    let replies = h.tick(vec![batch(0, frames[..50].to_vec()), batch(0, frames[50..].to_vec())]);
    assert_eq!(replies.len(), 100);
    assert!(replies.iter().all(|reply| reply == &replies[0] && seq(reply) == 1));
    assert_eq!(h.delivered().len(), 1);
    assert_eq!(h.count("SELECT sum(count) FROM chunks"), 1);
}

#[test]
fn the_same_client_id_of_others_or_elsewhere_is_another_message() {
    let (h, alice, bob, _) = three();
    let frames = vec![
        frame(0, alice, "dm_1_2", "id", "a"),
        frame(1, bob, "dm_1_2", "id", "b"),
        frame(2, alice, "dm_1_3", "id", "c"),
    ];
    let replies = h.tick(vec![batch(0, frames)]);
    assert_eq!(replies.iter().map(seq).collect::<Vec<_>>(), [1, 2, 1]);
}

#[test]
fn what_may_not_be_sent_is_refused_by_name_and_the_rest_goes_on() {
    let (h, alice, _, eve) = three();
    h.send(alice, "dm_1_2", "first", "x");
    let long = "x".repeat(4097);
    let exact = "x".repeat(4096);
    let edited = |id: &str, change: &dyn Fn(&mut proto::v1::Send)| {
        let mut frame = frame(0, alice, "dm_1_2", id, "x");
        change(frame.send.as_mut().unwrap());
        frame
    };
    let cases = [
        (frame(0, eve, "dm_1_2", "a", "x"), "NOT_A_MEMBER"),
        (frame(0, eve, "dm_1_9", "a", "x"), "CONVERSATION_NOT_FOUND"),
        (frame(0, alice, "dm_1_9", "a", "x"), "CONVERSATION_NOT_FOUND"),
        (frame(0, alice, "dm_2_1", "a", "x"), "CONVERSATION_NOT_FOUND"),
        (frame(0, alice, "group_101", "a", "x"), "CONVERSATION_NOT_FOUND"),
        (frame(0, alice, "", "a", "x"), "BAD_REQUEST"),
        (frame(0, alice, &"g".repeat(65), "a", "x"), "BAD_REQUEST"),
        (frame(0, alice, "dm_1_2", "", "x"), "BAD_REQUEST"),
        (frame(0, alice, "dm_1_2", &"i".repeat(65), "x"), "BAD_REQUEST"),
        (frame(0, alice, "dm_1_2", "a\nb", "x"), "BAD_REQUEST"),
        (frame(0, alice, "dm_1_2", "big", &long), "TOO_LARGE"),
        (edited("type", &|send| send.msg_type = 50), "BAD_REQUEST"),
        (edited("utf8", &|send| send.content = vec![0xff].into()), "BAD_REQUEST"),
        (UpstreamFrame { slot: 0, generation: 1, user_id: alice, send: None }, "BAD_REQUEST"),
        (frame(0, 999, "dm_1_999", "a", "x"), "USER_NOT_FOUND"),
        (frame(0, alice, "dm_1_2", "exact", &exact), ""),
        (
            edited("any", &|send| {
                send.msg_type = 100;
                send.content = vec![0xff, 0].into();
            }),
            "",
        ),
        (edited("absent", &|send| send.msg_type = 0), ""),
        (frame(0, alice, "dm_1_2", "text", "\0 <b> '; DROP TABLE users; -- \u{1F600}"), ""),
    ];
    let replies = h.tick(vec![batch(0, cases.iter().map(|case| case.0.clone()).collect())]);
    for (reply, (frame, name)) in replies.iter().zip(&cases) {
        let got = reply.failure.as_ref().map_or("", |failure| failure.name.as_str());
        assert_eq!(got, *name, "{frame:?}");
        let id = frame.send.as_ref().map_or("", |send| send.client_msg_id.as_str());
        assert_eq!(reply.ack.as_ref().unwrap().client_msg_id, id);
        if !name.is_empty() {
            assert_eq!(reply.ack.as_ref().unwrap().seq, 0);
        }
    }
    assert_eq!(
        replies.iter().filter(|reply| reply.failure.is_none()).map(seq).collect::<Vec<_>>(),
        [2, 3, 4, 5]
    );
}

#[test]
fn content_comes_back_byte_for_byte() {
    let (h, alice, bob, _) = three();
    let text = "\0 <b>&amp; '; DROP TABLE users; -- \u{1F600} \u{202e}";
    h.send(alice, "dm_1_2", "m", text);
    let pull = proto::v1::Pull { conversation_id: "dm_1_2".into(), ..Default::default() };
    let Reply::Page(page) = h.call(bob, Request::Pull(pull)) else { panic!("no page") };
    assert_eq!(page.items[0].content, text.as_bytes());
    assert_eq!(page.items[0].sender, "alice");
}

#[test]
fn every_device_of_every_member_gets_it_but_the_sending_connection() {
    let (h, alice, bob, eve) = three();
    for (user, shard, slot) in [(alice, 0, 0), (alice, 1, 1), (bob, 0, 2), (bob, 1, 3), (eve, 0, 4)]
    {
        h.login_as(user, shard, slot);
    }
    let reply = h.send(alice, "dm_1_2", "m", "hi");
    let mut got: Vec<_> = h.delivered().iter().map(|(to, _)| *to).collect();
    got.sort_unstable();
    assert_eq!(got, [(0, 2), (1, 1), (1, 3)]);
    let ack = reply.ack.unwrap();
    for (_, message) in h.delivered() {
        assert_eq!(
            (message.seq, message.message_id, message.created_at_ms),
            (1, ack.message_id, ack.created_at_ms)
        );
        assert_eq!((message.sender_id, message.sender.as_str()), (alice, "alice"));
        assert_eq!(
            (message.conversation_id.as_str(), message.client_msg_id.as_str()),
            ("dm_1_2", "m")
        );
    }
    let batches = h.sink.batches.lock().unwrap();
    assert_eq!(batches.len(), 2, "one batch a shard");
}

#[test]
fn a_tick_that_cannot_be_stored_is_refused_whole_and_the_next_one_goes_on() {
    let (h, alice, bob, _) = three();
    h.login_as(bob, 0, 9);
    h.send(alice, "dm_1_2", "before", "x");
    let database = h.database();
    for table in ["chunks", "dedupe"] {
        let trigger = format!(
            "CREATE TRIGGER stop BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'injected'); END"
        );
        database.execute_batch(&trigger).unwrap();
        let frames = vec![
            frame(0, alice, "dm_1_2", "a", "x"),
            frame(1, bob, "dm_1_2", "b", "x"),
            frame(0, alice, "dm_1_2", "before", "x"),
        ];
        let replies = h.tick(vec![batch(0, frames)]);
        for reply in &replies[..2] {
            assert_eq!(failure(reply).name, "INTERNAL");
            assert!(failure(reply).temporary && failure(reply).retry_after_ms > 0);
        }
        assert_eq!(seq(&replies[2]), 1, "a known retry needs no write");
        assert!(h.delivered().is_empty());
        database.execute_batch("DROP TRIGGER stop").unwrap();
    }
    let replies = h.tick(vec![batch(
        0,
        vec![frame(0, alice, "dm_1_2", "a", "x"), frame(1, bob, "dm_1_2", "b", "x")],
    )]);
    assert_eq!(replies.iter().map(seq).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn dev_login_makes_groups_and_takes_senders_in() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    let bob = h.login("bob", "", 0, 2).user_id;
    assert_eq!(seq(&h.send(alice, "group_101", "a", "x")), 1);
    let frames = vec![
        frame(2, bob, "group_101", "b", "x"),
        frame(2, bob, "group_101", "c", "x"),
        frame(2, bob, "group_102", "d", "x"),
    ];
    let replies = h.tick(vec![batch(0, frames)]);
    assert_eq!(replies.iter().map(seq).collect::<Vec<_>>(), [2, 3, 1]);
    assert_eq!(h.delivered().len(), 2, "alice is told");
    let members = "SELECT count(*) FROM members JOIN conversations c ON c.id = conversation WHERE c.conversation_id = 'group_101' AND c.member_count = 2";
    assert_eq!(h.count(members), 2);
    assert_eq!(failure(&h.send(alice, "dm_nonsense", "n", "x")).name, "CONVERSATION_NOT_FOUND");
}

#[test]
fn joins_and_leaves_are_seen_by_the_next_message() {
    let h = Harness::dev();
    let users: Vec<u64> =
        (0..3).map(|n| h.login(&format!("u{n}"), "", 0, 10 + n).user_id).collect();
    let create = proto::v1::CreateConversation {
        r#type: "group".into(),
        conversation_id: "g".into(),
        members: vec!["u1".into()],
        ..Default::default()
    };
    h.call(users[0], Request::Create(create));
    assert_eq!(seq(&h.send(users[0], "g", "1", "x")), 1);
    assert_eq!(h.delivered().len(), 2);
    assert_eq!(failure(&h.send(users[2], "g", "2", "x")).name, "NOT_A_MEMBER");
    let membership = || proto::v1::Membership { conversation_id: "g".into(), ..Default::default() };
    h.call(users[2], Request::Join(membership()));
    assert_eq!(seq(&h.send(users[2], "g", "3", "x")), 2);
    assert_eq!(h.delivered().len(), 3);
    h.call(users[1], Request::Leave(membership()));
    h.send(users[0], "g", "4", "x");
    assert_eq!(h.delivered().len(), 2);
    assert_eq!(failure(&h.send(users[1], "g", "5", "x")).name, "NOT_A_MEMBER");
}

#[test]
fn small_caches_change_nothing() {
    let h = Harness::with(|config| {
        config.dev_login = true;
        config.cached_conversations = 2;
        config.cached_members = 3;
        config.recent_sends = 2;
        config.tick_max_messages = 5;
    });
    let users: Vec<u64> = (0..4).map(|n| h.login(&format!("u{n}"), "", 0, n).user_id).collect();
    for round in 0..2 {
        for n in 0..50u64 {
            let conversation = format!("group_{}", n % 7);
            let reply = h.send(users[n as usize % 4], &conversation, &format!("m-{n}"), "x");
            assert_eq!(seq(&reply), n / 7 + 1, "round {round}");
        }
    }
}

#[cfg(feature = "fault-injection")]
mod faults {
    use super::*;
    use logic_svc::config::Fault;

    #[test]
    fn without_the_unique_key_a_retry_takes_effect_again() {
        let h = Harness::with(|config| {
            config.dev_login = true;
            config.fault = Some(Fault::NoUniqueKey);
        });
        let alice = h.login("alice", "", 0, 1).user_id;
        assert_eq!(seq(&h.send(alice, "g", "same", "x")), 1);
        assert_eq!(seq(&h.send(alice, "g", "same", "x")), 2);
    }

    #[test]
    fn acknowledging_early_acknowledges_what_is_lost() {
        let h = Harness::with(|config| {
            config.dev_login = true;
            config.fault = Some(Fault::AckBeforeCommit);
        });
        let alice = h.login("alice", "", 0, 1).user_id;
        h.send(alice, "g", "first", "x");
        h.database().execute_batch("CREATE TRIGGER stop BEFORE INSERT ON chunks BEGIN SELECT RAISE(ABORT, 'injected'); END").unwrap();
        assert_eq!(seq(&h.send(alice, "g", "lost", "x")), 2);
        assert_eq!(h.count("SELECT sum(count) FROM chunks"), 1);
    }
}

#[test]
fn a_group_of_a_hundred_thousand_works() {
    let h = Harness::new();
    h.users(&["alice", "bob"]);
    h.database()
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
             INSERT INTO users(id, username, nickname, created_at_ms) SELECT i, 'u' || i, '', 1 FROM n; \
             INSERT INTO conversations(id, conversation_id, type, name, owner, member_count, created_at_ms) \
             VALUES(1, 'huge', 2, '', 1, 100000, 1); \
             INSERT INTO heads VALUES(1, 0, 1); \
             INSERT INTO members SELECT 1, id, 3, 0, 1, 0 FROM users;",
        )
        .unwrap();
    for (user, slot) in [(1, 1), (2, 2), (777, 3), (100_000, 4)] {
        h.login_as(user, 0, slot);
    }
    for n in 1..=3 {
        assert_eq!(seq(&h.send(777, "huge", &format!("m{n}"), "x")), n);
        assert_eq!(h.delivered().len(), 4, "the sending connection is another one");
    }
}
