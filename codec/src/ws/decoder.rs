//! The decoder of one connection.

use std::mem;

use super::deflate::{Inflater, Windows};
use super::header::{self, HEADER_MAX_BYTES, Header, OpenMessage};
use super::mask::Mask;
use super::message::{self, Assembly, Event};
use super::{Error, Limits, Opcode};
use crate::payload::{self, IsAscii};
use crate::recv_buffer;
use crate::role::Role;

/// Turns the bytes of one peer into messages and control frames (RFC 6455 section 5).
///
/// Between frames it is one null pointer. State is allocated while a frame or message is incomplete,
/// and after the end (a close frame or a fault), when everything further is ignored.
///
/// ```
/// use codec::ws::{Decoder, Event, Limits, Role};
/// let mut decoder = Decoder::new();
/// let mut bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// let mut input = &mut bytes[..];
/// while let Some(event) = decoder.next(&mut input, Role::Server, &Limits::DEFAULT)? {
///     assert_eq!(event, Event::Text("Hello"));
/// }
/// # Ok::<(), codec::ws::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// What is kept while something is incomplete.
#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a header.
    head: [u8; HEADER_MAX_BYTES],
    head_len: u8,
    /// The frame of which payload is missing.
    frame: Option<Frame>,
    /// Payload of a control frame that did not come in one piece.
    control: Vec<u8>,
    /// The message that is open.
    message: Option<Assembly>,
    /// What the last call lent to the caller; freed by the next call.
    lent: Option<Lent>,
    /// A close frame or a fault ended the conversation.
    ended: bool,
}

#[derive(Debug)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    mask: Option<Mask>,
    missing: usize,
}

#[derive(Clone, Copy, Debug)]
enum Lent {
    Control(Opcode),
    Message,
}

