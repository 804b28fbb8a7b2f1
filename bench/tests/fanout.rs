//! The fan-out client against the C unit, and against servers that lose, double or change.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use codec::ws::{Opcode, encode_frame};
use common::{report, serve, unit};
use serde_json::{Value, json};
use tungstenite::handshake::server::Request;

const RECEIVERS: u64 = 20;
const MESSAGES: u64 = 30;

fn client(address: &str, pid: u32, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fanout_client"))
        .args(["--connect", address, "--pid", &pid.to_string()])
        .args(["--receivers", &RECEIVERS.to_string(), "--messages", &MESSAGES.to_string()])
        .args(["--settle-ms", "200", "--patience-s", "2"])
        .args(more)
        .output()
        .unwrap()
}

fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A broadcasting WebSocket server: what comes in goes to all, by way of `to_receiver`, which is
/// told how many went out before and returns the texts to send.
fn broadcaster(to_receiver: fn(usize, Vec<u8>) -> Vec<Vec<u8>>) -> String {
    let everybody = Arc::new(Mutex::new((0, Vec::<TcpStream>::new())));
    serve(move |stream| {
        let raw = stream.try_clone().unwrap();
        // From before it is answered until it is on the list nobody sends: it misses nothing once it knows it is in.
        let mut list = None;
        // The error type of the callback is the library's.
        #[allow(clippy::result_large_err)]
        let answer = |_: &Request, response| {
            list = Some(everybody.lock().unwrap());
            Ok(response)
        };
        let Ok(mut socket) = tungstenite::accept_hdr(stream, answer) else { return };
        list.take().expect("it was answered").1.push(raw);
        while let Ok(message) = socket.read() {
            if !message.is_binary() {
                continue;
            }
            let payload = message.into_data().to_vec();
            let (sent, receivers) = &mut *everybody.lock().unwrap();
            for receiver in receivers {
                for payload in to_receiver(*sent, payload.clone()) {
                    let mut frame = Vec::new();
                    encode_frame(&mut frame, Opcode::Binary, &payload);
                    let _ = receiver.write_all(&frame);
                }
                *sent += 1;
            }
        }
    })
}

/// Deliveries of the first ten messages go well.
const LATER: usize = 10 * (RECEIVERS as usize + 1);

#[test]
fn what_a_core_did_is_told_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "send_loop");
    let measured = |more: &[&str]| report(&client(&address, server.0.id(), more));
    assert!(measured(&[])["server_core_ns_per_delivery"].is_null());
    let report = measured(&["--server-core", "0"]);
    let core = report["server_core_ns_per_delivery"].as_f64().unwrap();
    // No more than all of the time.
    let all = report["wall_ms"].as_f64().unwrap() * 1e6 / (RECEIVERS * MESSAGES) as f64;
    assert!((0.0..=all * 1.01).contains(&core), "{core} of {all}");
}

#[test]
fn the_unit_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "send_loop");
    for window in ["1", "4"] {
        let report = report(&client(&address, server.0.id(), &["--window", window]));
        let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"));
        assert_eq!(report["deliveries"], RECEIVERS * MESSAGES);
        assert!(number("server_cpu_ns_per_delivery") > 100.0, "a delivery is a system call");
        assert!(number("complete_p50_ms") <= number("complete_p99_ms"));
        let rate = number("deliveries") / (number("wall_ms") / 1e3);
        assert!((rate - number("deliveries_per_s")).abs() < rate * 0.01);
    }
}

#[test]
fn the_unit_forgets_who_left() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "send_loop");
    // Each run leaves its connections behind as resets; the next must not be troubled by them.
    for _ in 0..3 {
        report(&client(&address, server.0.id(), &["--warmup", "1"]));
    }
}

#[test]
fn websocket_deliveries_are_counted() {
    let address = broadcaster(|_, payload| vec![payload]);
    let report = report(&client(&address, std::process::id(), &["--protocol", "ws"]));
    assert_eq!(report["deliveries"], RECEIVERS * MESSAGES);
}

#[test]
fn a_lost_delivery_is_missed() {
    let address =
        broadcaster(|sent, payload| if sent == LATER { Vec::new() } else { vec![payload] });
    let error = failure(&client(&address, std::process::id(), &["--protocol", "ws"]));
    assert!(error.contains("1 deliveries are missing"), "{error}");
}

#[test]
fn a_doubled_delivery_is_caught() {
    let address =
        broadcaster(
            |sent, payload| {
                if sent == LATER { vec![payload.clone(), payload] } else { vec![payload] }
            },
        );
    let error = failure(&client(&address, std::process::id(), &["--protocol", "ws"]));
    assert!(error.contains("not sent") || error.contains("differs"), "{error}");
}

#[test]
fn a_changed_delivery_is_caught() {
    let address = broadcaster(|sent, mut payload| {
        if sent == LATER {
            payload[100] ^= 1;
        }
        vec![payload]
    });
    let error = failure(&client(&address, std::process::id(), &["--protocol", "ws"]));
    assert!(error.contains("differs from what was sent"), "{error}");
}

/// A chat server with one group and just the commands this needs.
fn chat() -> String {
    let joined = Arc::new(Mutex::new(Vec::<String>::new()));
    let online = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    serve(move |stream| {
        let mut raw = stream.try_clone().unwrap();
        let mut user = String::new();
        // The error type of the callback is the library's.
        #[allow(clippy::result_large_err)]
        let check = |request: &Request, response| {
            user = request.uri().query().unwrap_or_default().to_owned();
            Ok(response)
        };
        let Ok(mut socket) = tungstenite::accept_hdr(stream, check) else { return };
        let say = |to: &mut TcpStream, text: &Value| {
            let mut frame = Vec::new();
            encode_frame(&mut frame, Opcode::Text, text.to_string().as_bytes());
            let _ = to.write_all(&frame);
        };
        while let Ok(message) = socket.read() {
            let Ok(text) = message.to_text() else { return };
            let Ok(request) = serde_json::from_str::<Value>(text) else { return };
            match request["cmd"].as_u64() {
                Some(0) => {
                    if joined.lock().unwrap().contains(&user) && user != "user_id=u0" {
                        online.lock().unwrap().push(raw.try_clone().unwrap());
                    }
                    say(&mut raw, &json!({ "cmd": 0, "code": 0 }));
                }
                Some(3) => {
                    joined.lock().unwrap().push(user.clone());
                    say(&mut raw, &json!({ "cmd": 3, "code": 0, "payload": [] }));
                }
                Some(2) => {
                    let content = &request["payload"]["content"];
                    let push = json!({ "cmd": 4, "payload": { "content": content } });
                    online.lock().unwrap().iter_mut().for_each(|member| say(member, &push));
                    say(&mut raw, &json!({ "cmd": 2, "code": 0, "seq": 1 }));
                }
                _ => return,
            }
        }
    })
}

#[test]
fn members_join_and_get_their_pushes() {
    let address = chat();
    let path = ["--protocol", "corelane", "--path", "/ws?user_id=u{n}"];
    let pid = std::process::id();
    let nobody = failure(&client(&address, pid, &path));
    assert!(nobody.contains("deliveries are missing"), "{nobody}");
    let joined = client(&address, pid, &[&path[..], &["--join"]].concat());
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let report = report(&client(&address, pid, &path));
    assert_eq!(report["deliveries"], RECEIVERS * MESSAGES);
}

#[test]
fn impossible_wishes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = unit(&folder, "send_loop");
    for wish in [["--payload", "15"], ["--window", "0"], ["--receivers", "10000000"]] {
        failure(&client(&address, server.0.id(), &wish));
    }
}
