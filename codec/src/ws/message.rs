//! What a decoder gives out, and the assembly of messages that did not come in one piece.

use super::{CloseFrame, Error, Opcode, close};
use crate::payload::{self, IsAscii};
use crate::recv_buffer;

/// A message, or a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping; answer with a pong of the same payload (RFC 6455 section 5.5.2).
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The peer closes; what it sends after this is ignored (section 5.5.1).
    Close(Option<CloseFrame<'a>>),
}

/// The event of one whole, unmasked frame that stands alone.
#[inline]
pub(super) fn event(opcode: Opcode, payload: &[u8], is_ascii: IsAscii) -> Result<Event<'_>, Error> {
    Ok(match opcode {
        Opcode::Text => Event::Text(payload::text(payload, is_ascii).ok_or(Error::BadUtf8)?),
        Opcode::Binary => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => Event::Close(close::parse(payload)?),
        // The header was refused unless a message was open, and such a frame does not come here.
        Opcode::Continuation => return Err(Error::UnexpectedContinuation),
    })
}

/// A message of which a part is missing.
#[derive(Debug)]
pub(super) struct Assembly {
    body: Body,
    /// Frames begun so far.
    pub(super) fragments: u32,
    /// What it will be when the bytes of its body are inflated.
    inflates_to: Option<Opcode>,
}

#[derive(Debug)]
enum Body {
    Text(Text),
    Binary(Vec<u8>),
}

impl Assembly {
    /// An empty message whose first frame has this opcode (text, or else binary).
    pub(super) fn new(opcode: Opcode, compressed: bool) -> Self {
        let body = match opcode {
            Opcode::Text if !compressed => Body::Text(Text::default()),
            _ => Body::Binary(Vec::new()),
        };
        Self { body, fragments: 0, inflates_to: compressed.then_some(opcode) }
    }

    /// What is to be inflated, if it is compressed.
    pub(super) fn compressed(&self) -> Option<(Opcode, &[u8])> {
        match (self.inflates_to, &self.body) {
            (Some(opcode), Body::Binary(bytes)) => Some((opcode, bytes)),
            _ => None,
        }
    }

    /// The bytes are compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.inflates_to.is_some()
    }

    /// Payload bytes so far.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.len(),
            Body::Binary(bytes) => bytes.len(),
        }
    }

    /// Adds unmasked payload. The message will never have more than `complete` bytes.
    pub(super) fn push(&mut self, chunk: &[u8], complete: usize) -> Result<(), Error> {
        match &mut self.body {
            Body::Text(text) => text.push(chunk, complete),
            Body::Binary(bytes) => {
                recv_buffer::append(bytes, chunk, complete);
                Ok(())
            }
        }
    }

    /// Checks that the message may end here.
    pub(super) fn finish(&self) -> Result<(), Error> {
        match &self.body {
            Body::Text(text) if text.cut_len != 0 => Err(Error::BadUtf8),
            _ => Ok(()),
        }
    }

    pub(super) fn event(&self) -> Event<'_> {
        match &self.body {
            Body::Text(text) => Event::Text(&text.whole),
            Body::Binary(bytes) => Event::Binary(bytes),
        }
    }
}

/// Text that grows by arbitrary pieces of UTF-8. Each byte is validated once, when it comes, so that
/// bad text fails before its message is complete.
#[derive(Debug, Default)]
struct Text {
    whole: String,
    /// The beginning of a character that the last piece cut.
    cut: [u8; 4],
    cut_len: u8,
}

impl Text {
    fn len(&self) -> usize {
        self.whole.len() + usize::from(self.cut_len)
    }

    fn push(&mut self, chunk: &[u8], complete: usize) -> Result<(), Error> {
        let chunk = self.mend(chunk, complete)?;
        let (whole, cut) = chunk.split_at(chunk.len() - cut_suffix_len(chunk));
        let whole = simdutf8::basic::from_utf8(whole).map_err(|_| Error::BadUtf8)?;
        recv_buffer::append_str(&mut self.whole, whole, complete);
        if !cut.is_empty() {
            check_beginning(cut)?;
            self.cut[..cut.len()].copy_from_slice(cut);
            self.cut_len = cut.len() as u8;
        }
        Ok(())
    }

    /// Completes the character the last piece cut, and returns what is left of `chunk`.
    fn mend<'c>(&mut self, mut chunk: &'c [u8], complete: usize) -> Result<&'c [u8], Error> {
        while self.cut_len != 0
            && let Some((&byte, rest)) = chunk.split_first()
        {
            let len = usize::from(self.cut_len);
            self.cut[len] = byte;
            self.cut_len += 1;
            chunk = rest;
            let begun = &self.cut[..=len];
            if let Ok(character) = str::from_utf8(begun) {
                recv_buffer::append_str(&mut self.whole, character, complete);
                self.cut_len = 0;
            } else {
                // Fails at the latest on the fourth byte, so `cut` never overflows.
                check_beginning(begun)?;
            }
        }
        Ok(chunk)
    }
}

/// Checks that some character begins with these bytes, which are not a whole one.
fn check_beginning(bytes: &[u8]) -> Result<(), Error> {
    match str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() => Ok(()),
        _ => Err(Error::BadUtf8),
    }
}

/// How many bytes at the end are the beginning of a longer character (0 to 3), if all before is valid.
fn cut_suffix_len(bytes: &[u8]) -> usize {
    for (back, &byte) in bytes.iter().rev().take(3).enumerate() {
        let needed = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            _ => 1,
        };
        return if needed > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_two(bytes: &[u8], at: usize) -> Result<String, Error> {
        let mut assembly = Assembly::new(Opcode::Text, false);
        assembly.push(&bytes[..at], bytes.len())?;
        assembly.push(&bytes[at..], bytes.len())?;
        assembly.finish()?;
        match assembly.event() {
            Event::Text(text) => Ok(text.to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_cut_anywhere_is_whole_again() {
        let text = "κόσμε €uro 👩‍👩‍👧 \u{10FFFF}\u{D7FF}\u{E000} end";
        for at in 0..=text.len() {
            assert_eq!(in_two(text.as_bytes(), at).as_deref(), Ok(text), "cut at {at}");
        }
    }

    #[test]
    fn bad_text_is_bad_wherever_it_is_cut() {
        let bad: [&[u8]; 10] = [
            b"a\xFF",
            b"\xC0\xAF",
            b"\xED\xA0\x80",
            b"\xF4\x90\x80\x80",
            b"\xF8\x88\x80\x80\x80",
            b"\xE2\x82",
            b"\x80",
            b"ok\xF0\x9F\x92",
            b"\xE0\x80\x80 and more text that goes on for more than one vector of bytes, or two",
            b"one vector of good bytes and then some more of them before it goes \xE2\x28\xA1",
        ];
        for bytes in bad {
            for at in 0..=bytes.len() {
                assert_eq!(in_two(bytes, at), Err(Error::BadUtf8), "{bytes:x?} cut at {at}");
            }
        }
    }

    #[test]
    fn a_hopeless_beginning_fails_at_once() {
        for beginning in [&b"\xF4\x90"[..], b"\xED\xA0", b"\xE0\x80", b"\xF5", b"\xC1"] {
            let mut assembly = Assembly::new(Opcode::Text, false);
            let last = beginning.len() - 1;
            let first = assembly.push(&beginning[..last], 10);
            let second = first.and_then(|()| assembly.push(&beginning[last..], 10));
            assert_eq!(second, Err(Error::BadUtf8), "{beginning:x?}");
        }
    }
}