/// Something complete: in the caller's bytes, or kept in `Partial`.
enum Found<'i> {
    InPlace(Event<'i>),
    /// The payload of a compressed message.
    Compressed(Opcode, &'i [u8]),
    Kept(Lent),
}

impl Decoder {
    /// A decoder at the beginning of a connection. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// No part of a frame or message is held back. Also true after the end of the conversation.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.partial.as_ref().is_none_or(|p| p.ended || p.is_empty())
    }

    /// A close frame or a fault ended the conversation: further input is ignored.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.partial.as_ref().is_some_and(|p| p.ended)
    }

    /// Takes the next event from the front of `input` and moves `input` past it; payload is unmasked
    /// where it lies. `Ok(None)`: all input was consumed, and what was incomplete is kept inside.
    ///
    /// `role` is our side: a [`Role::Server`] takes masked frames only, a [`Role::Client`] unmasked
    /// ones only. Limits are checked on the header alone, before anything is stored.
    ///
    /// # Errors
    /// The peer broke a rule of RFC 6455 or a limit: close with [`Error::close_code`]. All further
    /// input is ignored, as it is after [`Event::Close`].
    #[inline]
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        role: Role,
        limits: &Limits,
    ) -> Result<Option<Event<'a>>, Error> {
        if self.partial.is_none()
            && let Some(event) = whole_frame(input, role, limits)
        {
            return event.map(Some).map_err(|error| self.fail(input, error));
        }
        self.next_of_pieces(input, role, limits)
    }

    /// As [`Self::next`], for everything but a whole, short frame on its own.
    fn next_of_pieces<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        role: Role,
        limits: &Limits,
    ) -> Result<Option<Event<'a>>, Error> {
        match self.advance::<false>(input, role, limits) {
            Ok(Some(Found::InPlace(event))) => Ok(Some(event)),
            Ok(Some(Found::Kept(lent))) => self.lend(lent),
            // Nothing is compressed that was not agreed to be.
            Ok(Some(Found::Compressed(..)) | None) => Ok(None),
            Err(error) => Err(self.fail(input, error)),
        }
    }

    /// As [`Self::next`], where permessage-deflate was agreed on. Compressed messages are inflated as
    /// soon as they are whole, into the inflater, which lends them; until then their compressed bytes
    /// are kept. `windows` is what the connection keeps, if a context is taken over.
    ///
    /// # Errors
    /// As [`Self::next`]. `limits` hold for the inflated message, and for the compressed one with a
    /// little more room.
    pub fn next_inflating<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        role: Role,
        limits: &Limits,
        inflater: &'a mut Inflater,
        windows: Option<&mut Windows>,
    ) -> Result<Option<Event<'a>>, Error> {
        if self.partial.is_none()
            && let Some(event) = whole_frame(input, role, limits)
        {
            return event.map(Some).map_err(|error| self.fail(input, error));
        }
        let limit = limits.max_message_bytes;
        let inflated = match self.advance::<true>(input, role, limits) {
            Ok(None) => return Ok(None),
            Ok(Some(Found::InPlace(event))) => return Ok(Some(event)),
            Ok(Some(Found::Compressed(opcode, payload))) => {
                inflater.inflate(payload, windows, limit).map(|()| opcode)
            }
            Ok(Some(Found::Kept(lent))) => match self.take_compressed(lent) {
                None => return self.lend(lent),
                Some(message) => match message.compressed() {
                    Some((opcode, payload)) => {
                        inflater.inflate(payload, windows, limit).map(|()| opcode)
                    }
                    None => return Ok(None),
                },
            },
            Err(error) => Err(error),
        };
        match inflated.and_then(|opcode| inflater.event(opcode)) {
            Ok(event) => Ok(Some(event)),
            Err(error) => Err(self.fail(input, error)),
        }
    }

    /// Takes out the message that became whole, if it is to be inflated.
    fn take_compressed(&mut self, lent: Lent) -> Option<Assembly> {
        let Lent::Message = lent else { return None };
        let partial = self.partial.as_deref_mut()?;
        partial.message.as_ref()?.compressed()?;
        let message = partial.message.take();
        partial.lent = None;
        self.drop_empty();
        message
    }

    fn advance<'i, const DEFLATE: bool>(
        &mut self,
        input: &mut &'i mut [u8],
        role: Role,
        limits: &Limits,
    ) -> Result<Option<Found<'i>>, Error> {
        self.release();
        if self.is_ended() {
            mem::take(input);
        }
        while !input.is_empty() {
            if self.partial.as_ref().is_none_or(|p| p.frame.is_none()) {
                let Some(header) = self.read_header::<DEFLATE>(input, role, limits)? else {
                    return Ok(None);
                };
                if is_alone(&header) && header.payload_len <= input.len() {
                    return self.in_place(&header, input).map(Some);
                }
                self.begin(&header);
            }
            if let Some(lent) = self.receive(input, limits)? {
                return Ok(Some(Found::Kept(lent)));
            }
        }
        Ok(None)
    }

    /// Reads a header and moves `input` past it. `None`: what there is of it was kept.
    #[inline]
    fn read_header<const DEFLATE: bool>(
        &mut self,
        input: &mut &mut [u8],
        role: Role,
        limits: &Limits,
    ) -> Result<Option<Header>, Error> {
        let open = self.open_message();
        let kept = self.partial.as_deref_mut().filter(|p| p.head_len != 0);
        let Some(partial) = kept else {
            let header = header::parse::<DEFLATE>(input, open, role, limits)?;
            match &header {
                Some(header) => drop(take_front(input, header.len)),
                None => self.keep_head(&*mem::take(input)),
            }
            return Ok(header);
        };
        let before = usize::from(partial.head_len);
        let fresh = input.len().min(HEADER_MAX_BYTES - before);
        partial.head[before..before + fresh].copy_from_slice(&input[..fresh]);
        match header::parse::<DEFLATE>(&partial.head[..before + fresh], open, role, limits)? {
            Some(header) => {
                partial.head_len = 0;
                take_front(input, header.len - before);
                Ok(Some(header))
            }
            None => {
                partial.head_len = (before + fresh) as u8;
                mem::take(input);
                Ok(None)
            }
        }
    }

    /// Keeps the beginning of a header: shorter than the longest one, else it were complete.
    fn keep_head(&mut self, head: &[u8]) {
        let partial = self.partial.get_or_insert_default();
        partial.head[..head.len()].copy_from_slice(head);
        partial.head_len = head.len() as u8;
    }

    fn open_message(&self) -> OpenMessage {
        match self.partial.as_ref().and_then(|p| p.message.as_ref()) {
            Some(message) => OpenMessage {
                fragments: message.fragments,
                bytes: message.len(),
                compressed: message.is_compressed(),
            },
            None => OpenMessage::default(),
        }
    }

    /// The event of a frame whose payload lies whole at the front of `input`.
    #[inline]
    fn in_place<'i>(
        &mut self,
        header: &Header,
        input: &mut &'i mut [u8],
    ) -> Result<Found<'i>, Error> {
        let payload = take_front(input, header.payload_len);
        let is_ascii = header.key.map_or(IsAscii::UNKNOWN, |key| payload::mask(payload, key));
        if header.compressed {
            self.drop_empty();
            return Ok(Found::Compressed(header.opcode, payload));
        }
        let event = message::event(header.opcode, payload, is_ascii)?;
        if let Event::Close(_) = event {
            self.end();
        } else {
            self.drop_empty();
        }
        Ok(Found::InPlace(event))
    }

    /// Prepares for a frame whose payload is not all there, or that is one of several.
    fn begin(&mut self, header: &Header) {
        let partial = self.partial.get_or_insert_default();
        if !header.opcode.is_control() {
            let new = || Assembly::new(header.opcode, header.compressed);
            let message = partial.message.get_or_insert_with(new);
            message.fragments += 1;
        }
        partial.frame = Some(Frame {
            fin: header.fin,
            opcode: header.opcode,
            mask: header.key.map(Mask::new),
            missing: header.payload_len,
        });
    }

    /// Takes payload of the open frame. `Some`: a message or a control frame is complete.
    fn receive(&mut self, input: &mut &mut [u8], limits: &Limits) -> Result<Option<Lent>, Error> {
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(None) };
        let Some(frame) = &mut partial.frame else { return Ok(None) };
        let chunk = take_front(input, frame.missing.min(input.len()));
        if let Some(mask) = &mut frame.mask {
            mask.apply(chunk);
        }
        let lent = if frame.opcode.is_control() {
            recv_buffer::append(&mut partial.control, chunk, header::CONTROL_MAX_BYTES);
            Some(Lent::Control(frame.opcode))
        } else {
            let Some(message) = &mut partial.message else { return Ok(None) };
            // The end of the message is known in its last frame only.
            let rest = if frame.fin { message.len() + frame.missing } else { usize::MAX };
            let limit = match message.is_compressed() {
                true => header::compressed_limit(limits.max_message_bytes),
                false => limits.max_message_bytes,
            };
            message.push(chunk, rest.min(limit))?;
            frame.fin.then_some(Lent::Message)
        };
        frame.missing -= chunk.len();
        if frame.missing != 0 {
            return Ok(None);
        }
        partial.frame = None;
        match lent {
            Some(lent) => partial.complete(lent).map(Some),
            None => Ok(None),
        }
    }

    /// Frees what the last call lent.
    #[inline]
    fn release(&mut self) {
        let Some(partial) = self.partial.as_deref_mut() else { return };
        match partial.lent.take() {
            Some(Lent::Control(_)) => partial.control = Vec::new(),
            Some(Lent::Message) => partial.message = None,
            None => return,
        }
        self.drop_empty();
    }

    /// Frees the state when nothing is left in it.
    #[inline]
    fn drop_empty(&mut self) {
        if self.partial.as_ref().is_some_and(|p| !p.ended && p.is_empty()) {
            self.partial = None;
        }
    }

    /// Ends the conversation with a fault: what else came is dropped.
    #[cold]
    fn fail(&mut self, input: &mut &mut [u8], error: Error) -> Error {
        mem::take(input);
        self.end();
        error
    }

    /// Ends the conversation and frees what was incomplete.
    #[cold]
    fn end(&mut self) {
        self.partial = Some(Box::new(Partial { ended: true, ..Partial::default() }));
    }

    fn lend(&self, lent: Lent) -> Result<Option<Event<'_>>, Error> {
        let Some(partial) = &self.partial else { return Ok(None) };
        match lent {
            Lent::Control(opcode) => {
                message::event(opcode, &partial.control, IsAscii::UNKNOWN).map(Some)
            }
            Lent::Message => Ok(partial.message.as_ref().map(Assembly::event)),
        }
    }
}

