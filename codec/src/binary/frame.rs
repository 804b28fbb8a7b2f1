//! Frames, read from a stream or from one WebSocket message, and written.

use std::mem;

use super::header::{self, HEADER_MAX_BYTES, Header};
use super::{Error, Kind, Limits};
use crate::recv_buffer;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// The protobuf message of the kind; empty for HEARTBEAT alone.
    pub body: &'a [u8],
}

/// Turns the bytes of one raw TCP peer, after the preface, into frames.
///
/// Between frames it is one null pointer. State is allocated while a frame is incomplete, and after a
/// fault, when everything further is ignored.
///
/// ```
/// use codec::binary::{Decoder, Frame, Kind, Limits, Role};
/// let mut decoder = Decoder::new();
/// let mut input = &[0x00, 0x12, 0x02, 0x08, 0x01][..];
/// let limits = Limits::new(Role::Server);
/// let heartbeat = Frame { kind: Kind::Heartbeat, body: &[] };
/// assert_eq!(decoder.next(&mut input, &limits)?, Some(heartbeat));
/// let read = Frame { kind: Kind::Read, body: &[0x08, 0x01] };
/// assert_eq!(decoder.next(&mut input, &limits)?, Some(read));
/// assert_eq!(decoder.next(&mut input, &limits)?, None);
/// # Ok::<(), codec::binary::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a header.
    head: [u8; HEADER_MAX_BYTES],
    head_len: u8,
    /// The frame of which the body is not complete.
    header: Option<Header>,
    body: Vec<u8>,
    /// The body was lent to the caller; freed by the next call.
    lent: bool,
    /// A fault ended the conversation.
    ended: bool,
}

/// Something complete: in the caller's bytes, or kept in `Partial`.
enum Found<'i> {
    InPlace(Frame<'i>),
    Kept(Kind),
}

impl Decoder {
    /// A decoder at the beginning of a connection. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// No part of a frame is held back. Also true after a fault.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.partial.as_ref().is_none_or(|p| p.ended || p.lent)
    }

    /// A fault ended the conversation: further input is ignored.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.partial.as_ref().is_some_and(|p| p.ended)
    }

    /// Takes the next frame from the front of `input` and moves `input` past it. `Ok(None)`: all input
    /// was consumed, and what was incomplete is kept inside.
    ///
    /// Limits are checked on the header alone, before anything is stored.
    ///
    /// # Errors
    /// The peer broke a rule or a limit: close with [`Error::close_code`]. All further input is
    /// ignored.
    #[inline]
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        limits: &Limits,
    ) -> Result<Option<Frame<'a>>, Error> {
        match self.advance(input, limits) {
            Ok(None) => Ok(None),
            Ok(Some(Found::InPlace(frame))) => Ok(Some(frame)),
            Ok(Some(Found::Kept(kind))) => {
                Ok(self.partial.as_ref().map(|p| Frame { kind, body: &p.body }))
            }
            Err(error) => {
                *input = &[];
                self.partial = Some(Box::new(Partial { ended: true, ..Partial::default() }));
                Err(error)
            }
        }
    }

    fn advance<'i>(
        &mut self,
        input: &mut &'i [u8],
        limits: &Limits,
    ) -> Result<Option<Found<'i>>, Error> {
        if let Some(partial) = &self.partial {
            if partial.lent {
                self.partial = None;
            } else if partial.ended {
                *input = &[];
            }
        }
        if input.is_empty() {
            return Ok(None);
        }
        if self.partial.as_ref().is_none_or(|p| p.header.is_none()) {
            let Some(header) = self.read_header(input, limits)? else { return Ok(None) };
            if let Some((body, rest)) = input.split_at_checked(header.body_len) {
                *input = rest;
                self.partial = None;
                return Ok(Some(Found::InPlace(Frame { kind: header.kind, body })));
            }
            self.partial.get_or_insert_default().header = Some(header);
        }
        Ok(self.receive(input).map(Found::Kept))
    }

    /// Reads a header and moves `input` past it. `None`: what there is of it was kept.
    #[inline]
    fn read_header(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Option<Header>, Error> {
        let (head, before) = match &self.partial {
            None => match header::parse(input, limits)? {
                Some(header) => {
                    *input = &input[header.len..];
                    return Ok(Some(header));
                }
                None => ([0; HEADER_MAX_BYTES], 0),
            },
            Some(partial) => (partial.head, usize::from(partial.head_len)),
        };
        let mut head = head;
        let fresh = input.len().min(HEADER_MAX_BYTES - before);
        head[before..before + fresh].copy_from_slice(&input[..fresh]);
        let header = header::parse(&head[..before + fresh], limits)?;
        match header {
            Some(header) => *input = &input[header.len - before..],
            None => {
                let partial = self.partial.get_or_insert_default();
                partial.head = head;
                partial.head_len = (before + fresh) as u8;
                *input = &[];
            }
        }
        Ok(header)
    }

    /// Takes body bytes of the open frame. `Some`: it is complete.
    fn receive(&mut self, input: &mut &[u8]) -> Option<Kind> {
        let partial = self.partial.as_deref_mut()?;
        let header = partial.header?;
        let missing = header.body_len - partial.body.len();
        let (chunk, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        recv_buffer::append(&mut partial.body, chunk, header.body_len);
        partial.lent = partial.body.len() == header.body_len;
        partial.lent.then_some(header.kind)
    }
}

/// Takes the next frame of one WebSocket binary message, which holds whole frames only. `Ok(None)`: the
/// message is used up.
///
/// # Errors
/// As [`Decoder::next`], and [`Error::CutFrame`] when the message ends inside a frame.
pub fn next_in_message<'a>(
    input: &mut &'a [u8],
    limits: &Limits,
) -> Result<Option<Frame<'a>>, Error> {
    if input.is_empty() {
        return Ok(None);
    }
    let header = header::parse(input, limits)?.ok_or(Error::CutFrame)?;
    let rest = &input[header.len..];
    let (body, rest) = rest.split_at_checked(header.body_len).ok_or(Error::CutFrame)?;
    *input = rest;
    Ok(Some(Frame { kind: header.kind, body }))
}

/// Appends a frame with a body.
///
/// # Panics
/// In debug builds, when the body is empty or above the limit of its kind, or the kind is HEARTBEAT
/// (see [`encode_heartbeat`]): that is the caller's bug, never a peer's doing.
#[inline]
pub fn encode(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    header::append(out, kind, body.len(), body);
}

/// Appends a frame whose body is a length-delimited message, as protobuf calls it: `write` appends the length
/// as a varint, and behind it the body, which is the rest of a frame. So whoever writes a body finds out its
/// length once, and nothing is copied.
///
/// # Panics
/// In debug builds, when `write` appends anything else, and as [`encode`].
#[inline]
pub fn encode_delimited<R>(
    out: &mut Vec<u8>,
    kind: Kind,
    write: impl FnOnce(&mut Vec<u8>) -> R,
) -> R {
    let start = out.len();
    out.push(kind as u8);
    let result = write(out);
    debug_assert!(header::is_frame(&out[start..], kind), "{kind:?}: not one frame");
    result
}

/// Appends a heartbeat: one byte.
pub fn encode_heartbeat(out: &mut Vec<u8>) {
    out.push(Kind::Heartbeat as u8);
}

// An idle connection pays for a pointer.
const _: () = assert!(mem::size_of::<Decoder>() <= 8);
