//! Against gRPC servers in this process that are killed, hang, and come back.

mod faults;
mod server;

use std::time::{Duration, Instant};

use tonic::Status;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use self::server::{Mood, Server};
use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nobody is taken for ill for being late on a busy machine: whoever is not well refuses connections, or says so.
fn patient() -> EndpointsSettings {
    EndpointsSettings {
        connect_timeout_ms: 30_000,
        probe_timeout_ms: 30_000,
        keepalive_timeout_ms: 30_000,
        ..EndpointsSettings::default()
    }
}

fn endpoints(servers: &[&Server]) -> Endpoints {
    endpoints_with(patient(), servers)
}

fn endpoints_with(settings: EndpointsSettings, servers: &[&Server]) -> Endpoints {
    let endpoints = Endpoints::new("test", settings).expect("on a runtime");
    endpoints.set_endpoints(servers.iter().map(|server| server.address()).collect());
    endpoints
}

fn once() -> CallOptions {
    CallOptions { deadline: PATIENCE, idempotent: false, attempts: 1 }
}

/// Asks for a name that the servers note.
async fn ask(channel: Channel) -> Result<(), Status> {
    let request = HealthCheckRequest { service: "work".to_owned() };
    HealthClient::new(channel).check(request).await.map(drop)
}

async fn eventually(what: &str, happened: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn liveness(endpoints: &Endpoints, server: &Server) -> Liveness {
    let view = endpoints.view();
    let uri = format!("http://{}", server.address());
    view.iter().find(|one| one.uri == uri).expect("it was set").liveness
}

async fn all_alive(endpoints: &Endpoints) {
    eventually("all are alive", || {
        endpoints.view().iter().all(|one| one.liveness == Liveness::Alive)
    })
    .await;
}

#[tokio::test]
async fn calls_go_round() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let endpoints = endpoints(&[&servers[0], &servers[1], &servers[2]]);
    all_alive(&endpoints).await;
    assert!(endpoints.is_up());
    for _ in 0..30 {
        endpoints.call(once(), ask).await.expect("all are well");
    }
    assert_eq!(servers.each_ref().map(Server::calls), [10, 10, 10]);
}

#[tokio::test]
async fn without_endpoints_nobody_is_there() {
    let endpoints = endpoints(&[]);
    let error = endpoints.call(once(), ask).await.expect_err("nobody");
    assert!(matches!(error, CallError::NobodyThere) && error.was_not_sent());
    assert!(!endpoints.is_up());
}

#[tokio::test]
async fn bad_addresses_are_left_out_and_others_stay() {
    let server = Server::start();
    let endpoints = endpoints(&[&server]);
    all_alive(&endpoints).await;
    let addresses = ["", "http://", "not an address", &server.address(), &server.address()];
    endpoints.set_endpoints(addresses.map(str::to_owned).to_vec());
    let view = endpoints.view();
    assert_eq!(view.len(), 1);
    assert_eq!(view[0].liveness, Liveness::Alive, "it was not opened anew");
    endpoints.set_endpoints(Vec::new());
    assert!(endpoints.view().is_empty());
}

#[test]
fn endpoints_need_a_runtime_only_to_begin_with() {
    let settings = EndpointsSettings::default();
    assert_eq!(Endpoints::new("test", settings).err(), Some(EndpointsError::NoRuntime));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = Server::start();
    let endpoints = {
        let _entered = runtime.enter();
        Endpoints::new("test", settings).expect("on a runtime")
    };
    // Discovery may run on a thread of its own.
    endpoints.set_endpoints(vec![server.address()]);
    runtime.block_on(endpoints.call(once(), ask)).expect("it is there");
}

#[tokio::test]
async fn what_the_server_refuses_is_handed_on_and_not_repeated() {
    let server = Server::start();
    let endpoints = endpoints(&[&server]);
    server.set(Mood::Refusing);
    let options = CallOptions { idempotent: true, attempts: 5, ..once() };
    let error = endpoints.call(options, ask).await.expect_err("refused");
    assert!(
        matches!(&error, CallError::Refused(status) if status.code() == tonic::Code::NotFound),
        "{error}"
    );
    assert_eq!(server.calls(), 1);
    assert_eq!(endpoints.view()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn only_idempotent_calls_are_repeated() {
    let server = Server::start();
    let endpoints = endpoints(&[&server]);
    server.set(Mood::Unavailable);
    let options = CallOptions { attempts: 3, ..once() };
    let error = endpoints.call(options, ask).await.expect_err("it may have been done");
    assert!(matches!(error, CallError::Refused(_)), "{error}");
    assert_eq!(server.calls(), 1);
    let options = CallOptions { idempotent: true, ..options };
    endpoints.call(options, ask).await.expect_err("it is still unavailable");
    assert_eq!(server.calls(), 1 + 3);
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_hangs() {
    let server = Server::start();
    let endpoints = endpoints(&[&server]);
    server.set(Mood::Hanging);
    let options = CallOptions { deadline: Duration::from_millis(100), ..once() };
    let before = Instant::now();
    let error = endpoints.call(options, ask).await.expect_err("it hangs");
    assert!(matches!(error, CallError::Deadline), "{error}");
    assert!(before.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn an_idempotent_call_leaves_time_for_another_endpoint() {
    let servers = [Server::start(), Server::start()];
    let endpoints = endpoints(&[&servers[0], &servers[1]]);
    all_alive(&endpoints).await;
    servers[0].set(Mood::Hanging);
    let deadline = Duration::from_secs(20);
    let options = CallOptions { deadline, idempotent: true, attempts: 2 };
    for _ in 0..2 {
        endpoints.call(options, ask).await.expect("the other one answers");
    }
    assert_eq!(servers[1].calls(), 2);
    assert!(servers[0].calls() >= 1, "it was asked in its turn");
}
