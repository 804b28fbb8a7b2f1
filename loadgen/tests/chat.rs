//! Whole chat runs against a small server on real sockets: honest, faulty, and breaking off.

mod support;

use std::time::{Duration, Instant};

use loadgen::oracle::Fault;
use loadgen::{Options, Report, Running, Workers};
use support::{Misbehave, Server, What};

fn options(url: &str, more: &str) -> Options {
    let line = format!(
        "chat --url {url} --connections 6 --rate 200 --duration 1s --drain 4s --seed 7 {more}"
    );
    Options::from_args(line.split_whitespace()).expect("a command line")
}

fn run(server: &Server, more: &str) -> Report {
    loadgen::run(&options(&server.ws(), more)).expect("the run comes to an end")
}

fn faulty(what: What, every: u64, more: &str) -> Report {
    run(&Server::start(Some(Misbehave { what, every })), more)
}

fn count(report: &Report, fault: Fault) -> u64 {
    report.oracle.as_ref().expect("a verdict").count(fault)
}

#[test]
fn an_honest_server_passes() {
    let server = Server::start(None);
    let report = run(&server, "--audit all");
    assert!(report.passed, "{:?}", report.failures);
    let verdict = report.oracle.as_ref().expect("a verdict");
    assert_eq!((report.counters.due, report.counters.sent, report.counters.acked), (200, 200, 200));
    assert_eq!((verdict.acked, verdict.delivered, verdict.expected_deliveries), (200, 200, 200));
    assert_eq!((verdict.conversations, verdict.audited), (3, 3));
    assert_eq!(server.stored(), 200);
    assert_eq!(report.latency.ack.count, 200);
    assert_eq!(report.latency.delivery.count, 200);
}

#[test]
fn what_is_due_during_the_warm_up_is_checked_and_not_timed() {
    let report = run(&Server::start(None), "--audit all --warmup 500ms");
    assert!(report.passed, "{:?}", report.failures);
    assert_eq!((report.counters.acked, report.counters.delivered), (200, 200));
    let latency = report.latency;
    // Due evenly over the second.
    for measured in [latency.ack.count, latency.delivery.count, latency.send_lag.count] {
        assert!((95..=105).contains(&measured), "{measured}");
    }
    assert!(loadgen::summary(&report).contains("warm-up"));
}

#[test]
fn groups_deliver_to_every_other_member() {
    let report = run(&Server::start(None), "--group-size 3 --idle-connections 4 --heartbeat 100ms");
    assert!(report.passed, "{:?}", report.failures);
    assert_eq!(report.counters.delivered, 400);
    assert_eq!(report.counters.established, 10);
    assert!(report.counters.heartbeats_answered > 10, "{:?}", report.counters);
}

#[test]
fn every_wire_form_works() {
    let server = Server::start(None);
    for more in
        ["--protocol binary", "--login token", "--protocol binary --login token --group-size 2"]
    {
        let report = run(&server, more);
        assert!(report.passed, "{more}: {:?}", report.failures);
        assert_eq!(report.counters.delivered, 200, "{more}");
    }
    for more in ["--protocol tcp", "--protocol tcp --login token"] {
        let report = loadgen::run(&options(&server.tcp(), more)).expect("the run comes to an end");
        assert!(report.passed, "{more}: {:?}", report.failures);
        assert_eq!(report.counters.delivered, 200, "{more}");
    }
}

#[test]
fn saturation_keeps_windows_full() {
    let report =
        run(&Server::start(None), "--rate max --window 4 --duration 2s --payload-bytes 512");
    assert!(report.passed, "{:?}", report.failures);
    assert!(report.counters.sent > 24, "{:?}", report.counters);
    assert_eq!(report.counters.sent, report.counters.acked);
}

#[test]
fn each_fault_fails_the_run() {
    let cases = [
        (What::LoseAcked, Fault::Lost, ""),
        (What::DropPush, Fault::Missed, ""),
        (What::Duplicate, Fault::Duplicate, ""),
        (What::Reorder, Fault::OrderBreak, ""),
        (What::Corrupt, Fault::Corrupt, ""),
        (What::SkipSeq, Fault::NotDense, ""),
        (What::NoDedup, Fault::TwoSeqs, "--ack-timeout 300ms"),
        (What::RefuseButStore, Fault::Refused, "--max-refused 100"),
    ];
    std::thread::scope(|scope| {
        for (what, fault, more) in cases {
            scope.spawn(move || {
                let report = faulty(what, 20, &format!("--audit all {more}"));
                assert!(!report.passed, "{what:?} went unnoticed");
                assert!(count(&report, fault) > 0, "{what:?}: {:?}", report.failures);
            });
        }
    });
}

