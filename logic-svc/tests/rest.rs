//! REST through the router.
#![allow(missing_docs)]

mod common;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use common::Harness;
use proto::v1::call::Request as Call;
use proto::v1::{Closed, Hello};
use serde_json::{Value, json};
use tower::ServiceExt;

struct Rest {
    h: Harness,
    runtime: tokio::runtime::Runtime,
}

struct Answer {
    status: StatusCode,
    content_type: String,
    headers: axum::http::HeaderMap,
    json: Value,
}

impl Rest {
    fn new(h: Harness) -> Self {
        Self { h, runtime: tokio::runtime::Builder::new_current_thread().build().unwrap() }
    }

    fn raw(&self, request: Request<Body>) -> Answer {
        self.runtime.block_on(async {
            let response = self.h.service().router().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap();
            let content_type =
                parts.headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap());
            Answer {
                status: parts.status,
                content_type: content_type.to_owned(),
                json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                headers: parts.headers,
            }
        })
    }

    fn ask(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.raw(
            request
                .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
                .unwrap(),
        )
    }

    fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        self.ask(Method::POST, path, token, Some(body))
    }

    fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(Method::GET, path, Some(token), None)
    }

    /// Registers and logs in; gives (user id, access token, refresh token).
    fn user(&self, name: &str) -> (u64, String, String) {
        let made =
            self.post("/api/v1/users", None, &json!({"username": name, "password": "long enough"}));
        assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.json);
        let session = self.post("/api/v1/login", None, &json!({"username": name, "password": "long enough", "device_id": "d", "device_class": "web"}));
        assert_eq!(session.status, StatusCode::OK, "{:?}", session.json);
        let text = |key: &str| session.json[key].as_str().unwrap().to_owned();
        (text("user_id").parse().unwrap(), text("access_token"), text("refresh_token"))
    }
}

fn problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{:?}", answer.json);
    assert_eq!(answer.content_type, "application/problem+json");
    let json = &answer.json;
    assert_eq!((json["status"].as_u64(), json["code"].as_str()), (Some(status.into()), Some(code)));
    for key in ["type", "title", "detail"] {
        assert!(json[key].is_string(), "{key}");
    }
}

#[test]
fn accounts_are_made_once_with_good_names_and_passwords() {
    let rest = Rest::new(Harness::new());
    let register = |body: Value| rest.post("/api/v1/users", None, &body);
    let made = register(
        json!({"username": "alice", "password": "12345678", "nickname": "Älice", "unknown": 1}),
    );
    assert_eq!(
        (made.status, &made.json),
        (StatusCode::CREATED, &json!({"user_id": "1", "username": "alice", "nickname": "Älice"}))
    );
    problem(&register(json!({"username": "alice", "password": "12345678"})), 409, "ALREADY_EXISTS");
    problem(&register(json!({"username": "bob", "password": "1234567"})), 400, "BAD_REQUEST");
    problem(&register(json!({"username": "bob", "password": "x".repeat(257)})), 413, "TOO_LARGE");
    problem(&register(json!({"username": "b ob", "password": "12345678"})), 400, "BAD_REQUEST");
    problem(&register(json!({"username": "", "password": "12345678"})), 400, "BAD_REQUEST");
    problem(
        &register(json!({"username": "bob", "password": "12345678", "nickname": "n".repeat(129)})),
        413,
        "TOO_LARGE",
    );
    problem(&register(json!({"username": "bob"})), 400, "BAD_REQUEST");
    let longest = register(json!({"username": "bob", "password": "x".repeat(256)}));
    assert_eq!((longest.status, &longest.json["nickname"]), (StatusCode::CREATED, &json!("bob")));
    assert_eq!(
        rest.h.count("SELECT count(*) FROM users WHERE password_hash LIKE '$argon2id$%'"),
        2
    );
}

