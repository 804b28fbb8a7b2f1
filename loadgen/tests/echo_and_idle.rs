//! Whole echo and idle runs against small servers on real sockets.

mod support;

use loadgen::{Options, Report};
use support::{Misbehave, Server, What};

fn run(line: &str) -> Report {
    let options = Options::from_args(line.split_whitespace()).expect("a command line");
    loadgen::run(&options).expect("the run comes to an end")
}

fn echo(server: &Server, more: &str) -> Report {
    run(&format!(
        "echo --url ws://{}/echo --connections 5 --rate 300 --duration 500ms --drain 1s {more}",
        server.address
    ))
}

#[test]
fn an_honest_echo_passes() {
    let server = Server::start(None);
    for more in
        ["", "--protocol binary", "--payload-bytes 5000", "--rate max --window 3 --duration 2s"]
    {
        let report = echo(&server, &format!("--drain 20s {more}"));
        assert!(report.passed, "{more}: {:?}", report.failures);
        assert!(
            report.counters.sent >= 150 && report.counters.acked == report.counters.sent,
            "{more}"
        );
        assert_eq!(report.latency.ack.count, report.counters.sent);
    }
}

#[test]
fn deflate_is_offered_and_used_where_the_server_agrees() {
    let server = Server::start(None);
    for more in ["", "--protocol binary", "--rate max --window 3"] {
        let report = echo(&server, &format!("--deflate --payload-bytes 2000 --drain 20s {more}"));
        assert!(report.passed, "{more}: {:?}", report.failures);
        let counters = &report.counters;
        assert_eq!((counters.deflating, counters.acked), (5, counters.sent), "{more}");
        let whole = counters.sent * 2000;
        assert!(counters.sent_bytes < whole && counters.received_bytes < whole, "{counters:?}");
    }
    let chat = run(&format!("chat --url {} --duration 200ms --deflate", server.ws()));
    assert!(chat.passed && chat.counters.deflating == 0, "declined: {:?}", chat.failures);
    let plain = echo(&server, "--payload-bytes 2000");
    assert!(
        plain.counters.deflating == 0 && plain.counters.sent_bytes > plain.counters.sent * 2000
    );
}

#[test]
fn raw_bytes_are_cut_into_messages_again() {
    let address = support::byte_echo();
    for more in ["--rate 300 --duration 500ms", "--rate max --payload-bytes 4000 --duration 2s"] {
        let line = format!("echo --url tcp://{address} --protocol tcp --connections 5 {more}");
        let report = run(&line);
        assert!(report.passed, "{more}: {:?}", report.failures);
        assert!(report.counters.acked >= 150);
    }
}

#[test]
fn each_fault_fails_the_echo() {
    let cases = [
        (What::LoseAcked, "did not come back"),
        (What::Duplicate, "out of order or twice"),
        (What::Reorder, "out of order or twice"),
        (What::Corrupt, "changed"),
    ];
    for (what, word) in cases {
        let report = echo(&Server::start(Some(Misbehave { what, every: 20 })), "");
        assert!(!report.passed, "{what:?} went unnoticed");
        assert!(
            report.failures.iter().any(|failure| failure.contains(word)),
            "{what:?}: {:?}",
            report.failures
        );
    }
}

#[test]
fn idle_connections_keep_their_heartbeats() {
    let server = Server::start(None);
    let lines = [
        format!("--url {} --login dev", server.ws()),
        format!("--url {} --login dev --protocol binary", server.ws()),
        format!("--url {} --login dev --protocol tcp", server.tcp()),
        format!("--url ws://{}/echo --login none", server.address),
    ];
    // One that is not answered when the next is due counts as missed: that is the time there is.
    let idle = |line: &str| {
        let report = run(&format!(
            "idle --connections 20 --duration 5s --heartbeat 2s --connect-rate 2000 {line}"
        ));
        assert!(report.passed, "{line}: {:?}", report.failures);
        assert_eq!(report.counters.established, 20);
        assert!(report.counters.heartbeats >= 20, "{line}: {:?}", report.counters);
        assert_eq!(report.counters.heartbeats, report.counters.heartbeats_answered, "{line}");
    };
    std::thread::scope(|scope| {
        for line in &lines {
            scope.spawn(|| idle(line));
        }
    });
}

#[test]
fn an_idle_server_that_breaks_off_fails() {
    let server = Server::start(None);
    let line = format!("idle --connections 4 --duration 3s --url {}", server.ws());
    let options = Options::from_args(line.split_whitespace()).expect("a command line");
    let running = loadgen::Running::start(&options, &loadgen::Workers::Threads).expect("valid");
    while running.progress().stage != loadgen::Stage::Load {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    server.sever();
    let report = running.wait().expect("the run comes to an end");
    assert!(!report.passed);
    assert_eq!(report.counters.disconnects, 4);
}
