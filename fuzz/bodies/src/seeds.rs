//! Small inputs to start from, made here. Each shows a fuzzer one thing that it would take long to find.

use codec::binary::{self, Kind, Role};
use codec::ws::deflate::{Config, Deflater, WindowBits};
use codec::ws::handshake::write_client_request;
use codec::ws::{Opcode, encode_close_masked, encode_fragment, encode_frame, encode_frame_masked};

use crate::input::Cuts;
use crate::session::ops::{Arrival, Op, PROTOCOLS, Part, TARGETS, TEXTS};
use crate::{binary as binary_body, deflate as deflate_body, handshake, session, websocket};

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// The seeds of a target, empty for an unknown one.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "handshake" => handshakes(),
        "websocket" => streams(),
        "deflate" => compressed_streams(),
        "binary" => binary_streams(),
        "json" => TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "session" => lives(),
        _ => Vec::new(),
    }
}

fn handshakes() -> Vec<Vec<u8>> {
    let case = |limits, bytes: &[u8]| {
        handshake::Case { limits, cuts: Cuts(vec![7, 30]), bytes: bytes.to_vec() }.write()
    };
    let mut seeds = Vec::new();
    for (target, protocols) in TARGETS.iter().zip(PROTOCOLS.iter().cycle()) {
        let mut head = Vec::new();
        write_client_request(&mut head, "a.test", target, protocols, handshake::NONCE);
        seeds.push(case(0, &head));
        seeds.push(case(1, &head));
    }
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET /ws HTTP/1.0\r\nUpgrade: websocket\r\n\r\n",
        "GET http://a/ws HTTP/1.1\r\nhost: a\r\nupgrade: h2c, WebSocket\r\n\
         connection: keep-alive, Upgrade\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\norigin: http://a\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "CRLN\u{1}",
        "\u{16}\u{3}\u{1}",
    ] {
        seeds.push(case(0, head.as_bytes()));
    }
    seeds
}

fn streams() -> Vec<Vec<u8>> {
    let texts = ["", "Hello", "κόσμε €uro \u{10FFFF}"];
    let mut masked = Vec::new();
    let mut bare = Vec::new();
    for text in texts {
        encode_frame_masked(&mut masked, Opcode::Text, text.as_bytes(), KEY);
        encode_frame(&mut bare, Opcode::Text, text.as_bytes());
    }
    let mut fragments = Vec::new();
    let (front, back) = texts[2].as_bytes().split_at(3);
    encode_fragment(&mut fragments, Opcode::Text, false, front, Some(KEY));
    encode_fragment(&mut fragments, Opcode::Ping, true, b"between", Some(KEY));
    encode_fragment(&mut fragments, Opcode::Continuation, false, b"", Some(KEY));
    encode_fragment(&mut fragments, Opcode::Continuation, true, back, Some(KEY));
    encode_close_masked(&mut fragments, 1000, "bye", KEY);
    let mut long = Vec::new();
    encode_frame_masked(&mut long, Opcode::Binary, &[7; 126], KEY);
    encode_frame_masked(&mut long, Opcode::Binary, &[7; 200], KEY);
    let mut huge = Vec::new();
    encode_frame(&mut huge, Opcode::Binary, &[7; 65_536]);
    let mut seeds = Vec::new();
    for (role, bytes) in [
        (Role::Server, masked),
        (Role::Client, bare),
        (Role::Server, fragments),
        (Role::Server, long),
        (Role::Client, huge),
        (Role::Server, vec![0x88, 0x82, 0, 0, 0, 0, 3, 0xF6]),
        (Role::Server, vec![0x81, 0x81, 0, 0, 0, 0, 0xFF]),
        (Role::Server, vec![0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]),
    ] {
        for limits in [0, 3] {
            let cuts = Cuts(vec![1, 9, 20]);
            seeds.push(websocket::Case { role, limits, cuts, bytes: bytes.clone() }.write());
        }
    }
    seeds
}

fn compressed_streams() -> Vec<Vec<u8>> {
    let config = Config { min_bytes: 0, ..Config::DEFAULT };
    let mut deflater = Deflater::new(&config);
    let texts = ["", "Hello", &"Hello, Hello! ".repeat(100)];
    let mut seeds = Vec::new();
    for (limits, key) in (0..8).flat_map(|limits| [(limits, None), (limits, Some(KEY))]) {
        let mut bytes = Vec::new();
        for text in texts {
            let bits = WindowBits::Fifteen;
            deflater.encode(&mut bytes, Opcode::Text, text.as_bytes(), bits, None, key);
        }
        let role = if key.is_some() { Role::Server } else { Role::Client };
        seeds.push(deflate_body::Case { role, limits, cuts: Cuts(vec![1, 9]), bytes }.write());
    }
    // "Hello" as RFC 7692 section 7.2.3 writes it: fixed block, no compression, final block, twice.
    for payload in [
        &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
        &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
        &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
    ] {
        let (role, cuts, bytes) = (Role::Server, Cuts(vec![3]), payload.to_vec());
        seeds.push(deflate_body::Case { role, limits: 0, cuts, bytes }.write());
    }
    seeds
}

