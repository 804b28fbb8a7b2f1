//! The measuring client against servers that answer well, wrongly, and not at all.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Running, report, serve, unit};
use serde_json::Value;

/// Runs the client with few connections.
fn client(address: &str, pid: u32, more: &[&str]) -> Output {
    client_with("10", address, pid, more)
}

fn client_with(outstanding: &str, address: &str, pid: u32, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_echo_client"))
        .args(["--connect", address, "--pid", &pid.to_string(), "--connections", "40"])
        .args(["--outstanding", outstanding, "--warmup", "200", "--settle-ms", "1"])
        .args(more)
        .output()
        .unwrap()
}

fn echo_bytes(mut stream: TcpStream, mut change: impl FnMut(u64, &mut [u8])) {
    let mut bytes = [0; 4096];
    let mut seen = 0;
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        seen += length as u64;
        change(seen, &mut bytes[..length]);
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

/// Every connection sends its 512 bytes more than this often in these runs.
const ENOUGH_BYTES: u64 = 512 * 6;

#[test]
fn the_unit_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "epoll_echo");
    let report = report(&client(&address, server.0.id(), &["--messages", "20000"]));
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key} in {report}"));
    assert_eq!(number("messages"), 20_000.0);
    assert!(number("server_cpu_ns_per_message") > 100.0, "a message costs system calls");
    assert!(number("p50_us") > 0.0 && number("p50_us") <= number("p99_us"));
    assert!(number("p99_us") <= number("max_us") * 1.01);
    // Little's law: with 10 under way from first to last, the latencies add up to 10 walls.
    let under_way = number("mean_us") * 20_000.0 / (number("wall_ms") * 1e3);
    assert!((9.0..=10.1).contains(&under_way), "{under_way} messages under way on average");
    let rate = 20_000.0 / (number("wall_ms") / 1e3);
    assert!((rate - number("messages_per_s")).abs() < rate * 0.01);
    assert!(report["memory"]["start"]["rss_bytes"].as_u64() > Some(0));
}

/// Runs the client with standard input and lets it take its turns.
fn in_turns(input: &str, address: &str, pid: u32, more: &[&str]) -> Output {
    let mut client = Command::new(env!("CARGO_BIN_EXE_echo_client"))
        .args(["--slices", "--connect", address, "--pid", &pid.to_string(), "--connections", "40"])
        .args(["--outstanding", "10", "--warmup", "200", "--slice-warmup", "100"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A client that refuses a line does not read on.
    let _ = client.stdin.take().unwrap().write_all(input.as_bytes());
    client.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn slices_are_measured_turn_by_turn_until_the_input_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "epoll_echo");
    let core = ["--server-core", "0", "--first-number", "14000"];
    let output = in_turns("5000\n20000\n", &address, server.0.id(), &core);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [ready, first, second] = &lines(&output)[..] else { panic!("{output:?}") };
    assert!(ready["connect_ms"].as_f64() > Some(0.0));
    assert!(ready["idle_step_ns"].as_u64() > Some(0));
    for (slice, messages) in [(first, 5_000.0), (second, 20_000.0)] {
        let number = |key: &str| slice[key].as_f64().unwrap_or_else(|| panic!("{key} in {slice}"));
        assert_eq!(number("messages"), messages);
        assert!(number("p50_us") > 0.0 && number("p50_us") <= number("p99_us"));
        // Little's law: the flow neither begins nor ends within a slice.
        let under_way = number("mean_us") * messages / (number("wall_ms") * 1e3);
        assert!((9.0..=11.0).contains(&under_way), "{under_way} messages under way on average");
        let all = number("wall_ms") * 1e6 / messages;
        let cost = number("server_core_ns_per_message");
        assert!((0.0..=all).contains(&cost), "{cost} of {all}");
    }
}

#[test]
fn a_client_between_its_turns_is_blocked() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "epoll_echo");
    let mut client = Command::new(env!("CARGO_BIN_EXE_echo_client"))
        .args(["--slices", "--connect", &address, "--pid", &server.0.id().to_string()])
        .args(["--connections", "40", "--outstanding", "10", "--warmup", "200"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let mut output = BufReader::new(client.0.stdout.take().unwrap());
    let mut input = client.0.stdin.take().unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", client.0.id())).unwrap();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        counts.map(String::from).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        input.write_all(b"1000\n").unwrap();
        line.clear();
        output.read_line(&mut line).unwrap();
        assert!(line.contains("\"messages\":1000"), "{line}");
        // It has answered and is about to read.
        sleep(Duration::from_millis(100));
        let before = switches();
        sleep(Duration::from_millis(300));
        assert_eq!(switches(), before, "it ran while it had nothing to do");
    }
    drop(input);
    assert!(client.0.wait().unwrap().success());
}