#[test]
fn wrong_name_and_wrong_password_look_the_same() {
    let rest = Rest::new(Harness::new());
    rest.user("alice");
    let login = |name: &str, password: &str| {
        rest.post("/api/v1/login", None, &json!({"username": name, "password": password}))
    };
    let wrong = login("alice", "wrong password");
    problem(&wrong, 401, "UNAUTHENTICATED");
    assert_eq!(wrong.headers[header::WWW_AUTHENTICATE], "Bearer");
    assert_eq!(login("nobody", "wrong password").json, wrong.json);
    problem(&login("alice", &"x".repeat(1000)), 401, "UNAUTHENTICATED");
    problem(&login("alice", "no user has this password"), 401, "UNAUTHENTICATED");
}

#[test]
fn a_user_without_password_cannot_log_in_with_one() {
    let rest = Rest::new(Harness::dev());
    rest.h.login("dev", "", 0, 1);
    for password in ["", "no user has this password", "dev"] {
        problem(
            &rest.post("/api/v1/login", None, &json!({"username": "dev", "password": password})),
            401,
            "UNAUTHENTICATED",
        );
    }
}

#[test]
fn refresh_tokens_are_good_once_and_a_second_use_ends_the_family() {
    let rest = Rest::new(Harness::new());
    let (_, _, first) = rest.user("alice");
    let (_, _, other) = rest.user("bob");
    let refresh =
        |token: &str| rest.post("/api/v1/token/refresh", None, &json!({"refresh_token": token}));
    let second = refresh(&first);
    assert_eq!((second.status, &second.json["user_id"]), (StatusCode::OK, &json!("1")));
    assert_eq!(second.json["expires_in"], json!(900));
    let token = second.json["access_token"].as_str().unwrap();
    assert_eq!(rest.get("/api/v1/me", token).json["username"], json!("alice"));
    let second = second.json["refresh_token"].as_str().unwrap();
    problem(&refresh(&first), 401, "UNAUTHENTICATED");
    problem(&refresh(second), 401, "UNAUTHENTICATED");
    for bad in ["", "x", &"A".repeat(43), &"A".repeat(100_000)[..40_000]] {
        problem(&refresh(bad), 401, "UNAUTHENTICATED");
    }
    assert_eq!(refresh(&other).status, StatusCode::OK, "another family goes on");
    assert_eq!(
        rest.h.count(&format!(
            "SELECT count(*) FROM refresh_tokens WHERE CAST(hash AS TEXT) = '{first}'"
        )),
        0
    );
}

#[test]
fn refresh_tokens_run_out() {
    let rest = Rest::new(Harness::with(|config| config.refresh_token_s = 1));
    let (_, _, token) = rest.user("alice");
    rest.h.database().execute("UPDATE refresh_tokens SET expires_at_ms = 1", []).unwrap();
    problem(
        &rest.post("/api/v1/token/refresh", None, &json!({"refresh_token": token})),
        401,
        "UNAUTHENTICATED",
    );
}

#[test]
fn logging_out_voids_every_token_and_closes_connections() {
    let rest = Rest::new(Harness::new());
    let (user, token, refresh) = rest.user("alice");
    rest.h.login_as(user, 2, 3);
    assert_eq!(
        rest.ask(Method::POST, "/api/v1/logout", Some(&token), None).status,
        StatusCode::NO_CONTENT
    );
    problem(&rest.get("/api/v1/me", &token), 401, "UNAUTHENTICATED");
    problem(
        &rest.post("/api/v1/token/refresh", None, &json!({"refresh_token": refresh})),
        401,
        "UNAUTHENTICATED",
    );
    let kicks = rest.h.sink.kicks.lock().unwrap().clone();
    assert_eq!(
        kicks.iter().map(|kick| (kick.shard, kick.slot, kick.code)).collect::<Vec<_>>(),
        [(2, 3, 4200)]
    );
    let again =
        rest.post("/api/v1/login", None, &json!({"username": "alice", "password": "long enough"}));
    assert_eq!(
        rest.get("/api/v1/me", again.json["access_token"].as_str().unwrap()).status,
        StatusCode::OK
    );
}

