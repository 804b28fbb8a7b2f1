//! The outside surface as documented, against the started binary: the examples as written, and each rule.

mod common;

use common::{Server, data_dir, message};
use serde_json::{Value, json};

/// The four examples, letter for letter, with nothing but a WebSocket client and a login by name.
#[test]
fn the_examples_work_as_written() {
    let data = data_dir();
    let server = Server::start(data.path(), &["--dev-login"]);
    let mut alice = server.dev_user("alice");
    alice.text(r#"{"cmd":0}"#);
    assert_eq!(alice.next().unwrap(), json!({"cmd":0,"code":0}));
    alice.text(r#"{"cmd":2,"msg_id":"uuid-client-generated","conversation_id":"group_101","payload":{"content":"Hello World","msg_type":1}}"#);
    let ack = alice.next().unwrap();
    assert_eq!(
        (&ack["cmd"], &ack["code"], &ack["msg_id"], &ack["seq"]),
        (&json!(2), &json!(0), &json!("uuid-client-generated"), &json!(1))
    );
    alice.text(r#"{"cmd":3,"conversation_id":"group_101","cursor_seq":0}"#);
    let page = alice.next().unwrap();
    assert_eq!(
        (&page["cmd"], &page["code"], &page["next_cursor_seq"], &page["has_more"]),
        (&json!(3), &json!(0), &json!(1), &json!(false))
    );
    let item = &page["payload"][0];
    assert_eq!(
        (&item["msg_id"], &item["seq"], &item["content"]),
        (&json!("uuid-client-generated"), &json!(1), &json!("Hello World"))
    );
}

#[test]
fn a_login_by_command_tells_user_and_heartbeat() {
    let data = data_dir();
    let server = Server::start(data.path(), &[]);
    let login = server.user("alice");
    let mut client = server.socket("/ws");
    let answer = client.ask(&json!({"cmd":1,"payload":{"token":login["access_token"]}}));
    assert_eq!((&answer["cmd"], &answer["code"]), (&json!(1), &json!(0)));
    assert_eq!(answer["payload"]["user_id"], login["user_id"]);
    assert_eq!(answer["payload"]["heartbeat_ms"], 30_000);
}

#[test]
fn a_login_by_subprotocol_is_answered_with_the_first_alone() {
    let data = data_dir();
    let server = Server::start(data.path(), &[]);
    let token = server.user("alice")["access_token"].as_str().unwrap().to_owned();
    let offered = format!("corelane.json.v1, bearer.{token}");
    let mut client = server.socket_with("/ws", &[("Sec-WebSocket-Protocol", &offered)]).unwrap();
    assert_eq!(client.protocol.as_deref(), Some("corelane.json.v1"));
    client.expect_silence();
    assert_eq!(client.ask(&json!({"cmd":5}))["code"], 0);
}

#[test]
fn a_bad_token_closes_with_authenticate_anew() {
    let data = data_dir();
    let server = Server::start(data.path(), &[]);
    let mut by_protocol = server
        .socket_with("/ws", &[("Sec-WebSocket-Protocol", "corelane.json.v1, bearer.a.b.c")])
        .unwrap();
    assert_eq!(by_protocol.close_code(), 4200);
    let mut by_command = server.socket("/ws");
    let answer = by_command.ask(&json!({"cmd":1,"payload":{"token":"a.b.c"}}));
    assert_eq!(answer["error"]["name"], "UNAUTHENTICATED");
    assert_eq!(by_command.close_code(), 4200);
    let mut by_name = server.dev_user("alice");
    let refused = by_name.send("group_1", "m", "x");
    assert_eq!(
        refused["error"]["name"], "UNAUTHENTICATED",
        "a name is no login without --dev-login"
    );
}

#[test]
fn a_retry_has_one_effect_and_the_same_seq() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let (mut alice, mut bob) = (server.dev_user("alice"), server.dev_user("bob"));
    bob.pull("group_1", 0, 10);
    let first = alice.send("group_1", "same", "one");
    for _ in 0..100 {
        let again = alice.send("group_1", "same", "one");
        assert_eq!((&again["seq"], &again["message_id"]), (&first["seq"], &first["message_id"]));
    }
    drop(alice);
    let mut back = server.dev_user("alice");
    assert_eq!(back.send("group_1", "same", "one")["seq"], first["seq"]);
    // Another sender's same id is another message.
    assert_eq!(bob.next().unwrap()["payload"]["msg_id"], "same");
    let own = bob.send("group_1", "same", "two");
    assert_eq!(own["seq"], 2);
    assert_eq!(bob.pull("group_1", 0, 10)["payload"].as_array().unwrap().len(), 2);
    bob.expect_silence();
}

#[test]
fn the_cursor_is_exclusive_and_pages_join() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut alice = server.dev_user("alice");
    for n in 1..=120 {
        assert_eq!(alice.send("group_1", &format!("m{n}"), &format!("text {n}"))["seq"], n);
    }
    let page = alice.pull("group_1", 100, 5);
    let seqs = |page: &Value| {
        page["payload"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["seq"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(seqs(&page), [101, 102, 103, 104, 105]);
    assert_eq!((&page["next_cursor_seq"], &page["has_more"]), (&json!(105), &json!(true)));
    let end = alice.pull("group_1", 120, 5);
    assert_eq!(
        (seqs(&end), &end["next_cursor_seq"], &end["has_more"]),
        (vec![], &json!(120), &json!(false))
    );
    let default = alice.ask(&json!({"cmd":3,"conversation_id":"group_1"}));
    assert_eq!(seqs(&default), (1..=50).collect::<Vec<_>>(), "50 from the start by default");
    let backward =
        alice.ask(&json!({"cmd":3,"conversation_id":"group_1","direction":"backward","limit":3}));
    assert_eq!(seqs(&backward), [118, 119, 120]);
    let too_many = alice.pull("group_1", 0, 501);
    let count = too_many["payload"].as_array().map_or(0, Vec::len);
    assert!(too_many["code"] != 0 || count <= 500);
}

#[test]
fn every_other_device_of_every_member_gets_the_push() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut alice = server.dev_user("alice");
    let mut phone = server.dev_user("alice");
    let (mut bob, mut tablet) = (server.dev_user("bob"), server.dev_user("bob"));
    bob.pull("group_1", 0, 1);
    let mut outsider = server.dev_user("eve");
    let ack = alice.send("group_1", "m1", "hi");
    for receiver in [&mut phone, &mut bob, &mut tablet] {
        let push = receiver.next().unwrap();
        assert_eq!((&push["cmd"], &push["conversation_id"]), (&json!(4), &json!("group_1")));
        let payload = &push["payload"];
        assert_eq!(
            (&payload["msg_id"], &payload["seq"], &payload["message_id"]),
            (&json!("m1"), &ack["seq"], &ack["message_id"])
        );
        assert_eq!(
            (&payload["sender"], &payload["content"], &payload["msg_type"]),
            (&json!("alice"), &json!("hi"), &json!(1))
        );
        assert!(payload["sender_id"].is_string() && payload["created_at_ms"].is_u64());
        let pulled = receiver.pull("group_1", 0, 10)["payload"][0].clone();
        assert_eq!(&pulled, payload, "items of a pull have the same keys");
    }
    alice.expect_silence();
    outsider.expect_silence();
}

#[test]
fn failures_keep_the_connection_and_have_the_documented_shape() {
    let data = data_dir();
    let server = Server::start(data.path(), &["--message-burst", "100"]);
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let token = |login: &Value| login["access_token"].as_str().unwrap().to_owned();
    let made = server.rest(
        "POST",
        "/api/v1/conversations",
        Some(&token(&alice)),
        Some(json!({"type":"group","conversation_id":"private","members":[]})),
    );
    assert_eq!(made.status, 201, "{:?}", made.body);
    let mut client = server.socket("/ws");
    client.ask(&json!({"cmd":1,"payload":{"token":token(&bob)}}));
    for (frame, name) in [
        (
            json!({"cmd":2,"id":3,"msg_id":"m","conversation_id":"private","payload":{"content":"x"}}),
            "NOT_A_MEMBER",
        ),
        (json!({"cmd":3,"conversation_id":"private"}), "NOT_A_MEMBER"),
        (json!({"cmd":9,"conversation_id":"private"}), "NOT_A_MEMBER"),
        (
            json!({"cmd":2,"msg_id":"m","conversation_id":"nowhere","payload":{"content":"x"}}),
            "CONVERSATION_NOT_FOUND",
        ),
        (
            json!({"cmd":2,"msg_id":"m","conversation_id":"private","payload":{"content":"x".repeat(4097)}}),
            "TOO_LARGE",
        ),
        (
            json!({"cmd":2,"msg_id":"m","conversation_id":"x".repeat(65),"payload":{"content":"x"}}),
            "BAD_REQUEST",
        ),
        (
            json!({"cmd":2,"msg_id":7,"conversation_id":"private","payload":{"content":"x"}}),
            "BAD_REQUEST",
        ),
        (json!({"cmd":1000}), "UNKNOWN_COMMAND"),
    ] {
        let answer = client.ask(&frame);
        assert_eq!(
            (&answer["cmd"], &answer["error"]["name"]),
            (&frame["cmd"], &json!(name)),
            "{answer}"
        );
        assert_ne!(answer["code"], 0);
        for key in ["temporary", "retry_after_ms", "detail"] {
            assert!(!answer["error"][key].is_null(), "{answer}");
        }
    }
    for text in ["", "nonsense", "{\"cmd\":", "[1,2]"] {
        client.text(text);
        assert_eq!(client.next().unwrap()["error"]["name"], "BAD_REQUEST");
    }
    client.expect_silence();
    let history =
        server.rest("GET", "/api/v1/conversations/private/messages", Some(&token(&alice)), None);
    assert_eq!(history.body["items"], json!([]), "nothing of it was stored");
}

#[test]
fn the_rate_limit_is_one_a_second_after_five() {
    let data = data_dir();
    let server = Server::start(data.path(), &["--dev-login"]);
    let mut alice = server.dev_user("alice");
    // At once: a sixth that comes a second later is taken.
    let frames: Vec<Value> = (0..6).map(|n| message("g", &n.to_string(), "x")).collect();
    alice.together(&frames);
    let mut answers: Vec<Value> = frames.iter().map(|_| alice.next().unwrap()).collect();
    answers.sort_by_key(|answer| answer["msg_id"].to_string());
    assert!(answers[..5].iter().all(|answer| answer["code"] == 0), "{answers:?}");
    let refused = &answers[5];
    assert_eq!(
        (&refused["error"]["name"], &refused["error"]["temporary"]),
        (&json!("RATE_LIMITED"), &json!(true))
    );
    let delay = refused["error"]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1000).contains(&delay));
    std::thread::sleep(std::time::Duration::from_millis(delay));
    assert_eq!(alice.send("g", "5", "x")["seq"], 6, "what was refused left no hole");
}

#[test]
fn content_is_kept_to_the_byte() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let (mut alice, mut bob) = (server.dev_user("alice"), server.dev_user("bob"));
    bob.pull("g", 0, 1);
    let contents = [
        "\0\u{1}\u{7f}",
        "<script>alert(1)</script>",
        "'; DROP TABLE users; --",
        "🦀 e\u{301} \u{202e}",
        "\u{2028}\\\"",
        "",
        &"ü".repeat(2048),
    ];
    for (n, content) in contents.into_iter().enumerate() {
        assert_eq!(alice.send("g", &format!("m{n}"), content)["code"], 0, "{content:?}");
        assert_eq!(bob.next().unwrap()["payload"]["content"], content);
    }
    let page = alice.pull("g", 0, 50);
    let stored: Vec<_> = page["payload"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["content"].as_str().unwrap())
        .collect();
    assert_eq!(stored, contents);
}

