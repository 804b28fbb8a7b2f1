//! Whole fan-out, churn, hostile and establishing runs against a small server on real sockets.

mod support;

use std::time::Duration;

use loadgen::oracle::Fault;
use loadgen::stress_report::{
    ChurnReport, EstablishReport, FanoutReport, HostileReport, StressReport,
};
use loadgen::{Options, Report};
use support::{Misbehave, Server, What};

fn run(line: &str) -> Report {
    let options = Options::from_args(line.split_whitespace()).expect("a command line");
    loadgen::run(&options).expect("the run comes to an end")
}

fn fanout(server: &Server, more: &str) -> Report {
    run(&format!(
        "fanout --url {} --connections 6 --rate 200 --duration 500ms --drain 4s {more}",
        server.ws()
    ))
}

fn fanout_part(report: &Report) -> &FanoutReport {
    let Some(StressReport::Fanout(part)) = &report.stress else { panic!("{:?}", report.failures) };
    part
}

fn count(report: &Report, fault: Fault) -> u64 {
    report.oracle.as_ref().expect("a verdict").count(fault)
}

#[test]
fn every_member_gets_every_message() {
    let server = Server::start(None);
    for more in ["", "--senders 3", "--workers 2 --senders 2", "--protocol binary"] {
        let report = fanout(&server, more);
        assert!(report.passed, "{more}: {:?}", report.failures);
        assert_eq!((report.counters.sent, report.counters.acked), (100, 100), "{more}");
        assert_eq!(report.counters.delivered, 500, "{more}");
        let verdict = report.oracle.as_ref().expect("a verdict");
        assert_eq!((verdict.expected_deliveries, verdict.delivered), (500, 500), "{more}");
        assert_eq!((verdict.conversations, verdict.audited, verdict.stored), (1, 1, 100));
        let part = fanout_part(&report);
        assert_eq!((part.first.delivery.count, part.agreed), (500, true), "{more}");
        assert_eq!((part.second, part.slow), (None, None));
    }
    let report = fanout(&server, &format!("--protocol tcp --url {}", server.tcp()));
    assert!(report.passed, "{:?}", report.failures);
    assert_eq!(report.counters.delivered, 500);
}

#[test]
fn a_fan_out_notices_each_fault() {
    let cases = [
        (What::LoseAcked, Fault::Lost),
        (What::DropPush, Fault::Missed),
        (What::Duplicate, Fault::Duplicate),
        (What::Reorder, Fault::OrderBreak),
        (What::Corrupt, Fault::Corrupt),
        (What::SkipSeq, Fault::NotDense),
        (What::LagLate, Fault::Missed),
    ];
    std::thread::scope(|scope| {
        for (what, fault) in cases {
            scope.spawn(move || {
                let server = Server::start(Some(Misbehave { what, every: 20 }));
                let report = fanout(&server, "--max-refused 100 --workers 2");
                assert!(!report.passed, "{what:?} went unnoticed");
                assert!(count(&report, fault) > 0, "{what:?}: {:?}", report.failures);
            });
        }
    });
}

#[test]
fn what_a_server_may_do_passes_a_fan_out() {
    for what in [What::Lag, What::RateLimit] {
        let report = fanout(&Server::start(Some(Misbehave { what, every: 10 })), "");
        assert!(report.passed, "{what:?}: {:?}", report.failures);
        assert_eq!((report.counters.acked, report.counters.delivered), (100, 500), "{what:?}");
        assert!(report.counters.lagged + report.counters.retries > 0, "{what:?}");
    }
}

#[test]
fn a_fan_out_reads_again_what_is_acknowledged_after_its_history_was_read() {
    let server = Server::start(Some(Misbehave { what: What::Late, every: 10 }));
    let report = fanout(&server, "--drain 1s");
    assert!(report.passed, "{:?}\n{:?}", report.failures, report.oracle);
    let verdict = report.oracle.as_ref().expect("a verdict");
    assert_eq!((verdict.acked, verdict.unanswered, verdict.audited), (100, 0, 1));
}

/// Half a megabyte for each slow reader, of which the server keeps little.
const SLOW: &str = "--slow 3 --slow-rcvbuf 4096 --payload-bytes 1000 --rate 500 --duration 1s";

#[test]
fn slow_readers_lag_and_become_complete() {
    let server = Server::start(None);
    for more in ["", "--slow-baseline offline", "--workers 2"] {
        let report = fanout(&server, &format!("{SLOW} --max-p99-ratio 1000000000 {more}"));
        assert!(report.passed, "{more}: {:?}", report.failures);
        let part = fanout_part(&report);
        let slow = part.slow.expect("slow readers");
        assert_eq!((slow.readers, slow.complete), (3, 3), "{more}");
        assert!(slow.lagged >= 3 && slow.pulled > 0 && slow.pushed > 0, "{more}: {slow:?}");
        let second = part.second.expect("two phases");
        assert_eq!(part.first.delivery.count + second.delivery.count, 1000 * 5, "{more}");
        assert!(part.p99_ratio.is_some());
    }
    let report = fanout(&server, &format!("{SLOW} --max-p99-ratio 0.000001"));
    assert!(report.failures.iter().any(|f| f.contains("p99")), "{:?}", report.failures);
}