#[test]
fn nothing_is_open_without_a_good_token() {
    let rest = Rest::new(Harness::new());
    let (_, token, _) = rest.user("alice");
    let bad = ["", "x", "a.b.c", &token[1..], &"a".repeat(1 << 16)];
    for path in [
        "/api/v1/me",
        "/api/v1/conversations",
        "/api/v1/conversations/g/messages",
        "/api/v1/conversations/g/members",
    ] {
        problem(&rest.ask(Method::GET, path, None, None), 401, "UNAUTHENTICATED");
        for token in bad {
            problem(&rest.get(path, token), 401, "UNAUTHENTICATED");
        }
    }
    for path in [
        "/api/v1/conversations",
        "/api/v1/conversations/g/join",
        "/api/v1/conversations/g/leave",
        "/api/v1/logout",
    ] {
        problem(&rest.post(path, None, &json!({})), 401, "UNAUTHENTICATED");
    }
    let basic = Request::get("/api/v1/me")
        .header(header::AUTHORIZATION, format!("Basic {token}"))
        .body(Body::empty());
    problem(&rest.raw(basic.unwrap()), 401, "UNAUTHENTICATED");
}

/// Alice and Bob in a group with three messages of Bob, and in a direct conversation.
struct Kitchen {
    rest: Rest,
    alice: u64,
    bob: u64,
    token: String,
    path: &'static str,
}

fn kitchen() -> Kitchen {
    let rest = Rest::new(Harness::new());
    let (alice, token, _) = rest.user("alice");
    let (bob, bobs, _) = rest.user("bob");
    let group =
        json!({"type": "group", "conversation_id": "Küche/1", "name": "Küche", "members": ["bob"]});
    let made = rest.post("/api/v1/conversations", Some(&token), &group);
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(
        (&made.json["conversation_id"], &made.json["role"], &made.json["member_count"]),
        (&json!("Küche/1"), &json!("owner"), &json!(2))
    );
    assert_eq!(made.json["last_message"], Value::Null);
    let direct = |token: &str, with: &str| {
        let body = json!({"type": "direct", "members": [with]});
        let made = rest.post("/api/v1/conversations", Some(token), &body);
        assert_eq!(made.status, StatusCode::CREATED);
        made.json["conversation_id"].clone()
    };
    assert_eq!(direct(&token, "bob"), direct(&bobs, "alice"));
    for n in 0..3 {
        rest.h.send(bob, "Küche/1", &format!("m{n}"), "Grüße \u{1F600}");
    }
    Kitchen { rest, alice, bob, token, path: "/api/v1/conversations/K%C3%BCche%2F1" }
}

#[test]
fn messages_are_read_in_both_directions() {
    let Kitchen { rest, bob, token, path, .. } = kitchen();
    let page = rest.get(&format!("{path}/messages?limit=2"), &token).json;
    assert_eq!(
        (page["items"].as_array().unwrap().len(), &page["next_cursor_seq"], &page["has_more"]),
        (2, &json!(2), &json!(true))
    );
    let first = &page["items"][0];
    assert_eq!(
        (&first["msg_id"], &first["seq"], &first["content"], &first["msg_type"]),
        (&json!("m0"), &json!(1), &json!("Grüße \u{1F600}"), &json!(1))
    );
    assert_eq!((&first["sender"], &first["sender_id"]), (&json!("bob"), &json!(bob.to_string())));
    assert!(first["message_id"].is_string() && first["created_at_ms"].is_number());
    let back =
        rest.get(&format!("{path}/messages?direction=backward&cursor_seq=3&limit=1"), &token);
    assert_eq!(
        (&back.json["items"][0]["seq"], &back.json["next_cursor_seq"], &back.json["has_more"]),
        (&json!(2), &json!(2), &json!(true))
    );
}

