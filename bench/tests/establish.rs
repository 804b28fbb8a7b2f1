//! The connection generator against servers that let everybody in, nobody, or answer wrongly.

mod common;

use std::io::{Read, Write};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codec::ws::handshake::{Limits as HeadLimits, Request, read_request};
use codec::ws::{Decoder, Limits, Opcode, Role, encode_frame};
use common::{report, serve};

fn client(address: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_establish_client"))
        .args(["--connect", address, "--pid", &std::process::id().to_string()])
        .args(["--connections", "50", "--window", "8"])
        .args(more)
        .output()
        .unwrap()
}

fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that answers every text with `answer`, and ends when that is empty.
fn answering(answer: &'static str) -> String {
    serve(move |mut stream| {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        let mut upgraded = false;
        let mut decoder = Decoder::new();
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            bytes.extend_from_slice(&piece[..length]);
            let mut out = Vec::new();
            if !upgraded {
                let head_len = match read_request(&bytes, &HeadLimits::default()) {
                    Ok(Request::Upgrade(upgrade)) => {
                        upgrade.accept(None, &mut out);
                        upgrade.head_len
                    }
                    _ => continue,
                };
                bytes.drain(..head_len);
                upgraded = true;
            }
            let mut rest = &mut bytes[..];
            while let Ok(Some(_)) = decoder.next(&mut rest, Role::Server, &Limits::default()) {
                if answer.is_empty() {
                    return;
                }
                encode_frame(&mut out, Opcode::Text, answer.as_bytes());
            }
            bytes.clear();
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    })
}

#[test]
fn connections_are_opened_and_counted() {
    let address = answering(r#"{"cmd":0,"code":0}"#);
    for more in [&["--by", "none"][..], &["--by", "name"], &["--by", "name", "--threads", "3"]] {
        let report = report(&client(&address, more));
        let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"));
        assert_eq!(report["connections"], 50, "{more:?}");
        assert!(number("client_cpu_ns_per_connection") > 1_000.0);
        let rate = 50.0 / (number("wall_ms") / 1e3);
        assert!((rate - number("connections_per_s")).abs() < rate * 0.01);
    }
}

#[test]
fn a_server_that_lets_nobody_in_ends_the_run() {
    let address = answering(r#"{"cmd":0,"code":401}"#);
    let error = failure(&client(&address, &["--by", "name"]));
    assert!(error.contains("the heartbeat was answered with"), "{error}");
    let error = failure(&client(&answering(""), &["--by", "name"]));
    assert!(error.contains("closed") || error.contains("reset"), "{error}");
}

#[test]
fn tokens_are_read_from_a_file() {
    let address = answering(r#"{"cmd":0,"code":0}"#);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "AAA\nBBB\n").unwrap();
    let path = file.to_str().unwrap();
    let output = client(&address, &["--by", "token", "--tokens", path]);
    assert_eq!(report(&output)["connections"], 50);
    assert!(failure(&client(&address, &["--by", "token"])).contains("--tokens"));
    std::fs::write(&file, "").unwrap();
    failure(&client(&address, &["--by", "token", "--tokens", path]));
}

/// A REST interface that registers everybody and gives out tokens: a new one each time, or the
/// same to all.
fn rest(different: bool) -> String {
    let given = Arc::new(AtomicU64::new(0));
    serve(move |mut stream| {
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        while !request.ends_with(b"}") {
            match stream.read(&mut piece) {
                Ok(length @ 1..) => request.extend_from_slice(&piece[..length]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&request).into_owned();
        let number = if different { given.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let (status, body) = if head.starts_with("POST /api/v1/users ") {
            ("201 Created", String::from("{}"))
        } else {
            let session = serde_json::json!({
                "access_token": format!("access{number}"),
                "refresh_token": format!("refresh{number}"),
            });
            ("200 OK", session.to_string())
        };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    })
}

#[test]
fn as_many_different_tokens_are_written_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let ask = |address: &str| {
        Command::new(env!("CARGO_BIN_EXE_establish_client"))
            .args(["--connect", address, "--pid", "1", "--users", "3", "--connections", "5"])
            .args(["--tokens", file.to_str().unwrap()])
            .output()
            .unwrap()
    };
    let output = ask(&rest(true));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tokens = std::fs::read_to_string(&file).unwrap();
    let different: std::collections::HashSet<&str> = tokens.lines().collect();
    assert_eq!((different.len(), tokens.lines().count()), (5, 5), "{tokens}");
    assert!(failure(&ask(&rest(false))).contains("1 of 6 tokens are different"));
}
