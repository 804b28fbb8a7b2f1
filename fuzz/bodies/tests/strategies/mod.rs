//! Random cases that go deep: mostly valid, with a few faults.

mod life;

use codec::binary::{Kind, Role};
use codec::ws::deflate::{Config, Deflater, WindowBits};
use codec::ws::{Opcode, encode_fragment};
use fuzz_bodies::input::Cuts;
use fuzz_bodies::{binary, deflate, handshake, websocket};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

pub(crate) use life::session;

fn cuts() -> impl Strategy<Value = Cuts> {
    vec(any::<u16>(), 0..Cuts::MAX).prop_map(Cuts)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

/// Changes of single bytes: where, and to what.
fn changes(most: usize) -> impl Strategy<Value = Vec<(Index, u8)>> {
    prop_oneof![Just(Vec::new()), vec((any::<Index>(), any::<u8>()), 0..=most)]
}

fn change(mut bytes: Vec<u8>, changes: &[(Index, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        let at = at.index(bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = *value;
        }
    }
    bytes
}

/// One of the seeds, changed and cut short; or noise.
pub(crate) fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let seed = (select(seeds), changes(6), any::<Index>(), any::<bool>());
    let seed = seed.prop_map(|(seed, changes, end, cut)| {
        let mut bytes = change(seed, &changes);
        if cut {
            bytes.truncate(end.index(bytes.len().max(1)));
        }
        bytes
    });
    prop_oneof![3 => seed, 1 => vec(any::<u8>(), 0..200)]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => vec(any::<u8>(), 0..4),
        6 => "\\PC{0,30}".prop_map(String::into_bytes),
        3 => "[a-zé€𝄞]{0,200}".prop_map(String::into_bytes),
        3 => vec(any::<u8>(), 0..140),
        1 => (124..=128_usize).prop_map(|len| vec![b'x'; len]),
        1 => (65_533..=65_538_usize).prop_map(|len| vec![b'x'; len]),
    ]
}

/// What may follow good frames: nothing, or the beginning of a frame with a length at some edge.
fn tail() -> impl Strategy<Value = Vec<u8>> {
    let edge = select(vec![0, 1, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0xFD, 0xFE, 0xFF]);
    let head = (prop_oneof![0..0x16_u8, 0x80..0x8B_u8, any::<u8>()], vec(edge, 0..12));
    let head = head.prop_map(|(first, rest)| [vec![first], rest].concat());
    prop_oneof![2 => Just(Vec::new()), 1 => head]
}

/// Frames in any order: mostly the ones that may follow, sometimes not.
pub(crate) fn websocket() -> impl Strategy<Value = websocket::Case> {
    let opcode = select(vec![
        Opcode::Text,
        Opcode::Binary,
        Opcode::Continuation,
        Opcode::Ping,
        Opcode::Pong,
        Opcode::Close,
    ]);
    let frame = (opcode, prop::bool::weighted(0.4), payload(), any::<[u8; 4]>());
    let frames = vec(frame, 0..9);
    (role(), 0..websocket::LIMITS.len(), cuts(), frames, tail(), changes(2)).prop_map(
        |(role, limits, cuts, frames, tail, changes)| {
            let mut bytes = Vec::new();
            let mut open = false;
            for (opcode, fin, payload, key) in frames {
                frame_bytes(opcode, fin, &payload, (role == Role::Server).then_some(key))(
                    &mut bytes, &mut open,
                );
            }
            bytes.extend(tail);
            websocket::Case { role, limits, cuts, bytes: change(bytes, &changes) }
        },
    )
}

