//! Every way of breaking the rules of RFC 6455, with the close code it must get.

use codec::ws::{Decoder, Error, Limits, Opcode, Role, encode_fragment, encode_frame_masked};

use crate::support::{Seen, assert_seen, feed};

const LIMITS: Limits = Limits { max_message_bytes: 300, max_fragments: 4 };
const KEY: [u8; 4] = [1, 2, 3, 4];

/// Bytes of a server, unmasked, and the fault they are.
fn assert_fault(bytes: &[u8], expected: Error, close_code: u16) {
    assert_eq!(expected.close_code(), close_code, "{expected:?}");
    assert_seen(bytes, Role::Client, &LIMITS, &[Seen::Fault(expected)]);
    assert!(!expected.to_string().is_empty());
}

#[test]
fn first_byte() {
    for bits in [0x40, 0x20, 0x10, 0x70] {
        assert_fault(&[0x81 | bits, 0], Error::ReservedBits, 1002);
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        assert_fault(&[0x80 | opcode, 0], Error::ReservedOpcode(opcode), 1002);
        assert_fault(&[opcode], Error::ReservedOpcode(opcode), 1002);
    }
    for control in [0x08, 0x09, 0x0A] {
        assert_fault(&[control, 0], Error::FragmentedControl, 1002);
    }
    assert_fault(b"\x80\x00", Error::UnexpectedContinuation, 1002);
    assert_fault(b"\x00\x01a", Error::UnexpectedContinuation, 1002);
    for data in [b"\x01\x01a\x81\x01b", b"\x01\x01a\x01\x01b", b"\x01\x01a\x82\x01b"] {
        assert_fault(data, Error::ExpectedContinuation, 1002);
    }
}

#[test]
fn masking_by_role() {
    assert_fault(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Error::Masked, 1002);
    for bytes in [&b"\x81\x05Hello"[..], b"\x89\x00", b"\x88\x00", b"\x81\x7e"] {
        assert_seen(bytes, Role::Server, &LIMITS, &[Seen::Fault(Error::Unmasked)]);
    }
    assert_eq!(Error::Unmasked.close_code(), 1002);
}

