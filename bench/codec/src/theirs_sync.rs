//! tungstenite, with its own defaults.

use std::hint::black_box;
use std::io::{self, Cursor, Read, Write};

use tungstenite::protocol::Role;
use tungstenite::{Bytes, Message, Utf8Bytes, WebSocket};

use crate::{Payload, Stream, write_payload};

/// Reads `frames` frames.
pub fn decode(stream: Stream, frames: usize) -> Box<dyn FnMut()> {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    Box::new(move || {
        for _ in 0..frames {
            let message = socket.read().expect("valid frames");
            assert!(black_box(&message).is_text() || message.is_binary());
        }
    })
}

/// Where messages come from.
enum Source {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// It keeps what it is given, so each is written into memory of its own.
    Written(Vec<u8>),
}

impl Source {
    #[inline]
    fn message(&self) -> Message {
        match self {
            Self::Text(text) => Message::Text(black_box(text).clone()),
            Self::Binary(bytes) => Message::Binary(black_box(bytes).clone()),
            Self::Written(bytes) => {
                let mut written = Vec::with_capacity(bytes.len());
                write_payload(&mut written, bytes);
                Message::Binary(Bytes::from(written))
            }
        }
    }
}

/// Writes `frames` frames into its buffer, and flushes once.
pub fn encode(payload: Payload, len: usize, frames: usize) -> Box<dyn FnMut()> {
    let bytes = Bytes::from(vec![b'p'; len]);
    let source = match payload {
        Payload::Text => Source::Text(Utf8Bytes::try_from(bytes).expect("ASCII")),
        Payload::Binary => Source::Binary(bytes),
    };
    encode_from(source, frames)
}

/// Writes `frames` frames of payloads that are written for them.
pub fn encode_written(len: usize, frames: usize) -> Box<dyn FnMut()> {
    encode_from(Source::Written(vec![b'p'; len]), frames)
}

/// The only place that writes: so the compiler puts the function into it, as in a program that has one.
fn encode_from(source: Source, frames: usize) -> Box<dyn FnMut()> {
    let mut socket = WebSocket::from_raw_socket(Stream::new(&[0], usize::MAX), Role::Server, None);
    Box::new(move || {
        for _ in 0..frames {
            socket.write(source.message()).expect("memory");
        }
        socket.flush().expect("memory");
    })
}

/// Reads one request and writes the answer; makes the connection, which is part of its `accept`.
pub fn accept(request: &'static [u8]) -> Box<dyn FnMut()> {
    Box::new(move || {
        let socket = tungstenite::accept(Once(Cursor::new(black_box(request)))).expect("valid");
        black_box(&socket);
    })
}

/// One request; what is written goes nowhere.
struct Once(Cursor<&'static [u8]>);

impl Read for Once {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Once {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(black_box(bytes).len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
