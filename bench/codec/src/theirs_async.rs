//! fastwebsockets over a reader that is always ready, polled by hand: no runtime is part of it.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use fastwebsockets::{Frame, OpCode, Payload as Bytes, Role, WebSocket};

use crate::{Payload, Stream, write_payload};

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("memory is always ready"),
    }
}

/// Reads `frames` frames. Unmasking is on, and `read_frame` checks text.
pub fn decode(stream: Stream, frames: usize) -> Box<dyn FnMut()> {
    let mut socket = WebSocket::after_handshake(stream, Role::Server);
    socket.set_auto_apply_mask(true);
    Box::new(move || {
        now(async {
            for _ in 0..frames {
                let frame = socket.read_frame().await.expect("valid frames");
                assert!(matches!(frame.opcode, OpCode::Text | OpCode::Binary));
                black_box(&frame.payload[..]);
            }
        });
    })
}

/// Writes `frames` frames, each in one piece.
pub fn encode(payload: Payload, len: usize, frames: usize) -> Box<dyn FnMut()> {
    encode_as(payload, len, frames, false)
}

/// Writes `frames` frames as header and payload side by side, which is its default for long ones.
pub fn encode_vectored(payload: Payload, len: usize, frames: usize) -> Box<dyn FnMut()> {
    encode_as(payload, len, frames, true)
}

/// Writes `frames` frames of payloads that are written for them, each into the same buffer; long ones leave
/// it by `writev`, which is its default.
pub fn encode_written(len: usize, frames: usize) -> Box<dyn FnMut()> {
    let bytes = vec![b'p'; len];
    let mut written = Vec::new();
    let mut socket = WebSocket::after_handshake(Stream::new(&[0], usize::MAX), Role::Server);
    Box::new(move || {
        now(async {
            for _ in 0..frames {
                written.clear();
                write_payload(&mut written, &bytes);
                let frame = Frame::binary(Bytes::Borrowed(&written));
                socket.write_frame(frame).await.expect("memory");
            }
        });
    })
}

fn encode_as(payload: Payload, len: usize, frames: usize, vectored: bool) -> Box<dyn FnMut()> {
    let bytes: &'static [u8] = vec![b'p'; len].leak();
    let stream = Stream::new(&[0], usize::MAX);
    let mut socket = WebSocket::after_handshake(stream, Role::Server);
    socket.set_writev(vectored);
    Box::new(move || {
        now(async {
            for _ in 0..frames {
                let bytes = Bytes::Borrowed(black_box(bytes));
                let frame = match payload {
                    Payload::Text => Frame::text(bytes),
                    Payload::Binary => Frame::binary(bytes),
                };
                socket.write_frame(frame).await.expect("memory");
            }
        });
    })
}
