//! Who is there: asked, told when it changes, and only to those who may know; and how many devices of a class a user
//! may have.

mod common;

use std::time::{Duration, Instant};

use common::{Client, DEV, PATIENCE, Server, data_dir};
use serde_json::{Value, json};

fn enter(server: &Server, name: &str, device: &str, class: &str) -> (Client, Value) {
    let login = json!({"username": name, "password": "correct horse"});
    let token =
        server.rest("POST", "/api/v1/login", None, Some(login)).body["access_token"].clone();
    let mut client = server.socket("/ws");
    let payload = json!({"token": token, "device_id": device, "device_class": class});
    let answer = client.ask(&json!({"cmd":1,"payload":payload}));
    (client, answer)
}

/// The answer, once the server knows: right after a start not all gateways have told who is connected.
fn presence(client: &mut Client, users: &[&str], subscribe: bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.json(&json!({"cmd":15,"id":5,"payload":{"users":users,"subscribe":subscribe}}));
        let answer = loop {
            let frame = client.next().unwrap();
            if frame["cmd"] == 15 {
                break frame;
            }
        };
        if answer["error"]["name"] != "BUSY" {
            assert_eq!((&answer["code"], &answer["id"]), (&json!(0), &json!(5)), "{answer}");
            return answer["payload"].clone();
        }
        assert!(Instant::now() < deadline, "{answer}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The word that somebody came, or went; what was told before may come again.
fn change(client: &mut Client, online: bool) -> Value {
    loop {
        let frame = client.next().unwrap();
        if frame["cmd"] == 16 && frame["payload"]["online"] == online {
            return frame["payload"].clone();
        }
    }
}

fn group(client: &mut Client, id: &str, members: &[&str]) {
    let made = client
        .ask(&json!({"cmd":6,"payload":{"type":"group","conversation_id":id,"members":members}}));
    assert_eq!(made["code"], 0, "{made}");
}

#[test]
fn who_shares_a_conversation_sees_and_is_told_who_comes_and_goes() {
    let data = data_dir();
    let server = Server::start(data.path(), &[]);
    let ids: Vec<Value> =
        ["alice", "bob", "eve"].map(|name| server.user(name)["user_id"].clone()).into();
    let (mut alice, _) = enter(&server, "alice", "laptop", "web");
    let (_eve, _) = enter(&server, "eve", "phone", "mobile");
    group(&mut alice, "g1", &["bob"]);
    let seen = presence(&mut alice, &["bob", "eve", "nobody", "alice", "bob"], true);
    let seen = seen.as_array().unwrap();
    let names: Vec<&Value> = seen.iter().map(|user| &user["username"]).collect();
    assert_eq!(names, ["bob", "eve", "alice"], "each once, and nobody is nobody");
    let away = |at: usize, name: &str| json!({"user_id":ids[at],"username":name,"online":false,"devices":[],"last_seen_ms":0});
    assert_eq!(seen[0], away(1, "bob"));
    assert_eq!(seen[1], away(2, "eve"), "no conversation with eve");
    assert_eq!(
        (&seen[2]["online"], &seen[2]["devices"][0]["device_class"]),
        (&json!(true), &json!("web"))
    );

    let (bob, _) = enter(&server, "bob", "phone-1", "mobile");
    let came = change(&mut alice, true);
    assert_eq!(came, json!({"user_id":ids[1],"username":"bob","online":true,"last_seen_ms":0}));
    let seen = presence(&mut alice, &["bob"], false);
    let device = &seen[0]["devices"][0];
    assert_eq!(device["device_class"], "mobile");
    assert!(device["device_id"] == "phone-1" || device.get("device_id").is_none(), "{device}");
    let (second, _) = enter(&server, "bob", "phone-2", "mobile");
    assert_eq!(presence(&mut alice, &["bob"], false)[0]["devices"].as_array().unwrap().len(), 2);
    drop(bob);
    drop(second);
    let went = change(&mut alice, false);
    assert_eq!((&went["online"], &went["username"]), (&json!(false), &json!("bob")));
    let seen = presence(&mut alice, &["bob"], false);
    assert_eq!(
        (&seen[0]["online"], &seen[0]["last_seen_ms"]),
        (&json!(false), &went["last_seen_ms"])
    );
    assert!(went["last_seen_ms"].as_u64().unwrap() > 1_700_000_000_000);

    // An empty list ends it: the next frame that comes is the answer to a heartbeat.
    assert_eq!(presence(&mut alice, &[], true), json!([]));
    let (_bob, _) = enter(&server, "bob", "phone-1", "mobile");
    std::thread::sleep(Duration::from_millis(1500));
    alice.expect_silence();
}

#[test]
fn whoever_comes_and_goes_all_the_time_costs_a_push_a_second() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut watcher = server.dev_user("watcher");
    let first = server.dev_user("flapper");
    group(&mut watcher, "g1", &["flapper"]);
    drop(first);
    presence(&mut watcher, &["flapper"], true);
    let begun = Instant::now();
    for _ in 0..100 {
        drop(server.dev_user("flapper"));
    }
    let _stays = server.dev_user("flapper");
    let took = begun.elapsed();
    let mut told = Vec::new();
    while told.last() != Some(&true) {
        assert!(begun.elapsed() < took + PATIENCE, "the last state comes last: {told:?}");
        std::thread::sleep(Duration::from_millis(2500));
        told.extend(changes(&mut watcher));
    }
    let most = took.as_secs() as usize + 5;
    assert!(told.len() <= most, "{told:?} in {took:?}");
}

/// Whether who is watched came or went, as often as this was told so far.
fn changes(watcher: &mut Client) -> Vec<bool> {
    watcher.json(&json!({"cmd":0}));
    let mut told = Vec::new();
    loop {
        let frame = watcher.next().unwrap();
        match frame["cmd"].as_u64() {
            Some(16) => told.push(frame["payload"]["online"] == true),
            Some(0) => return told,
            _ => {}
        }
    }
}

#[test]
fn bad_queries_are_refused_by_name() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut client = server.dev_user("alice");
    let many: Vec<String> = (0..101).map(|n| format!("user{n}")).collect();
    for (payload, named) in [
        (json!({}), "payload.users"),
        (json!({"users":"bob"}), "payload.users"),
        (json!({"users":["bob"],"subscribe":"yes"}), "payload.subscribe"),
        (json!({"users":many}), "100"),
    ] {
        let refused = client.ask(&json!({"cmd":15,"id":3,"payload":payload}));
        assert_eq!((&refused["code"], &refused["id"]), (&json!(400), &json!(3)), "{refused}");
        let detail = refused["error"]["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{refused}");
    }
    let most: Vec<String> = (0..100).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = most.iter().map(String::as_str).collect();
    assert_eq!(presence(&mut client, &names, true), json!([]));
}

