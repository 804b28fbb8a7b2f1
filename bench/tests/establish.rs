//! The connection generator against servers that let everybody in, nobody, or answer wrongly.

mod common;

use std::io::{Read, Write};
use std::process::{Command, Output};

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
