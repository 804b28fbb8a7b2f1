//! Owned copies of what decoders lend, and ways of cutting bytes.

use codec::binary;
use codec::ws::{self, Decoder, Limits, Role};

/// An event, or the fault that ended a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Fault(ws::Error),
}

impl From<ws::Event<'_>> for Seen {
    fn from(event: ws::Event<'_>) -> Self {
        use ws::Event;
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_owned()),
            Event::Ping(bytes) => Self::Ping(bytes.to_owned()),
            Event::Pong(bytes) => Self::Pong(bytes.to_owned()),
            Event::Close(frame) => Self::Close(frame.map(|f| (f.code, f.reason.to_owned()))),
        }
    }
}

/// All that `decoder` sees in one piece of input.
pub(crate) fn feed(decoder: &mut Decoder, piece: &[u8], role: Role, limits: &Limits) -> Vec<Seen> {
    let mut copy = piece.to_vec();
    let mut input = &mut copy[..];
    let mut seen = Vec::new();
    loop {
        match decoder.next(&mut input, role, limits) {
            Ok(Some(event)) => seen.push(event.into()),
            Ok(None) => break,
            Err(error) => {
                seen.push(Seen::Fault(error));
                break;
            }
        }
    }
    assert!(input.is_empty(), "input is left over");
    seen
}

/// All that a new decoder sees when the bytes come in these pieces. After the end it is fed once more,
/// and must stay silent.
pub(crate) fn decode<'b>(
    pieces: impl IntoIterator<Item = &'b [u8]>,
    role: Role,
    limits: &Limits,
) -> Vec<Seen> {
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    for piece in pieces {
        seen.extend(feed(&mut decoder, piece, role, limits));
    }
    let ended = matches!(seen.last(), Some(Seen::Close(_) | Seen::Fault(_)));
    assert_eq!(decoder.is_ended(), ended);
    if ended {
        assert!(decoder.is_idle());
        assert_eq!(feed(&mut decoder, b"\x81\x85abcdefghi\xFF", role, limits), []);
    }
    seen
}

/// Cuts `bytes` at these places (taken modulo the length, in any order).
pub(crate) fn cut<'b>(bytes: &'b [u8], places: &[usize]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = places.iter().map(|p| p % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
}

/// One byte each.
pub(crate) fn single_bytes(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks(1).collect()
}

/// Checks that the bytes mean `expected` whole, cut in two anywhere, and one byte at a time.
pub(crate) fn assert_seen(bytes: &[u8], role: Role, limits: &Limits, expected: &[Seen]) {
    assert_eq!(decode([bytes], role, limits), expected, "whole: {bytes:x?}");
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(decode([a, b], role, limits), expected, "cut at {at}: {bytes:x?}");
    }
    assert_eq!(decode(single_bytes(bytes), role, limits), expected, "single bytes: {bytes:x?}");
}

/// A frame of the binary protocol, or the fault that ended the stream.
pub(crate) type SeenFrame = Result<(binary::Kind, Vec<u8>), binary::Error>;

/// All frames a new decoder sees when the bytes come in these pieces.
pub(crate) fn decode_frames<'b>(
    pieces: impl IntoIterator<Item = &'b [u8]>,
    limits: &binary::Limits,
) -> Vec<SeenFrame> {
    let mut decoder = binary::Decoder::new();
    let mut seen = Vec::new();
    for piece in pieces {
        let mut input = piece;
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(frame)) => seen.push(Ok((frame.kind, frame.body.to_vec()))),
                Ok(None) => break,
                Err(error) => {
                    assert!(decoder.is_idle() && decoder.is_ended());
                    seen.push(Err(error));
                }
            }
        }
        assert!(input.is_empty(), "input is left over");
    }
    seen
}
