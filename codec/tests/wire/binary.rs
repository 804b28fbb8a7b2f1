//! The binary protocol: golden frames, every bad frame, random streams.

use codec::binary::{
    Decoder, Error, Frame, Kind, Limits, Role, encode, encode_delimited, encode_heartbeat,
    encoded_len, next_in_message,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{SeenFrame, cut, decode_frames, single_bytes};

const SERVER: Limits = Limits::new(Role::Server);
const CLIENT: Limits = Limits::new(Role::Client);

fn in_message(mut input: &[u8], limits: &Limits) -> Vec<SeenFrame> {
    let mut seen = Vec::new();
    loop {
        match next_in_message(&mut input, limits) {
            Ok(Some(Frame { kind, body })) => seen.push(Ok((kind, body.to_vec()))),
            Ok(None) => return seen,
            Err(error) => {
                seen.push(Err(error));
                return seen;
            }
        }
    }
}

fn assert_frames(bytes: &[u8], limits: &Limits, expected: &[SeenFrame]) {
    assert_eq!(decode_frames([bytes], limits), expected, "whole: {bytes:x?}");
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(decode_frames([a, b], limits), expected, "cut at {at}: {bytes:x?}");
    }
    assert_eq!(decode_frames(single_bytes(bytes), limits), expected, "single: {bytes:x?}");
    assert_eq!(in_message(bytes, limits), expected, "in a message: {bytes:x?}");
}

#[test]
fn golden_frames() {
    let send = b"\x03\x1b\x08\x07\x12\x09group_101\x1a\x03m-1\x20\x01\x2a\x05Hello";
    let stream = [&b"\x00"[..], send, b"\x00\x00\x12\x02\x08\x01"].concat();
    let heartbeat = Ok((Kind::Heartbeat, vec![]));
    let expected = [
        heartbeat.clone(),
        Ok((Kind::Send, send[2..].to_vec())),
        heartbeat.clone(),
        heartbeat,
        Ok((Kind::Read, vec![8, 1])),
    ];
    assert_frames(&stream, &SERVER, &expected);
    let mut out = Vec::new();
    encode_heartbeat(&mut out);
    encode(&mut out, Kind::Send, &send[2..]);
    encode_heartbeat(&mut out);
    encode_heartbeat(&mut out);
    encode(&mut out, Kind::Read, &[8, 1]);
    assert_eq!(out, stream);
}

#[test]
fn a_body_behind_its_own_length_is_a_frame() {
    let (mut delimited, mut encoded) = (Vec::new(), Vec::new());
    for (length, len) in [(&b"\x01"[..], 1), (b"\x7f", 127), (b"\x80\x01", 128)] {
        let body = vec![b'x'; len];
        encode_delimited(&mut delimited, Kind::Page, |out| {
            out.extend_from_slice(length);
            out.extend_from_slice(&body);
        });
        encode(&mut encoded, Kind::Page, &body);
    }
    assert_eq!(delimited, encoded);
}

#[test]
#[cfg(debug_assertions)]
fn what_is_no_length_and_its_body_is_the_callers_bug() {
    for bad in [&b""[..], b"\x00", b"\x02x", b"\x01xx", b"\x80\x00x", b"\x80"] {
        let encode = || encode_delimited(&mut Vec::new(), Kind::Page, |out| out.extend(bad));
        assert!(std::panic::catch_unwind(encode).is_err(), "{bad:x?}");
    }
}

#[test]
fn lengths_of_one_to_four_bytes() {
    for (len, head) in [
        (1, &b"\x07\x01"[..]),
        (127, b"\x07\x7f"),
        (128, b"\x07\x80\x01"),
        (16383, b"\x07\xff\x7f"),
        (16384, b"\x07\x80\x80\x01"),
        (2_097_152, b"\x07\x80\x80\x80\x01"),
    ] {
        let body = vec![b'x'; len];
        let mut out = Vec::new();
        encode(&mut out, Kind::Page, &body);
        assert!(out.starts_with(head) && out.len() == head.len() + len, "{len}");
        assert_eq!(out.len(), encoded_len(Kind::Page, len));
        let expected = [Ok((Kind::Page, body))];
        for at in 0..=head.len() + 1 {
            let (a, b) = out.split_at(at);
            assert_eq!(decode_frames([a, b], &CLIENT), expected, "{len} {at}");
        }
    }
}

fn assert_fault(bytes: &[u8], limits: &Limits, expected: Error, close_code: u16) {
    assert_eq!(expected.close_code(), close_code, "{expected:?}");
    assert!(!expected.to_string().is_empty());
    assert_frames(bytes, limits, &[Err(expected)]);
    // Nothing before a fault is lost, nothing behind it is read.
    let between = [&b"\x00"[..], bytes, b"\x00\x00"].concat();
    let seen = decode_frames([&between[..]], limits);
    assert_eq!(seen, [Ok((Kind::Heartbeat, vec![])), Err(expected)]);
}

#[test]
fn flags_and_kinds() {
    for flags in [0x40, 0x80, 0xC0] {
        assert_fault(&[flags | 0x03], &SERVER, Error::ReservedFlags, 4901);
        assert_fault(&[flags], &SERVER, Error::ReservedFlags, 4901);
    }
    for unknown in 0x1a..0x40 {
        assert_fault(&[unknown], &SERVER, Error::UnknownKind(unknown), 4901);
    }
    for kind in Kind::ALL {
        let (server, client) = (kind.may_come_to(Role::Server), kind.may_come_to(Role::Client));
        match kind {
            Kind::Heartbeat => assert!(server && client),
            _ => assert!(server != client, "{kind:?}"),
        }
        for (may, limits) in [(server, &SERVER), (client, &CLIENT)] {
            if !may {
                assert_fault(&[*kind as u8], limits, Error::WrongDirection(*kind), 4901);
            }
        }
    }
}