#[test]
fn a_slow_reader_that_is_told_wrongly_where_it_lags_is_not_complete() {
    let server = Server::start(Some(Misbehave { what: What::LagLate, every: 100 }));
    let report = fanout(&server, &format!("{SLOW} --max-p99-ratio 1000000000 --drain 1s"));
    assert!(!report.passed);
    assert!(count(&report, Fault::Missed) > 0, "{:?}", report.failures);
}

fn churn_part(report: &Report) -> &ChurnReport {
    let Some(StressReport::Churn(part)) = &report.stress else { panic!("{:?}", report.failures) };
    part
}

#[test]
fn connections_come_and_go_in_every_way() {
    let server = Server::start(None);
    for more in ["", "--workers 3", "--connect-rate 2000"] {
        let report =
            run(&format!("churn --url {} --total 600 --connections 12 {more}", server.ws()));
        assert!(report.passed, "{more}: {:?} {:?}", report.failures, report.errors);
        let part = churn_part(&report);
        assert_eq!(part.done.values().sum::<u64>(), 570, "the warm-up is a twentieth");
        assert_eq!((part.done.len(), part.done["login_close"]), (7, 114), "{more}");
    }
}

#[test]
fn a_churn_that_does_not_go_as_meant_fails() {
    let report = run(&format!("churn --url ws://{}/ws --total 200", support::byte_echo()));
    assert!(!report.passed);
    assert!(churn_part(&report).failed > 0);
    assert!(
        report.errors.keys().any(|name| name.starts_with("login_close")),
        "{:?}",
        report.errors
    );
}

fn hostile(server: &Server, more: &str) -> (Report, HostileReport) {
    let report = run(&format!(
        "hostile --url {} --connections 4 --rate 200 --duration 300ms --hostile 8 --flooders 2 {more}",
        server.ws()
    ));
    let Some(StressReport::Hostile(part)) = &report.stress else { panic!("{:?}", report.failures) };
    let part = (**part).clone();
    (report, part)
}

#[test]
fn hostile_connections_are_closed_and_the_healthy_live() {
    let server = Server::with_deadline(None, Some(Duration::from_millis(400)));
    for more in ["", "--workers 2"] {
        let (report, part) =
            hostile(&server, &format!("--deadline-ms 400 --tolerance-ms 8000 {more}"));
        assert!(report.passed, "{more}: {:?} {:?}", report.failures, report.errors);
        assert_eq!(part.kinds.len(), 5, "{more}");
        for (name, kind) in part.kinds.iter().filter(|(name, _)| *name != "ping_flood") {
            assert_eq!((kind.count, kind.open, kind.early), (2, 0, 0), "{name}");
            let (first, _, _) = kind.closed_after_ms.expect("closed");
            assert!(first >= 399, "{name} closed after {first} ms");
        }
        let ends = &part.kinds["half_open_upgrade"].ends;
        assert!(ends.keys().all(|end| end.starts_with("close 4201")), "{ends:?}");
        assert!(part.kinds["ping_flood"].sent_bytes_each > 100.0);
        assert_eq!((part.kinds["ping_flood"].count, report.counters.unsent), (2, 0));
        assert!(part.alone.count > 0 && part.together.count > 0);
    }
}

#[test]
fn hostile_connections_that_stay_or_go_early_fail_the_run() {
    let (report, part) = hostile(&Server::start(None), "--deadline-ms 100 --tolerance-ms 100");
    assert!(!report.passed);
    assert_eq!(part.kinds["silent"].open, 2);
    let hasty = Server::with_deadline(None, Some(Duration::from_millis(50)));
    let (report, part) = hostile(&hasty, "--deadline-ms 60000 --tolerance-ms 100");
    assert!(!report.passed);
    assert_eq!(part.kinds["silent"].early, 2);
}

fn establish_part(report: &Report) -> &EstablishReport {
    let Some(StressReport::Establish(part)) = &report.stress else {
        panic!("{:?}", report.failures)
    };
    part
}

#[test]
fn logins_are_counted_and_timed() {
    let server = Server::start(None);
    let lines = [
        format!("--url {}", server.ws()),
        format!("--url {} --login token --users 3", server.ws()),
        format!("--url {} --protocol binary", server.ws()),
        format!("--url {} --protocol tcp --login token", server.tcp()),
        format!("--url {} --workers 2 --connect-in-flight 4", server.ws()),
    ];
    for line in lines {
        let report = run(&format!("establish --connections 20 --total 40 {line}"));
        assert!(report.passed, "{line}: {:?} {:?}", report.failures, report.errors);
        let part = establish_part(&report);
        assert_eq!((part.logins, part.failed, part.rounds_per_s.len()), (40, 0, 2), "{line}");
        assert!(part.logins_per_s > 0.0);
        assert_eq!(report.latency.connect.count, 40, "{line}");
    }
}

#[test]
fn logins_that_fail_fail_the_run() {
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    for address in [closed, support::byte_echo()] {
        let report = run(&format!("establish --url ws://{address}/ws --connections 10"));
        assert!(!report.passed);
        let part = establish_part(&report);
        assert_eq!((part.logins, part.failed), (0, 10), "{:?}", report.errors);
    }
}
