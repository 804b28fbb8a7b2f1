use proto::ids::direct_conversation_id;
use proto::v1::admin_client::AdminClient;
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::*;

use crate::world::{World, call};

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_record_that_cannot_be_read_is_set_apart_and_the_partition_goes_on() {
    let mut world = World::new();
    let a = world.start("a", &[], &[]);
    let alice = world.login(a, "alice", 1).0;
    let id = direct_conversation_id(alice, alice);
    let partition = world.produce(&id, b"\xff\xffno record of ours");
    assert_eq!(world.sent((alice, 1), &id, "behind it").seq, 1);
    let dead = world.read(&world.kafka.dead_letters(), 1);
    let letter = <DeadLetter as prost::Message>::decode(dead[0].payload.clone()).unwrap();
    assert_eq!((letter.partition, letter.offset), (partition, 0));
    let mut admin = AdminClient::new(world.channel(a));
    let list = ListDeadLettersRequest::default();
    let page = world.runtime.block_on(admin.list_dead_letters(list)).unwrap().into_inner();
    assert_eq!(page.items.len(), 1);
    let kept = &page.items[0];
    assert_eq!((kept.topic.as_str(), kept.partition), (world.kafka.upstream().as_str(), partition));
    assert!(kept.reason.contains("cannot be read") && kept.replayed_at_ms == 0, "{kept:?}");
    // Put back it comes again, cannot be read again, and is kept as another one.
    let replay = ReplayDeadLettersRequest { ids: vec![kept.id, 999_999] };
    let replayed = world.runtime.block_on(admin.replay_dead_letters(replay)).unwrap().into_inner();
    assert_eq!(replayed.replayed, [kept.id]);
    world.read(&world.kafka.dead_letters(), 2);
    let page = world.runtime.block_on(admin.list_dead_letters(list)).unwrap().into_inner();
    assert_eq!(page.items.len(), 2);
    assert!(page.items[1].replayed_at_ms > 0, "{page:?}");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn the_state_is_shown_and_users_are_sent_away() {
    let mut world = World::new();
    let a = world.start("a", &[], &[]);
    let alice = world.login(a, "alice", 5).0;
    world.report(a, &[(alice, 5)]);
    let mut admin = AdminClient::new(world.channel(a));
    // Clients of Kafka tell after a second that they are connected.
    let until = std::time::Instant::now() + crate::world::LIMIT;
    let state = loop {
        let state = world.runtime.block_on(admin.status(StatusRequest {})).unwrap().into_inner();
        if state.database && state.redis && state.kafka && state.etcd {
            break state;
        }
        assert!(std::time::Instant::now() < until, "{state:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    assert_eq!(state.gateways.len(), 1);
    assert_eq!(state.gateways[0].connections, 1);
    let kick = KickUserRequest { user_id: alice, code: 4321, reason: "out".to_owned() };
    let kicked = world.runtime.block_on(admin.kick_user(kick)).unwrap().into_inner();
    assert_eq!(kicked.connections, 1);
    let kick = world
        .wait_for("the kick", |mail| mail.iter().flat_map(|record| record.kicks.clone()).next());
    assert_eq!((kick.slot, kick.code, kick.reason.as_str()), (5, 4321, "out"));
    let bad = KickUserRequest { user_id: alice, code: 1000, reason: String::new() };
    let refused = world.runtime.block_on(admin.kick_user(bad)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn administrators_name_the_token_and_gateways_need_none() {
    let mut world = World::new();
    let token = "0123456789abcdef-secret";
    let a = world.start("a", &[], &[("CORELANE_ADMIN_TOKEN", token)]);
    let mut admin = AdminClient::new(world.channel(a));
    let mut status = |authorization: Option<String>| {
        let mut request = tonic::Request::new(StatusRequest {});
        if let Some(text) = authorization {
            request.metadata_mut().insert("authorization", text.parse().unwrap());
        }
        let answer = world.runtime.block_on(admin.status(request));
        answer.map(|answer| answer.into_inner().instance).map_err(|status| status.code())
    };
    let refused = Err(tonic::Code::Unauthenticated);
    assert_eq!(status(None), refused);
    assert_eq!(status(Some("Bearer 0123456789abcdef-Secret".to_owned())), refused);
    assert_eq!(status(Some(format!("Bearer {token}"))), Ok("a".to_owned()));
    let kick = KickUserRequest { user_id: 1, code: 4321, reason: String::new() };
    let kicked = world.runtime.block_on(admin.kick_user(kick)).unwrap_err();
    assert_eq!(kicked.code(), tonic::Code::Unauthenticated);
    world.login(a, "alice", 1);
}

fn post(world: &World, at: usize, path: &str, token: &str, body: &str) -> serde_json::Value {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(world.http(at)).unwrap();
    let authorization =
        if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    write!(
        socket,
        "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\n\
         {authorization}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 2"), "{answer}");
    serde_json::from_str(body).unwrap_or_default()
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_token_of_one_service_is_good_at_another_until_its_user_logs_out() {
    let mut world = World::new();
    let a = world.start("a", &[], &[]);
    let b = world.start("b", &["--roles", "rpc"], &[]);
    let account = r#"{"username":"carol","password":"correct horse"}"#;
    post(&world, a, "/api/v1/users", "", account);
    let session = post(&world, a, "/api/v1/login", "", account);
    let token = session["access_token"].as_str().unwrap().to_owned();
    let login = |slot| {
        let hello = Hello { token: token.clone(), ..Hello::default() };
        world.change(b, vec![call(0, slot, Request::Login(hello))]).replies.remove(0).reply.unwrap()
    };
    assert!(matches!(login(3), Reply::Welcome(_)));
    post(&world, a, "/api/v1/logout", &token, "");
    assert!(matches!(login(4), Reply::Failure(failure) if failure.name == "UNAUTHENTICATED"));
    let kick = world
        .wait_for("the kick", |mail| mail.iter().flat_map(|record| record.kicks.clone()).next());
    assert_eq!((kick.slot, kick.code), (3, 4200));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn settings_of_the_cluster_hold_at_once_and_health_is_told() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

    let mut world = World::new();
    let a = world.start("a", &["--log", "warn"], &[]);
    let mut health = HealthClient::new(world.channel(a));
    for service in ["im.v1.Sessions", "im.v1.Requests"] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let answer = world.runtime.block_on(health.check(asked)).unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let alice = world.login(a, "alice", 1).0;
    world.sent((alice, 1), "room", "makes a room of one");
    world.login(a, "bob", 2);
    let create = CreateConversation {
        r#type: "group".to_owned(),
        conversation_id: "pair".to_owned(),
        members: vec!["bob".to_owned()],
        ..CreateConversation::default()
    };
    assert!(matches!(world.ask(a, alice, 1, Request::Create(create)), Reply::Conversation(_)));
    assert!(world.login(a, "alice", 1).1.interests.is_empty(), "two are not many");
    world.runtime.block_on(world.etcd.put_config("fanout_switch_members", "2")).unwrap();
    let until = std::time::Instant::now() + crate::world::LIMIT;
    while world.login(a, "alice", 1).1.interests.is_empty() {
        assert!(std::time::Instant::now() < until, "the setting does not hold");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // What cannot be changes nothing.
    world.runtime.block_on(world.etcd.put_config("fanout_switch_members", "many")).unwrap();
    while !world.login(a, "alice", 1).1.interests.is_empty() {
        assert!(std::time::Instant::now() < until, "it is not back to what the file says");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