#[test]
fn groups_are_made_joined_listed_and_left() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let (mut alice, mut bob, mut carol) =
        (server.dev_user("alice"), server.dev_user("bob"), server.dev_user("carol"));
    carol.expect_silence();
    bob.expect_silence();
    let made = alice
        .ask(&json!({"cmd":6,"id":1,"payload":{"type":"group","name":"Team","members":["bob"]}}));
    assert_eq!(
        (&made["code"], &made["id"], &made["payload"]["name"], &made["payload"]["member_count"]),
        (&json!(0), &json!(1), &json!("Team"), &json!(2))
    );
    let id = made["payload"]["conversation_id"].as_str().unwrap().to_owned();
    let told = bob.next().unwrap();
    assert_eq!((&told["cmd"], &told["conversation_id"]), (&json!(12), &json!(id)));
    let joined = carol.ask(&json!({"cmd":7,"conversation_id":id}));
    assert_eq!(joined["payload"]["member_count"], 3, "{joined}");
    assert_eq!(bob.next().unwrap()["payload"]["event"], "joined");
    assert_eq!(alice.next().unwrap()["payload"]["username"], "carol");
    assert_eq!(alice.send(&id, "m1", "hello all")["seq"], 1);
    assert_eq!(bob.next().unwrap()["payload"]["content"], "hello all");
    assert_eq!(carol.next().unwrap()["payload"]["content"], "hello all");
    let left = carol.ask(&json!({"cmd":8,"conversation_id":id}));
    assert_eq!(left["code"], 0, "{left}");
    assert_eq!(alice.next().unwrap()["payload"]["event"], "left");
    assert_eq!(carol.send(&id, "m2", "x")["error"]["name"], "NOT_A_MEMBER");
    let members = alice.ask(&json!({"cmd":9,"conversation_id":id}));
    let names: Vec<_> = members["payload"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["username"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(members["payload"][0]["role"], "owner");
}

#[test]
fn sync_lists_conversations_by_recent_activity_with_unread() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let (mut alice, mut bob) = (server.dev_user("alice"), server.dev_user("bob"));
    for conversation in ["g1", "g2", "g3"] {
        bob.pull(conversation, 0, 1);
        alice.send(conversation, &format!("first in {conversation}"), "x");
        bob.next().unwrap();
    }
    alice.send("g1", "again", "newest");
    bob.next().unwrap();
    let list = bob.ask(&json!({"cmd":5,"limit":2}));
    let ids = |list: &Value| {
        list["payload"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["conversation_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (ids(&list), &list["has_more"]),
        (vec!["g1".to_owned(), "g3".to_owned()], &json!(true))
    );
    let first = &list["payload"][0];
    assert_eq!(
        (&first["max_seq"], &first["read_seq"], &first["unread"]),
        (&json!(2), &json!(0), &json!(2))
    );
    assert_eq!(first["last_message"]["content"], "newest");
    let rest = bob.ask(&json!({"cmd":5,"limit":2,"cursor":list["next_cursor"]}));
    assert_eq!((ids(&rest), &rest["has_more"]), (vec!["g2".to_owned()], &json!(false)));
    assert_eq!(bob.ask(&json!({"cmd":13,"conversation_id":"g1","read_seq":2}))["read_seq"], 2);
    assert_eq!(
        bob.ask(&json!({"cmd":13,"conversation_id":"g1","read_seq":1}))["read_seq"],
        2,
        "it never goes back"
    );
    assert_eq!(bob.ask(&json!({"cmd":5}))["payload"][0]["unread"], 0);
}

#[test]
fn the_same_device_logging_in_again_takes_over() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut old = server.socket("/ws?user_id=alice&device_id=phone");
    old.expect_silence();
    let mut new = server.socket("/ws?user_id=alice&device_id=phone");
    assert_eq!(old.close_code(), 4900);
    new.expect_silence();
}

#[test]
fn rest_speaks_as_documented() {
    let data = data_dir();
    let server = Server::start(data.path(), &[]);
    let register = |name: &str, password: &str| {
        server.rest(
            "POST",
            "/api/v1/users",
            None,
            Some(json!({"username":name,"password":password})),
        )
    };
    let made = register("alice", "correct horse");
    assert_eq!((made.status, &made.body["username"]), (201, &json!("alice")));
    assert!(made.body["user_id"].is_string());
    for (reply, status, code) in [
        (register("alice", "correct horse"), 409, "ALREADY_EXISTS"),
        (register("no spaces", "correct horse"), 400, "BAD_REQUEST"),
        (
            server.rest(
                "POST",
                "/api/v1/login",
                None,
                Some(json!({"username":"alice","password":"wrong wrong"})),
            ),
            401,
            "UNAUTHENTICATED",
        ),
        (
            server.rest(
                "POST",
                "/api/v1/login",
                None,
                Some(json!({"username":"nobody","password":"wrong wrong"})),
            ),
            401,
            "UNAUTHENTICATED",
        ),
        (server.rest("POST", "/api/v1/login", None, Some(json!([1]))), 400, "BAD_REQUEST"),
        (server.rest("GET", "/api/v1/conversations", None, None), 401, "UNAUTHENTICATED"),
        (server.rest("GET", "/api/v1/conversations", Some("a.b.c"), None), 401, "UNAUTHENTICATED"),
    ] {
        assert_eq!((reply.status, reply.body["code"].as_str()), (status, Some(code)), "{reply:?}");
        assert!(reply.content_type.starts_with("application/problem+json"), "{reply:?}");
    }
}

#[test]
fn tokens_are_renewed_once_and_direct_conversations_are_one() {
    let data = data_dir();
    let server = Server::start(data.path(), &[]);
    let login = server.user("alice");
    server.user("bob");
    assert_eq!(login["expires_in"], 900);
    let refresh = |token: &Value| {
        server.rest("POST", "/api/v1/token/refresh", None, Some(json!({"refresh_token":token})))
    };
    let renewed = refresh(&login["refresh_token"]);
    assert_eq!(renewed.status, 200, "{renewed:?}");
    assert_eq!(refresh(&login["refresh_token"]).status, 401, "the old one is spent");
    let token = renewed.body["access_token"].as_str().unwrap();
    let direct = || {
        server.rest(
            "POST",
            "/api/v1/conversations",
            Some(token),
            Some(json!({"type":"direct","members":["bob"]})),
        )
    };
    let (first, second) = (direct(), direct());
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.body["conversation_id"], second.body["conversation_id"]);
    let list = server.rest("GET", "/api/v1/conversations?limit=10", Some(token), None);
    assert_eq!(list.body["items"][0]["name"], "bob", "{list:?}");
    assert_eq!(server.rest("GET", "/healthz", None, None).status, 200);
    assert_eq!(server.rest("GET", "/readyz", None, None).status, 200);
}

