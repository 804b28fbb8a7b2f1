//! Handshakes: how HTTP and TLS can be got wrong.

use codec::ws::Opcode;

use crate::peer::Expect::{Alive, Nothing, Status, StatusWith};
use crate::peer::Stage::Connected;
use crate::peer::{frame, handshake};
use crate::table::{Row, row};

const HOST: &str = "Host: a\r\n";
const ASK: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

fn request(line: &str, parts: &[&str]) -> Vec<u8> {
    format!("{line}\r\n{}\r\n", parts.concat()).into_bytes()
}

pub(crate) fn rows() -> Vec<Row> {
    [upgrades(), fields(), heads(), targets_and_origins(), other_protocols()]
        .into_iter()
        .flatten()
        .collect()
}

fn upgrades() -> Vec<Row> {
    let get = |name: &str, parts: &[&str], expect| {
        row(name, Connected, request("GET /ws HTTP/1.1", parts), expect)
    };
    vec![
        row(
            "POST",
            Connected,
            request("POST /ws HTTP/1.1", &[HOST, ASK, KEY, VERSION]),
            Status(&[405]),
        ),
        row(
            "HTTP/1.0",
            Connected,
            request("GET /ws HTTP/1.0", &[HOST, ASK, KEY, VERSION]),
            Status(&[400]),
        ),
        get("no Upgrade", &[HOST, "Connection: Upgrade\r\n", KEY, VERSION], Status(&[426])),
        get(
            "Upgrade: foo",
            &[HOST, "Upgrade: foo\r\nConnection: Upgrade\r\n", KEY, VERSION],
            Status(&[400]),
        ),
        get(
            "no Connection: Upgrade",
            &[HOST, "Upgrade: websocket\r\n", KEY, VERSION],
            Status(&[400]),
        ),
        get("no key", &[HOST, ASK, VERSION], Status(&[400])),
        get(
            "a key of 8 bytes",
            &[HOST, ASK, VERSION, "Sec-WebSocket-Key: AAAAAAAAAAA=\r\n"],
            Status(&[400]),
        ),
        get("two keys", &[HOST, ASK, VERSION, KEY, KEY], Status(&[400])),
        get(
            "version 12",
            &[HOST, ASK, KEY, "Sec-WebSocket-Version: 12\r\n"],
            StatusWith(426, "Sec-WebSocket-Version: 13"),
        ),
    ]
}