#[test]
fn lengths() {
    for control in [0x88, 0x89, 0x8A] {
        assert_fault(&[control, 126, 0, 126], Error::ControlTooLong, 1002);
        assert_fault(&[control, 127], Error::ControlTooLong, 1002);
    }
    assert_fault(b"\x82\x7e\x00\x7d", Error::BadLength, 1002);
    assert_fault(b"\x82\x7f\0\0\0\0\0\0\xff\xff", Error::BadLength, 1002);
    assert_fault(b"\x82\x7f\x80", Error::BadLength, 1002);
    assert_fault(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", Error::BadLength, 1002);
}

#[test]
fn a_message_over_the_limit_fails_on_its_header() {
    let too_long = Error::MessageTooLong { limit: 300 };
    assert_fault(b"\x82\x7e\x01\x2d", too_long, 1009);
    assert_fault(b"\x82\x7f\x40\0\0\0\0\0\0\0", too_long, 1009);
    assert_fault(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", too_long, 1009);
    // All fragments together.
    let mut bytes = Vec::new();
    encode_fragment(&mut bytes, Opcode::Binary, false, &[0; 200], None);
    bytes.extend(b"\x80\x65");
    assert_fault(&bytes, too_long, 1009);
    // The limit itself is allowed, in one frame and in two.
    bytes.truncate(bytes.len() - 2);
    encode_fragment(&mut bytes, Opcode::Continuation, true, &[0; 100], None);
    encode_fragment(&mut bytes, Opcode::Binary, true, &[0; 300], None);
    let expected = [Seen::Binary(vec![0; 300]), Seen::Binary(vec![0; 300])];
    assert_seen(&bytes, Role::Client, &LIMITS, &expected);
}

#[test]
fn a_cut_character_counts_and_a_control_frame_does_not() {
    let mut bytes = Vec::new();
    let first = ["x".repeat(296).as_bytes(), b"\xf0\x9d\x84"].concat();
    encode_fragment(&mut bytes, Opcode::Text, false, &first, None);
    encode_fragment(&mut bytes, Opcode::Ping, true, &[0; 125], None);
    let good = [&bytes[..], b"\x80\x01\x9e"].concat();
    let whole = "x".repeat(296) + "\u{1d11e}";
    let expected = [Seen::Ping(vec![0; 125]), Seen::Text(whole)];
    assert_seen(&good, Role::Client, &LIMITS, &expected);
    bytes.extend(b"\x80\x02");
    let fault = Seen::Fault(Error::MessageTooLong { limit: 300 });
    assert_seen(&bytes, Role::Client, &LIMITS, &[Seen::Ping(vec![0; 125]), fault]);
}

#[test]
fn a_masked_message_over_the_limit_fails_before_its_key() {
    let expected = [Seen::Fault(Error::MessageTooLong { limit: 300 })];
    assert_seen(b"\x82\xfe\x01\x2d", Role::Server, &LIMITS, &expected);
}

#[test]
fn endless_fragments() {
    let too_many = Error::TooManyFragments { limit: 4 };
    assert_fault(b"\x01\x00\x00\x00\x00\x00\x00\x00\x00", too_many, 1008);
    assert_fault(b"\x02\x01a\x00\x01b\x00\x01c\x00\x01d\x80\x01e", too_many, 1008);
    // Four are allowed, and control frames between them do not count.
    let bytes = b"\x02\x00\x89\x00\x00\x01a\x89\x00\x00\x00\x8a\x00\x80\x01b";
    let expected =
        [Seen::Ping(vec![]), Seen::Ping(vec![]), Seen::Pong(vec![]), Seen::Binary(b"ab".to_vec())];
    assert_seen(bytes, Role::Client, &LIMITS, &expected);
    // The next message starts from nothing.
    let twice = [&bytes[..], &bytes[..]].concat();
    assert_seen(&twice, Role::Client, &LIMITS, &[expected.clone(), expected].concat());
}

#[test]
fn text_that_is_not_utf8() {
    let bad: [&[u8]; 7] = [
        b"\xff",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"a\x80",
        "0123456789 much longer than a vector register is wide, but still bad at its end \u{fffd}"
            .as_bytes()
            .split_last()
            .unwrap()
            .1,
    ];
    for payload in bad {
        let mut bytes = Vec::new();
        encode_fragment(&mut bytes, Opcode::Text, true, payload, None);
        assert_fault(&bytes, Error::BadUtf8, 1007);
        bytes.clear();
        encode_fragment(&mut bytes, Opcode::Text, false, payload, None);
        encode_fragment(&mut bytes, Opcode::Continuation, true, b"", None);
        assert_fault(&bytes, Error::BadUtf8, 1007);
    }
}

/// The fault shows at the byte that makes the text bad, although the frame goes on.
#[test]
fn bad_text_fails_before_its_frame_is_complete() {
    let mut frame = Vec::new();
    let payload = ["κόσμε".as_bytes(), b"\xf4\x90", &[b'a'; 200]].concat();
    encode_frame_masked(&mut frame, Opcode::Text, &payload, KEY);
    let bad_at = 8 + "κόσμε".len() + 1;
    let mut decoder = Decoder::new();
    for (i, byte) in frame.iter().enumerate() {
        let seen = feed(&mut decoder, &[*byte], Role::Server, &LIMITS);
        if i < bad_at {
            assert_eq!(seen, [], "{i}");
        } else {
            assert_eq!(seen, [Seen::Fault(Error::BadUtf8)]);
            return;
        }
    }
    panic!("bad text passed");
}

#[test]
fn bad_text_fails_before_its_message_is_complete() {
    let mut bytes = Vec::new();
    encode_fragment(&mut bytes, Opcode::Text, false, b"ok \xe2\x82", None);
    encode_fragment(&mut bytes, Opcode::Continuation, false, b"\x28", None);
    assert_fault(&bytes, Error::BadUtf8, 1007);
}

#[test]
fn close_frames() {
    assert_fault(b"\x88\x01\x03", Error::BadCloseBody, 1002);
    for code in [0_u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        let [a, b] = code.to_be_bytes();
        assert_fault(&[0x88, 2, a, b], Error::BadCloseCode(code), 1002);
        assert_fault(&[0x88, 3, a, b, b'x'], Error::BadCloseCode(code), 1002);
    }
    assert_fault(b"\x88\x03\x03\xe8\xff", Error::BadUtf8, 1007);
    assert_fault(b"\x88\x04\x03\xe8\xe2\x82", Error::BadUtf8, 1007);
    for code in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4901, 4999]) {
        let [a, b] = u16::to_be_bytes(code);
        let expected = [Seen::Close(Some((code, "é".to_owned())))];
        assert_seen(&[0x88, 4, a, b, 0xC3, 0xA9], Role::Client, &LIMITS, &expected);
    }
    let longest = [&[0x88, 125, 0x03, 0xE8], &[b'x'; 123][..]].concat();
    let expected = [Seen::Close(Some((1000, "x".repeat(123))))];
    assert_seen(&longest, Role::Client, &LIMITS, &expected);
}

#[test]
fn a_close_between_fragments_ends_the_message_with_it() {
    let bytes = b"\x01\x01a\x88\x00\x80\x01b";
    assert_seen(bytes, Role::Client, &LIMITS, &[Seen::Close(None)]);
}

#[test]
fn idle_means_that_nothing_is_held_back() {
    let mut bytes = Vec::new();
    encode_fragment(&mut bytes, Opcode::Text, false, b"Hel", Some(KEY));
    encode_frame_masked(&mut bytes, Opcode::Ping, b"p", KEY);
    encode_fragment(&mut bytes, Opcode::Continuation, true, b"lo", Some(KEY));
    let mut decoder = Decoder::new();
    assert!(decoder.is_idle());
    for byte in &bytes[..bytes.len() - 1] {
        feed(&mut decoder, &[*byte], Role::Server, &LIMITS);
        assert!(!decoder.is_idle());
    }
    feed(&mut decoder, &bytes[bytes.len() - 1..], Role::Server, &LIMITS);
    assert!(decoder.is_idle() && !decoder.is_ended());
}