#[test]
fn what_rest_and_the_socket_say_is_the_same() {
    let data = data_dir();
    let server = Server::start(data.path(), &["--message-burst", "100"]);
    let alice = server.user("alice");
    let token = alice["access_token"].as_str().unwrap();
    server.user("bob");
    let made = server.rest(
        "POST",
        "/api/v1/conversations",
        Some(token),
        Some(json!({"type":"direct","members":["bob"]})),
    );
    let id = made.body["conversation_id"].as_str().unwrap().to_owned();
    let mut client = server.socket("/ws");
    client.ask(&json!({"cmd":1,"payload":{"token":token}}));
    (1..=3).for_each(|n| assert_eq!(client.send(&id, &format!("m{n}"), "hi")["seq"], n));
    let page = client.pull(&id, 1, 1);
    let rest = server
        .rest(
            "GET",
            &format!("/api/v1/conversations/{id}/messages?cursor_seq=1&limit=1"),
            Some(token),
            None,
        )
        .body;
    assert_eq!(
        (&rest["items"], &rest["next_cursor_seq"], &rest["has_more"]),
        (&page["payload"], &page["next_cursor_seq"], &page["has_more"])
    );
}

#[test]
fn websocket_on_other_paths_and_plain_requests_get_http_answers() {
    let data = data_dir();
    let server = Server::start(data.path(), &[]);
    assert!(server.socket_with("/elsewhere", &[]).is_err());
    assert_eq!(server.rest("GET", "/ws", None, None).status, 426);
    let page = server.rest("GET", "/", None, None);
    assert_eq!(page.status, 200);
    assert!(page.body.as_str().unwrap().contains("Corelane"));
    let missing = server.rest("GET", "/api/v1/nothing", None, None);
    assert_eq!((missing.status, missing.content_type.as_str()), (404, "application/problem+json"));
}