#[test]
fn a_turn_that_is_no_number_ends_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "epoll_echo");
    for wrong in ["many", "0", ""] {
        let output = in_turns(&format!("1000\n{wrong}\n"), &address, server.0.id(), &[]);
        assert!(!output.status.success(), "{wrong:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(&format!("{wrong:?} on standard input")), "{error}");
        assert_eq!(lines(&output).len(), 2, "ready and the slice before it");
    }
    let output = in_turns("", &address, server.0.id(), &["--messages", "5"]);
    assert!(!output.status.success(), "a slice's messages come by its turn");
}

#[test]
fn what_a_core_did_is_told_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "epoll_echo");
    let measured = |more: &[&str]| {
        let more = [&["--messages", "20000"], more].concat();
        report(&client(&address, server.0.id(), &more))
    };
    assert!(measured(&[])["server_core_ns_per_message"].is_null());
    let report = measured(&["--server-core", "0"]);
    let core = report["server_core_ns_per_message"].as_f64().unwrap();
    // No more than all of the time.
    let all = report["wall_ms"].as_f64().unwrap() * 1e6 / 20_000.0;
    assert!((0.0..=all).contains(&core), "{core} of {all}");
    let output = client(&address, server.0.id(), &["--server-core", "9999"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no core 9999"), "{error}");
}

#[test]
fn websocket_echoes_are_measured_in_either_order() {
    let address = serve(|stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        while let Ok(message) = socket.read() {
            let data = message.is_binary() || message.is_text();
            if data && socket.send(message).is_err() {
                return;
            }
        }
    });
    for order in ["random", "sweep"] {
        let more = ["--protocol", "ws", "--messages", "2000", "--order", order];
        // The servers here are threads of the test: its own process is the one observed.
        let report = report(&client(&address, std::process::id(), &more));
        assert_eq!(report["messages"], 2000, "{order}");
    }
}

// The error type of the handshake callback is the library's.
#[allow(clippy::result_large_err)]
#[test]
fn heartbeats_reach_each_connection_at_its_own_path() {
    let address = serve(|stream| {
        let check = |request: &tungstenite::handshake::server::Request, response| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            assert!(query.strip_prefix("user_id=u").unwrap().parse::<usize>().unwrap() < 40);
            Ok(response)
        };
        let mut socket = tungstenite::accept_hdr(stream, check).unwrap();
        while let Ok(message) = socket.read() {
            assert_eq!(message.to_text().unwrap(), r#"{"cmd":0}"#);
            socket.send(tungstenite::Message::text(r#"{"code":0,"cmd":0}"#)).unwrap();
        }
    });
    let path = ["--path", "/ws?user_id=u{n}", "--protocol", "corelane"];
    let counts = ["--messages", "400", "--order", "sweep", "--warm-connections"];
    for warm in ["0", "5"] {
        let more = [&path[..], &counts[..], &[warm, "--steps", "3"]].concat();
        let report = report(&client(&address, std::process::id(), &more));
        let readings = report["memory"]["steps"].as_array().unwrap();
        let counts: Vec<_> = readings.iter().map(|reading| &reading["connections"]).collect();
        assert_eq!(counts.len(), 4);
        assert_eq!(counts[0].to_string(), warm);
        assert_eq!(counts[3], 40);
        assert_eq!(report["messages"], 400, "{warm} warm connections");
    }
}

#[test]
fn a_server_that_changes_one_byte_is_caught() {
    let address = serve(|stream| {
        echo_bytes(stream, |seen, bytes| {
            if seen > ENOUGH_BYTES {
                bytes[bytes.len() / 2] ^= 1;
            }
        });
    });
    let output = client(&address, std::process::id(), &["--messages", "20000"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("differs from what was sent"), "{error}");
}

#[test]
fn a_server_that_goes_away_ends_the_run() {
    let address = serve(|stream| {
        let other = stream.try_clone().unwrap();
        echo_bytes(stream, move |seen, _| {
            if seen > ENOUGH_BYTES {
                let _ = other.shutdown(std::net::Shutdown::Both);
            }
        });
    });
    let output = client(&address, std::process::id(), &["--messages", "20000"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("closed the connection") || error.contains("reset"), "{error}");
}

#[test]
fn impossible_wishes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "epoll_echo");
    let wishes: [(&str, &[&str], &str); 4] = [
        ("10", &["--payload", "3"], "at least 8 bytes"),
        ("10", &["--warm-connections", "40"], "--warm-connections"),
        ("41", &[], "outstanding"),
        ("0", &[], "outstanding"),
    ];
    for (outstanding, wish, reason) in wishes {
        let output = client_with(outstanding, &address, server.0.id(), wish);
        assert!(!output.status.success(), "{outstanding} {wish:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(reason), "{outstanding} {wish:?}: {error}");
    }
}
