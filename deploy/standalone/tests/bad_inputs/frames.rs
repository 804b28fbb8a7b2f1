//! WebSocket frames that break RFC 6455 or a limit.

use codec::ws::Opcode;
use codec::ws::deflate::{Config, Deflater, WindowBits};

use crate::peer::Expect::{Alive, Close};
use crate::peer::Stage::{BinaryMessages, Compressed, Json, Upgraded};
use crate::peer::{frame, odd_frame};
use crate::table::{Row, row};

const TEXT: u8 = 0x01;
const PING: u8 = 0x09;
const FIN: u8 = 0x80;

/// The header of a masked frame that declares `length` in eight bytes.
fn declares(length: u64) -> Vec<u8> {
    [&[FIN | 2, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

fn close(payload: &[u8]) -> Vec<u8> {
    odd_frame(FIN | 8, payload)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = rules();
    rows.extend(limits());
    rows.extend(text());
    rows.extend(closes());
    rows.extend(compressed());
    // Not only after login.
    rows.push(row("unmasked before login", Upgraded, *b"\x81\x05Hello", Close(&[1002])));
    rows.push(row("max + 1 in binary", BinaryMessages, declares(65_537), Close(&[1009])));
    rows
}

fn rules() -> Vec<Row> {
    let mut rows: Vec<Row> = [3, 4, 7, 11, 15]
        .into_iter()
        .map(|opcode| {
            row(&format!("opcode {opcode}"), Json, odd_frame(FIN | opcode, b""), Close(&[1002]))
        })
        .collect();
    rows.extend([
        row("RSV1", Json, odd_frame(FIN | 0x40 | TEXT, b"a"), Close(&[1002])),
        row("RSV2", Json, odd_frame(FIN | 0x20 | TEXT, b"a"), Close(&[1002])),
        row("RSV3", Json, odd_frame(FIN | 0x10 | TEXT, b"a"), Close(&[1002])),
        row("unmasked", Json, *b"\x81\x05Hello", Close(&[1002])),
        row("a ping without FIN", Json, odd_frame(PING, b"a"), Close(&[1002])),
        row("a ping of 126 bytes", Json, odd_frame(FIN | PING, &[7; 126]), Close(&[1002])),
        row("a stray continuation", Json, odd_frame(FIN, b"a"), Close(&[1002])),
        row(
            "text inside fragments",
            Json,
            [odd_frame(TEXT, b"a"), frame(Opcode::Text, b"b")].concat(),
            Close(&[1002]),
        ),
        row(
            "a length in too many bytes",
            Json,
            *b"\x81\xfe\x00\x05\x01\x02\x03\x04",
            Close(&[1002]),
        ),
        row("a length with its top bit", Json, declares(1 << 63), Close(&[1002, 1009])),
    ]);
    rows.push(row(
        "fragments",
        Json,
        [odd_frame(TEXT, br#"{"cmd""#), odd_frame(FIN, b":0}")].concat(),
        Alive,
    ));
    rows
}

fn limits() -> Vec<Row> {
    let big = [odd_frame(2, &[0; 40_000]), odd_frame(FIN, &[0; 30_000])].concat();
    let one_byte = [odd_frame(TEXT, b"a"), odd_frame(0, b"a").repeat(1_100)].concat();
    let empty = [odd_frame(TEXT, b""), odd_frame(0, b"").repeat(1_100)].concat();
    vec![
        row("2^62 bytes declared", Json, declares(1 << 62), Close(&[1009])),
        row("4 GiB declared", Json, declares(1 << 32), Close(&[1009])),
        row("max + 1 declared", Json, declares(65_537), Close(&[1009])),
        row("fragments above the limit", Json, big, Close(&[1009])),
        row("fragments of a byte without an end", Json, one_byte, Close(&[1008])),
        row("empty fragments without an end", Json, empty, Close(&[1008])),
        row("pings without an end", Json, frame(Opcode::Ping, b"").repeat(5_000), Close(&[4103])),
        row("pongs without an end", Json, frame(Opcode::Pong, b"").repeat(5_000), Close(&[4103])),
        row(
            "bad requests without an end",
            Json,
            frame(Opcode::Text, b"{").repeat(5_000),
            Close(&[4103]),
        ),
    ]
}

fn text() -> Vec<Row> {
    vec![
        row("bad UTF-8", Json, frame(Opcode::Text, b"\xff\xfe"), Close(&[1007])),
        row("an encoded surrogate", Json, frame(Opcode::Text, b"\xed\xa0\x80"), Close(&[1007])),
        row("an overlong NUL", Json, frame(Opcode::Text, b"\xc0\x80"), Close(&[1007])),
        row(
            "bad UTF-8 over two fragments",
            Json,
            [odd_frame(TEXT, b"\xe2\x82"), odd_frame(FIN, b"\x41")].concat(),
            Close(&[1007]),
        ),
        row(
            "a character without its end",
            Json,
            frame(Opcode::Text, b"abc\xe2\x82"),
            Close(&[1007]),
        ),
    ]
}

const RSV1: u8 = 0x40;

/// A compressed message of that payload.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let key = Some([1, 2, 3, 4]);
    let mut deflater = Deflater::new(&Config { min_bytes: 0, level: 9, ..Config::default() });
    deflater.encode(&mut bytes, Opcode::Text, payload, WindowBits::Fifteen, None, key);
    assert_eq!(bytes[0], FIN | RSV1 | TEXT, "it is compressed");
    bytes
}

fn compressed() -> Vec<Row> {
    let bomb = deflated(&vec![b' '; 16 << 20]);
    assert!(bomb.len() < 65_536, "it would be refused for its length: {}", bomb.len());
    // Long enough that compressing pays.
    let heartbeat = [&br#"{"cmd":0"#[..], &[b' '; 300], b"}"].concat();
    let continued = [odd_frame(RSV1 | TEXT, b"\xaa"), odd_frame(FIN | RSV1, b"\x00")].concat();
    vec![
        row("a compressed heartbeat", Compressed, deflated(&heartbeat), Alive),
        row("a deflate bomb of 16 MiB", Compressed, bomb, Close(&[1009])),
        row("no deflate stream", Compressed, odd_frame(FIN | RSV1 | TEXT, &[7; 9]), Close(&[1007])),
        row("bad UTF-8, compressed", Compressed, deflated(&[0xff; 300]), Close(&[1007])),
        row("RSV1 on a ping", Compressed, odd_frame(FIN | RSV1 | PING, b"a"), Close(&[1002])),
        row("RSV1 on a continuation", Compressed, continued, Close(&[1002])),
        row(
            "RSV2 beside compression",
            Compressed,
            odd_frame(FIN | 0x20 | TEXT, b"a"),
            Close(&[1002]),
        ),
    ]
}

fn closes() -> Vec<Row> {
    let mut rows: Vec<Row> = [0, 999, 1004, 1005, 1006, 1015, 2999, 5000]
        .into_iter()
        .map(|code: u16| {
            row(&format!("close code {code}"), Json, close(&code.to_be_bytes()), Close(&[1002]))
        })
        .collect();
    let after = [close(&1000_u16.to_be_bytes()), frame(Opcode::Text, br#"{"cmd":0}"#)].concat();
    rows.extend([
        row("a close of one byte", Json, close(&[3]), Close(&[1002])),
        row("a close reason that is not UTF-8", Json, close(b"\x03\xe8\xff\xfe"), Close(&[1007])),
        row("a close without a code", Json, close(b""), Close(&[1005])),
        row("data after a close", Json, after, Close(&[1000])),
    ]);
    rows
}
