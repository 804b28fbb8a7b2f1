//! Compressing messages.

use zlib_rs::{Deflate, DeflateFlush, Status, compress_bound};

use super::window::Window;
use super::{Config, WindowBits, Windows};
use crate::ws::header::{self, RSV1};
use crate::ws::{Opcode, apply_mask, encode_fragment};

/// The end of every flush, left out on the wire (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Room for the flush behind the payload and for a byte to spare. Each message is compressed to its end,
/// even one that gets longer by it: what a stream has not yet handed out survives its reset.
const SPARE_BYTES: usize = 32;

/// The output buffer is not kept larger than this for the next message.
const KEPT_BYTES: usize = 256 * 1024;

/// Compresses the messages of all connections of a thread, one after the other.
pub struct Deflater {
    /// By window size, made when first needed: 9 to 15 bits.
    streams: [Option<Deflate>; 7],
    level: u8,
    min_bytes: usize,
    out: Vec<u8>,
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { level, min_bytes, .. } = self;
        f.debug_struct("Deflater")
            .field("level", level)
            .field("min_bytes", min_bytes)
            .finish_non_exhaustive()
    }
}

impl Deflater {
    /// A compressor of this level for messages from this size. It holds up to 0.4 MiB for each size of
    /// window in use.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            streams: [const { None }; 7],
            level: config.level.clamp(1, 9),
            min_bytes: config.min_bytes,
            out: Vec::new(),
        }
    }

    /// Appends one message in one frame, compressed if it is long enough and gets shorter by it; masked
    /// when there is a `key` (the client's role).
    ///
    /// `bits` is the window agreed on for our direction, `windows` what the connection keeps, if it
    /// takes its context over.
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        opcode: Opcode,
        payload: &[u8],
        bits: WindowBits,
        windows: Option<&mut Windows>,
        key: Option<[u8; 4]>,
    ) {
        let Some(compressed) = self.compress(payload, bits, windows) else {
            return encode_fragment(out, opcode, true, payload, key);
        };
        let start = out.len();
        header::encode_header(out, opcode, true, compressed.len(), key);
        out[start] |= RSV1;
        let payload_at = out.len();
        out.extend_from_slice(compressed);
        if let Some(key) = key {
            apply_mask(&mut out[payload_at..], key);
        }
    }

    /// Compresses the messages at the end of `out`, from `start` on, where they lie: whole, unmasked
    /// frames as [`super::super::encode_frame`] writes them. What is too short or does not get shorter
    /// stays, as do control frames; anything that is no such frame ends the work.
    pub fn compress_frames(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        bits: WindowBits,
        mut windows: Option<&mut Windows>,
    ) {
        let (mut read, mut written) = (start, start);
        while let Some(frame) = header::own_frame(&out[read..]) {
            let (payload_at, end) = (read + frame.header_len, read + frame.len());
            let payload = &out[payload_at..end];
            let compressed = match frame.opcode {
                Opcode::Text | Opcode::Binary => {
                    self.compress(payload, bits, windows.as_deref_mut())
                }
                _ => None,
            };
            // A compressed frame is never longer, so nothing is overwritten that was not read.
            if let Some(compressed) = compressed {
                written += header::put(&mut out[written..], frame.opcode, RSV1, compressed.len());
                out[written..written + compressed.len()].copy_from_slice(compressed);
                written += compressed.len();
            } else {
                if written != read {
                    out.copy_within(read..end, written);
                }
                written += end - read;
            }
            read = end;
        }
        if written != read {
            out.copy_within(read.., written);
            out.truncate(out.len() - (read - written));
        }
    }

    /// The compressed payload, without its tail; `None` when the message goes as it is.
    fn compress(
        &mut self,
        payload: &[u8],
        bits: WindowBits,
        windows: Option<&mut Windows>,
    ) -> Option<&[u8]> {
        // No window is as small as 8 bits, and any compressed message could need a larger one.
        let index = usize::from(bits.get().checked_sub(9)?);
        if payload.len() < self.min_bytes {
            return None;
        }
        let level = i32::from(self.level);
        let stream =
            self.streams[index].get_or_insert_with(|| Deflate::new(level, false, bits.get()));
        stream.reset();
        let window = windows.and_then(|windows| windows.sent.as_mut());
        if let Some(window) = &window {
            stream.set_dictionary(window.bytes()).ok()?;
        }
        let room = compress_bound(payload.len()) + SPARE_BYTES;
        if self.out.len() < room {
            self.out.resize(room, 0);
        } else if self.out.len() > KEPT_BYTES.max(room) {
            self.out.truncate(KEPT_BYTES.max(room));
            self.out.shrink_to_fit();
        }
        let Some(len) = flush(stream, payload, &mut self.out[..room]) else {
            // It holds bytes back, and a reset would not rid it of them.
            self.streams[index] = None;
            return None;
        };
        let compressed = self.out[..len].strip_suffix(&TAIL)?;
        if compressed.len() >= payload.len() {
            return None;
        }
        if let Some(window) = window {
            Window::slide(window, payload);
        }
        Some(compressed)
    }
}

/// Compresses all of `payload` into `out`; `None` when that had no byte to spare in the end, so that the
/// stream may not be through.
fn flush(stream: &mut Deflate, payload: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut rest = payload;
    let mut len = 0;
    loop {
        let (taken, made) = (stream.total_in(), stream.total_out());
        let status = stream.compress(rest, &mut out[len..], DeflateFlush::SyncFlush).ok()?;
        let taken = (stream.total_in() - taken) as usize;
        rest = &rest[taken..];
        len += (stream.total_out() - made) as usize;
        if len == out.len() || status == Status::StreamEnd {
            return None;
        }
        if rest.is_empty() {
            return Some(len);
        }
        if taken == 0 {
            return None;
        }
    }
}