fn binary_streams() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (role, kinds) in [
        (Role::Server, [Kind::Hello, Kind::Send, Kind::Pull]),
        (Role::Client, [Kind::Welcome, Kind::Push, Kind::Goaway]),
    ] {
        for len in [1, 127, 128, 16_384] {
            let mut bytes = Vec::new();
            binary::encode_heartbeat(&mut bytes);
            for kind in kinds {
                binary::encode(&mut bytes, kind, &vec![8; len.min(kind.max_body_bytes())]);
            }
            let cuts = Cuts(vec![2, 5, 140]);
            seeds.push(binary_body::Case { role, limits: 0, cuts, bytes }.write());
        }
    }
    for bytes in [&b"\x40"[..], b"\x3F", b"\x03\x80\x00", b"\x03\xFF\xFF\xFF\xFF", b"\x03\x00"] {
        let case = binary_body::Case {
            role: Role::Server,
            limits: 2,
            cuts: Cuts::default(),
            bytes: bytes.to_vec(),
        };
        seeds.push(case.write());
    }
    seeds
}

fn lives() -> Vec<Vec<u8>> {
    let bytes = |part| Op::Bytes(Arrival::plain(part));
    let cut = |part, cut| Op::Bytes(Arrival { cut, ..Arrival::plain(part) });
    let joined = |part| Op::Bytes(Arrival { joined: true, ..Arrival::plain(part) });
    let many = |part, again| Op::Bytes(Arrival { again, cut: 9, ..Arrival::plain(part) });
    let by_command = |carry: fn(u8) -> Part, first| {
        let mut ops = vec![first, bytes(carry(1)), Op::Welcome];
        for which in 0..16 {
            ops.push(cut(carry(which), 3));
            ops.extend([Op::Answer, Op::Push { size: 10 }, Op::WaitAsAsked]);
        }
        ops
    };
    let lives = [
        by_command(Part::Text, bytes(Part::Handshake(0, 1))),
        by_command(Part::Fragments, bytes(Part::Handshake(0, 0))),
        by_command(Part::Message, bytes(Part::Handshake(0, 2))),
        by_command(Part::Stream, bytes(Part::Preface)),
        vec![
            joined(Part::Handshake(0, 3)),
            joined(Part::Text(0)),
            cut(Part::Text(4), 200),
            Op::Welcome,
            Op::Busy,
            Op::GoAway,
            Op::TakeAnnounced,
        ],
        vec![bytes(Part::Handshake(1, 0)), Op::LoginFailed { temporary: true }, Op::Answer],
        vec![bytes(Part::Handshake(2, 4)), Op::Welcome, bytes(Part::Message(1)), Op::Close],
        vec![bytes(Part::Preface), joined(Part::Stream(1)), bytes(Part::Stream(0)), Op::Welcome],
        vec![bytes(Part::Handshake(0, 0)), bytes(Part::Ping), bytes(Part::Close)],
        vec![
            bytes(Part::Handshake(0, 1)),
            many(Part::Ping, 2),
            bytes(Part::Text(1)),
            many(Part::Text(2), 1),
            Op::Welcome,
            Op::Wait { ms: 300 },
            many(Part::Pong, 3),
            many(Part::Text(20), 255),
        ],
        vec![
            bytes(Part::Handshake(0, 2)),
            bytes(Part::Message(1)),
            Op::Welcome,
            many(Part::Empty, 1),
            many(Part::Message(2), 59),
        ],
        vec![
            bytes(Part::Preface),
            bytes(Part::Stream(1)),
            Op::Welcome,
            many(Part::Stream(2), 4),
            Op::Wait { ms: 50 },
            many(Part::Stream(12), 1),
        ],
        vec![bytes(Part::Raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()))],
        vec![bytes(Part::Raw(b"\x16\x03\x01".to_vec()))],
    ];
    // Every table of rules sees every life, the echo among them.
    let rules = [0, 1, 2, 3, 4, 8, 12, 0x84];
    let cases = lives.iter().enumerate().flat_map(|(number, ops)| {
        [rules[number % rules.len()], 0, 0x20, 0x30]
            .map(|rules| session::Case { rules, ops: ops.clone() })
    });
    cases.map(|case| case.write()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TARGETS;

    #[test]
    fn every_seed_passes_its_body() {
        for target in TARGETS {
            let seeds = of(target.name);
            assert!(seeds.len() > 5, "{}", target.name);
            seeds.iter().for_each(|seed| (target.run)(seed));
        }
    }

    #[test]
    fn cases_read_back() {
        for seed in of("session") {
            assert_eq!(session::Case::read(&seed).write(), seed);
        }
        for seed in of("websocket") {
            assert_eq!(websocket::Case::read(&seed).write(), seed);
        }
        for seed in of("handshake") {
            assert_eq!(handshake::Case::read(&seed).write(), seed);
        }
        for seed in of("binary") {
            assert_eq!(binary_body::Case::read(&seed).write(), seed);
        }
    }
}