impl Partial {
    /// Nothing but what was lent is held.
    fn is_empty(&self) -> bool {
        let message_open = self.message.is_some() && !matches!(self.lent, Some(Lent::Message));
        self.head_len == 0 && self.frame.is_none() && !message_open
    }

    /// Checks what became complete and marks it as lent.
    fn complete(&mut self, lent: Lent) -> Result<Lent, Error> {
        match lent {
            Lent::Control(opcode) => {
                self.ended = matches!(
                    message::event(opcode, &self.control, IsAscii::UNKNOWN)?,
                    Event::Close(_)
                );
            }
            Lent::Message => self.message.as_ref().map_or(Ok(()), Assembly::finish)?,
        }
        self.lent = Some(lent);
        Ok(lent)
    }
}

/// The event of a frame that lies whole at the front of `input`, is an event by itself, and changes
/// nothing else: what nearly all frames are, by the shortest way. `None`: it is something else, perhaps
/// a fault, and untouched.
#[inline]
fn whole_frame<'i>(
    input: &mut &'i mut [u8],
    role: Role,
    limits: &Limits,
) -> Option<Result<Event<'i>, Error>> {
    let &[first, second] = input.first_chunk()?;
    let opcode = match first {
        0x81 => Opcode::Text,
        0x82 => Opcode::Binary,
        0x89 => Opcode::Ping,
        0x8A => Opcode::Pong,
        _ => return None,
    };
    let is_masked = second >= 0x80;
    if is_masked != (role == Role::Server) {
        return None;
    }
    let (payload_len, length_end) = match second & 0x7F {
        126 => (usize::from(u16::from_be_bytes(*input[2..].first_chunk()?)), 4),
        127 => return None,
        short => (usize::from(short), 2),
    };
    if length_end == 4 && (payload_len < 126 || opcode.is_control())
        || payload_len > limits.max_message_bytes
    {
        return None;
    }
    let header_len = if is_masked { length_end + 4 } else { length_end };
    let end = header_len + payload_len;
    if end > input.len() {
        return None;
    }
    let (header, payload) = take_front(input, end).split_at_mut(header_len);
    let is_ascii = match header.last_chunk() {
        Some(&key) if is_masked => payload::mask(payload, key),
        _ => IsAscii::UNKNOWN,
    };
    Some(message::event(opcode, payload, is_ascii))
}

/// The frame is an event by itself: a control frame, or a message in one frame.
fn is_alone(header: &Header) -> bool {
    header.opcode.is_control() || (header.fin && header.opcode != Opcode::Continuation)
}

/// Cuts `len` bytes off the front of `input`.
fn take_front<'i>(input: &mut &'i mut [u8], len: usize) -> &'i mut [u8] {
    let (front, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    front
}

// An idle connection pays for a pointer.
const _: () = assert!(mem::size_of::<Decoder>() <= 8);
