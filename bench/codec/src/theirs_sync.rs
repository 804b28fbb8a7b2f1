//! tungstenite, with its own defaults.

use std::hint::black_box;
use std::io::{self, Cursor, Read, Write};

use tungstenite::protocol::Role;
use tungstenite::{Bytes, Message, Utf8Bytes, WebSocket};

use crate::{Payload, Stream};

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

/// Writes `frames` frames into its buffer, and flushes once.
pub fn encode(payload: Payload, len: usize, frames: usize) -> Box<dyn FnMut()> {
    let bytes = Bytes::from(vec![b'p'; len]);
    let text = Utf8Bytes::try_from(bytes.clone()).expect("ASCII");
    let stream = Stream::new(&[0], usize::MAX);
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    Box::new(move || {
        for _ in 0..frames {
            let message = match payload {
                Payload::Text => Message::Text(black_box(&text).clone()),
                Payload::Binary => Message::Binary(black_box(&bytes).clone()),
            };
            socket.write(message).expect("memory");
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
