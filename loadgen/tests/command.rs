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