#[test]
fn what_a_server_may_do_passes() {
    let cases = [(What::Lag, ""), (What::RateLimit, ""), (What::Mute, "--ack-timeout 300ms")];
    std::thread::scope(|scope| {
        for (what, more) in cases {
            scope.spawn(move || {
                let report = faulty(what, 10, &format!("--audit all {more}"));
                assert!(report.passed, "{what:?}: {:?}", report.failures);
                assert_eq!(report.counters.acked, 200, "{what:?}");
                let noticed = report.counters.lagged + report.counters.retries;
                assert!(noticed > 0, "{what:?}: {:?}", report.counters);
            });
        }
    });
}

#[test]
fn what_is_acknowledged_after_the_history_was_read_is_read_again() {
    let report = faulty(What::Late, 20, "--audit all --drain 1s");
    assert!(report.passed, "{:?}\n{:?}", report.failures, report.oracle);
    let verdict = report.oracle.as_ref().expect("a verdict");
    assert_eq!((verdict.acked, verdict.unanswered, verdict.audited), (200, 0, 3));
}

#[test]
fn refusals_fail_unless_permitted() {
    let report = faulty(What::Refuse, 10, "");
    assert!(!report.passed);
    assert_eq!(report.counters.refused, 20);
    assert_eq!(report.errors["FORBIDDEN"], 20);
    assert!(faulty(What::Refuse, 10, "--max-refused 20").passed);
}

#[test]
fn a_broken_connection_fails_the_run_without_reconnect() {
    let report = faulty(What::Sever, 50, "");
    assert!(!report.passed);
    assert!(report.counters.disconnects > 0);
    assert!(
        report.failures.iter().any(|failure| failure.contains("broke")),
        "{:?}",
        report.failures
    );
}

#[test]
fn with_reconnect_nothing_is_lost_and_nothing_has_two_effects() {
    let report = faulty(What::Sever, 25, "--reconnect --audit all");
    assert!(report.passed, "{:?}\n{:?}", report.failures, report.oracle);
    assert!(report.counters.reconnects > 0 && report.counters.retries > 0, "{:?}", report.counters);
    assert_eq!(report.counters.acked, 200);
}

#[test]
fn a_server_that_breaks_off_and_comes_back_is_clean() {
    let server = Server::start(None);
    let run_options = options(&server.ws(), "--reconnect --duration 2s --audit all --drain 10s");
    let running = Running::start(&run_options, &Workers::Threads).expect("valid");
    for stored in [50, 150, 250] {
        let begin = Instant::now();
        while server.stored() < stored {
            assert!(begin.elapsed() < Duration::from_secs(20), "no messages arrive");
            std::thread::sleep(Duration::from_millis(5));
        }
        server.sever();
    }
    let report = running.wait().expect("the run comes to an end");
    assert!(report.passed, "{:?}\n{:?}", report.failures, report.oracle);
    assert!(report.counters.reconnects >= 6, "{:?}", report.counters);
    assert_eq!(report.counters.acked, report.counters.due);
}

#[test]
fn a_run_can_be_ended_early() {
    let server = Server::start(None);
    let running =
        Running::start(&options(&server.ws(), "--duration 1h"), &Workers::Threads).expect("valid");
    while server.stored() < 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    running.stop();
    let report = running.wait().expect("the run comes to an end");
    assert!(report.passed, "{:?}", report.failures);
    assert!(report.load_s < 60.0);
}

#[test]
fn a_p99_that_cannot_be_met_fails() {
    let report = run(&Server::start(None), "--max-p99-ms 0.000001");
    assert!(!report.passed);
    assert!(report.failures.iter().all(|failure| failure.contains("p99")), "{:?}", report.failures);
}

#[test]
fn nobody_listening_fails_soon() {
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let report =
        loadgen::run(&options(&format!("ws://{closed}/ws"), "")).expect("the run comes to an end");
    assert!(!report.passed);
    assert_eq!(report.counters.established, 0);
    assert!(report.errors.keys().any(|name| name.starts_with("CONNECT_")), "{:?}", report.errors);
}
