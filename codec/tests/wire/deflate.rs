//! Compressed messages (RFC 7692): the examples of the RFC, what is refused, and round trips.

use codec::ws::deflate::{Agreement, Config, Deflater, Inflater, Offer, WindowBits, Windows};
use codec::ws::{Decoder, Error, Limits, Opcode, Role, encode_fragment, encode_frame};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{Seen, cut, decode, single_bytes};

const LIMITS: Limits = Limits { max_message_bytes: 100_000, max_fragments: 64 };
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// One end of a connection that agreed on compression.
struct Peer {
    role: Role,
    decoder: Decoder,
    inflater: Inflater,
    deflater: Deflater,
    bits: WindowBits,
    windows: Option<Windows>,
}

impl Peer {
    fn new(role: Role, agreement: &Agreement, config: &Config) -> Self {
        let bits = match role {
            Role::Server => agreement.server_max_window_bits,
            Role::Client => agreement.client_max_window_bits,
        };
        Self {
            role,
            decoder: Decoder::new(),
            inflater: Inflater::new(),
            deflater: Deflater::new(config),
            bits,
            windows: Windows::new(agreement, role),
        }
    }

    /// A client or server that takes nothing over.
    fn forgetful(role: Role) -> Self {
        let agreement = Config::DEFAULT.agree(&Offer::default()).unwrap();
        Self::new(role, &agreement, &Config { min_bytes: 0, ..Config::DEFAULT })
    }

    fn feed(&mut self, bytes: &[u8], limits: &Limits) -> Vec<Seen> {
        let mut copy = bytes.to_vec();
        let mut input = &mut copy[..];
        let mut seen = Vec::new();
        loop {
            let windows = self.windows.as_mut();
            match self.decoder.next_inflating(
                &mut input,
                self.role,
                limits,
                &mut self.inflater,
                windows,
            ) {
                Ok(Some(event)) => seen.push(event.into()),
                Ok(None) => break,
                Err(error) => {
                    seen.push(Seen::Fault(error));
                    break;
                }
            }
        }
        assert!(input.is_empty());
        seen
    }

