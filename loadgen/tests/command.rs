//! The command itself: exit codes, output, worker processes.

mod support;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Misbehave, Server, What};

fn loadgen(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(line.split_whitespace())
        .output()
        .expect("it starts")
}

fn chat(server: &Server, more: &str) -> Output {
    loadgen(&format!(
        "chat --url {} --connections 8 --rate 200 --duration 500ms --drain 2s {more}",
        server.ws()
    ))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn zero_when_all_is_well() {
    let server = Server::start(None);
    let output = chat(&server, &format!("--server-pid {}", std::process::id()));
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.ends_with("passed\n") && stdout.contains("server  "), "{stdout}");
    assert!(output.stderr.is_empty(), "no progress lines without a terminal");
}

#[test]
fn one_when_the_oracle_or_a_threshold_says_so() {
    for what in [What::DropPush, What::Duplicate, What::Reorder, What::LoseAcked] {
        let output = chat(&Server::start(Some(Misbehave { what, every: 10 })), "--audit all");
        let stdout = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{what:?}: {stdout}");
        assert!(stdout.contains("FAILED"), "{stdout}");
    }
    assert_eq!(chat(&Server::start(None), "--max-p99-ms 0.000001").status.code(), Some(1));
}

#[test]
fn two_when_the_line_is_wrong() {
    let cases = [
        ("chat --connections 0", "--connections"),
        ("chat --url ws://192.0.2.1/ws", "loopback"),
        ("chat --rate often", "--rate"),
        ("dance", "dance"),
        ("chat --slow 3", "--slow"),
        ("churn --total 0", "--total"),
        ("hostile --hostile 0 --flooders 0", "--flooders"),
        ("fanout --senders 20000", "--senders"),
    ];
    for (line, word) in cases {
        let output = loadgen(line);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(word), "{line}: {stderr}");
    }
    assert_eq!(loadgen("--help").status.code(), Some(0));
}

#[test]
fn worker_processes_share_the_work() {
    let server = Server::start(None);
    let file = std::env::temp_dir().join(format!("loadgen-{}.json", std::process::id()));
    let output =
        chat(&server, &format!("--workers 3 --idle-connections 5 --json {}", file.display()));
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let json = std::fs::read(&file).expect("the result was written");
    std::fs::remove_file(&file).expect("the result can be removed");
    let report: loadgen::Report = serde_json::from_slice(&json).expect("the result is a report");
    assert!(report.passed);
    assert_eq!(report.generator.workers, 3);
    assert_eq!(report.counters.established, 13);
    assert_eq!((report.counters.sent, report.counters.delivered), (100, 100));
    assert_eq!(report.latency.ack.count, 100);
    assert_eq!(report.oracle.expect("a verdict").conversations, 4);
}

#[test]
fn a_fan_out_is_shared_by_worker_processes() {
    let server = Server::start(None);
    let file = std::env::temp_dir().join(format!("loadgen-fanout-{}.json", std::process::id()));
    let output = loadgen(&format!(
        "fanout --url {} --connections 9 --slow 3 --max-p99-ratio 1000000000 --rate 100 \
         --duration 300ms --workers 3 --server-pid {} --json {}",
        server.ws(),
        std::process::id(),
        file.display()
    ));
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let json = std::fs::read(&file).expect("the result was written");
    std::fs::remove_file(&file).expect("the result can be removed");
    let report: loadgen::Report = serde_json::from_slice(&json).expect("the result is a report");
    assert_eq!((report.generator.workers, report.counters.established), (3, 12));
    assert_eq!((report.counters.sent, report.counters.delivered), (60, 60 * 11));
    let Some(loadgen::stress_report::StressReport::Fanout(part)) = report.stress else {
        panic!("a fan-out")
    };
    assert!(part.agreed && part.server_cpu_us_per_delivery.is_some());
    assert_eq!(part.slow.map(|slow| (slow.readers, slow.complete)), Some((3, 3)));
}

#[test]
fn churn_hostile_and_establish_say_how_it_went() {
    let server = Server::with_deadline(None, Some(Duration::from_millis(200)));
    let lines = [
        ("churn --total 100 --connections 4", 0, "login_close"),
        ("establish --connections 4 --workers 2", 0, "logins "),
        (
            "hostile --connections 2 --hostile 4 --flooders 1 --duration 100ms --deadline-ms 200 --tolerance-ms 9000",
            0,
            "one_byte_at_a_time",
        ),
        (
            "hostile --connections 2 --hostile 4 --flooders 1 --duration 100ms --deadline-ms 60000",
            1,
            "closed early",
        ),
        ("fanout --connections 2 --slow 1 --duration 100ms --max-p99-ratio 0.000001", 1, "FAILED"),
    ];
    for (line, code, word) in lines {
        let output = loadgen(&format!("{line} --url {}", server.ws()));
        let stdout = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{line}: {stdout}");
        assert!(stdout.contains(word), "{line}: {stdout}");
    }
}

#[test]
fn no_worker_outlives_the_command() {
    let server = Server::start(None);
    let line = format!("idle --url {} --connections 6 --workers 3 --duration 1h", server.ws());
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_until("all connections stand", || server.online() == 6);
    command.kill().expect("it can be killed");
    command.wait().expect("it ends");
    wait_until("all workers are gone", || server.online() == 0);
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
