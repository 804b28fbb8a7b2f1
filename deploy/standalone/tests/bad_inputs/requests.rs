//! Requests that are well-formed JSON and still not to be granted.

use codec::ws::Opcode;
use serde_json::json;

use crate::common::{DEV, PATIENCE, Server, data_dir};
use crate::peer::Expect::{Alive, Close, Error};
use crate::peer::Stage::{Json, Upgraded};
use crate::peer::{Expect, frame};
use crate::table::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let ask = |name: &str, stage, request: serde_json::Value, expect: Expect| {
        row(name, stage, frame(Opcode::Text, request.to_string().as_bytes()), expect)
    };
    let send = |conversation: &str, content: &str| json!({"cmd":2,"msg_id":"m","conversation_id":conversation,"payload":{"content":content}});
    let token = |token: &str| json!({"cmd":1,"payload":{"token":token}});
    vec![
        ask("a send before login", Upgraded, send("bad", "x"), Error("UNAUTHENTICATED")),
        ask(
            "a pull before login",
            Upgraded,
            json!({"cmd":3,"conversation_id":"bad"}),
            Error("UNAUTHENTICATED"),
        ),
        ask("a token that is none", Upgraded, token("a.b.c"), Close(&[4200])),
        ask("a token of 60,000 bytes", Upgraded, token(&"a".repeat(60_000)), Close(&[4200])),
        ask(
            "an unsigned token",
            Upgraded,
            token("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIiwiZXhwIjo5OTk5OTk5OTk5fQ."),
            Close(&[4200]),
        ),
        ask("a second login", Json, token("a.b.c"), Close(&[4901])),
        ask("an empty conversation id", Json, send("", "x"), Error("BAD_REQUEST")),
        ask(
            "a conversation id of 65 bytes",
            Json,
            send(&"c".repeat(65), "x"),
            Error("BAD_REQUEST"),
        ),
        ask("a conversation id with NUL", Json, send("a\u{0}b", "x"), Error("BAD_REQUEST")),
        ask("content of 4097 bytes", Json, send("bad", &"x".repeat(4_097)), Error("TOO_LARGE")),
        ask(
            "a group one is not in",
            Json,
            json!({"cmd":7,"conversation_id":"no-such"}),
            Error("CONVERSATION_NOT_FOUND"),
        ),
        ask("an unknown command", Json, json!({"cmd":99}), Error("UNKNOWN_COMMAND")),
        ask("a server's command", Json, json!({"cmd":4,"payload":{}}), Error("UNKNOWN_COMMAND")),
        ask("an array", Json, json!([1, 2]), Error("BAD_REQUEST")),
        ask("unknown keys", Json, json!({"cmd":0,"admin":true,"__proto__":{"x":1}}), Alive),
        row(
            "JSON nested 10,000 deep",
            Json,
            frame(
                Opcode::Text,
                format!(r#"{{"cmd":2,"payload":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000))
                    .as_bytes(),
            ),
            Error("BAD_REQUEST"),
        ),
    ]
}

/// 100 sends of one message over three connections: one place, one effect, one delivery.
#[test]
fn a_message_repeated_a_hundred_times_is_one() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut bob = server.dev_user("bob");
    // Under dev login a look into a group makes one a member.
    bob.pull("once", 0, 1);
    let mut acks = Vec::new();
    for _ in 0..3 {
        let mut alice = server.dev_user("alice");
        for _ in 0..34 {
            alice.json(&json!({"cmd":2,"msg_id":"the-one","conversation_id":"once","payload":{"content":"x"}}));
        }
        acks.extend((0..34).map(|_| alice.next().unwrap()));
    }
    assert!(acks.iter().all(|ack| *ack == acks[0] && ack["code"] == 0), "{:?}", acks[0]);
    let mut pushes = 0;
    bob.json(&json!({"cmd":0}));
    loop {
        let frame = bob.next().unwrap();
        match frame["cmd"].as_u64() {
            Some(4) => pushes += 1,
            Some(0) => break,
            _ => {}
        }
    }
    assert_eq!(pushes, 1);
    assert_eq!(bob.pull("once", 0, 100)["payload"].as_array().unwrap().len(), 1);
}

/// Content is content: it comes out as it went in, whatever it looks like.
#[test]
fn strange_content_comes_out_as_it_went_in() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut alice = server.dev_user("alice");
    let contents = [
        "\u{0}\u{1}\u{7f}",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "'; DROP TABLE messages; --",
        "👩‍👩‍👧‍👦 \u{202e}drawkcab \u{feff}",
        "\\\" \\u0000 %00 %s %n ${jndi:ldap://x}",
        "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ];
    for (number, content) in contents.iter().enumerate() {
        assert_eq!(alice.send("strange", &format!("m{number}"), content)["code"], 0, "{content}");
    }
    let page = alice.pull("strange", 0, 100);
    let back: Vec<&str> = page["payload"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["content"].as_str().unwrap())
        .collect();
    assert_eq!(back, contents);
}

/// One device more than allowed is told so and when to come back; the same device takes its old place, and
/// one that ends makes room.
#[test]
fn a_user_has_so_many_devices() {
    let data = data_dir();
    let options = [DEV, &["--max-connections-per-user", "2"]].concat();
    let server = Server::start(data.path(), &options);
    let device = |name: &str| server.socket(&format!("/ws?user_id=alice&device_id={name}"));
    let (mut phone, mut tablet) = (device("phone"), device("tablet"));
    phone.expect_silence();
    tablet.expect_silence();
    let mut third = device("third");
    let goaway = third.next().unwrap();
    assert_eq!((&goaway["cmd"], &goaway["code"]), (&json!(11), &json!(4104)));
    assert_eq!(goaway["reconnect_after_ms"], 30_000);
    assert_eq!(third.next(), Err(4104));
    server.dev_user("bob").expect_silence();
    let mut phone_again = device("phone");
    phone_again.expect_silence();
    assert_eq!(phone.close_code(), 4900);
    tablet.expect_silence();
    drop(tablet);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let mut third = device("third");
        third.json(&json!({"cmd":0}));
        if third.next().is_ok_and(|frame| frame["cmd"] == 0) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no room was made");
    }
    phone_again.expect_silence();
}
