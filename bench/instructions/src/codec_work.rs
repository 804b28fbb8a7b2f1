//! The codec: frames where they lie, handshakes.

use std::hint::black_box;

use codec::binary::{self, Kind};
use codec::ws::handshake::{self, Request, read_request, write_client_request};
use codec::ws::{
    Decoder, Limits, Opcode, Role, encode_frame, encode_frame_around, encode_frame_masked,
};

use crate::Scenario;

/// Frames in one buffer.
const FRAMES: usize = 64;

/// Unmasking twice with the same key gives back what was there, and with small keys letters stay
/// ASCII: the same buffer can be decoded again and again without being copied.
const KEY: [u8; 4] = [1, 2, 3, 1];

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for len in [20, 128, 1024] {
        scenarios.push(decode(len));
        scenarios.push(encode(len));
    }
    scenarios.extend([
        encode_around(),
        decode_in_two(),
        decode_binary(),
        encode_binary(),
        shake_hands(),
    ]);
    scenarios
}

fn stream(len: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..FRAMES {
        encode_frame_masked(&mut stream, Opcode::Text, &vec![b'p'; len], KEY);
    }
    stream
}

fn decode(len: usize) -> Scenario {
    let mut buffer = stream(len);
    let work = move || {
        let mut decoder = Decoder::new();
        let mut input = &mut buffer[..];
        while let Ok(Some(event)) = decoder.next(&mut input, Role::Server, &Limits::DEFAULT) {
            black_box(event);
        }
        assert!(input.is_empty() && decoder.is_idle());
    };
    Scenario::new(format!("codec: decode a masked text frame of {len} bytes"), 100, work)
        .units(FRAMES)
}

/// The same frame cut in two: what a partial receive costs.
fn decode_in_two() -> Scenario {
    let mut frame = stream(128);
    frame.truncate(frame.len() / FRAMES);
    let work = move || {
        let mut decoder = Decoder::new();
        let (mut front, mut back) = frame.split_at_mut(50);
        assert_eq!(decoder.next(&mut front, Role::Server, &Limits::DEFAULT), Ok(None));
        black_box(decoder.next(&mut back, Role::Server, &Limits::DEFAULT).ok().flatten());
        assert!(decoder.is_idle());
    };
    Scenario::new("codec: decode a masked text frame of 128 bytes that comes in two", 1000, work)
}

fn encode(len: usize) -> Scenario {
    let payload = vec![b'p'; len];
    let mut out = Vec::new();
    let work = move || {
        out.clear();
        for _ in 0..FRAMES {
            encode_frame(&mut out, Opcode::Text, black_box(&payload));
        }
        black_box(&out);
    };
    Scenario::new(format!("codec: encode a text frame of {len} bytes"), 100, work).units(FRAMES)
}

/// What [`encode`] writes, with the payload written where it stays.
fn encode_around() -> Scenario {
    let payload = vec![b'p'; 1024];
    let mut out = Vec::new();
    let work = move || {
        out.clear();
        for _ in 0..FRAMES {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(black_box(&payload));
            encode_frame_around(&mut out, Opcode::Text, payload.len(), write);
        }
        black_box(&out);
    };
    Scenario::new("codec: write 1024 bytes and a text frame around them", 100, work).units(FRAMES)
}

fn decode_binary() -> Scenario {
    let mut stream = Vec::new();
    (0..FRAMES).for_each(|_| binary::encode(&mut stream, Kind::Send, &[7; 128]));
    let work = move || {
        let limits = binary::Limits::new(Role::Server);
        let mut decoder = binary::Decoder::new();
        let mut input = black_box(&stream[..]);
        while let Ok(Some(frame)) = decoder.next(&mut input, &limits) {
            black_box(frame);
        }
        assert!(input.is_empty());
    };
    Scenario::new("codec: decode a binary frame of 128 bytes", 100, work).units(FRAMES)
}

fn encode_binary() -> Scenario {
    let mut out = Vec::new();
    let work = move || {
        out.clear();
        for _ in 0..FRAMES {
            binary::encode(&mut out, Kind::Push, black_box(&[7; 128]));
        }
        black_box(&out);
    };
    Scenario::new("codec: encode a binary frame of 128 bytes", 100, work).units(FRAMES)
}

fn shake_hands() -> Scenario {
    let mut request = Vec::new();
    let protocols = ["corelane.json.v1", "bearer.abc"];
    write_client_request(&mut request, "chat.example.org", "/ws", &protocols, [7; 16]);
    request.truncate(request.len() - 2);
    request.extend_from_slice(
        b"Origin: https://chat.example.org\r\n\
          User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n\
          Accept-Language: en-US,en;q=0.9\r\nCache-Control: no-cache\r\n\r\n",
    );
    let mut out = Vec::new();
    let work = move || {
        out.clear();
        let upgrade = read_request(black_box(&request), &handshake::Limits::DEFAULT);
        let Ok(Request::Upgrade(upgrade)) = upgrade else { panic!("the request is valid") };
        upgrade.accept(Some(protocols[0]), &mut out);
        black_box(&out);
    };
    Scenario::new("codec: read a handshake and accept it", 500, work)
}