/// Makes a frame that may stand where it stands.
fn frame_bytes(
    opcode: Opcode,
    fin: bool,
    payload: &[u8],
    key: Option<[u8; 4]>,
) -> impl FnOnce(&mut Vec<u8>, &mut bool) {
    move |bytes, open| {
        let (opcode, fin, payload) = match opcode {
            Opcode::Close if payload.len() > 100 || payload.len() == 1 => {
                (opcode, true, [&1000_u16.to_be_bytes()[..], b"end"].concat())
            }
            Opcode::Close => (opcode, true, [&4000_u16.to_be_bytes()[..], payload].concat()),
            Opcode::Ping | Opcode::Pong => (opcode, true, payload[..payload.len().min(125)].into()),
            _ if *open => (Opcode::Continuation, fin, payload.to_vec()),
            Opcode::Continuation => (Opcode::Binary, fin, payload.to_vec()),
            _ => (opcode, fin, payload.to_vec()),
        };
        if !opcode.is_control() {
            *open = !fin;
        }
        encode_fragment(bytes, opcode, fin, &payload, key);
    }
}

/// Compressed messages in frames, or, since the body also takes its bytes as one compressed payload, bare; with a
/// few bytes changed.
pub(crate) fn deflate() -> impl Strategy<Value = deflate::Case> {
    let text = prop_oneof![
        2 => vec(any::<u8>(), 0..60),
        2 => (vec(any::<u8>(), 1..9), 1..300_usize).prop_map(|(piece, times)| piece.repeat(times)),
        1 => Just(vec![0; 70_000]),
    ];
    let messages = vec((text, any::<bool>(), any::<[u8; 4]>()), 0..5);
    (role(), 0..deflate::LIMITS.len(), cuts(), messages, any::<bool>(), tail(), changes(3))
        .prop_map(|(role, limits, cuts, messages, framed, tail, changes)| {
            let mut deflater = Deflater::new(&Config { min_bytes: 0, ..Config::DEFAULT });
            let mut bytes = Vec::new();
            for (text, as_text, key) in messages {
                let opcode = if as_text { Opcode::Text } else { Opcode::Binary };
                let key = (framed && role == Role::Server).then_some(key);
                let start = bytes.len();
                let bits = WindowBits::Fifteen;
                deflater.encode(&mut bytes, opcode, &text, bits, None, key);
                if !framed {
                    // A short frame's header: two bytes, or four.
                    let header = if bytes[start + 1] < 126 { 2 } else { 4 };
                    bytes.drain(start..start + header);
                }
            }
            bytes.extend(tail);
            deflate::Case { role, limits, cuts, bytes: change(bytes, &changes) }
        })
}

pub(crate) fn binary() -> impl Strategy<Value = binary::Case> {
    let body = prop_oneof![
        8 => vec(any::<u8>(), 1..150),
        1 => select(vec![8192_usize, 8193, 16_383, 16_384]).prop_map(|len| vec![8; len]),
    ];
    let frames = vec((select(Kind::ALL.to_vec()), body), 0..6);
    let limits = prop_oneof![3 => Just(0_usize), 1 => 0..4_usize];
    (role(), limits, cuts(), frames, tail(), changes(2)).prop_map(
        |(role, limits, cuts, frames, tail, changes)| {
            let mut bytes = Vec::new();
            for (kind, body) in frames.iter().filter(|(kind, _)| kind.may_come_to(role)) {
                let body = &body[..body.len().min(kind.max_body_bytes())];
                match kind {
                    Kind::Heartbeat => codec::binary::encode_heartbeat(&mut bytes),
                    kind => codec::binary::encode(&mut bytes, *kind, body),
                }
            }
            bytes.extend(tail);
            binary::Case { role, limits, cuts, bytes: change(bytes, &changes) }
        },
    )
}

const LINES: &[&str] = &[
    "Host: a.test",
    "host:  a.test:80\t",
    "Upgrade: websocket",
    "upgrade: h2c, WebSocket",
    "Connection: Upgrade",
    "Connection: keep-alive, upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Version: 8",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Key: short",
    "Sec-WebSocket-Protocol: corelane.json.v1, bearer.x",
    "Sec-WebSocket-Protocol: a,,b",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "Origin: https://chat.example.org",
    "Content-Length: 0",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "X-Other: anything at all",
];

