//! The opening handshake: what is taken, and the status of every refusal.

use codec::ws::handshake::{
    Limits, Rejection, Request, ResponseError, Upgrade, read_request, read_request_from,
    read_response, write_client_request,
};
use proptest::collection::vec;
use proptest::prelude::*;

const GOOD: &str = "GET /ws?user_id=alice HTTP/1.1\r\n\
    Host: example.test:8080\r\n\
    Upgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: corelane.json.v1, bearer.eyJhbGciOiJFZERTQSJ9.e30.c2ln\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99\r\n\
    Origin: https://app.example.test\r\n\r\n";

fn read(head: &str) -> Result<Request<'_>, Rejection> {
    read_request(head.as_bytes(), &Limits::DEFAULT)
}

/// The status of the answer: 0 plain HTTP, 1 more bytes wanted, 101 upgrade, else the refusal.
fn status_of(head: &[u8]) -> u16 {
    match read_request(head, &Limits::DEFAULT) {
        Ok(Request::Http) => 0,
        Ok(Request::NeedMore) => 1,
        Ok(Request::Upgrade(_)) => 101,
        Err(rejection) => rejection.status,
    }
}

fn upgrade(head: &str) -> Upgrade<'_> {
    match read(head) {
        Ok(Request::Upgrade(upgrade)) => upgrade,
        other => panic!("{other:?}"),
    }
}

/// The good request with one thing changed. The thing must be there.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

#[test]
fn a_good_request_is_read_whole() {
    let both = format!("{GOOD}\u{1}frames");
    let upgrade = upgrade(&both);
    assert_eq!(upgrade.path, "/ws");
    assert_eq!(upgrade.query, Some("user_id=alice"));
    assert_eq!(upgrade.host, "example.test:8080");
    assert_eq!(upgrade.origin, Some("https://app.example.test"));
    assert_eq!(upgrade.head_len, GOOD.len());
    let protocols: Vec<_> = upgrade.protocols().collect();
    assert_eq!(protocols, ["corelane.json.v1", "bearer.eyJhbGciOiJFZERTQSJ9.e30.c2ln"]);
    let mut out = Vec::new();
    upgrade.accept(Some("corelane.json.v1"), &mut out);
    let expected = "HTTP/1.1 101 Switching Protocols\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: corelane.json.v1\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn every_beginning_wants_more_and_searches_no_byte_twice() {
    let bytes = GOOD.as_bytes();
    for n in 0..bytes.len() {
        for seen in [0, n / 2, n.saturating_sub(1), n] {
            let answer = read_request_from(&bytes[..n], seen, &Limits::DEFAULT);
            assert!(matches!(answer, Ok(Request::NeedMore)), "{n} {seen}");
        }
        let whole = read_request_from(bytes, n, &Limits::DEFAULT);
        assert!(matches!(whole, Ok(Request::Upgrade(_))), "{n}");
    }
}

#[test]
fn other_good_requests() {
    let table = [
        with("Upgrade: websocket", "upgrade:WebSocket"),
        with("Upgrade: websocket", "Upgrade: h2c, websocket"),
        with("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
        with("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: h2c"),
        with("keep-alive, Upgrade", "keep-alive\r\nconnection: UPGRADE"),
        with("Version: 13", "Version:  13 \t"),
        with("/ws?user_id=alice", "http://example.test:8080/ws"),
        with("corelane.json.v1, ", "corelane.json.v1\r\nSec-WebSocket-Protocol: "),
        with("Origin: https://app.example.test", "Origin: null"),
        with("Origin: https://app.example.test", "X-A: \u{e4}"),
        with("Origin: https://app.example.test", "Content-Length: 0"),
        with("Origin: https://app.example.test", "X-Empty:"),
        with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR=="),
    ];
    for head in table {
        assert_eq!(status_of(head.as_bytes()), 101, "{head}");
    }
    let none = with("Sec-WebSocket-Protocol", "X-Protocol");
    assert_eq!(upgrade(&none).protocols().count(), 0);
    let mut out = Vec::new();
    upgrade(&none).accept(None, &mut out);
    assert!(!String::from_utf8(out).unwrap().contains("Sec-WebSocket-Protocol"));
}

#[test]
fn plain_http_is_left_to_others() {
    let table = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /api/v1/login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        "POST /api/v1/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /.well-known/jwks.json HTTP/1.1\r\nHost:\r\n\r\n",
    ];
    for head in table {
        assert_eq!(status_of(head.as_bytes()), 0, "{head}");
    }
}

