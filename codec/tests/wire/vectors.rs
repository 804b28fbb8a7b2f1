//! The examples of RFC 6455 section 5.7 and others like them, split at every byte.

use codec::ws::{Limits, Opcode, Role, encode_close, encode_close_masked, encode_fragment};
use codec::ws::{encode_frame, encode_frame_around, encode_frame_masked};

use crate::support::{Seen, assert_seen};

/// The key of the RFC's examples.
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

#[test]
fn examples_of_the_rfc() {
    let table: [(&[u8], Role, Seen); 6] = [
        (b"\x81\x05Hello", Role::Client, text("Hello")),
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Role::Server, text("Hello")),
        (b"\x01\x03Hel\x80\x02lo", Role::Client, text("Hello")),
        (b"\x89\x05Hello", Role::Client, Seen::Ping(b"Hello".to_vec())),
        (
            b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
            Role::Server,
            Seen::Pong(b"Hello".to_vec()),
        ),
        (b"\x88\x02\x03\xe8", Role::Client, Seen::Close(Some((1000, String::new())))),
    ];
    for (bytes, role, expected) in table {
        assert_seen(bytes, role, &Limits::DEFAULT, &[expected]);
    }
}

#[test]
fn long_examples_of_the_rfc() {
    let limits = Limits { max_message_bytes: 65536, ..Limits::DEFAULT };
    for (head, len) in [(&b"\x82\x7e\x01\x00"[..], 256), (b"\x82\x7f\0\0\0\0\0\x01\0\0", 65536)] {
        let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let bytes = [head, &payload].concat();
        let expected = [Seen::Binary(payload)];
        let mut encoded = Vec::new();
        let Seen::Binary(payload) = &expected[0] else { unreachable!() };
        encode_frame(&mut encoded, Opcode::Binary, payload);
        assert_eq!(encoded, bytes);
        // Every cut of the long one would take minutes: those around the header and the end do.
        for at in (0..20).chain(bytes.len() - 10..=bytes.len()) {
            let (a, b) = bytes.split_at(at);
            assert_eq!(crate::support::decode([a, b], Role::Client, &limits), expected, "{at}");
        }
        let single = crate::support::single_bytes(&bytes);
        assert_eq!(crate::support::decode(single, Role::Client, &limits), expected);
    }
}

#[test]
fn encoders_write_the_examples() {
    let mut out = Vec::new();
    encode_frame(&mut out, Opcode::Text, b"Hello");
    encode_frame_masked(&mut out, Opcode::Text, b"Hello", KEY);
    encode_fragment(&mut out, Opcode::Text, false, b"Hel", None);
    encode_fragment(&mut out, Opcode::Continuation, true, b"lo", None);
    encode_frame(&mut out, Opcode::Ping, b"Hello");
    encode_frame_masked(&mut out, Opcode::Pong, b"Hello", KEY);
    encode_close(&mut out, 1000, "");
    encode_close_masked(&mut out, 4000, "bye", KEY);
    let expected: [&[u8]; 8] = [
        b"\x81\x05Hello",
        b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        b"\x01\x03Hel",
        b"\x80\x02lo",
        b"\x89\x05Hello",
        b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        b"\x88\x02\x03\xe8",
        b"\x88\x85\x37\xfa\x21\x3d\x38\x5a\x43\x44\x52",
    ];
    assert_eq!(out, expected.concat());
}

/// Whatever length was expected, behind whatever lies in the buffer already.
#[test]
fn a_frame_around_its_payload_is_the_frame_that_copies_it() {
    let lengths = [0, 1, 125, 126, 127, 1000, 65_535, 65_536, 70_000];
    for (len, expected_len) in lengths.iter().flat_map(|len| lengths.map(|other| (*len, other))) {
        let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let (mut around, mut copied) = (b"before".to_vec(), b"before".to_vec());
        let written = encode_frame_around(&mut around, Opcode::Text, expected_len, |out| {
            out.extend_from_slice(&payload[..len / 2]);
            out.extend_from_slice(&payload[len / 2..]);
            len
        });
        encode_frame(&mut copied, Opcode::Text, &payload);
        assert!(around == copied, "{len} bytes where {expected_len} were expected");
        assert_eq!(written, len);
    }
}

#[test]
#[should_panic(expected = "appended")]
fn a_payload_is_not_written_over_what_was_there() {
    encode_frame_around(&mut b"before".to_vec(), Opcode::Text, 5, Vec::clear);
}

#[test]
fn control_frames_between_fragments_and_empty_frames() {
    let bytes = b"\x01\x01a\x89\x00\x00\x00\x8a\x01x\x80\x01b\x81\x00\x82\x00\x01\x00\x80\x00";
    let expected = [
        Seen::Ping(vec![]),
        Seen::Pong(b"x".to_vec()),
        text("ab"),
        text(""),
        Seen::Binary(vec![]),
        text(""),
    ];
    assert_seen(bytes, Role::Client, &Limits::DEFAULT, &expected);
}

#[test]
fn characters_cut_between_fragments() {
    let whole = "€𝄞é";
    let mut bytes = Vec::new();
    for (i, byte) in whole.bytes().enumerate() {
        let opcode = if i == 0 { Opcode::Text } else { Opcode::Continuation };
        encode_fragment(&mut bytes, opcode, i + 1 == whole.len(), &[byte], Some(KEY));
        encode_frame_masked(&mut bytes, Opcode::Ping, b"", KEY);
    }
    let mut expected = vec![Seen::Ping(vec![]); whole.len() - 1];
    expected.extend([text(whole), Seen::Ping(vec![])]);
    assert_seen(&bytes, Role::Server, &Limits::DEFAULT, &expected);
}

#[test]
fn every_length_around_the_encoding_edges() {
    let limits = Limits { max_message_bytes: 70_000, ..Limits::DEFAULT };
    for len in [0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537] {
        let payload = "x".repeat(len);
        let mut bytes = Vec::new();
        encode_frame_masked(&mut bytes, Opcode::Text, payload.as_bytes(), KEY);
        assert_eq!(bytes.len(), codec::ws::header_len(len, true) + len);
        for at in 0..16.min(bytes.len()) {
            let (a, b) = bytes.split_at(at);
            let seen = crate::support::decode([a, b], Role::Server, &limits);
            assert_eq!(seen, [Seen::Text(payload.clone())], "{len} {at}");
        }
    }
}

#[test]
fn frames_behind_a_close_are_ignored() {
    let bytes = b"\x88\x06\x0f\xa0away\x81\x01a\xff\xff";
    let expected = [Seen::Close(Some((4000, "away".to_owned())))];
    assert_seen(bytes, Role::Client, &Limits::DEFAULT, &expected);
    assert_seen(b"\x88\x00\x89\x00", Role::Client, &Limits::DEFAULT, &[Seen::Close(None)]);
}
