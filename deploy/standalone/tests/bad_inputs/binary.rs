//! The binary protocol, on TCP and in WebSocket messages.

use codec::binary::Kind;
use codec::ws::Opcode;
use proto::v1::{Hello, Sync};

use crate::peer::Expect::{Close, ErrorFrame, Goaway, Status};
use crate::peer::Stage::{BinaryMessages, Connected, Json, Preface, Stream};
use crate::peer::{binary_frame, frame, hello};
use crate::table::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = on_tcp();
    rows.extend(before_login());
    rows.extend(in_messages());
    rows
}

/// What breaks a frame, with the code it is answered with.
fn broken() -> Vec<(&'static str, Vec<u8>, u16)> {
    vec![
        ("length 0", vec![0x03, 0], 4901),
        ("max + 1", vec![0x03, 0x81, 0x80, 0x04], 4902),
        ("a length of 0xFFFFFFFF", vec![0x03, 0xff, 0xff, 0xff, 0xff, 0x0f], 4901),
        ("a length without an end", vec![0x03, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 4901),
        ("a length in too many bytes", vec![0x08, 0x84, 0x00, 8, 1, 0x18, 1], 4901),
        ("an unknown kind", vec![0x3f, 1, 0], 4901),
        ("the compressed bit", vec![0x83, 1, 0], 4901),
        ("the reserved bit", vec![0x43, 1, 0], 4901),
        ("a server's frame", vec![0x05, 2, 8, 1], 4901),
        ("a second HELLO", hello("mallory"), 4901),
    ]
}

/// 10,000 groups, each inside the one before.
fn nested() -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::binary::encode(&mut bytes, Kind::Pull, &[0x7b; 10_000]);
    bytes
}

fn on_tcp() -> Vec<Row> {
    let mut rows: Vec<Row> = broken()
        .into_iter()
        .map(|(name, bytes, code)| {
            let expect = Goaway(if code == 4901 { &[4901] } else { &[4902] });
            row(&format!("TCP: {name}"), Stream, bytes, expect)
        })
        .collect();
    rows.extend([
        row(
            "TCP: a body that is no message",
            Stream,
            *b"\x03\x03\xff\xff\xff",
            ErrorFrame("BAD_REQUEST"),
        ),
        row("TCP: a message nested 10,000 deep", Stream, nested(), ErrorFrame("BAD_REQUEST")),
        row(
            "TCP: request_id 0",
            Stream,
            binary_frame(Kind::Sync, &Sync { limit: 5, ..Sync::default() }),
            ErrorFrame("BAD_REQUEST"),
        ),
        row("TCP: heartbeats without an end", Stream, [0; 5_000], Goaway(&[4103])),
    ]);
    rows
}

fn before_login() -> Vec<Row> {
    let bad = Hello { token: "a.b.c".to_owned(), ..Hello::default() };
    vec![
        row("a bad magic", Connected, *b"CRLM\x01", Status(&[400])),
        row("a bad version", Connected, *b"CRLN\x02", Goaway(&[4901])),
        row("version 0", Connected, *b"CRLN\x00", Goaway(&[4901])),
        row(
            "not HELLO first, 256 MiB declared",
            Preface,
            *b"\x06\x80\x80\x80\x80\x01",
            Goaway(&[4901, 4902]),
        ),
        row("a HELLO of 2 MiB declared", Preface, *b"\x01\x80\x80\x80\x01", Goaway(&[4902])),
        row("a heartbeat before HELLO", Preface, [0], Goaway(&[4200])),
        row(
            "a request before HELLO",
            Preface,
            binary_frame(Kind::Sync, &Sync { request_id: 1, ..Sync::default() }),
            Goaway(&[4200]),
        ),
        row("a token that is too long", Preface, *b"\x01\xab\x46\x0a\xa8\x46aaa", Goaway(&[4902])),
        row("a token that is none", Preface, binary_frame(Kind::Hello, &bad), Goaway(&[4200])),
        row(
            "no token",
            Preface,
            binary_frame(Kind::Hello, &Hello { device_id: "d".into(), ..Hello::default() }),
            Goaway(&[4200]),
        ),
        row("a bad user name", Preface, hello("no spaces please"), Goaway(&[4200])),
        row("a HELLO that is no message", Preface, *b"\x01\x02\xff\xff", Goaway(&[4200])),
    ]
}

fn in_messages() -> Vec<Row> {
    let message = |bytes: &[u8]| frame(Opcode::Binary, bytes);
    let mut rows: Vec<Row> = broken()
        .into_iter()
        .map(|(name, bytes, code)| {
            let expect = Close(if code == 4901 { &[4901] } else { &[4902] });
            row(&format!("message: {name}"), BinaryMessages, message(&bytes), expect)
        })
        .collect();
    rows.extend([
        row("message: trailing bytes", BinaryMessages, message(b"\x00\x03\x05ab"), Close(&[4901])),
        row(
            "message: a body that is no message",
            BinaryMessages,
            message(b"\x03\x03\xff\xff\xff"),
            ErrorFrame("BAD_REQUEST"),
        ),
        row(
            "message: nested 10,000 deep",
            BinaryMessages,
            message(&nested()),
            ErrorFrame("BAD_REQUEST"),
        ),
        row(
            "message: empty without an end",
            BinaryMessages,
            message(b"").repeat(5_000),
            Close(&[4103]),
        ),
        row(
            "text on a binary connection",
            BinaryMessages,
            frame(Opcode::Text, br#"{"cmd":0}"#),
            Close(&[4901]),
        ),
        row("binary on a JSON connection", Json, message(&[0]), Close(&[4901])),
    ]);
    rows
}
