//! Frame headers (RFC 6455 section 5.2), read and written.

use std::ops::Range;

use super::mask::apply_mask;
use super::{Error, Limits, Opcode};
use crate::payload;
use crate::role::Role;

/// Longest frame header in bytes: two, the long length, the masking key.
pub const HEADER_MAX_BYTES: usize = 14;
/// Longest payload of a control frame in bytes (section 5.5).
pub const CONTROL_MAX_BYTES: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// The message is compressed (RFC 7692 section 6).
pub(super) const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;
const LENGTH_IN_2_BYTES: u8 = 126;
const LENGTH_IN_8_BYTES: u8 = 127;

/// A frame header that broke no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    /// The first frame of a compressed message.
    pub(super) compressed: bool,
    pub(super) opcode: Opcode,
    pub(super) key: Option<[u8; 4]>,
    /// Never above the limit of a message.
    pub(super) payload_len: usize,
    /// Bytes of the header itself.
    pub(super) len: usize,
}

/// The message that is open while a header is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenMessage {
    /// Frames so far; 0: no message is open.
    pub(super) fragments: u32,
    /// Payload bytes so far.
    pub(super) bytes: usize,
    /// They are compressed.
    pub(super) compressed: bool,
}

/// Reads the header at the front of `bytes`; `None` when it is not all there yet. What is there is
/// checked at once, so a bad frame fails on the first byte that shows it. `DEFLATE`: compressed messages
/// were agreed on.
#[inline]
pub(super) fn parse<const DEFLATE: bool>(
    bytes: &[u8],
    open: OpenMessage,
    role: Role,
    limits: &Limits,
) -> Result<Option<Header>, Error> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let fin = first & FIN != 0;
    let opcode = check_first::<DEFLATE>(first, fin, open, limits)?;
    let compressed = DEFLATE && first & RSV1 != 0;
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    let masked = second & MASKED != 0;
    check_mask(masked, role)?;
    if opcode.is_control() && second & !MASKED > CONTROL_MAX_BYTES as u8 {
        return Err(Error::ControlTooLong);
    }
    let Some((payload_len, length_end)) = parse_length(bytes, second & !MASKED)? else {
        return Ok(None);
    };
    // A control frame does not count: it is bounded on its own.
    let limit = limits.max_message_bytes;
    let wire_limit =
        if DEFLATE && (compressed || open.compressed) { compressed_limit(limit) } else { limit };
    if !opcode.is_control() && payload_len > wire_limit.saturating_sub(open.bytes) as u64 {
        return Err(Error::MessageTooLong { limit });
    }
    let (key, len) = match masked {
        false => (None, length_end),
        true => match bytes[length_end..].first_chunk() {
            Some(key) => (Some(*key), length_end + key.len()),
            None => return Ok(None),
        },
    };
    Ok(Some(Header { fin, compressed, opcode, key, payload_len: payload_len as usize, len }))
}

/// Most bytes that a message of at most `limit` bytes can be compressed to by a compressor that is not
/// mad: what cannot be compressed is stored, with a few bytes for each block.
pub(super) const fn compressed_limit(limit: usize) -> usize {
    limit.saturating_add(limit / 8).saturating_add(64)
}