#[test]
fn lengths() {
    let send = Kind::Send as u8;
    for length in [&b"\x80\x00"[..], b"\xff\x80\x00", b"\xff\xff\xff\xff", b"\x80\x80\x80\x80"] {
        assert_fault(&[&[send], length].concat(), &SERVER, Error::BadLength, 4901);
    }
    assert_fault(&[send, 0], &SERVER, Error::EmptyBody(Kind::Send), 4901);
    let too_long = |kind, limit| Error::BodyTooLong { kind, limit };
    // Just over each limit, the longest that four bytes can say, and a caller's own limit.
    assert_fault(b"\x01\x81\x40", &SERVER, too_long(Kind::Hello, 8192), 4902);
    assert_fault(b"\x01\xff\xff\xff\x7f", &SERVER, too_long(Kind::Hello, 8192), 4902);
    assert_fault(b"\x03\x81\x80\x04", &SERVER, too_long(Kind::Send, 65536), 4902);
    assert_fault(b"\x07\x81\x80\x80\x08", &CLIENT, too_long(Kind::Page, 16 << 20), 4902);
    let small = Limits { max_body_bytes: 10, ..SERVER };
    assert_fault(b"\x03\x0b", &small, too_long(Kind::Send, 10), 4902);
    let mut hello = Vec::new();
    encode(&mut hello, Kind::Hello, &[b'x'; 8192]);
    assert_eq!(decode_frames([&hello[..]], &SERVER), [Ok((Kind::Hello, vec![b'x'; 8192]))]);
}

#[test]
fn a_message_holds_whole_frames() {
    for cut_frame in [&b"\x03"[..], b"\x03\x80", b"\x03\x05abcd", b"\x00\x12\x02\x08"] {
        assert_eq!(in_message(cut_frame, &SERVER).last(), Some(&Err(Error::CutFrame)));
    }
    assert_eq!(Error::CutFrame.close_code(), 4901);
    assert_eq!(in_message(b"", &SERVER), []);
}

#[test]
fn idle_means_that_nothing_is_held_back() {
    let bytes = b"\x03\x80\x01";
    let mut decoder = Decoder::new();
    assert!(decoder.is_idle());
    for byte in bytes.iter().chain(&[b'x'; 127]) {
        assert_eq!(decoder.next(&mut &[*byte][..], &SERVER), Ok(None));
        assert!(!decoder.is_idle());
    }
    let last = decoder.next(&mut &b"x"[..], &SERVER).unwrap().unwrap();
    assert_eq!((last.kind, last.body), (Kind::Send, &[b'x'; 128][..]));
    assert!(decoder.is_idle() && !decoder.is_ended());
}

fn frames(role: Role) -> impl Strategy<Value = Vec<(Kind, Vec<u8>)>> {
    let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|k| k.may_come_to(role)).collect();
    let frame =
        (proptest::sample::select(kinds), vec(any::<u8>(), 1..300)).prop_map(|(kind, body)| {
            if kind == Kind::Heartbeat { (kind, vec![]) } else { (kind, body) }
        });
    vec(frame, 0..12)
}

fn write(frames: &[(Kind, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, body) in frames {
        match kind {
            Kind::Heartbeat => encode_heartbeat(&mut out),
            _ => encode(&mut out, *kind, body),
        }
    }
    out
}

proptest! {
    #[test]
    fn what_a_client_writes_a_server_reads(
        frames in frames(Role::Server), places in vec(any::<usize>(), 0..10),
    ) {
        let bytes = write(&frames);
        let expected: Vec<SeenFrame> = frames.into_iter().map(Ok).collect();
        prop_assert_eq!(&decode_frames(cut(&bytes, &places), &SERVER), &expected);
        prop_assert_eq!(&decode_frames(single_bytes(&bytes), &SERVER), &expected);
        prop_assert_eq!(&in_message(&bytes, &SERVER), &expected);
    }

    #[test]
    fn what_a_server_writes_a_client_reads(
        frames in frames(Role::Client), places in vec(any::<usize>(), 0..10),
    ) {
        let bytes = write(&frames);
        let expected: Vec<SeenFrame> = frames.into_iter().map(Ok).collect();
        prop_assert_eq!(&decode_frames(cut(&bytes, &places), &CLIENT), &expected);
    }

    /// Whatever bytes come: no panic, and the way they are cut changes nothing.
    #[test]
    fn noise_means_the_same_however_it_is_cut(
        mut bytes in vec(prop_oneof![0..0x20_u8, any::<u8>()], 0..200),
        places in vec(any::<usize>(), 0..10),
    ) {
        for limits in [&SERVER, &CLIENT] {
            let whole = decode_frames([&bytes[..]], limits);
            prop_assert_eq!(&decode_frames(cut(&bytes, &places), limits), &whole);
            prop_assert_eq!(&decode_frames(single_bytes(&bytes), limits), &whole);
        }
        bytes.truncate(codec::binary::Preface::LEN);
        let _ = codec::binary::read_preface(&bytes);
    }
}
