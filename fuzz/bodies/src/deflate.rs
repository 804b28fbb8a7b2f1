//! Compressed messages: the same events however the stream is cut, what another inflater makes of the
//! same bytes, never more than the limit, and the same message back from our own compressor.

use codec::ws::deflate::{Agreement, Config, Deflater, Inflater, Offer, WindowBits, Windows};
use codec::ws::{Decoder, Limits, Opcode, Role, encode_frame, encode_frame_masked};
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};

use crate::input::Stream;
use crate::websocket::Seen;

/// Limits a case may have: bytes of one message, and whether contexts are taken over.
pub const LIMITS: [(usize, bool); 8] = [
    (65_536, false),
    (65_536, true),
    (1000, false),
    (1000, true),
    (126, false),
    (126, true),
    (0, false),
    (0, true),
];

/// One stream of bytes; its limits are a place in [`LIMITS`].
pub type Case = Stream<{ LIMITS.len() }>;

const KEY: [u8; 4] = [0x9A, 0x00, 0xFF, 0x31];
/// RSV1: the message is compressed.
const COMPRESSED: u8 = 0x40;
/// What the sender of a compressed message cuts off (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// Streams longer than this are not fed byte by byte.
const SINGLE_BYTES_MAX: usize = 4096;

/// Reads a case and checks it.
pub fn run(data: &[u8]) {
    check(&Case::read(data));
}

/// Checks a case.
///
/// # Panics
/// The codec is wrong.
pub fn check(case: &Case) {
    let (max_message_bytes, takeover) = LIMITS[case.limits];
    let mut limits = Limits::DEFAULT;
    limits.max_message_bytes = max_message_bytes;
    let side = Side { role: case.role, limits, takeover };
    let whole = side.decode([&case.bytes[..]]);
    assert_eq!(side.decode(case.cuts.pieces(&case.bytes)), whole, "cut: {case:?}");
    if case.bytes.len() <= SINGLE_BYTES_MAX {
        assert_eq!(side.decode(case.bytes.chunks(1)), whole, "bytewise: {case:?}");
    }
    side.check_like_another(&case.bytes);
    side.check_there_and_back(&case.cuts.pieces(&case.bytes));
}

fn agreement(takeover: bool) -> Agreement {
    let config = Config {
        server_context_takeover: takeover,
        client_context_takeover: takeover,
        min_bytes: 0,
        ..Config::DEFAULT
    };
    let offer = Offer { client_max_window_bits: Some(WindowBits::Fifteen), ..Offer::default() };
    config.agree(&offer).expect("the offer suits the server")
}

/// One receiver.
struct Side {
    role: Role,
    limits: Limits,
    takeover: bool,
}

impl Side {
    fn decode<'b>(&self, pieces: impl IntoIterator<Item = &'b [u8]>) -> Vec<Seen> {
        let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new());
        let mut windows = Windows::new(&agreement(self.takeover), self.role);
        let mut seen = Vec::new();
        for piece in pieces {
            let mut copy = piece.to_vec();
            let mut input = &mut copy[..];
            for _ in 0..=piece.len() / 2 + 2 {
                let next = decoder.next_inflating(
                    &mut input,
                    self.role,
                    &self.limits,
                    &mut inflater,
                    windows.as_mut(),
                );
                match next {
                    Ok(Some(event)) => seen.push(event.into()),
                    Ok(None) => break,
                    Err(error) => seen.push(Seen::Fault(error.close_code())),
                }
            }
            assert!(input.is_empty(), "input is left over");
        }
        let max = self.limits.max_message_bytes;
        let within = |one: &Seen| match one {
            Seen::Text(text) => text.len() <= max,
            Seen::Binary(bytes) => bytes.len() <= max,
            _ => true,
        };
        assert!(seen.iter().all(within), "a message is longer than {max}");
        seen
    }

    fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.role {
            Role::Server => encode_frame_masked(&mut frame, Opcode::Binary, payload, KEY),
            Role::Client => encode_frame(&mut frame, Opcode::Binary, payload),
        }
        frame[0] |= COMPRESSED;
        frame
    }

    /// The bytes as the payload of one compressed message: what miniz makes of them.
    fn check_like_another(&self, payload: &[u8]) {
        let seen = self.decode([&self.frame(payload)[..]]);
        let max = self.limits.max_message_bytes;
        let whole = [payload, &TAIL, &[1, 0, 0, 0xFF, 0xFF]].concat();
        // Where blocks before the end are final, there is more than one stream: our inflater's own tests.
        match (decompress_to_vec_with_limit(&whole, max), &seen[..]) {
            (Ok(expected), [Seen::Binary(got)]) => {
                assert!(got.starts_with(&expected), "{payload:x?}: {got:x?} is not {expected:x?}");
            }
            (Ok(_), [Seen::Fault(1007 | 1009)]) => {}
            (Err(error), [Seen::Fault(code)]) => {
                if error.status == TINFLStatus::HasMoreOutput {
                    assert!([1007, 1009].contains(code), "{payload:x?}: {code}");
                }
            }
            (Err(error), [Seen::Binary(got)]) => {
                // Nothing at all is what a compressor with nothing new to flush sends.
                assert!(payload.is_empty() && got.is_empty(), "{payload:x?}: {error:?}");
            }
            (_, other) => panic!("{payload:x?}: {other:?}"),
        }
    }

    /// The pieces as messages, compressed by us and read by the peer.
    fn check_there_and_back(&self, messages: &[&[u8]]) {
        let sender = if self.role == Role::Server { Role::Client } else { Role::Server };
        let key = (sender == Role::Client).then_some(KEY);
        let agreed = agreement(self.takeover);
        let config = Config { min_bytes: 0, ..Config::DEFAULT };
        let (mut deflater, mut windows) = (Deflater::new(&config), Windows::new(&agreed, sender));
        let mut bytes = Vec::new();
        for message in messages {
            let (bits, opcode) = (WindowBits::Fifteen, Opcode::Binary);
            deflater.encode(&mut bytes, opcode, message, bits, windows.as_mut(), key);
        }
        let max = self.limits.max_message_bytes;
        let fitting = messages.iter().take_while(|message| message.len() <= max);
        let expected: Vec<Seen> = fitting.map(|message| Seen::Binary(message.to_vec())).collect();
        let seen = self.decode([&bytes[..]]);
        assert_eq!(seen[..expected.len()], expected, "{messages:x?}");
        if expected.len() < messages.len() {
            assert_eq!(seen[expected.len()..], [Seen::Fault(1009)]);
        }
    }
}
