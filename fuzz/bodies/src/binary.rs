//! The binary protocol: the same frames however the stream is cut, those that a second reading of
//! `PROTOCOL.md` gives, and the same again when written.

use codec::binary::{self, Decoder, Error, Kind, Limits, Role};

use crate::input::Stream;

/// Limits a case may have, in bytes of one body.
pub const LIMITS: [usize; 4] = [binary::BODY_LEN_MAX, 65_536, 100, 0];

/// One stream of bytes; its limits are a place in [`LIMITS`].
pub type Case = Stream<{ LIMITS.len() }>;

/// What a stream came to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    frames: Vec<(Kind, Vec<u8>)>,
    /// The close code of the fault that ended it.
    fault: Option<u16>,
    /// It stops inside a frame.
    incomplete: bool,
}

/// Reads a case and checks it.
pub fn run(data: &[u8]) {
    check(&Case::read(data));
}

/// Checks a case.
///
/// # Panics
/// The codec is wrong.
pub fn check(case: &Case) {
    let mut limits = Limits::new(case.role);
    limits.max_body_bytes = LIMITS[case.limits];
    let whole = decode([&case.bytes[..]], &limits);
    assert_eq!(decode(case.cuts.pieces(&case.bytes), &limits), whole, "cut: {case:?}");
    assert_eq!(decode(case.bytes.chunks(1), &limits), whole, "bytewise: {case:?}");
    assert_eq!(by_the_book(&case.bytes, &limits), whole, "by the book: {case:?}");
    check_written_again(&case.bytes, &whole);
    check_message(&case.bytes, &limits, &whole);
    check_preface(&case.bytes);
}

fn decode<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, limits: &Limits) -> Outcome {
    let mut decoder = Decoder::new();
    let mut outcome = Outcome { frames: Vec::new(), fault: None, incomplete: false };
    for piece in pieces {
        feed(&mut decoder, piece, limits, &mut outcome);
    }
    outcome.incomplete = !decoder.is_idle();
    assert_eq!(decoder.is_ended(), outcome.fault.is_some());
    outcome
}

fn feed(decoder: &mut Decoder, piece: &[u8], limits: &Limits, outcome: &mut Outcome) {
    let mut input = piece;
    // A frame has at least one byte.
    for _ in 0..=piece.len() + 1 {
        match decoder.next(&mut input, limits) {
            Ok(Some(frame)) => {
                assert_eq!(outcome.fault, None, "silence after a fault");
                outcome.frames.push((frame.kind, frame.body.to_vec()));
            }
            Ok(None) => return assert!(input.is_empty(), "input is left over"),
            Err(error) => {
                assert_eq!(outcome.fault, None, "one fault");
                outcome.fault = Some(error.close_code());
            }
        }
    }
    panic!("more frames than bytes in {piece:x?}");
}

/// A second reading of `PROTOCOL.md`, section 4: plain, over the whole stream at once.
fn by_the_book(mut bytes: &[u8], limits: &Limits) -> Outcome {
    let mut outcome = Outcome { frames: Vec::new(), fault: None, incomplete: false };
    while let Some((&first, rest)) = bytes.split_first() {
        match frame_by_the_book(first, rest, limits) {
            Ok(Some((kind, body, after))) => {
                outcome.frames.push((kind, body.to_vec()));
                bytes = after;
            }
            Ok(None) => {
                outcome.incomplete = true;
                break;
            }
            Err(code) => {
                outcome.fault = Some(code);
                break;
            }
        }
    }
    outcome
}

type Split<'b> = (Kind, &'b [u8], &'b [u8]);

fn frame_by_the_book<'b>(
    first: u8,
    rest: &'b [u8],
    limits: &Limits,
) -> Result<Option<Split<'b>>, u16> {
    // 0: both ways; then who sends kinds 1 to 0x19.
    const SENDERS: &[u8; 26] = b"bcscsscscsscccscsscsssscss";
    let sender = *SENDERS.get(usize::from(first)).ok_or(4901_u16)?;
    let kind = Kind::ALL[usize::from(first)];
    let ours = if limits.role == Role::Server { b's' } else { b'c' };
    if sender == ours {
        return Err(4901);
    }
    if kind == Kind::Heartbeat {
        return Ok(Some((kind, &[], rest)));
    }
    let length: Vec<u8> = rest.iter().copied().take(4).collect();
    let Some(last) = length.iter().position(|byte| byte & 0x80 == 0) else {
        return if length.len() == 4 { Err(4901) } else { Ok(None) };
    };
    if last > 0 && length[last] == 0 {
        return Err(4901);
    }
    let len = length[..=last].iter().rev().fold(0, |len, byte| len << 7 | usize::from(byte & 0x7F));
    let kind_max = match (kind, sender) {
        (Kind::Hello, _) => 8 * 1024,
        (_, b'c') => 64 * 1024,
        _ => 16 * 1024 * 1024,
    };
    if len == 0 {
        return Err(4901);
    }
    if len > kind_max.min(limits.max_body_bytes) {
        return Err(4902);
    }
    Ok(rest[last + 1..].split_at_checked(len).map(|(body, after)| (kind, body, after)))
}

/// Our encoder writes the bytes that were read: every frame has one form.
fn check_written_again(bytes: &[u8], whole: &Outcome) {
    let mut again = Vec::new();
    for (kind, body) in &whole.frames {
        let start = again.len();
        match kind {
            Kind::Heartbeat => binary::encode_heartbeat(&mut again),
            kind => binary::encode(&mut again, *kind, body),
        }
        assert_eq!(again.len() - start, binary::encoded_len(*kind, body.len()));
    }
    assert!(bytes.starts_with(&again), "{bytes:x?} does not begin with {again:x?}");
    if whole.fault.is_none() && !whole.incomplete {
        assert_eq!(again.len(), bytes.len());
    }
}

/// The same bytes as one WebSocket message: whole frames only.
fn check_message(bytes: &[u8], limits: &Limits, whole: &Outcome) {
    let mut input = bytes;
    let mut frames = Vec::new();
    let fault = loop {
        match binary::next_in_message(&mut input, limits) {
            Ok(Some(frame)) => frames.push((frame.kind, frame.body.to_vec())),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert_eq!(frames, whole.frames);
    match fault {
        Some(Error::CutFrame) => assert!(whole.incomplete),
        fault => assert_eq!(fault.map(|error| error.close_code()), whole.fault),
    }
}

/// A preface is judged the same by each of its beginnings.
fn check_preface(bytes: &[u8]) {
    let whole = binary::read_preface(bytes);
    let answers = (0..=bytes.len().min(binary::PREFACE.len()))
        .map(|n| binary::read_preface(&bytes[..n]))
        .find(|answer| *answer != Ok(false));
    assert_eq!(answers.unwrap_or(Ok(false)), whole);
    assert_eq!(whole == Ok(true), bytes.starts_with(&binary::PREFACE));
}