#[test]
fn conversations_and_members_are_listed_page_by_page() {
    let Kitchen { rest, alice, token, path, .. } = kitchen();
    let list = rest.get("/api/v1/conversations?limit=1", &token).json;
    assert_eq!(
        (&list["items"][0]["conversation_id"], &list["items"][0]["unread"], &list["has_more"]),
        (&json!("Küche/1"), &json!(3), &json!(true))
    );
    let cursor = list["next_cursor"].as_str().unwrap();
    let list = rest.get(&format!("/api/v1/conversations?limit=1&cursor={cursor}"), &token).json;
    assert_eq!(
        (&list["items"][0]["type"], &list["items"][0]["name"], &list["has_more"]),
        (&json!("direct"), &json!("bob"), &json!(false))
    );
    let members = rest.get(&format!("{path}/members?limit=1"), &token).json;
    let id = alice.to_string();
    let want = json!([{"user_id": id, "username": "alice", "nickname": "alice", "role": "owner"}]);
    assert_eq!(members["items"], want);
    let next = members["next_cursor"].as_u64().unwrap();
    let members = rest.get(&format!("{path}/members?limit=1&cursor={next}"), &token).json;
    assert_eq!(
        (&members["items"][0]["username"], &members["has_more"]),
        (&json!("bob"), &json!(false))
    );
}

#[test]
fn groups_are_joined_and_left() {
    let rest = Rest::new(Harness::new());
    let (_, token, _) = rest.user("alice");
    let (_, eve, _) = rest.user("eve");
    rest.post(
        "/api/v1/conversations",
        Some(&token),
        &json!({"type": "group", "conversation_id": "g"}),
    );
    problem(&rest.get("/api/v1/conversations/g/messages", &eve), 403, "NOT_A_MEMBER");
    problem(&rest.get("/api/v1/conversations/none/messages", &eve), 404, "CONVERSATION_NOT_FOUND");
    assert_eq!(
        rest.post("/api/v1/conversations/g/join", Some(&eve), &json!({})).json["member_count"],
        json!(2)
    );
    assert_eq!(rest.get("/api/v1/conversations/g/messages", &eve).status, StatusCode::OK);
    assert_eq!(
        rest.ask(Method::POST, "/api/v1/conversations/g/leave", Some(&eve), None).status,
        StatusCode::OK
    );
    problem(
        &rest.ask(Method::POST, "/api/v1/conversations/g/leave", Some(&eve), None),
        403,
        "NOT_A_MEMBER",
    );
    rest.post(
        "/api/v1/conversations",
        Some(&token),
        &json!({"type": "direct", "members": ["alice"]}),
    );
    problem(
        &rest.ask(Method::POST, "/api/v1/conversations/dm_1_1/join", Some(&eve), None),
        403,
        "FORBIDDEN",
    );
}

