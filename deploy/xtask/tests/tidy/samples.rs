//! A small bad example for each rule: a guard that never barks guards nothing.

use crate::faults;
use crate::rules::CRATES;
use crate::tree::Tree;

/// Faults of a checkout that is tidy but for these files.
fn faults_with(files: &[(&str, &str)]) -> Vec<String> {
    let manifests: Vec<(String, String)> = CRATES
        .iter()
        .map(|rules| {
            let text =
                format!("[package]\nname = \"{}\"\n[lints]\nworkspace = true\n", rules.package);
            (format!("{}/Cargo.toml", rules.folder), text)
        })
        .collect();
    let mut all: Vec<(&str, &str)> = vec![("Cargo.toml", "[workspace]\nmembers = [\"codec\"]\n")];
    all.extend(manifests.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    all.extend(files);
    faults(&Tree::of(&all))
}

/// One bad file and a part of the one fault it must raise.
const BAD: &[(&str, &str, &str)] = &[
    // Crates.
    ("codec/src/lib.rs", "use proto::ids;", "codec must not import proto"),
    ("logic-svc/src/api/mod.rs", "fn f() { codec::detect::detect(&[]); }", "must not import codec"),
    ("loadgen/src/main.rs", "use {gateway::ids};", "loadgen must not import gateway"),
    ("deploy/standalone/src/main.rs", "use loadgen::run;", "standalone must not import loadgen"),
    (
        "proto/Cargo.toml",
        "[dependencies]\ncodec = { path = \"../codec\" }",
        "must not import codec",
    ),
    ("proto/Cargo.toml", "[dev-dependencies]\nx = { package = \"gateway\" }", "import gateway"),
    ("proto/Cargo.toml", "[target.'cfg(unix)'.dependencies]\ncodec = \"1\"", "import codec"),
    ("proto/Cargo.toml", "[package]\nname = \"proto\"", "lints are not taken over"),
    ("proto/Cargo.toml", "[package]\nname = \"other\"", "not called proto"),
    ("Cargo.toml", "[workspace]\nmembers = [\"attic\"]", "attic: has no rules"),
    // Rooms.
    ("gateway/src/session/mod.rs", "use crate::shard::Turn;", "session must not import shard"),
    ("gateway/src/session/hello.rs", "use super::super::net::Socket;", "must not import net"),
    ("gateway/src/shard/mod.rs", "use crate::{ids, bus::{Direct, Record}};", "is its sibling"),
    ("gateway/src/net/mod.rs", "fn f(_: crate::supervisor::Handle) {}", "import supervisor"),
    ("gateway/src/net/mod.rs", "use crate::Everything;", "must not import main"),
    ("gateway/src/ids.rs", "mod a { use super::super::session::X; }", "import session"),
    ("logic-svc/src/store/mod.rs", "use crate::pipeline::Page;", "is its sibling"),
    ("logic-svc/src/domain/mod.rs", "use crate::ports::Clock as C;", "import ports"),
    ("gateway/src/attic.rs", "", "gateway/src/attic: has no place in the order"),
    // Names.
    ("gateway/src/shard/run.rs", "#[monoio::main] async fn f() {}", "monoio belongs to rt"),
    ("gateway/tests/it.rs", "use monoio::net::TcpStream;", "monoio belongs to rt"),
    ("loadgen/src/main.rs", "extern crate glommio;", "glommio belongs to another crate"),
    ("logic-svc/src/api/mod.rs", "use rusqlite::Connection;", "rusqlite belongs to store"),
    ("gateway/src/shard/run.rs", "fn f(r: io_uring::IoUring) {}", "io_uring belongs to net, rt"),
    ("codec/src/ws/mod.rs", "use std::{fmt, io};", "pure code must not name std::io"),
    ("codec/src/ws/mod.rs", "fn f(_: std::time::Duration) {}", "must not name std::time"),
    ("codec/src/ws/mod.rs", "async fn f() {}", "must not name async"),
    ("codec/src/lib.rs", "use prost::Message;", "must not name prost"),
    ("gateway/src/session/mod.rs", "fn f() { std::time::Instant::now(); }", "std::time::Instant"),
    ("logic-svc/src/domain/mod.rs", "use tokio::sync::Mutex;", "must not name tokio"),
    // Unsafe.
    ("gateway/src/shard/mod.rs", "#![allow(unsafe_code)]", "unsafe code belongs to net, rt"),
    ("gateway/src/bus/mod.rs", "#[expect(dead_code, unsafe_code)] fn f() {}", "belongs to net, rt"),
];

#[test]
fn every_rule_barks() {
    for (path, text, expected) in BAD {
        let faults = faults_with(&[(path, text)]);
        let found = faults.iter().any(|fault| fault.contains(expected));
        assert!(found, "{path}: {text:?} gave {faults:?} instead of {expected:?}");
    }
}

#[test]
fn circles_and_scattered_unsafe_are_found() {
    let circle = faults_with(&[
        ("loadgen/src/client.rs", "use crate::oracle::X;"),
        ("loadgen/src/oracle.rs", "use crate::client::Y;"),
    ]);
    assert!(circle.iter().any(|fault| fault.contains("in a circle")), "{circle:?}");
    let scattered = faults_with(&[
        ("loadgen/src/client.rs", "#![allow(unsafe_code)]"),
        ("loadgen/src/oracle.rs", "#![allow(unsafe_code)]"),
    ]);
    assert!(scattered.iter().any(|fault| fault.contains("several rooms")), "{scattered:?}");
}

#[test]
fn modules_of_test_programs_do_not_excuse_rooms() {
    let faults = faults_with(&[
        ("codec/tests/all.rs", "mod ws;"),
        ("codec/src/ws/mod.rs", "use crate::detect::Detected;"),
    ]);
    assert!(faults.iter().any(|fault| fault.contains("ws must not import detect")), "{faults:?}");
}

#[test]
fn long_files_are_found() {
    let lines = "// line\n".repeat(501);
    for path in ["codec/src/ws/mod.rs", "web/app/src/main.tsx"] {
        let faults = faults_with(&[(path, &lines)]);
        assert!(faults.iter().any(|fault| fault.contains("501 lines")), "{path}: {faults:?}");
    }
}

#[test]
fn good_code_raises_nothing() {
    let good = [
        ("gateway/src/main.rs", "use gateway::supervisor::Handle; use gateway::Gateway;"),
        ("gateway/src/lib.rs", "pub mod net; pub use supervisor::Gateway;"),
        ("gateway/src/net/mod.rs", "#![allow(unsafe_code)] use crate::limits::Limits;"),
        ("gateway/src/net/sends.rs", "use super::{poll_set::P, Socket}; use crate::net::X;"),
        ("gateway/src/rt/mod.rs", "use monoio::net::TcpStream; use crate::net::Socket;"),
        ("gateway/src/limits.rs", "// use crate::shard::X\nconst S: &str = \"monoio\";"),
        (
            "gateway/src/session/mod.rs",
            "use codec::ws; use std::time::Duration; use crate::ids::ConnId;
             #[cfg(test)] mod tests { use crate::shard::X; fn f() { std::time::Instant::now(); } }",
        ),
        ("codec/src/ws/mod.rs", "#[cfg(test)] mod cases;"),
        ("codec/src/ws/cases.rs", "use std::time::Duration; async fn f() {}"),
        ("codec/tests/vectors.rs", "use std::fs; use codec::ws;"),
        ("deploy/standalone/tests/it.rs", "use loadgen::run; use std::io;"),
        ("logic-svc/tests/rows.rs", "use rusqlite::Connection;"),
        ("logic-svc/src/store/mod.rs", "use rusqlite::Connection; use crate::ports::MessageLog;"),
    ];
    assert_eq!(faults_with(&good), Vec::<String>::new());
}