#[inline]
fn check_first<const DEFLATE: bool>(
    first: u8,
    fin: bool,
    open: OpenMessage,
    limits: &Limits,
) -> Result<Opcode, Error> {
    if first & (if DEFLATE { RESERVED & !RSV1 } else { RESERVED }) != 0 {
        return Err(Error::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(Error::ReservedOpcode(first & 0x0F))?;
    // RFC 7692 section 6.1: on the first frame of a message and nowhere else.
    if DEFLATE && first & RSV1 != 0 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(Error::ReservedBits);
    }
    if opcode.is_control() {
        return if fin { Ok(opcode) } else { Err(Error::FragmentedControl) };
    }
    match (opcode, open.fragments) {
        (Opcode::Continuation, 0) => Err(Error::UnexpectedContinuation),
        (Opcode::Continuation, n) if n >= limits.max_fragments => {
            Err(Error::TooManyFragments { limit: limits.max_fragments })
        }
        (Opcode::Continuation, _) | (_, 0) => Ok(opcode),
        _ => Err(Error::ExpectedContinuation),
    }
}

#[inline]
fn check_mask(masked: bool, role: Role) -> Result<(), Error> {
    match (role, masked) {
        (Role::Server, false) => Err(Error::Unmasked),
        (Role::Client, true) => Err(Error::Masked),
        _ => Ok(()),
    }
}

/// The payload length and where its bytes end. It must take the fewest bytes it can.
#[inline]
fn parse_length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, Error> {
    let rest = &bytes[2..];
    match short {
        LENGTH_IN_2_BYTES => match rest.first_chunk() {
            Some(&length) => match u16::from_be_bytes(length) {
                0..=125 => Err(Error::BadLength),
                length => Ok(Some((length.into(), 4))),
            },
            None => Ok(None),
        },
        LENGTH_IN_8_BYTES => match (rest.first(), rest.first_chunk()) {
            (Some(0x80..), _) => Err(Error::BadLength),
            (_, Some(&length)) => match u64::from_be_bytes(length) {
                0..=0xFFFF => Err(Error::BadLength),
                length => Ok(Some((length, 10))),
            },
            _ => Ok(None),
        },
        short => Ok(Some((short.into(), 2))),
    }
}

/// Bytes of the header of a frame with `payload_len` payload bytes, masked or not.
#[must_use]
pub const fn header_len(payload_len: usize, masked: bool) -> usize {
    let length = match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    if masked { length + 4 } else { length }
}

/// One of our own frames, server role: final and unmasked.
pub(super) struct OwnFrame {
    pub(super) opcode: Opcode,
    pub(super) header_len: usize,
    pub(super) payload_len: usize,
}

impl OwnFrame {
    pub(super) fn len(&self) -> usize {
        self.header_len + self.payload_len
    }
}

/// The frame at the front of `bytes`; `None` when it is not one of ours, whole and not yet compressed.
pub(super) fn own_frame(bytes: &[u8]) -> Option<OwnFrame> {
    let limits = Limits { max_message_bytes: usize::MAX, max_fragments: 1 };
    let header = parse::<false>(bytes, OpenMessage::default(), Role::Client, &limits).ok()??;
    let whole = header.len.checked_add(header.payload_len).is_some_and(|len| len <= bytes.len());
    let Header { opcode, len: header_len, payload_len, .. } = header;
    (header.fin && whole).then_some(OwnFrame { opcode, header_len, payload_len })
}

/// The header of a frame as far as the length, in the three forms that a length has.
#[inline]
fn head_2(first: u8, masked: u8, payload_len: usize) -> [u8; 2] {
    [first, masked | payload_len as u8]
}

#[inline]
fn head_4(first: u8, masked: u8, payload_len: usize) -> [u8; 4] {
    let [a, b] = (payload_len as u16).to_be_bytes();
    [first, masked | LENGTH_IN_2_BYTES, a, b]
}

#[inline]
fn head_10(first: u8, masked: u8, payload_len: usize) -> [u8; 10] {
    let [a, b, c, d, e, f, g, h] = (payload_len as u64).to_be_bytes();
    [first, masked | LENGTH_IN_8_BYTES, a, b, c, d, e, f, g, h]
}

/// Writes the header of a final, unmasked frame to the front of `out`; returns its length.
pub(super) fn put(out: &mut [u8], opcode: Opcode, reserved: u8, payload_len: usize) -> usize {
    let first = FIN | reserved | opcode as u8;
    match payload_len {
        0..=125 => out[..2].copy_from_slice(&head_2(first, 0, payload_len)),
        126..=0xFFFF => out[..4].copy_from_slice(&head_4(first, 0, payload_len)),
        _ => out[..10].copy_from_slice(&head_10(first, 0, payload_len)),
    }
    header_len(payload_len, false)
}

/// The first byte of a frame.
#[inline]
fn first_byte(opcode: Opcode, fin: bool, payload_len: usize) -> u8 {
    debug_assert!(!opcode.is_control() || (fin && payload_len <= CONTROL_MAX_BYTES));
    opcode as u8 | if fin { FIN } else { 0 }
}

/// Appends a header as far as the length, and what is to lie right behind it. Each form of the length
/// has a size that the compiler knows: one look at the room there is, one store, one copy.
#[inline(always)]
fn append(out: &mut Vec<u8>, first: u8, masked: u8, payload_len: usize, behind: &[u8]) {
    match payload_len {
        0..=125 => payload::append(out, head_2(first, masked, payload_len), behind),
        126..=0xFFFF => payload::append(out, head_4(first, masked, payload_len), behind),
        _ => payload::append(out, head_10(first, masked, payload_len), behind),
    }
}

/// Appends a frame header alone, for callers that keep the payload elsewhere (one payload shared by
/// many receivers). With a `key` the payload that follows must be masked with it ([`apply_mask`]).
///
/// # Panics
/// In debug builds, when a control frame is longer than 125 bytes or not final: that is the caller's
/// bug, never a peer's doing.
#[inline]
pub fn encode_header(
    out: &mut Vec<u8>,
    opcode: Opcode,
    fin: bool,
    payload_len: usize,
    key: Option<[u8; 4]>,
) {
    let first = first_byte(opcode, fin, payload_len);
    match key {
        None => append(out, first, 0, payload_len, &[]),
        Some(key) => append(out, first, MASKED, payload_len, &key),
    }
}

/// Appends one frame, final or not; masked when there is a `key` (the client's role).
///
/// # Panics
/// As [`encode_header`].
#[inline]
pub fn encode_fragment(
    out: &mut Vec<u8>,
    opcode: Opcode,
    fin: bool,
    payload: &[u8],
    key: Option<[u8; 4]>,
) {
    let first = first_byte(opcode, fin, payload.len());
    match key {
        None => append(out, first, 0, payload.len(), payload),
        Some(key) => append_masked(out, first, payload, key),
    }
}

fn append_masked(out: &mut Vec<u8>, first: u8, payload: &[u8], key: [u8; 4]) {
    out.reserve(header_len(payload.len(), true) + payload.len());
    append(out, first, MASKED, payload.len(), &key);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], key);
}

