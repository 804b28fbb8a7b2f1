//! Calls of gateways that begin and end a connection: who gets in, who is told, what is left.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeSet;

use common::{Harness, call};
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{Closed, Failure, Hello};

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