/// The lines a good request has, by their place in [`LINES`].
const GOOD: [usize; 5] = [0, 2, 4, 6, 8];

pub(crate) fn handshake() -> impl Strategy<Value = handshake::Case> {
    let first = prop_oneof![
        8 => select(vec![
            "GET /ws HTTP/1.1", "GET /ws?user_id=alice HTTP/1.1", "GET http://a.test/ws HTTP/1.1",
            "GET /a/../b HTTP/1.1", "GET /ws HTTP/1.0", "POST /ws HTTP/1.1", "OPTIONS * HTTP/1.1",
            "HTTP/1.1 101 Switching Protocols", "HTTP/1.1 200 OK",
        ]).prop_map(String::from),
        1 => "[A-Z]{1,26} [ -~]{0,40} HTTP/1\\.[0-9]",
    ];
    let more = vec(select(LINES.to_vec()), 0..5);
    let without = prop_oneof![3 => Just(GOOD.len()), 1 => 0..GOOD.len()];
    let behind = prop_oneof![Just(Vec::new()), vec(any::<u8>(), 0..20)];
    (0..4_usize, cuts(), first, more, without, changes(2), behind).prop_map(
        |(limits, cuts, first, more, without, changes, behind)| {
            let good = GOOD.iter().enumerate().filter(|(place, _)| *place != without);
            let good = good.map(|(_, line)| LINES[*line]);
            let mut head = first;
            for line in good.chain(more) {
                head = format!("{head}\r\n{line}");
            }
            let mut bytes = change(format!("{head}\r\n\r\n").into_bytes(), &changes);
            bytes.extend(behind);
            handshake::Case { limits, cuts, bytes }
        },
    )
}

/// Objects with our keys and values of all types; sometimes noise.
pub(crate) fn json() -> impl Strategy<Value = String> {
    const KEYS: [&str; 13] = [
        "cmd",
        "id",
        "msg_id",
        "conversation_id",
        "cursor_seq",
        "cursor",
        "limit",
        "direction",
        "read_seq",
        "payload",
        "cmd",
        "payload",
        "msg_id",
    ];
    const INNER: [&str; 9] = [
        "content",
        "msg_type",
        "token",
        "device_id",
        "device_class",
        "type",
        "conversation_id",
        "name",
        "members",
    ];
    let scalar = prop_oneof![
        4 => (0..20_u32).prop_map(|number| number.to_string()),
        1 => select(vec![
            "4294967295", "4294967296", "-1", "1.5", "1e3", "18446744073709551616", "1e999", "0.0",
            "null", "true", "[]", "{}", "\"\"", "[\"bob\",\"carol\"]", "[1]", "\"backward\"",
        ]).prop_map(String::from),
        4 => "[a-z€\\u{7f}\"\\\\]{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let pair = |keys: Vec<&'static str>| {
        (select(keys), scalar.clone()).prop_map(|(key, value)| format!("\"{key}\":{value}"))
    };
    let object = |pairs: Vec<String>| format!("{{{}}}", pairs.join(","));
    let payload = vec(pair(INNER.to_vec()), 0..4).prop_map(object);
    let value = (vec(pair(KEYS.to_vec()), 0..4), prop::option::of(payload), 0..15_u32).prop_map(
        move |(mut pairs, payload, cmd)| {
            pairs.insert(0, format!("\"cmd\":{cmd}"));
            pairs.extend(payload.map(|payload| format!("\"payload\":{payload}")));
            object(pairs)
        },
    );
    let seeds: Vec<String> =
        fuzz_bodies::session::ops::TEXTS.iter().map(|text| (*text).to_owned()).collect();
    let changed = (select(seeds), changes(3)).prop_map(|(text, changes)| {
        String::from_utf8_lossy(&change(text.into_bytes(), &changes)).into_owned()
    });
    prop_oneof![6 => value, 3 => changed, 1 => "\\PC{0,60}"]
}
