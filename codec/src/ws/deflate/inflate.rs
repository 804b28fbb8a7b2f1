//! Inflating messages, never past a limit.

use zlib_rs::{Inflate, InflateFlush, Status};

use super::Windows;
use crate::payload::IsAscii;
use crate::ws::message::Event;
use crate::ws::{Error, Opcode, message};

/// What the sender cut off (RFC 7692 section 7.2.2), and then an empty final block: a stream that does
/// not end exactly with it was cut short, or longer than its message.
const END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// Most final blocks in one message. One is allowed to senders that cannot flush in another way
/// (section 7.2.3.4); each costs more work than its two bytes should.
const FINAL_BLOCKS_MAX: u32 = 16;

/// First size of the output buffer.
const FIRST_BYTES: usize = 4 * 1024;
/// The output buffer is not kept larger than this for the next message.
const KEPT_BYTES: usize = 256 * 1024;

/// Inflates the messages of all connections of a thread, one after the other.
pub struct Inflater {
    stream: Inflate,
    /// Zeros from the start, so that there is no byte in it which was never written.
    out: Vec<u8>,
    len: usize,
    final_blocks: u32,
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}

impl Inflater {
    /// An inflater; holds about 50 KiB, and the last message.
    #[must_use]
    pub fn new() -> Self {
        Self { stream: Inflate::new(false, 15), out: Vec::new(), len: 0, final_blocks: 0 }
    }

    /// Bytes of the output buffer.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.out.capacity()
    }

    /// Inflates the payload of one message of at most `limit` bytes; [`Self::event`] has the result.
    pub(in crate::ws) fn inflate(
        &mut self,
        compressed: &[u8],
        windows: Option<&mut Windows>,
        limit: usize,
    ) -> Result<(), Error> {
        self.begin();
        // A compressor that has nothing new to flush gives nothing at all.
        if compressed.is_empty() {
            return Ok(());
        }
        let window = windows.and_then(|windows| windows.received.as_mut());
        if let Some(window) = &window {
            self.stream.set_dictionary(window.bytes()).map_err(|_| Error::BadDeflate)?;
        }
        // A final block may be the end of it, although section 7.2.3.4 wants one more byte.
        if !self.feed(compressed, limit)? && !self.feed(&END, limit)? {
            return Err(Error::BadDeflate);
        }
        if let Some(window) = window {
            window.slide(&self.out[..self.len]);
        }
        Ok(())
    }

    /// The message inflated last. Text is checked here.
    pub(in crate::ws) fn event(&self, opcode: Opcode) -> Result<Event<'_>, Error> {
        message::event(opcode, &self.out[..self.len], IsAscii::UNKNOWN)
    }

    fn begin(&mut self) {
        self.stream.reset(false);
        self.len = 0;
        self.final_blocks = 0;
        if self.out.len() > KEPT_BYTES {
            self.out.truncate(KEPT_BYTES);
            self.out.shrink_to_fit();
        }
    }

    /// Inflates all of `input`. True when the stream ended with its last byte.
    fn feed(&mut self, mut input: &[u8], limit: usize) -> Result<bool, Error> {
        loop {
            if self.len == self.out.len() {
                self.grow(limit);
            }
            let (taken, made) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(input, &mut self.out[self.len..], InflateFlush::SyncFlush)
                .map_err(|_| Error::BadDeflate)?;
            let (taken, made) = (
                (self.stream.total_in() - taken) as usize,
                (self.stream.total_out() - made) as usize,
            );
            input = &input[taken..];
            self.len += made;
            if self.len > limit {
                return Err(Error::MessageTooLong { limit });
            }
            match status {
                Status::StreamEnd if input.is_empty() => return Ok(true),
                Status::StreamEnd => self.begin_next_stream()?,
                // More may wait for room.
                _ if self.len == self.out.len() => {}
                _ if input.is_empty() => return Ok(false),
                _ if taken == 0 && made == 0 => return Err(Error::BadDeflate),
                _ => {}
            }
        }
    }

    fn begin_next_stream(&mut self) -> Result<(), Error> {
        self.final_blocks += 1;
        if self.final_blocks > FINAL_BLOCKS_MAX {
            return Err(Error::BadDeflate);
        }
        self.stream.reset(false);
        Ok(())
    }

    /// Room for more output, in all one byte more than the limit: the byte that shows it is broken.
    fn grow(&mut self, limit: usize) {
        let doubled = self.out.len().saturating_mul(2).max(FIRST_BYTES);
        let size = doubled.min(limit.saturating_add(1)).max(self.len + 1);
        self.out.reserve_exact(size - self.out.len());
        self.out.resize(size, 0);
    }
}
