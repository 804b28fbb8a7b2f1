//! The WebSocket decoder: the same events however the stream is cut, the events a second reading of
//! the RFC gives, and those that tungstenite gives.

mod peer;
mod reference;

use codec::ws::{self, Decoder, Event, Limits, Opcode, Role};

use crate::input::Stream;

/// An event, or the fault that ended the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame.
    Close(Option<(u16, String)>),
    /// The close code of a fault.
    Fault(u16),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_owned()),
            Event::Ping(bytes) => Self::Ping(bytes.to_owned()),
            Event::Pong(bytes) => Self::Pong(bytes.to_owned()),
            Event::Close(frame) => Self::Close(frame.map(|f| (f.code, f.reason.to_owned()))),
        }
    }
}

/// What a stream came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// All events; a close or a fault is the last.
    pub seen: Vec<Seen>,
    /// The stream stops inside a frame or message.
    pub incomplete: bool,
}

impl Outcome {
    fn ended(&self) -> bool {
        matches!(self.seen.last(), Some(Seen::Close(_) | Seen::Fault(_)))
    }
}

/// Limits a case may have: the defaults, the edges of the length forms, and tight ones.
pub const LIMITS: [(usize, u32); 8] =
    [(65_536, 1024), (100_000, 64), (65_535, 2), (126, 3), (125, 1024), (20, 5), (1, 1), (0, 1024)];

/// One stream of bytes; its limits are a place in [`LIMITS`].
pub type Case = Stream<{ LIMITS.len() }>;

impl Case {
    fn limits(&self) -> Limits {
        let mut limits = Limits::DEFAULT;
        (limits.max_message_bytes, limits.max_fragments) = LIMITS[self.limits];
        limits
    }
}

/// Streams longer than this are not fed byte by byte.
const SINGLE_BYTES_MAX: usize = 4096;

/// Reads a case and checks it.
pub fn run(data: &[u8]) {
    check(&Case::read(data));
}

/// Checks a case.
///
/// # Panics
/// The decoder is wrong.
pub fn check(case: &Case) {
    let (role, limits) = (case.role, case.limits());
    let whole = decode([&case.bytes[..]], role, &limits);
    assert_eq!(decode(case.cuts.pieces(&case.bytes), role, &limits), whole, "cut: {case:?}");
    if case.bytes.len() <= SINGLE_BYTES_MAX {
        assert_eq!(decode(case.bytes.chunks(1), role, &limits), whole, "bytewise: {case:?}");
    }
    assert_eq!(reference::read(&case.bytes, role, &limits), whole, "by the RFC: {case:?}");
    check_written_again(&whole.seen, role, &limits);
    peer::check(case, &limits, &whole);
}

/// Feeds the pieces to a new decoder.
fn decode<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, role: Role, limits: &Limits) -> Outcome {
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    for piece in pieces {
        feed(&mut decoder, piece, role, limits, &mut seen);
    }
    let outcome = Outcome { incomplete: !decoder.is_idle(), seen };
    assert_eq!(decoder.is_ended(), outcome.ended());
    if outcome.ended() {
        assert!(!outcome.incomplete, "nothing is kept after the end");
        let mut more = Vec::new();
        feed(&mut decoder, b"\x81\x85abcdefghi\xFF", role, limits, &mut more);
        assert_eq!(more, [], "silence after the end");
    }
    outcome
}

fn feed(decoder: &mut Decoder, piece: &[u8], role: Role, limits: &Limits, seen: &mut Vec<Seen>) {
    let mut copy = piece.to_vec();
    let mut input = &mut copy[..];
    // A frame has at least two bytes, and each call but the last two gives one event.
    for _ in 0..=piece.len() / 2 + 2 {
        match decoder.next(&mut input, role, limits) {
            Ok(Some(event)) => seen.push(event.into()),
            Ok(None) => {
                assert!(input.is_empty(), "input is left over");
                return;
            }
            Err(error) => seen.push(Seen::Fault(error.close_code())),
        }
    }
    panic!("more events than frames in {piece:x?}");
}

/// What was read, written by our encoders, reads the same.
fn check_written_again(seen: &[Seen], role: Role, limits: &Limits) {
    let key = (role == Role::Server).then_some([0x9A, 0x00, 0xFF, 0x31]);
    let mut bytes = Vec::new();
    let mut frame = |opcode, payload: &[u8]| match key {
        Some(key) => ws::encode_frame_masked(&mut bytes, opcode, payload, key),
        None => ws::encode_frame(&mut bytes, opcode, payload),
    };
    let mut expected = Vec::new();
    for one in seen {
        match one {
            Seen::Text(text) => frame(Opcode::Text, text.as_bytes()),
            Seen::Binary(payload) => frame(Opcode::Binary, payload),
            Seen::Ping(payload) => frame(Opcode::Ping, payload),
            Seen::Pong(payload) => frame(Opcode::Pong, payload),
            Seen::Close(None) => frame(Opcode::Close, &[]),
            Seen::Close(Some((code, reason))) => {
                frame(Opcode::Close, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
            }
            Seen::Fault(_) => continue,
        }
        expected.push(one.clone());
    }
    let again = decode([&bytes[..]], role, limits);
    assert_eq!(again, Outcome { seen: expected, incomplete: false });
}