#[test]
fn a_class_may_have_one_device_only() {
    let data = data_dir();
    let options = [DEV, &["--device-policy", "tv=kick_old,kiosk=refuse_new"]].concat();
    let server = Server::start(data.path(), &options);
    server.user("alice");
    let (mut first, _) = enter(&server, "alice", "tv-1", "tv");
    let (mut second, answer) = enter(&server, "alice", "tv-2", "tv");
    assert_eq!(answer["code"], 0);
    assert_eq!(first.close_code(), 4900, "the older one of the class");
    let (mut again, _) = enter(&server, "alice", "tv-2", "tv");
    assert_eq!(second.close_code(), 4900, "the same device");
    let (mut kiosk, _) = enter(&server, "alice", "kiosk-1", "kiosk");
    let (mut refused, answer) = enter(&server, "alice", "kiosk-2", "kiosk");
    assert_eq!(answer["error"]["name"], "TOO_MANY_DEVICES", "{answer}");
    assert_eq!(refused.close_code(), 4104);
    let (mut same, answer) = enter(&server, "alice", "kiosk-1", "kiosk");
    assert_eq!((&answer["code"], kiosk.close_code()), (&json!(0), 4900), "the same device");
    let (mut web, _) = enter(&server, "alice", "a", "web");
    let (mut other, _) = enter(&server, "alice", "b", "web");
    for client in [&mut again, &mut same, &mut web, &mut other] {
        client.expect_silence();
    }
}

/// The cluster form alone: the users of a gateway that was killed are away once its lease is over, and whoever wants to
/// know is told.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`, and CORELANE_TEST_FORM=cluster"]
fn users_of_a_killed_gateway_are_told_to_be_away() {
    let data = data_dir();
    let mut server = Server::start(data.path(), &[]);
    for name in ["alice", "bob"] {
        server.user(name);
    }
    // Clients connect to the gateways in turns, and REST takes its turns too.
    let (mut alice, _) = enter(&server, "alice", "laptop", "web");
    group(&mut alice, "g1", &["bob"]);
    let (bob, _) = enter(&server, "bob", "phone", "mobile");
    assert_ne!(alice.peer(), bob.peer(), "at different gateways");
    assert_eq!(presence(&mut alice, &["bob"], true)[0]["online"], true);
    let killed = Instant::now();
    server.kill_gateway(bob.peer());
    let went = change(&mut alice, false);
    println!("told {:?} after the kill", killed.elapsed());
    assert_eq!((&went["username"], &went["online"]), (&json!("bob"), &json!(false)));
    assert_eq!(presence(&mut alice, &["bob"], false)[0]["online"], false);
}
