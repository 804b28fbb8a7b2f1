//! Hostile input, row by row, with the answer it gets: the opening handshake, then frames. Where a rule
//! has many forms the other files of this folder have them; here each row stands once.

use codec::ws::handshake::{self, HEADERS_MAX, Request, read_request, read_request_from};
use codec::ws::{Limits, Opcode, Role, encode_fragment, encode_frame_masked};

use crate::support::{Seen, decode, single_bytes};

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// What a head gets: 0 plain HTTP, 1 more bytes wanted, 101, or a refusal.
fn status_of(head: &str, limits: &handshake::Limits) -> u16 {
    match read_request(head.as_bytes(), limits) {
        Ok(Request::Http) => 0,
        Ok(Request::NeedMore) => 1,
        Ok(Request::Upgrade(_)) => 101,
        Err(rejection) => rejection.status,
    }
}

#[test]
fn heads() {
    let get =
        |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let ws = |more: &str| get("/ws", &format!("{UPGRADE}{more}"));
    let without = |line: &str| ws("").replace(line, "");
    let table = [
        (101, ws("")),
        (405, ws("").replace("GET", "POST")),
        (426, without("Upgrade: websocket\r\n")),
        (400, ws("").replace("Upgrade: websocket", "Upgrade: foo")),
        (400, without("Connection: Upgrade\r\n")),
        (400, without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")),
        (400, ws("").replace("dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAA=")),
        (426, ws("").replace("Version: 13", "Version: 12")),
        (400, ws("").replace("HTTP/1.1", "HTTP/1.0")),
        (505, ws("").replace("HTTP/1.1", "HTTP/9.9")),
        (400, without("Host: a\r\n")),
        (400, ws("Host: a\r\n")),
        (400, ws("Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 1 2\r\n")),
        (400, ws("Sec-WebSocket-Protocol: a,,b\r\n")),
        (400, ws("Sec-WebSocket-Protocol: a b\r\n")),
        // Declined, not refused: the client may go on without compression.
        (101, ws("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n")),
        (400, ws("X: a\x01b\r\n")),
        (400, ws("X: a\x7fb\r\n")),
        (400, ws("X: a\0b\r\n")),
        (400, ws("X[]: a\r\n")),
        (400, ws("X: a\rb\r\n")),
        (400, ws("X: a\nY: b\r\n")),
        (400, ws("Content-Length: -1\r\n")),
        (400, ws("Content-Length: abc\r\n")),
        (400, ws("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")),
        (400, get("/a\0b", UPGRADE)),
        (400, get("/a%00b", UPGRADE)),
        (400, get("/../ws", UPGRADE)),
        (400, get("/ws/%2e%2E/x", UPGRADE)),
        (101, ws(&format!("X: {}\r\n", " ".repeat(7_000)))),
        (431, ws(&format!("X: {}\r\n", " ".repeat(32 * 1024)))),
        (431, ws(&"A: b\r\n".repeat(65))),
        (431, ws(&"A: b\r\n".repeat(2_000))),
        (414, get(&format!("/{}", "a".repeat(64 * 1024)), UPGRADE)),
        (101, ws(&format!("Origin: null\r\nSec-WebSocket-Protocol: {}\r\n", "p".repeat(4_000)))),
    ];
    for (status, head) in table {
        assert_eq!(
            status_of(&head, &handshake::Limits::DEFAULT),
            status,
            "{}",
            head.escape_debug()
        );
    }
}

/// However wide a caller's limits: no more lines than there is room for.
#[test]
fn the_limit_of_header_lines_is_hard() {
    let wide = handshake::Limits { max_head_bytes: usize::MAX, max_headers: usize::MAX };
    let head =
        |lines: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(lines - 1));
    assert_eq!(status_of(&head(HEADERS_MAX), &wide), 0);
    assert_eq!(status_of(&head(HEADERS_MAX + 1), &wide), 431);
    assert_eq!(status_of(&head(200_000), &wide), 431);
}

/// A head that never ends, one byte at a time: each byte is looked at once, and at the limit it is over.
#[test]
fn an_endless_header_ends_at_the_limit() {
    let limits = handshake::Limits { max_head_bytes: 1 << 20, ..handshake::Limits::DEFAULT };
    let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    // A million searches of the whole would be five hundred billion bytes.
    while bytes.len() + 1 < limits.max_head_bytes {
        let seen = bytes.len();
        bytes.push(b'x');
        let answer = read_request_from(&bytes, seen, &limits);
        assert!(matches!(answer, Ok(Request::NeedMore)), "{seen}");
    }
    bytes.push(b'x');
    let answer = read_request_from(&bytes, bytes.len() - 1, &limits);
    assert_eq!(answer.map(|_| ()).unwrap_err().status, 431);
}

/// A frame of a client with the first two bytes as given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame_masked(&mut out, Opcode::Binary, payload, [1, 2, 3, 4]);
    out[0] = first;
    out
}

#[test]
fn frames() {
    let limits = Limits { max_message_bytes: 1_000, max_fragments: 16 };
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes(), reason].concat());
    let fragments = |n: usize, payload: &[u8]| {
        let mut out = Vec::new();
        for i in 0..n {
            let opcode = if i == 0 { Opcode::Text } else { Opcode::Continuation };
            encode_fragment(&mut out, opcode, false, payload, Some([9, 8, 7, 6]));
        }
        out
    };
    let mut table = vec![
        (1002, frame(0xC1, b"a")),
        (1002, frame(0xA1, b"a")),
        (1002, frame(0x91, b"a")),
        (1002, frame(0x83, b"a")),
        (1002, frame(0x8F, b"a")),
        (1002, b"\x81\x01a".to_vec()),
        (1002, frame(0x09, b"a")),
        (1002, frame(0x89, &[0; 126])),
        (1002, frame(0x80, b"a")),
        (1002, [frame(0x01, b"a"), frame(0x81, b"b")].concat()),
        (1002, b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
        (1009, b"\x82\xff\x40\0\0\0\0\0\0\0".to_vec()),
        (1009, b"\x82\xfe\x03\xe9".to_vec()),
        (1009, fragments(11, &[b'a'; 100])),
        (1008, fragments(17, b"a")),
        (1008, fragments(100_000, b"a")),
        (1008, fragments(17, b"")),
        (1008, fragments(100_000, b"")),
        (1007, frame(0x81, b"\xc3\x28")),
        (1007, frame(0x81, b"\xed\xa0\x80")),
        (1002, frame(0x88, b"\x03")),
        (1007, close(1000, b"\xff")),
    ];
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535] {
        table.push((1002, close(code, b"")));
    }
    for (code, bytes) in table {
        let start = &bytes[..bytes.len().min(40)];
        for pieces in [vec![&bytes[..]], single_bytes(&bytes)] {
            let seen = decode(pieces, Role::Server, &limits);
            let [Seen::Fault(error)] = seen[..] else { panic!("{start:x?}: {seen:?}") };
            assert_eq!(error.close_code(), code, "{start:x?}: {error}");
        }
    }
    // What comes behind a close is ignored, whatever it is.
    let seen = decode([&[close(1000, b""), vec![0xFF; 50]].concat()[..]], Role::Server, &limits);
    assert_eq!(seen, [Seen::Close(Some((1000, String::new())))]);
}
