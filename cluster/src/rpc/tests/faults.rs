//! Endpoints that die, freeze, drain, fail and come back.

use super::*;

#[test]
fn by_default_the_dead_are_noticed_within_a_second() {
    let settings = EndpointsSettings::default();
    let worst = settings.probe_interval_ms + settings.probe_timeout_ms;
    assert!(worst < 1_000, "{worst} ms");
}

#[tokio::test]
async fn a_killed_endpoint_is_left_out_and_taken_back() {
    let (mut first, second) = (Server::start(), Server::start());
    let endpoints = endpoints(&[&first, &second]);
    all_alive(&endpoints).await;
    first.kill();
    eventually("it is noticed", || liveness(&endpoints, &first) == Liveness::Dead).await;
    for _ in 0..20 {
        endpoints.call(once(), ask).await.expect("only the living are asked");
    }
    assert_eq!(second.calls(), 20);

    first.restart();
    eventually("it is taken back", || liveness(&endpoints, &first) == Liveness::Alive).await;
    for _ in 0..20 {
        endpoints.call(once(), ask).await.expect("both are well");
    }
    assert_eq!((first.calls(), second.calls()), (10, 30));
}

#[tokio::test]
async fn what_was_never_sent_is_repeated_elsewhere() {
    let (mut gone, well) = (Server::start(), Server::start());
    gone.kill();
    // Right after they are set nobody knows who is there.
    for round in 1..=20 {
        let endpoints = endpoints(&[&gone, &well]);
        let options = CallOptions { attempts: 2, ..once() };
        endpoints.call(options, ask).await.expect("it was not sent, so it may be repeated");
        assert_eq!(well.calls(), round, "and it was done once");
    }
}

#[tokio::test]
async fn all_dead_is_nobody_there() {
    let mut server = Server::start();
    server.kill();
    let endpoints = endpoints(&[&server]);
    let options = CallOptions { attempts: 3, ..once() };
    let error = endpoints.call(options, ask).await.expect_err("nobody listens");
    assert!(matches!(error, CallError::NobodyThere), "{error}");
    assert!(!endpoints.is_up());
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_the_call_open() {
    let mut server = Server::start();
    let endpoints = endpoints(&[&server]);
    all_alive(&endpoints).await;
    server.set(Mood::Hanging);
    let call = tokio::spawn({
        let endpoints = endpoints.clone();
        let options = CallOptions { attempts: 3, ..once() };
        async move { endpoints.call(options, ask).await }
    });
    eventually("the call has arrived", || server.calls() == 1).await;
    server.kill();
    let error = call.await.expect("no panic").expect_err("nobody has answered");
    assert!(matches!(error, CallError::Broken(_)), "{error:?}");
    assert!(!error.was_not_sent());
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_frozen_endpoint_is_asked_last() {
    // It takes connections and says nothing, like a stopped process.
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = frozen.local_addr().expect("it is bound").to_string();
    let well = Server::start();
    let settings = EndpointsSettings { probe_timeout_ms: 3_000, ..patient() };
    let endpoints = endpoints_with(settings, &[]);
    endpoints.set_endpoints(vec![address.clone(), well.address()]);
    let uri = format!("http://{address}");
    let suspect = || {
        let view = endpoints.view();
        view.iter().any(|one| one.uri == uri && one.liveness == Liveness::Suspect)
    };
    eventually("it is noticed", suspect).await;
    eventually("the other is well", || liveness(&endpoints, &well) == Liveness::Alive).await;
    for _ in 0..20 {
        endpoints.call(once(), ask).await.expect("the other one is asked");
    }
    assert_eq!(well.calls(), 20);
    // With nobody else it is asked: it may only be slow.
    endpoints.set_endpoints(vec![address]);
    let options = CallOptions { deadline: Duration::from_millis(50), ..once() };
    let error = endpoints.call(options, ask).await.expect_err("it says nothing");
    assert!(matches!(error, CallError::Deadline), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_drains_is_left_out() {
    let servers = [Server::start(), Server::start()];
    let endpoints = endpoints(&[&servers[0], &servers[1]]);
    all_alive(&endpoints).await;
    servers[0].set(Mood::Draining);
    eventually("it is noticed", || liveness(&endpoints, &servers[0]) == Liveness::Dead).await;
    for _ in 0..10 {
        endpoints.call(once(), ask).await.expect("the other one is asked");
    }
    assert_eq!(servers.each_ref().map(Server::calls), [0, 10]);
}

#[tokio::test]
async fn a_breaker_opens_and_closes_again() {
    let server = Server::start();
    let breaker = BreakerSettings { failures: 3, open_ms: 500, open_max_ms: 1_000, trials: 1 };
    let settings = EndpointsSettings { breaker, ..patient() };
    let endpoints = endpoints_with(settings, &[&server]);
    let state = || endpoints.view()[0].breaker;
    server.set(Mood::Unavailable);
    for _ in 0..3 {
        let error = endpoints.call(once(), ask).await.expect_err("it fails");
        assert!(matches!(error, CallError::Refused(_)), "{error}");
    }
    // Either it is open, or (on a machine that was busy for so long) half open by now.
    assert_ne!(state(), BreakerState::Closed);
    let mut open = 0;
    for _ in 0..20 {
        let error = endpoints.call(once(), ask).await.expect_err("it still fails");
        open += u32::from(matches!(error, CallError::BreakerOpen));
    }
    assert!(open >= 10, "most were not sent: {open}");
    assert_eq!(server.calls(), 3 + 20 - open);

    server.set(Mood::Well);
    eventually("a trial may go", || state() == BreakerState::HalfOpen).await;
    endpoints.call(once(), ask).await.expect("the trial");
    assert_eq!(state(), BreakerState::Closed);
}

#[tokio::test]
async fn a_caller_that_gives_up_blocks_no_trial() {
    let server = Server::start();
    let breaker = BreakerSettings { failures: 1, open_ms: 10, open_max_ms: 10, trials: 1 };
    let settings = EndpointsSettings { breaker, ..patient() };
    let endpoints = endpoints_with(settings, &[&server]);
    server.set(Mood::Unavailable);
    endpoints.call(once(), ask).await.expect_err("it fails");
    server.set(Mood::Hanging);
    eventually("a trial may go", || endpoints.view()[0].breaker == BreakerState::HalfOpen).await;
    let dropped =
        tokio::time::timeout(Duration::from_millis(50), endpoints.call(once(), ask)).await;
    assert!(dropped.is_err(), "the caller gave up: {dropped:?}");
    server.set(Mood::Well);
    endpoints.call(once(), ask).await.expect("the next trial");
}
