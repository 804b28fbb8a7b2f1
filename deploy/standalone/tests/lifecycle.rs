//! Starting, stopping, and what a newcomer gets for a mistake.

mod common;

use std::process::{Output, Stdio};
use std::time::Duration;

use common::{Server, command, data_dir};
use rustix::process::Signal;
use serde_json::json;

fn run(options: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command();
    command
        .args(options)
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.output().unwrap()
}

#[test]
fn a_stop_is_clean_and_keeps_the_data() {
    for signal in [Signal::TERM, Signal::INT] {
        let data = data_dir();
        let mut server = Server::dev(data.path());
        let mut alice = server.dev_user("alice");
        (1..=10).for_each(|n| assert_eq!(alice.send("g", &format!("m{n}"), "kept")["seq"], n));
        server.signal(signal);
        let goaway = alice.next().unwrap();
        assert_eq!(goaway["cmd"], 11);
        assert_eq!(alice.close_code(), 4000);
        assert_eq!(server.wait().code(), Some(0));
        let again = Server::dev(data.path());
        let mut alice = again.dev_user("alice");
        assert_eq!(alice.pull("g", 0, 50)["payload"].as_array().unwrap().len(), 10);
        assert_eq!(alice.send("g", "m3", "kept")["seq"], 3, "a retry is known after a restart");
        assert_eq!(alice.send("g", "m11", "new")["seq"], 11);
        assert_eq!(again.stop().code(), Some(0));
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let data = data_dir();
    let mut server = Server::start(data.path(), &["--dev-login"]);
    // A client that never closes makes the first stop wait.
    let _client = server.dev_user("alice");
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::TERM);
    let status = server.wait();
    assert!(status.code() == Some(130) || status.code() == Some(0), "{status:?}");
}

#[test]
fn mistakes_are_one_sentence_and_exit_code_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "heartbeat_ms = \"soon\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    for (options, variables, parts) in [
        (vec!["--listen", "nowhere"], vec![], vec!["--listen", "nowhere", "127.0.0.1:8080"]),
        (vec!["--listen", "0.0.0.0:0", "--dev-login"], vec![], vec!["dev_login", "loopback"]),
        (vec![], vec![("CORELANE_SHARDS", "many")], vec!["CORELANE_SHARDS", "many", "1 to 1024"]),
        (vec!["--config", path], vec![], vec!["heartbeat_ms", "soon", path]),
        (vec!["--config", "/no/such.toml"], vec![], vec!["/no/such.toml"]),
    ] {
        let output = run(&options, &variables);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(output.stdout.is_empty());
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    assert_eq!(run(&["--no-such-option"], &[]).status.code(), Some(2));
}

#[test]
fn a_taken_port_and_an_unusable_folder_are_named() {
    let data = data_dir();
    let server = Server::start(data.path(), &[]);
    let other = data_dir();
    let output =
        run(&["--listen", &server.addr, "--data-dir", other.path().to_str().unwrap()], &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(text.contains(&server.addr) && text.contains("in use"), "{text}");
    let output = run(&["--listen", "127.0.0.1:0", "--data-dir", "/proc/no/such"], &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("/proc/no/such"), "{text}");
}

/// Two processes on one data folder would give one seq twice.
#[test]
fn a_folder_in_use_is_refused() {
    let data = data_dir();
    let _server = Server::start(data.path(), &[]);
    let output =
        run(&["--listen", "127.0.0.1:0", "--data-dir", data.path().to_str().unwrap()], &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("held by another process"), "{text}");
}

#[test]
fn both_drivers_serve() {
    let uring = gateway::rt::IoDriver::detect() == gateway::rt::IoDriver::IoUring;
    for io in ["epoll", "auto", "io_uring"] {
        if io == "io_uring" && !uring {
            eprintln!("io_uring is denied here: not tested");
            continue;
        }
        let data = data_dir();
        let server = Server::start(data.path(), &["--dev-login", "--io", io]);
        let (mut alice, mut bob) = (server.dev_user("alice"), server.dev_user("bob"));
        bob.pull("g", 0, 1);
        assert_eq!(alice.send("g", "m", "hi")["seq"], 1);
        assert_eq!(bob.next().unwrap()["payload"]["content"], "hi");
        assert_eq!(server.rest("GET", "/healthz", None, None).status, 200);
        assert_eq!(server.stop().code(), Some(0));
    }
}

#[test]
fn nothing_secret_is_logged() {
    let data = data_dir();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut child = command()
        .args(["--listen", "127.0.0.1:0", "--log", "trace", "--data-dir"])
        .arg(data.path())
        .stdout(Stdio::piped())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let addr = line.trim().rsplit('/').next().unwrap().to_owned();
    let password = "very-secret-password";
    common::rest(
        &addr,
        "POST",
        "/api/v1/users",
        None,
        Some(json!({"username":"alice","password":password})),
    );
    let login = common::rest(
        &addr,
        "POST",
        "/api/v1/login",
        None,
        Some(json!({"username":"alice","password":password})),
    )
    .body;
    let token = login["access_token"].as_str().unwrap();
    common::rest(&addr, "GET", "/api/v1/conversations", Some(token), None);
    common::rest(
        &addr,
        "POST",
        "/api/v1/token/refresh",
        None,
        Some(json!({"refresh_token":login["refresh_token"]})),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("shards run on"), "it logs: {text}");
    for secret in [password, token, login["refresh_token"].as_str().unwrap()] {
        assert!(!text.contains(secret), "a secret is in the log");
    }
}
