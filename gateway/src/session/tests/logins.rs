//! How logins with the handshake end.

use super::*;

const BEARER: &str = "Sec-WebSocket-Protocol: bearer.t\r\n";

#[test]
fn however_a_login_by_handshake_ends_the_101_goes_first() {
    let ends: [fn(&mut Session, &mut Context<'_>); 4] = [
        |session, cx| session.close(cx, 4900, "elsewhere"),
        |session, cx| session.go_away(cx, 5),
        |session, cx| session.on_login_failed(cx, &Failure::default()),
        |session, cx| session.on_bytes(cx, &mut vec![0; 1 << 20]),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let mut client = Client::serve();
        client.out.bytes.extend_from_slice(b"of another connection");
        client.feed(handshake("/ws", BEARER).as_bytes());
        assert_eq!(client.out.bytes, b"of another connection");
        client.out.bytes.clear();
        client.with(end);
        assert!(client.head().starts_with("HTTP/1.1 101 "), "{number}");
        assert!(client.close_code().is_some(), "{number}");
        assert_eq!(client.out.verdict, Verdict::Close);
    }
}

#[test]
fn a_login_that_is_refused_at_once_has_its_101_too() {
    let mut client = Client::serve();
    client.out.login_delay_ms = 1_500;
    assert!(client.upgrade("/ws", BEARER).starts_with("HTTP/1.1 101 "));
    assert!(client.out.calls.is_empty());
    assert_eq!(client.close_code(), Some(4100));
}