    fn encode(&mut self, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let key = (self.role == Role::Client).then_some(KEY);
        self.deflater.encode(&mut out, opcode, payload, self.bits, self.windows.as_mut(), key);
        out
    }
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

/// Checks what a client sees, whole, cut in two anywhere, and byte by byte.
fn assert_seen(bytes: &[u8], limits: &Limits, expected: &[Seen]) {
    assert_eq!(Peer::forgetful(Role::Client).feed(bytes, limits), expected, "whole: {bytes:x?}");
    for at in 0..=bytes.len() {
        let mut peer = Peer::forgetful(Role::Client);
        let mut seen = peer.feed(&bytes[..at], limits);
        seen.extend(peer.feed(&bytes[at..], limits));
        assert_eq!(seen, expected, "cut at {at}: {bytes:x?}");
    }
    let mut peer = Peer::forgetful(Role::Client);
    let seen: Vec<Seen> = bytes.chunks(1).flat_map(|byte| peer.feed(byte, limits)).collect();
    assert_eq!(seen, expected, "single bytes: {bytes:x?}");
    assert!(peer.decoder.is_idle());
}

/// Section 7.2.3, with the byte of section 7.2.3.6 for an empty message.
#[test]
fn examples_of_the_rfc() {
    let hello = [text("Hello")];
    let table: [(&[u8], &[Seen]); 8] = [
        (b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", &hello),
        (b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00", &hello),
        // Stored, and a final block with the byte that follows it.
        (b"\xc1\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", &hello),
        (b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00", &hello),
        // Two blocks.
        (b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", &hello),
        (b"\xc1\x01\x00", &[Seen::Text(String::new())]),
        (b"\xc2\x00", &[Seen::Binary(Vec::new())]),
        // A final block and nothing behind it.
        (b"\xc1\x07\xf3\x48\xcd\xc9\xc9\x07\x00", &hello),
    ];
    for (bytes, expected) in table {
        assert_seen(bytes, &LIMITS, expected);
    }
    // Section 7.2.3.2: the second message refers to the first.
    let agreement = Config { server_context_takeover: true, ..Config::DEFAULT }
        .agree(&Offer::default())
        .unwrap();
    let mut peer = Peer::new(Role::Client, &agreement, &Config::DEFAULT);
    for message in [&b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"[..], b"\xc1\x05\xf2\x00\x11\x00\x00"] {
        assert_eq!(peer.feed(message, &LIMITS), hello);
    }
    // Without takeover it refers to nothing.
    let mut peer = Peer::forgetful(Role::Client);
    assert_eq!(
        peer.feed(b"\xc1\x05\xf2\x00\x11\x00\x00", &LIMITS),
        [Seen::Fault(Error::BadDeflate)]
    );
    assert_eq!(Error::BadDeflate.close_code(), 1007);
}

#[test]
fn the_first_bit_stands_on_the_first_data_frame_only() {
    let bad = [Seen::Fault(Error::ReservedBits)];
    for bytes in [
        &b"\xc0\x00"[..],
        b"\x40\x00",
        b"\xc8\x00",
        b"\xc9\x00",
        b"\xca\x00",
        b"\xe1\x00",
        b"\xd1\x00",
        b"\xa1\x00",
        b"\xf2\x00",
        b"\x41\x03\xf2\x48\xcd\xc0\x04\xc9\xc9\x07\x00",
        b"\x01\x01a\xc0\x01b",
    ] {
        assert_seen(bytes, &LIMITS, &bad);
    }
    assert_seen(b"\xc3\x00", &LIMITS, &[Seen::Fault(Error::ReservedOpcode(3))]);
    assert_seen(b"\x41\x00\xc1\x00", &LIMITS, &[Seen::Fault(Error::ExpectedContinuation)]);
    // Nothing was agreed on.
    for bytes in [&b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"[..], b"\x41\x00", b"\xc2\x01\x00"] {
        assert_eq!(decode([bytes], Role::Client, &LIMITS), bad);
    }
}

#[test]
fn uncompressed_messages_and_control_frames_go_between() {
    let bytes = b"\x81\x02hi\x41\x03\xf2\x48\xcd\x89\x01p\x00\x00\x80\x04\xc9\xc9\x07\x00\
        \x01\x01a\x80\x01b\xc2\x07\xf2\x48\xcd\xc9\xc9\x07\x00\x88\x00";
    let expected = [
        text("hi"),
        Seen::Ping(b"p".to_vec()),
        text("Hello"),
        text("ab"),
        Seen::Binary(b"Hello".to_vec()),
        Seen::Close(None),
    ];
    assert_seen(bytes, &LIMITS, &expected);
}

#[test]
fn payloads_that_are_no_deflate() {
    let bad = [Seen::Fault(Error::BadDeflate)];
    for payload in [
        &b"\xff\xff\xff"[..],
        // The third kind of block, a stored block whose lengths do not agree, a distance too far back.
        b"\x06\x00",
        b"\x00\x05\x00\x00\x00Hello\x00",
        b"\xf2\x00\x11\x00\x00",
        // Cut short: inside a fixed block, inside a stored block, and in its header.
        b"\xf2\x48\xcd",
        b"\x00\x05\x00\xfa\xffHell",
        b"\x00\x05",
        // The tail was not cut off, so it stands there twice.
        b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff",
        b"Hello",
    ] {
        let mut bytes = vec![0xC2, payload.len() as u8];
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\x81\x01a");
        assert_seen(&bytes, &LIMITS, &bad);
    }
}

/// Each final block costs a new beginning; a message of nothing else is refused early.
#[test]
fn endless_final_blocks() {
    let message = |blocks: usize| {
        let payload = b"\x03\x00".repeat(blocks);
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Opcode::Binary, &payload);
        bytes[0] |= 0x40;
        bytes
    };
    let mut peer = Peer::forgetful(Role::Client);
    assert_eq!(peer.feed(&message(16), &LIMITS), [Seen::Binary(Vec::new())]);
    assert_eq!(peer.feed(&message(40_000), &LIMITS), [Seen::Fault(Error::BadDeflate)]);
}

#[test]
fn text_is_checked_when_it_is_inflated() {
    for (good, bytes) in [(true, "é".as_bytes()), (false, b"ok \xe9"), (false, b"\xed\xa0\x80")] {
        for (opcode, is_text) in [(Opcode::Text, true), (Opcode::Binary, false)] {
            let payload = bytes.repeat(20);
            let frame = Peer::forgetful(Role::Server).encode(opcode, &payload);
            assert_eq!(frame[0] & 0x40, 0x40);
            let expected = match (is_text, good) {
                (true, true) => Seen::Text(String::from_utf8(payload).unwrap()),
                (true, false) => Seen::Fault(Error::BadUtf8),
                (false, _) => Seen::Binary(payload),
            };
            assert_seen(&frame, &LIMITS, &[expected]);
        }
    }
}

/// A message of `len` zeros in one compressed frame.
fn bomb(len: usize) -> Vec<u8> {
    let mut deflater = Deflater::new(&Config { level: 9, ..Config::DEFAULT });
    let mut out = Vec::new();
    deflater.encode(&mut out, Opcode::Binary, &vec![0; len], WindowBits::Fifteen, None, None);
    assert!(out.len() < len / 500);
    out
}

#[test]
fn a_bomb_is_refused_at_the_limit() {
    let limits = Limits { max_message_bytes: 65_536, ..LIMITS };
    let mut peer = Peer::forgetful(Role::Client);
    assert_eq!(peer.feed(&bomb(65_536), &limits), [Seen::Binary(vec![0; 65_536])]);
    let too_long = Error::MessageTooLong { limit: 65_536 };
    for len in [65_537, 70_000, 50_000_000] {
        let mut peer = Peer::forgetful(Role::Client);
        assert_eq!(peer.feed(&bomb(len), &limits), [Seen::Fault(too_long)]);
        assert!(peer.inflater.held_bytes() <= 65_537, "{}", peer.inflater.held_bytes());
        assert!(peer.decoder.is_ended());
    }
    assert_eq!(too_long.close_code(), 1009);
}

#[test]
fn compressed_bytes_have_a_limit_of_their_own() {
    let limits = Limits { max_message_bytes: 800, max_fragments: 4 };
    let too_long = [Seen::Fault(Error::MessageTooLong { limit: 800 })];
    // 800 + 800/8 + 64: on the header alone, in one frame and in two.
    assert_seen(b"\xc2\x7e\x03\xc5", &limits, &too_long);
    assert_seen(b"\xc2\x7f\x40\0\0\0\0\0\0\0", &limits, &too_long);
    let mut bytes = Vec::new();
    encode_fragment(&mut bytes, Opcode::Binary, false, &[0; 200], None);
    bytes[0] |= 0x40;
    bytes.extend(b"\x00\x7e\x02\xfd");
    assert_eq!(Peer::forgetful(Role::Client).feed(&bytes, &limits), too_long);
    // Stored blocks of a message of just the limit are longer than it, and are taken.
    let mut payload = Vec::new();
    for chunk in vec![7; 800].chunks(100) {
        payload.extend([0, 100, 0, 155, 255]);
        payload.extend_from_slice(chunk);
    }
    payload.push(0);
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, Opcode::Binary, &payload);
    bytes[0] |= 0x40;
    assert_eq!(Peer::forgetful(Role::Client).feed(&bytes, &limits), [Seen::Binary(vec![7; 800])]);
    // Fragments are counted as ever.
    let endless = b"\x42\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    assert_seen(endless, &limits, &[Seen::Fault(Error::TooManyFragments { limit: 4 })]);
}

#[test]
fn what_does_not_get_shorter_is_sent_as_it_is() {
    let mut peer = Peer::forgetful(Role::Server);
    for payload in [&b""[..], b"a", b"ab", b"0123456789abcdef"] {
        let mut plain = Vec::new();
        encode_frame(&mut plain, Opcode::Binary, payload);
        assert_eq!(peer.encode(Opcode::Binary, payload), plain);
    }
    let repeated = b"abc".repeat(10);
    let config = Config { min_bytes: 31, ..Config::DEFAULT };
    for (min_bytes, is_compressed) in [(30, true), (31, false)] {
        let mut deflater = Deflater::new(&Config { min_bytes, ..config });
        let mut out = Vec::new();
        deflater.encode(&mut out, Opcode::Text, &repeated, WindowBits::Fifteen, None, None);
        assert_eq!(out[0] & 0x40 != 0, is_compressed);
        // No compressor keeps to a window of 8 bits.
        out.clear();
        deflater.encode(&mut out, Opcode::Text, &repeated, WindowBits::Eight, None, None);
        assert_eq!(out[0], 0x81);
    }
}

/// A message that was not worth compressing leaves nothing behind for the next one.
#[test]
fn noise_between_messages_changes_nothing() {
    let noise: Vec<u8> =
        (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 15) as u8).collect();
    for level in 1..=9 {
        let mut peer = Peer::forgetful(Role::Server);
        peer.deflater = Deflater::new(&Config { level, min_bytes: 0, ..Config::DEFAULT });
        let mut reader = Peer::forgetful(Role::Client);
        let limits = Limits { max_message_bytes: 400_000, ..LIMITS };
        for round in 0..70 {
            let len = [1, 20, 256, 257, 1000, 4096, 70_000][round % 7];
            let at = round * 13;
            for payload in [&noise[at..at + len], "text text ".repeat(len / 8).as_bytes()] {
                let frame = peer.encode(Opcode::Binary, payload);
                assert_eq!(reader.feed(&frame, &limits), [Seen::Binary(payload.to_vec())]);
            }
        }
    }
}

/// Frames of every kind and length written by others are compressed where they lie.
#[test]
fn frames_are_compressed_where_they_lie() {
    let mut out = b"HTTP/1.1 101\r\n\r\n".to_vec();
    let start = out.len();
    let mut expected = Vec::new();
    for len in [0, 10, 300, 125, 126, 5_000, 65_535, 70_000, 3] {
        let message = "{\"cmd\":4}".repeat(len / 9 + 1)[..len].to_owned();
        encode_frame(&mut out, Opcode::Text, message.as_bytes());
        encode_frame(&mut out, Opcode::Ping, b"ping");
        let noise: Vec<u8> =
            (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        encode_frame(&mut out, Opcode::Binary, &noise);
        expected.extend([Seen::Text(message), Seen::Ping(b"ping".to_vec()), Seen::Binary(noise)]);
    }
    encode_frame(&mut out, Opcode::Close, b"");
    expected.push(Seen::Close(None));
    let plain_len = out.len();
    let mut deflater = Deflater::new(&Config { min_bytes: 20, ..Config::DEFAULT });
    deflater.compress_frames(&mut out, start, WindowBits::Fifteen, None);
    assert!(out.len() < plain_len - 100_000, "{} {plain_len}", out.len());
    assert_eq!(&out[..start], b"HTTP/1.1 101\r\n\r\n");
    assert_eq!(Peer::forgetful(Role::Client).feed(&out[start..], &LIMITS), expected);
    // What is no frame of ours stays as it is.
    for bytes in [
        &b"\x81\x85maskmasked"[..],
        b"\x81\x7e\x01",
        b"\x01\x01a",
        b"\xc1\x01\x00",
        b"",
        b"\x82\x7f\xff",
    ] {
        let mut out = bytes.to_vec();
        deflater.compress_frames(&mut out, 0, WindowBits::Fifteen, None);
        assert_eq!(out, bytes);
    }
}

/// Messages of one conversation: text that repeats itself, noise, empty ones, long ones.
fn message() -> impl Strategy<Value = (Opcode, Vec<u8>)> {
    prop_oneof![
        4 => "[a-f]{0,200}".prop_map(|s| (Opcode::Text, s.into_bytes())),
        2 => "[a-zé€𝄞]{0,300}".prop_map(|s| (Opcode::Text, s.repeat(3).into_bytes())),
        2 => vec(any::<u8>(), 0..300).prop_map(|b| (Opcode::Binary, b)),
        1 => (any::<u8>(), 30_000..40_000_usize).prop_map(|(b, n)| (Opcode::Binary, vec![b; n])),
        1 => "[a-z]{50}".prop_map(|s| (Opcode::Binary, s.repeat(700).into_bytes())),
    ]
}

fn bits() -> impl Strategy<Value = WindowBits> {
    (9..=15_u8).prop_map(|bits| WindowBits::new(bits).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_one_side_writes_the_other_reads(
        messages in vec(message(), 0..8), places in vec(any::<usize>(), 0..8),
        takeover in any::<bool>(), bits in bits(), level in 1..=9_u8, by_client in any::<bool>(),
    ) {
        let config = Config {
            server_context_takeover: takeover, client_context_takeover: takeover,
            server_max_window_bits: bits, client_max_window_bits: bits, level, min_bytes: 0,
        };
        let offer = Offer { client_max_window_bits: Some(WindowBits::Fifteen), ..Offer::default() };
        let agreement = config.agree(&offer).unwrap();
        let (from, to) =
            if by_client { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
        let mut sender = Peer::new(from, &agreement, &config);
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (opcode, payload) in messages {
            bytes.extend(sender.encode(opcode, &payload));
            expected.push(match opcode {
                Opcode::Text => Seen::Text(String::from_utf8(payload).unwrap()),
                _ => Seen::Binary(payload),
            });
        }
        for pieces in [vec![&bytes[..]], cut(&bytes, &places), single_bytes(&bytes)] {
            let mut receiver = Peer::new(to, &agreement, &config);
            let seen: Vec<Seen> = pieces.iter().flat_map(|piece| receiver.feed(piece, &LIMITS)).collect();
            prop_assert!(seen == expected, "{:?}", seen.last());
            if takeover {
                let held = receiver.windows.as_ref().unwrap().held_bytes();
                prop_assert!(held <= 2 * bits.bytes(), "{}", held);
            } else {
                prop_assert!(receiver.windows.is_none());
            }
        }
    }

    /// Changed bytes: no panic, the same meaning however they are cut, and never over the limit.
    #[test]
    fn noise_never_panics(
        text in "[a-c]{20,200}", changes in vec((2..1000_usize, any::<u8>()), 0..4),
        places in vec(any::<usize>(), 0..6),
    ) {
        let limits = Limits { max_message_bytes: 300, max_fragments: 8 };
        let mut bytes = Peer::forgetful(Role::Server).encode(Opcode::Text, text.as_bytes());
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let whole = Peer::forgetful(Role::Client).feed(&bytes, &limits);
        for seen in &whole {
            if let Seen::Text(text) = seen {
                prop_assert!(text.len() <= 300);
            }
        }
        let mut peer = Peer::forgetful(Role::Client);
        let cut: Vec<Seen> = cut(&bytes, &places).iter().flat_map(|p| peer.feed(p, &limits)).collect();
        prop_assert_eq!(cut, whole);
    }
}