/// Appends a final, unmasked frame: the server's role.
///
/// # Panics
/// As [`encode_header`].
#[inline]
pub fn encode_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    encode_fragment(out, opcode, true, payload, None);
}

/// Appends a final, masked frame: the client's role. Each frame wants a key of its own that a page's
/// script cannot foresee (section 10.3).
///
/// # Panics
/// As [`encode_header`].
#[inline]
pub fn encode_frame_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    encode_fragment(out, opcode, true, payload, Some(key));
}

/// Appends a final, unmasked frame around the payload that `write` appends, which stays where it is written.
/// `expected_len` decides in how many bytes room is left for the length: only when the payload turns out to
/// need another form of it (up to 125 bytes, up to 65,535, or more) is it moved. Returns what `write` returns.
///
/// # Panics
/// When `write` takes bytes away that were there before, and as [`encode_header`].
#[inline]
pub fn encode_frame_around<R>(
    out: &mut Vec<u8>,
    opcode: Opcode,
    expected_len: usize,
    write: impl FnOnce(&mut Vec<u8>) -> R,
) -> R {
    let start = out.len();
    encode_header(out, opcode, true, expected_len, None);
    let payload_at = out.len();
    let result = write(out);
    let payload_len = out.len().checked_sub(payload_at).expect("the payload is appended");
    let needed = header_len(payload_len, false);
    if needed != payload_at - start {
        resize_header(out, start..payload_at, needed);
    }
    debug_assert!(!opcode.is_control() || payload_len <= CONTROL_MAX_BYTES);
    put(&mut out[start..], opcode, 0, payload_len);
    result
}

/// Moves what lies behind the header.
#[cold]
fn resize_header(out: &mut Vec<u8>, header: Range<usize>, len: usize) {
    out.splice(header, [0; HEADER_MAX_BYTES].into_iter().take(len));
}