/// One header of a WebSocket request is enough to be told what is missing.
#[test]
fn half_an_upgrade_is_no_plain_http() {
    let table = [
        (426, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        (426, "Sec-WebSocket-Version: 13"),
        (426, "Sec-WebSocket-Protocol: a"),
        (426, "Sec-WebSocket-Protocol: ,"),
        (426, "Sec-WebSocket-Extensions: permessage-deflate"),
        (426, "Sec-WebSocket-Key1: 1"),
        (400, "Upgrade: websocket"),
    ];
    for (status, line) in table {
        let head = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        assert_eq!(status_of(head.as_bytes()), status, "{line}");
    }
}

#[test]
fn bad_upgrades() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let table = [
        (405, with("GET", "POST")),
        (405, with("GET", "HEAD")),
        (426, with("Upgrade: websocket\r\n", "")),
        (400, with("Upgrade: websocket", "Upgrade: foo")),
        (400, with("Upgrade: websocket", "Upgrade:")),
        (400, with("keep-alive, Upgrade", "keep-alive")),
        (400, with("Connection: keep-alive, Upgrade\r\n", "")),
        (400, with(key, "X: y")),
        (400, with(key, "Sec-WebSocket-Key:")),
        (400, with(key, "Sec-WebSocket-Key: AAAAAAAAAAA=")),
        (400, with(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=")),
        (400, with(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ==")),
        (400, with(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===")),
        (400, with(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j*Q==")),
        (400, with(key, &format!("{key}\r\n{key}"))),
        (426, with("Version: 13", "Version: 12")),
        (426, with("Version: 13", "Version: 8")),
        (426, with("Version: 13", "Version: 013")),
        (426, with("Version: 13", "Version: 13, 8")),
        (400, with("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13")),
        (400, with("Sec-WebSocket-Version: 13\r\n", "")),
        (400, with("HTTP/1.1", "HTTP/1.0")),
        (400, with("Host: example.test:8080\r\n", "")),
        (400, with("Host: example.test:8080", "Host:")),
        (400, with("Host: example.test:8080", "Host: a\r\nHost: a")),
        (400, with("Host: example.test:8080", "Host: a, b")),
        (400, with("Host: example.test:8080", "Host: a b")),
        (400, with("Host: example.test:8080", "Host: user@a")),
        (400, with("Host: example.test:8080", "Host: a/b")),
        (400, with("Origin: https://app.example.test", "Origin: a\r\nOrigin: b")),
        (400, with("Origin: https://app.example.test", "Origin: https://a b")),
        (400, with("Origin: https://app.example.test", "Content-Length: 5")),
        (400, with("Origin: https://app.example.test", "Transfer-Encoding: chunked")),
    ];
    for (status, head) in table {
        assert_eq!(status_of(head.as_bytes()), status, "{head}");
    }
}

#[test]
fn bad_subprotocol_lists() {
    for list in ["", ",", "a,", ",a", "a,,b", "a b", "a/b", "a;q=1", "a, a", "\"a\"", "ä"] {
        let head = with("corelane.json.v1, ", &format!("{list}\r\nX: "));
        assert_eq!(status_of(head.as_bytes()), 400, "{list}");
    }
    let many: Vec<String> = (0..33).map(|i| format!("p{i}")).collect();
    let head = |n: usize| with("corelane.json.v1, ", &format!("{}\r\nX: ", many[..n].join(",")));
    assert_eq!(status_of(head(32).as_bytes()), 101);
    assert_eq!(status_of(head(33).as_bytes()), 400);
}

#[test]
fn drafts_before_the_rfc() {
    let hixie_76 = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\
        Origin: http://a\r\n\r\n^n:ds[4U";
    let hixie_75 = "GET /ws HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nHost: a\r\n\
        Origin: http://a\r\n\r\n";
    assert_eq!(status_of(hixie_76.as_bytes()), 400);
    let mixed = with("Origin", "Sec-WebSocket-Key2: 1  2\r\nOrigin");
    assert_eq!(status_of(mixed.as_bytes()), 400);
    assert_eq!(status_of(hixie_75.as_bytes()), 400);
}

#[test]
fn heads_that_are_not_http() {
    let table: [(u16, &[u8]); 26] = [
        (505, b"GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"GET / FTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n"),
        (400, b"GET /\r\nHost: a\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"\r\n\r\n"),
        (400, b"GET / HTTP/1.1\nHost: a\n\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x07b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX[]: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET ws HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (status, head) in table {
        assert_eq!(status_of(head), status, "{}", head.escape_ascii());
    }
}

#[test]
fn bodies_of_two_lengths() {
    let table = [
        "Content-Length: -1",
        "Content-Length: abc",
        "Content-Length: +1",
        "Content-Length:",
        "Content-Length: 1, 1",
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 99999999999999999999",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ];
    for lines in table {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        assert_eq!(status_of(head.as_bytes()), 400, "{lines}");
    }
}

#[test]
fn heads_over_the_limits() {
    let long_target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(64 * 1024));
    assert_eq!(status_of(long_target.as_bytes()), 414);
    assert_eq!(status_of(&long_target.as_bytes()[..8191]), 1);
    assert_eq!(status_of(&long_target.as_bytes()[..8192]), 414);
    let long_value = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", " ".repeat(32 * 1024));
    assert_eq!(status_of(long_value.as_bytes()), 431);
    let endless = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &"A: b\r\n".repeat(2000);
    assert_eq!(status_of(endless.as_bytes()), 431);
    let lines = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(n));
    assert_eq!(status_of(lines(63).as_bytes()), 0);
    assert_eq!(status_of(lines(64).as_bytes()), 431);
    // Limits of the caller's own, even beyond what there is room for.
    let wide = Limits { max_head_bytes: 20_000, max_headers: 10_000 };
    let many = lines(127);
    assert!(matches!(read_request(many.as_bytes(), &wide), Ok(Request::Http)));
    assert_eq!(read_request(lines(128).as_bytes(), &wide).unwrap_err().status, 431);
    let exact = Limits { max_head_bytes: GOOD.len(), max_headers: 9 };
    assert!(matches!(read_request(GOOD.as_bytes(), &exact), Ok(Request::Upgrade(_))));
    let less = Limits { max_head_bytes: GOOD.len() - 1, ..exact };
    assert_eq!(read_request(GOOD.as_bytes(), &less).unwrap_err().status, 431);
}

#[test]
fn refusals_are_complete_responses() {
    let refusal = |head: &str| {
        let mut out = Vec::new();
        read(head).unwrap_err().write(&mut out);
        String::from_utf8(out).unwrap()
    };
    let text = refusal(&with("Version: 13", "Version: 12"));
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{head}");
    assert!(head.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: close"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    let text = refusal(&with("GET", "PUT"));
    assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{text}");
    assert!(text.contains("\r\nAllow: GET\r\n"), "{text}");
    for status in [400, 401, 403, 404, 414, 429, 431, 503, 505] {
        let mut out = Vec::new();
        Rejection { status, reason: "because" }.write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let mut room = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut room);
        let parsed = response.parse(text.as_bytes()).unwrap();
        assert_eq!(response.code, Some(status));
        assert!(!response.reason.unwrap().is_empty());
        assert_eq!(&text[parsed.unwrap()..], "because\n");
        assert!(text.contains("\r\nContent-Length: 8\r\n"));
    }
}

const NONCE: [u8; 16] = *b"the sample nonce";

#[test]
fn our_own_client_request_is_taken() {
    let mut out = Vec::new();
    write_client_request(&mut out, "a:1", "/ws?x=%20", &["corelane.bin.v1", "bearer.t"], NONCE);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"));
    let upgrade = upgrade(&text);
    assert_eq!((upgrade.path, upgrade.query), ("/ws", Some("x=%20")));
    assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["corelane.bin.v1", "bearer.t"]);
    let mut answer = Vec::new();
    upgrade.accept(Some("corelane.bin.v1"), &mut answer);
    let head_len = answer.len();
    answer.extend(b"\x81\x00");
    for n in 0..head_len {
        assert_eq!(read_response(&answer[..n], NONCE), Ok(None));
    }
    let response = read_response(&answer, NONCE).unwrap().unwrap();
    assert_eq!((response.head_len, response.protocol), (head_len, Some("corelane.bin.v1")));
    let other_nonce = read_response(&answer, [0; 16]);
    assert!(matches!(other_nonce, Err(ResponseError::NotAccepted(_))), "{other_nonce:?}");
}

#[test]
fn bad_responses() {
    let good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let answer = |text: &str| read_response(text.as_bytes(), NONCE).map(|r| r.map(|r| r.head_len));
    assert_eq!(answer(good), Ok(Some(good.len())));
    assert_eq!(answer(&good.replace("101", "403")), Err(ResponseError::Status(403)));
    for (old, new) in [
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
        ("xOo=", "xOo"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"),
    ] {
        let refused = answer(&good.replacen(old, new, 1));
        assert!(matches!(refused, Err(ResponseError::NotAccepted(_))), "{old}: {refused:?}");
    }
    for bad in ["HTTP/1.0 101 X\r\n\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 101 X\n"] {
        assert!(matches!(answer(bad), Err(ResponseError::Malformed(_))), "{bad}");
    }
    assert_eq!(answer(&"x".repeat(10_000)), Err(ResponseError::TooLong));
    let many = good.replacen("\r\n\r\n", &("\r\nA: b".repeat(100) + "\r\n\r\n"), 1);
    assert_eq!(answer(&many), Err(ResponseError::TooLong));
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        let _ = read_request(&bytes, &Limits::DEFAULT);
        let _ = read_response(&bytes, NONCE);
        let _ = codec::detect::detect(&bytes);
    }

    /// A good head with some bytes changed: no panic, and what is taken still has its parts.
    #[test]
    fn changed_heads_never_panic(changes in vec((any::<usize>(), any::<u8>()), 1..4)) {
        let mut head = GOOD.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at % head.len();
            head[at] = byte;
        }
        if let Ok(Request::Upgrade(upgrade)) = read_request(&head, &Limits::DEFAULT) {
            prop_assert!(upgrade.path.starts_with('/'));
            prop_assert!(!upgrade.host.is_empty());
            prop_assert!(upgrade.head_len <= head.len());
            let mut out = Vec::new();
            upgrade.accept(upgrade.protocols().next(), &mut out);
            prop_assert!(out.starts_with(b"HTTP/1.1 101 ") && out.ends_with(b"\r\n\r\n"));
        }
    }
}
