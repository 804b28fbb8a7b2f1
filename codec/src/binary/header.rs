//! Frame headers: one byte of kind and flags, then the body length as a varint.

use super::{Error, Kind, Limits};
use crate::payload;

/// Longest frame header in bytes.
pub const HEADER_MAX_BYTES: usize = 1 + LENGTH_MAX_BYTES;
/// Longest body a length can say, in bytes.
pub const BODY_LEN_MAX: usize = (1 << (7 * LENGTH_MAX_BYTES)) - 1;

/// Bytes of the longest length.
const LENGTH_MAX_BYTES: usize = 4;
/// The flags of the first byte: 0x80 "body compressed" is not offered yet, 0x40 is reserved.
const FLAGS: u8 = 0xC0;
/// Set in every byte of a varint but the last.
const MORE: u8 = 0x80;

/// A frame header that broke no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Never above the limit of the kind.
    pub(super) body_len: usize,
    /// Bytes of the header itself.
    pub(super) len: usize,
}

/// Reads the header at the front of `bytes`; `None` when it is not all there yet. What is there is
/// checked at once.
#[inline]
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<Header>, Error> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    if first & FLAGS != 0 {
        return Err(Error::ReservedFlags);
    }
    let kind = Kind::from_bits(first).ok_or(Error::UnknownKind(first))?;
    if !kind.may_come_to(limits.role) {
        return Err(Error::WrongDirection(kind));
    }
    if kind == Kind::Heartbeat {
        return Ok(Some(Header { kind, body_len: 0, len: 1 }));
    }
    let Some((body_len, length_len)) = parse_length(rest)? else { return Ok(None) };
    let limit = kind.max_body_bytes().min(limits.max_body_bytes);
    if body_len == 0 {
        return Err(Error::EmptyBody(kind));
    }
    if body_len > limit {
        return Err(Error::BodyTooLong { kind, limit });
    }
    Ok(Some(Header { kind, body_len, len: 1 + length_len }))
}

/// Whether `bytes` are one whole frame with a body that its kind may have, whoever may send it.
pub(super) fn is_frame(bytes: &[u8], kind: Kind) -> bool {
    let parsed = bytes.get(1..).map(parse_length);
    let Some(Ok(Some((body_len, length_len)))) = parsed else { return false };
    bytes[0] == kind as u8
        && (1..=kind.max_body_bytes()).contains(&body_len)
        && bytes.len() == 1 + length_len + body_len
}

/// A LEB128 number of at most four bytes in its shortest form, and how many bytes it takes.
#[inline]
fn parse_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Error> {
    let mut length = 0;
    for (i, &byte) in bytes.iter().take(LENGTH_MAX_BYTES).enumerate() {
        length |= usize::from(byte & !MORE) << (7 * i);
        if byte & MORE == 0 {
            // A last byte of zero adds nothing: the number had a shorter form.
            let shortest = byte != 0 || i == 0;
            return if shortest { Ok(Some((length, i + 1))) } else { Err(Error::BadLength) };
        }
    }
    if bytes.len() < LENGTH_MAX_BYTES { Ok(None) } else { Err(Error::BadLength) }
}

const fn length_len(body_len: usize) -> usize {
    match body_len {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Bytes of a whole frame with a body of `body_len` bytes.
#[must_use]
pub const fn encoded_len(kind: Kind, body_len: usize) -> usize {
    match kind {
        Kind::Heartbeat => 1,
        _ => 1 + length_len(body_len) + body_len,
    }
}

/// Appends a frame header alone, for callers that write the body themselves.
///
/// # Panics
/// In debug builds, when the body is empty or above the limit of its kind, or the kind is HEARTBEAT:
/// that is the caller's bug, never a peer's doing.
#[inline]
pub fn encode_header(out: &mut Vec<u8>, kind: Kind, body_len: usize) {
    append(out, kind, body_len, &[]);
}

/// Appends a header and what is to lie right behind it: one case for each length of the length.
#[inline]
pub(super) fn append(out: &mut Vec<u8>, kind: Kind, body_len: usize, behind: &[u8]) {
    debug_assert!(kind != Kind::Heartbeat, "see encode_heartbeat");
    debug_assert!((1..=kind.max_body_bytes()).contains(&body_len), "{kind:?}: {body_len} bytes");
    let first = kind as u8;
    let [a, b, c, d] = [0, 7, 14, 21].map(|shift| (body_len >> shift) as u8 & !MORE);
    match length_len(body_len) {
        1 => payload::append(out, [first, a], behind),
        2 => payload::append(out, [first, a | MORE, b], behind),
        3 => payload::append(out, [first, a | MORE, b | MORE, c], behind),
        _ => payload::append(out, [first, a | MORE, b | MORE, c | MORE, d], behind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;

    #[test]
    fn lengths_read_back_at_every_edge() {
        for body_len in [1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x20_0000, 16 * 1024 * 1024] {
            let mut bytes = Vec::new();
            encode_header(&mut bytes, Kind::Page, body_len);
            assert_eq!(bytes.len() + body_len, encoded_len(Kind::Page, body_len));
            let header = Header { kind: Kind::Page, body_len, len: bytes.len() };
            let limits = Limits::new(Role::Client);
            assert_eq!(parse(&bytes, &limits), Ok(Some(header)));
            for n in 0..bytes.len() {
                assert_eq!(parse(&bytes[..n], &limits), Ok(None));
            }
        }
    }

    #[test]
    fn long_forms_are_refused() {
        for length in
            [&[0x80, 0x00][..], &[0xFF, 0x00], &[0x81, 0x80, 0x00], &[0x80; 4], &[0xFF; 4]]
        {
            assert_eq!(parse_length(length), Err(Error::BadLength), "{length:x?}");
        }
        assert_eq!(parse_length(&[0xFF, 0xFF, 0xFF, 0x7F]), Ok(Some((BODY_LEN_MAX, 4))));
    }
}
