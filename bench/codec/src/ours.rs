//! The codec of this repository, as the gateway calls it: one receive buffer, one output buffer.

use std::hint::black_box;
use std::io::{IoSlice, Read};

use codec::ws::handshake::{Limits as HeadLimits, Request, read_request};
use codec::ws::{
    Decoder, Event, Limits, Opcode, Role, encode_frame, encode_frame_around, encode_header,
};

use crate::{Payload, Stream, write_payload};

/// Reads `frames` frames.
pub fn decode(mut stream: Stream, frames: usize) -> Box<dyn FnMut()> {
    let mut buffer = vec![0; stream.len()];
    let mut decoder = Decoder::new();
    Box::new(move || {
        let mut seen = 0;
        while seen < frames {
            let count = stream.read(&mut buffer).expect("memory");
            let mut input = &mut buffer[..count];
            while let Some(event) =
                decoder.next(&mut input, Role::Server, &Limits::DEFAULT).expect("valid frames")
            {
                match black_box(event) {
                    Event::Text(_) | Event::Binary(_) => seen += 1,
                    _ => panic!("another frame"),
                }
            }
        }
        assert_eq!(seen, frames);
    })
}

/// Writes `frames` frames.
pub fn encode(payload: Payload, len: usize, frames: usize) -> Box<dyn FnMut()> {
    let bytes = vec![b'p'; len];
    encode_all(frames, len, move |out| encode_frame(out, payload.opcode(), black_box(&bytes)))
}

/// Writes the headers of `frames` frames, and makes the list of parts that `sendmsg(2)` would be given: each header, and
/// its payload where it lies. As the gateway does it with long payloads.
pub fn encode_in_place(payload: Payload, len: usize, frames: usize) -> Box<dyn FnMut()> {
    let bytes: &'static [u8] = vec![b'p'; len].leak();
    let (mut out, mut pieces, mut spare) = (Vec::new(), Vec::new(), Vec::<IoSlice<'static>>::new());
    Box::new(move || {
        out.clear();
        for _ in 0..frames {
            let start = out.len();
            let bytes = black_box(bytes);
            encode_header(&mut out, payload.opcode(), true, bytes.len(), None);
            pieces.push((start..out.len(), bytes));
        }
        let mut parts: Vec<_> = recycled(std::mem::take(&mut spare));
        for (header, bytes) in pieces.drain(..) {
            parts.extend([&out[header], bytes].map(IoSlice::new));
        }
        assert_eq!(black_box(&parts).len(), 2 * frames);
        spare = recycled(parts);
    })
}

/// An empty list in the memory of another.
fn recycled<A, B>(mut list: Vec<A>) -> Vec<B> {
    list.clear();
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}

/// Writes `frames` frames around payloads that are written for them.
pub fn encode_around(len: usize, frames: usize) -> Box<dyn FnMut()> {
    let bytes = vec![b'p'; len];
    encode_all(frames, len, move |out| {
        encode_frame_around(out, Opcode::Binary, black_box(len), |out| write_payload(out, &bytes))
    })
}

/// Calls `encode` for each of `frames` frames, which lie one behind the other, each of more than `len` bytes.
fn encode_all(
    frames: usize,
    len: usize,
    encode: impl Fn(&mut Vec<u8>) + 'static,
) -> Box<dyn FnMut()> {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for _ in 0..frames {
            encode(&mut out);
        }
        assert!(black_box(&out).len() > frames * len);
    })
}

/// Writes `frames` payloads, without any frame.
pub fn write_only(len: usize, frames: usize) -> Box<dyn FnMut()> {
    let bytes = vec![b'p'; len];
    let mut out = Vec::new();
    Box::new(move || {
        for _ in 0..frames {
            out.clear();
            write_payload(&mut out, &bytes);
            assert!(black_box(&out).len() == len);
        }
    })
}

/// Reads one request and writes the answer.
pub fn accept(request: &'static [u8]) -> Box<dyn FnMut()> {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        match read_request(black_box(request), &HeadLimits::DEFAULT) {
            Ok(Request::Upgrade(upgrade)) => upgrade.accept(None, &mut out),
            _ => panic!("a valid request"),
        }
        assert!(black_box(&out).starts_with(b"HTTP/1.1 101"));
    })
}