fn fields() -> Vec<Row> {
    let get = |name: &str, parts: &[&str], expect| {
        row(name, Connected, request("GET /ws HTTP/1.1", parts), expect)
    };
    vec![
        get("no version", &[HOST, ASK, KEY], Status(&[400])),
        get("no Host", &[ASK, KEY, VERSION], Status(&[400])),
        get("two Hosts", &[HOST, HOST, ASK, KEY, VERSION], Status(&[400])),
        get(
            "Hixie-76",
            &[
                HOST,
                ASK,
                "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n",
                VERSION,
            ],
            Status(&[400]),
        ),
        get(
            "a subprotocol list with a hole",
            &[HOST, ASK, KEY, VERSION, "Sec-WebSocket-Protocol: a,,b\r\n"],
            Status(&[400]),
        ),
        get(
            "a subprotocol twice",
            &[HOST, ASK, KEY, VERSION, "Sec-WebSocket-Protocol: a, a\r\n"],
            Status(&[400]),
        ),
        get(
            "a subprotocol that is no token",
            &[HOST, ASK, KEY, VERSION, "Sec-WebSocket-Protocol: a b\r\n"],
            Status(&[400]),
        ),
        get(
            "bad window bits",
            &[
                HOST,
                ASK,
                KEY,
                VERSION,
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99\r\n",
            ],
            Status(&[101, 400]),
        ),
        get("a body", &[HOST, ASK, KEY, VERSION, "Content-Length: 5\r\n"], Status(&[400])),
        row(
            "frames right behind the handshake",
            Connected,
            [handshake("/ws", ""), frame(Opcode::Text, br#"{"cmd":0}"#)].concat(),
            Alive,
        ),
    ]
}

fn heads() -> Vec<Row> {
    let plain = |name: &str, more: &str, expect| {
        row(name, Connected, request("GET / HTTP/1.1", &[HOST, more]), expect)
    };
    let many = (0..2_000).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let spaces = format!("X: {}a\r\n", " ".repeat(32 * 1024));
    vec![
        plain("a control byte in a header", "X: a\u{1}b\r\n", Status(&[400])),
        plain("a header name with brackets", "X[]: a\r\n", Status(&[400])),
        plain("a space before the colon", "X : a\r\n", Status(&[400])),
        plain("a folded header", "X: a\r\n b\r\n", Status(&[400])),
        row("a bare CR", Connected, "GET / HTTP/1.1\rHost: a\r\n\r\n", Status(&[400])),
        row("a bare LF", Connected, "GET / HTTP/1.1\nHost: a\n\n", Status(&[400])),
        row("HTTP/9.9", Connected, request("GET / HTTP/9.9", &[HOST]), Status(&[400, 505])),
        plain("Content-Length: -1", "Content-Length: -1\r\n", Status(&[400])),
        plain("Content-Length: abc", "Content-Length: abc\r\n", Status(&[400])),
        plain(
            "two different Content-Lengths",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            Status(&[400]),
        ),
        plain(
            "Content-Length and Transfer-Encoding",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Status(&[400]),
        ),
        plain("2000 headers", &many, Status(&[431])),
        row(
            "a target of 64 KiB",
            Connected,
            format!("GET /{} HTTP/1.1\r\n", "a".repeat(64 * 1024)),
            Status(&[414]),
        ),
        row(
            "a header without an end",
            Connected,
            format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(64 * 1024)),
            Status(&[431]),
        ),
        plain("32 KiB of spaces", &spaces, Status(&[431])),
        row(
            "a token of 1 MiB",
            Connected,
            handshake(
                "/ws",
                &format!("Sec-WebSocket-Protocol: bearer.{}\r\n", "a".repeat(1 << 20)),
            ),
            Status(&[431]),
        ),
    ]
}

fn targets_and_origins() -> Vec<Row> {
    let target =
        |name: &str, target: &str, expect| row(name, Connected, handshake(target, ""), expect);
    let origin = |origin: &str, expect| {
        row(
            &format!("Origin: {origin}"),
            Connected,
            handshake("/ws", &format!("Origin: {origin}\r\n")),
            expect,
        )
    };
    vec![
        target("a path with NUL", "/ws%00", Status(&[400])),
        target("a path that climbs", "/a/../ws", Status(&[400])),
        target("a path that climbs in disguise", "/a/%2e%2E/ws", Status(&[400])),
        target("bad percent-encoding", "/ws%zz", Status(&[400])),
        target("another path", "/chat", Status(&[404])),
        target("another host's URL", "http://other/ws", Status(&[400])),
        row(
            "plain HTTP that climbs",
            Connected,
            request("GET /../../etc/passwd HTTP/1.1", &[HOST]),
            Status(&[400]),
        ),
        origin("https://chat.example.org", Alive),
        origin("https://chat.example.org.evil.net", Status(&[403])),
        origin("https://evilchat.example.org", Status(&[403])),
        origin("http://chat.example.org", Status(&[403])),
        origin("null", Status(&[403])),
        row(
            "two Origins",
            Connected,
            handshake("/ws", "Origin: https://chat.example.org\r\nOrigin: https://evil.net\r\n"),
            Status(&[400]),
        ),
    ]
}

fn other_protocols() -> Vec<Row> {
    vec![
        row("TLS", Connected, *b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", Nothing),
        row("TLS close_notify", Connected, *b"\x15\x03\x03\x00\x02\x01\x00", Status(&[400])),
        row("HTTP/2", Connected, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Status(&[400, 505])),
        row("SSH", Connected, *b"SSH-2.0-OpenSSH_9.9\r\n", Status(&[400])),
        row("zeros", Connected, [0; 64], Status(&[400])),
        row("a method without an end", Connected, [b'A'; 4096], Status(&[400])),
    ]
}
