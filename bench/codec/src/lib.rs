//! The same work done by the codec of this repository, by fastwebsockets and by tungstenite, without a
//! network.
//!
//! - Streams hold many masked frames, about 64 KiB together, and come again and again. A read gives at
//!   most one stream, or a given number of bytes where the work says so.
//! - All three read into a buffer of theirs by system calls, unmask, check text for UTF-8, and hand out
//!   the payload. Encoding ends where the bytes would go to the kernel: nobody pays for that
//!   copy.
//! - Encoded frames lie in one piece, so fastwebsockets writes without `writev` but where the payload is
//!   left in place.
//! - Each connection lives as long as its scenario, so its buffers are warm.

mod feed;
pub mod ours;
pub mod theirs_async;
pub mod theirs_sync;

use std::hint::black_box;

use codec::ws::{Opcode, encode_frame_masked};

pub use feed::Stream;

/// Work that all do.
pub struct Work {
    /// `WHAT: WHO`.
    pub name: String,
    /// Frames (or handshakes) of one call.
    pub units: usize,
    /// Calls that make a fair sample.
    pub rounds: usize,
    /// Does it.
    pub work: Box<dyn FnMut()>,
}

/// Payloads that are decoded, in bytes.
pub const DECODED: [usize; 4] = [20, 128, 1024, 16_384];
/// Payloads that are encoded, in bytes.
pub const ENCODED: [usize; 6] = [20, 128, 1024, 4096, 16_384, 65_536];
/// Payloads that are left in place, in bytes: the gateway does so from the first of them on.
pub const LEFT_IN_PLACE: [usize; 4] = [1024, 4096, 16_384, 65_536];
/// Bytes of one stream.
const STREAM_BYTES: usize = 64 * 1024;
/// The payload of a TCP segment on Ethernet: the largest piece where a stream comes in pieces.
const SEGMENT_BYTES: usize = 1448;
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// What frames carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// ASCII text, which is to be checked.
    Text,
    /// Bytes.
    Binary,
}

impl Payload {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }

    fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// All the work of all three.
#[must_use]
pub fn all() -> Vec<Work> {
    let mut all = Vec::new();
    for payload in [Payload::Text, Payload::Binary] {
        for len in DECODED {
            let frames = frames(len);
            let read = |at_most| stream(payload, len, frames, at_most);
            let what = format!("decode {}, {len} bytes", payload.name());
            decode(&mut all, &what, frames, || read(usize::MAX));
            if payload == Payload::Text && len == 128 {
                let what = format!("{what}, in reads of {SEGMENT_BYTES}");
                decode(&mut all, &what, frames, || read(SEGMENT_BYTES));
            }
        }
        for len in ENCODED {
            let what = format!("encode {}, {len} bytes", payload.name());
            encode(&mut all, &what, payload, len, frames(len));
        }
        LEFT_IN_PLACE.iter().for_each(|len| leave_in_place(&mut all, payload, *len));
    }
    ENCODED.iter().for_each(|len| write_in_place(&mut all, *len, frames(*len)));
    handshakes(&mut all);
    all
}

/// Frames of one stream.
fn frames(len: usize) -> usize {
    (STREAM_BYTES / (len + 14)).max(1)
}

fn stream(payload: Payload, len: usize, frames: usize, at_most: usize) -> Stream {
    let mut bytes = Vec::new();
    for _ in 0..frames {
        encode_frame_masked(&mut bytes, payload.opcode(), &vec![b'p'; len], KEY);
    }
    Stream::new(&bytes, at_most)
}

/// What a serializer does, as far as anybody here is concerned.
#[inline]
fn write_payload(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(black_box(bytes));
}

fn push(all: &mut Vec<Work>, what: &str, who: &str, units: usize, work: Box<dyn FnMut()>) {
    all.push(Work { name: format!("{what}: {who}"), units, rounds: 20, work });
}

fn decode(all: &mut Vec<Work>, what: &str, frames: usize, stream: impl Fn() -> Stream) {
    push(all, what, "ours", frames, ours::decode(stream(), frames));
    push(all, what, "fastwebsockets", frames, theirs_async::decode(stream(), frames));
    push(all, what, "tungstenite", frames, theirs_sync::decode(stream(), frames));
}

fn encode(all: &mut Vec<Work>, what: &str, payload: Payload, len: usize, frames: usize) {
    push(all, what, "ours", frames, ours::encode(payload, len, frames));
    push(all, what, "fastwebsockets", frames, theirs_async::encode(payload, len, frames));
    push(all, what, "tungstenite", frames, theirs_sync::encode(payload, len, frames));
}

/// Only the header is written; the payload stays where it lies and goes out from there. tungstenite has but one way,
/// which is to copy.
fn leave_in_place(all: &mut Vec<Work>, payload: Payload, len: usize) {
    let frames = frames(len);
    let what = format!("encode {}, {len} bytes, payload left in place", payload.name());
    push(all, &what, "ours", frames, ours::encode_in_place(payload, len, frames));
    push(all, &what, "fastwebsockets", frames, theirs_async::encode_vectored(payload, len, frames));
    push(all, &what, "tungstenite", frames, theirs_sync::encode(payload, len, frames));
}

/// The payload is not there yet: it is written for this frame, as a serializer does. The header is made around it
/// here; the others are given it once it is written. `writer` is the writing alone, into a buffer that is kept.
fn write_in_place(all: &mut Vec<Work>, len: usize, frames: usize) {
    let what = format!("encode binary, {len} bytes, written for the frame");
    push(all, &what, "ours", frames, ours::encode_around(len, frames));
    push(all, &what, "fastwebsockets", frames, theirs_async::encode_written(len, frames));
    push(all, &what, "tungstenite", frames, theirs_sync::encode_written(len, frames));
    push(all, &what, "writer", frames, ours::write_only(len, frames));
}

/// fastwebsockets reads no HTTP by itself (hyper does it for it), so it is left out.
fn handshakes(all: &mut Vec<Work>) {
    let request: &'static [u8] = b"GET /ws HTTP/1.1\r\nHost: chat.example.org\r\n\
        Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://chat.example.org\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n\
        Accept-Language: en-US,en;q=0.9\r\nCache-Control: no-cache\r\n\r\n";
    push(all, "handshake read and accepted", "ours", 1, ours::accept(request));
    push(all, "handshake read and accepted", "tungstenite", 1, theirs_sync::accept(request));
}

#[cfg(test)]
mod tests {
    /// Every work asserts that it saw its frames.
    #[test]
    fn all_of_them_do_their_work_twice() {
        let all = super::all();
        let sizes = super::DECODED.len() + super::ENCODED.len();
        let sizes = sizes + super::LEFT_IN_PLACE.len();
        assert_eq!(all.len(), 3 * (2 * sizes + 1) + 4 * super::ENCODED.len() + 2);
        for mut one in all {
            (one.work)();
            (one.work)();
        }
    }
}