#[test]
fn bad_requests_are_problems() {
    let rest = Rest::new(Harness::new());
    let (_, token, _) = rest.user("alice");
    let body = |text: &str| {
        let request = Request::post("/api/v1/conversations")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        rest.raw(request.body(Body::from(text.to_owned())).unwrap())
    };
    for text in [
        "",
        "{",
        "[]",
        "nul",
        r#"{"type":1}"#,
        r#"{"type":"group","members":"bob"}"#,
        "\u{0}",
        r#"{"type":"channel"}"#,
        &"[".repeat(5000),
    ] {
        problem(&body(text), 400, "BAD_REQUEST");
    }
    problem(
        &body(&format!(r#"{{"type":"group","name":"{}"}}"#, "x".repeat(70_000))),
        413,
        "TOO_LARGE",
    );
    problem(&body(r#"{"type":"group","members":["nobody"]}"#), 404, "USER_NOT_FOUND");
    for query in [
        "limit=-1",
        "limit=x",
        "cursor_seq=-1",
        "cursor_seq=99999999999999999999",
        "direction=sideways",
    ] {
        problem(
            &rest.get(&format!("/api/v1/conversations/g/messages?{query}"), &token),
            400,
            "BAD_REQUEST",
        );
    }
    problem(&rest.get("/api/v1/conversations?cursor=nonsense", &token), 400, "BAD_REQUEST");
    problem(&rest.get("/api/v1/conversations/%FF/messages", &token), 400, "BAD_REQUEST");
    problem(
        &rest.get(&format!("/api/v1/conversations/{}/messages", "x".repeat(65)), &token),
        400,
        "BAD_REQUEST",
    );
    problem(&rest.get("/api/v1/conversations/a%00b/messages", &token), 400, "BAD_REQUEST");
    problem(&rest.get("/api/v1/nothing", &token), 404, "UNKNOWN_COMMAND");
    problem(&rest.get("/", &token), 404, "UNKNOWN_COMMAND");
    problem(&rest.ask(Method::DELETE, "/api/v1/users", None, None), 405, "UNKNOWN_COMMAND");
    problem(&rest.ask(Method::GET, "/api/v1/login", None, None), 405, "UNKNOWN_COMMAND");
}

#[test]
fn a_bad_body_is_not_quoted_back() {
    let rest = Rest::new(Harness::new());
    let request = Request::post("/api/v1/login")
        .body(Body::from(r#"{"username": "a", "password": s3cret-word}"#))
        .unwrap();
    let answer = rest.raw(request);
    problem(&answer, 400, "BAD_REQUEST");
    assert!(!answer.json.to_string().contains("s3cret"));
}

#[test]
fn keys_and_health_are_public() {
    let rest = Rest::new(Harness::new());
    let keys = rest.ask(Method::GET, "/.well-known/jwks.json", None, None).json;
    let key = &keys["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig"))
    );
    assert!(key["kid"].is_string() && key["d"].is_null());
    assert_eq!(rest.ask(Method::GET, "/healthz", None, None).status, StatusCode::OK);
    assert_eq!(rest.ask(Method::GET, "/readyz", None, None).status, StatusCode::OK);
}

#[test]
fn a_failing_store_is_a_problem_and_not_ready() {
    let rest = Rest::new(Harness::new());
    let (_, token, _) = rest.user("alice");
    // Another program that holds the write lock longer than the service waits.
    let database = rest.h.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let made = rest.post("/api/v1/conversations", Some(&token), &json!({"type": "group"}));
    problem(&made, 503, "BUSY");
    assert_eq!(made.headers[header::RETRY_AFTER], "1");
    problem(&rest.ask(Method::GET, "/readyz", None, None), 503, "BUSY");
    database.execute_batch("ROLLBACK").unwrap();
    assert_eq!(rest.ask(Method::GET, "/readyz", None, None).status, StatusCode::OK);
}

#[test]
fn whoever_logs_out_during_a_login_is_let_in_by_neither() {
    let rest = Rest::new(Harness::new());
    let (user, ..) = rest.user("alice");
    let (other, ..) = rest.user("bob");
    let dm = format!("dm_{user}_{other}");
    for round in 0..40 {
        let login = json!({"username": "alice", "password": "long enough", "device_id": "d", "device_class": "web"});
        let session = rest.post("/api/v1/login", None, &login);
        let token = session.json["access_token"].as_str().unwrap().to_owned();
        rest.h.sink.kicks.lock().unwrap().clear();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for slot in 0..20 {
                    let hello = Hello { token: token.clone(), ..Default::default() };
                    let login = common::call(0, slot, 0, Call::Login(hello));
                    rest.h.service().run_calls(common::Once(vec![login]));
                }
            });
            assert_eq!(rest.post("/api/v1/logout", Some(&token), &json!({})).status.as_u16(), 204);
        });
        let told: Vec<u32> = rest.h.sink.kicks.lock().unwrap().iter().map(|k| k.slot).collect();
        rest.h.send(other, &dm, &format!("m{round}"), "x");
        for ((_, slot), _) in rest.h.delivered() {
            assert!(told.contains(&slot), "round {round}: {slot} is in and was not told to go");
        }
        let closed = |slot| common::call(0, slot, 0, Call::Closed(Closed {}));
        rest.h.calls((0..20).map(closed).collect());
    }
}
