//! A client made of bare bytes.

use std::io::{Read, Write};
use std::net::TcpStream;

use codec::binary::{self, Kind};
use codec::ws::{Opcode, encode_frame_masked};
use prost::Message;
use proto::v1::{Goaway, Hello};
use serde_json::Value;

use crate::common::PATIENCE;

/// Where a connection is when the bad bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Just connected.
    Connected,
    /// A WebSocket before login.
    Upgraded,
    /// A WebSocket that speaks JSON and is logged in.
    Json,
    /// The same, and compression is agreed on.
    Compressed,
    /// A WebSocket that speaks binary and is logged in.
    BinaryMessages,
    /// The preface is sent.
    Preface,
    /// Raw TCP, logged in.
    Stream,
}

/// What has to come back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// An HTTP answer with one of these statuses.
    Status(&'static [u16]),
    /// An HTTP answer with this status and this header line.
    StatusWith(u16, &'static str),
    /// A WebSocket close with one of these codes, then the end.
    Close(&'static [u16]),
    /// A GOAWAY with one of these codes, then the end.
    Goaway(&'static [u32]),
    /// An error of this name as JSON; the connection stays.
    Error(&'static str),
    /// An ERROR frame of this name; the connection stays.
    ErrorFrame(&'static str),
    /// A heartbeat's answer: the input was fine, or ignored.
    Alive,
    /// The end, without a byte.
    Nothing,
}

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    bytes: Vec<u8>,
}

pub(crate) fn handshake(target: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}

/// A whole, masked frame.
pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame_masked(&mut frame, opcode, payload, [0x37, 0xfa, 0x21, 0x3d]);
    frame
}

/// A masked frame with a first byte of one's own.
pub(crate) fn odd_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(Opcode::Binary, payload);
    bytes[0] = first;
    bytes
}

pub(crate) fn binary_frame(kind: Kind, body: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    binary::encode(&mut bytes, kind, &body.encode_to_vec());
    bytes
}

pub(crate) fn hello(name: &str) -> Vec<u8> {
    binary_frame(Kind::Hello, &Hello { dev_user: name.to_owned(), ..Hello::default() })
}

impl Peer {
    pub(crate) fn connect(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, bytes: Vec::new() }
    }

    pub(crate) fn at(addr: &str, stage: Stage) -> Self {
        let mut peer = Self::connect(addr);
        match stage {
            Stage::Connected => {}
            Stage::Upgraded => peer.upgrade("/ws", ""),
            Stage::Json => peer.log_in(""),
            Stage::Compressed => {
                peer.log_in("Sec-WebSocket-Extensions: permessage-deflate\r\n");
            }
            Stage::BinaryMessages => {
                peer.upgrade("/ws", "Sec-WebSocket-Protocol: corelane.bin.v1\r\n");
                peer.send(&frame(Opcode::Binary, &hello("mallory")));
                assert_eq!(peer.message().expect("WELCOME").1[0], Kind::Welcome as u8);
            }
            Stage::Preface => peer.send(&binary::PREFACE),
            Stage::Stream => {
                peer.send(&[&binary::PREFACE[..], &hello("mallory")].concat());
                assert_eq!(peer.frame().expect("WELCOME").0, Kind::Welcome as u8);
            }
        }
        peer
    }

    /// Sends; a server that closed meanwhile is no fault of the test.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn upgrade(&mut self, target: &str, more: &str) {
        self.send(&handshake(target, more));
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    fn log_in(&mut self, more: &str) {
        self.upgrade("/ws?user_id=mallory", more);
        self.send(&frame(Opcode::Text, br#"{"cmd":0}"#));
        assert_eq!(self.json()["code"], 0);
    }

    /// The head of an HTTP answer.
    pub(crate) fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.bytes.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.fill(), "no HTTP answer but {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }

    /// Receives; false at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    self.bytes.extend_from_slice(&buffer[..count]);
                    return count > 0;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&self.bytes)),
            }
        }
    }

    /// The next WebSocket frame as opcode and payload; `None` at the end.
    pub(crate) fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [first, length, ..] = *self.bytes {
                let (start, len) = match (length, self.bytes.get(2..4), self.bytes.get(2..10)) {
                    (126, Some(length), _) => {
                        (4, usize::from(u16::from_be_bytes(length.try_into().unwrap())))
                    }
                    (127, _, Some(length)) => {
                        (10, u64::from_be_bytes(length.try_into().unwrap()) as usize)
                    }
                    (126 | 127, _, _) => (usize::MAX / 2, 0),
                    (short, _, _) => (2, usize::from(short)),
                };
                if self.bytes.len() >= start + len {
                    let payload = self.bytes[start..start + len].to_vec();
                    self.bytes.drain(..start + len);
                    return Some((first & 0x0f, payload));
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The next binary frame on TCP as kind and body; `None` at the end.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((kind, body, len)) = cut(&self.bytes) {
                let found = (kind, body.to_vec());
                self.bytes.drain(..len);
                return Some(found);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    pub(crate) fn json(&mut self) -> Value {
        let (opcode, payload) = self.message().expect("a frame");
        assert_eq!(opcode, 1, "{payload:?}");
        serde_json::from_slice(&payload).unwrap()
    }

    fn close_code(&mut self) -> Option<u16> {
        loop {
            let (opcode, payload) = self.message()?;
            if opcode == 8 {
                return Some(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
            }
        }
    }

    fn goaway_code(&mut self) -> Option<u32> {
        loop {
            let (kind, body) = self.frame()?;
            if kind == Kind::Goaway as u8 {
                return Some(Goaway::decode(&body[..]).unwrap().code);
            }
        }
    }

    fn expect_end(&mut self, name: &str) {
        self.bytes.clear();
        assert!(!self.fill(), "{name}: more came: {:?}", String::from_utf8_lossy(&self.bytes));
    }

    /// Checks that what comes is what is expected.
    pub(crate) fn expect(&mut self, name: &str, stage: Stage, expect: Expect) {
        match expect {
            Expect::Status(allowed) => {
                let head = self.head();
                let status: u16 = head[9..12].parse().unwrap();
                assert!(allowed.contains(&status), "{name}: {head}");
            }
            Expect::StatusWith(status, line) => {
                let head = self.head();
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {head}");
                assert!(head.contains(&format!("\r\n{line}\r\n")), "{name}: {head}");
            }
            Expect::Close(allowed) => {
                let code = self.close_code();
                assert!(code.is_some_and(|code| allowed.contains(&code)), "{name}: {code:?}");
                self.expect_end(name);
            }
            Expect::Goaway(allowed) => {
                let code = self.goaway_code();
                assert!(code.is_some_and(|code| allowed.contains(&code)), "{name}: {code:?}");
                self.expect_end(name);
            }
            Expect::Error(error) => {
                let answer = self.json();
                assert_eq!(answer["error"]["name"], error, "{name}: {answer}");
                self.expect_alive(name, stage);
            }
            Expect::ErrorFrame(error) => {
                let body = if stage == Stage::Stream {
                    let (kind, body) = self.frame().unwrap_or_else(|| panic!("{name}: the end"));
                    assert_eq!(kind, Kind::Error as u8, "{name}");
                    body
                } else {
                    let (_, message) = self.message().unwrap_or_else(|| panic!("{name}: the end"));
                    let (kind, body, _) = cut(&message).unwrap();
                    assert_eq!(kind, Kind::Error as u8, "{name}");
                    body.to_vec()
                };
                let answer = proto::v1::Error::decode(&body[..]).unwrap();
                assert_eq!(answer.name, error, "{name}: {answer:?}");
                self.expect_alive(name, stage);
            }
            Expect::Alive => self.expect_alive(name, stage),
            Expect::Nothing => self.expect_end(name),
        }
    }

    fn expect_alive(&mut self, name: &str, stage: Stage) {
        match stage {
            Stage::Stream | Stage::Preface => {
                self.send(&[0]);
                assert_eq!(self.frame().map(|frame| frame.0), Some(0), "{name}");
            }
            Stage::BinaryMessages => {
                self.send(&frame(Opcode::Binary, &[0]));
                assert_eq!(self.message(), Some((2, vec![0])), "{name}");
            }
            Stage::Connected | Stage::Upgraded | Stage::Json | Stage::Compressed => {
                if stage == Stage::Connected {
                    let head = self.head();
                    assert!(head.starts_with("HTTP/1.1 101 "), "{name}: {head}");
                }
                self.send(&frame(Opcode::Text, br#"{"cmd":0,"id":77}"#));
                loop {
                    let answer = self.json();
                    assert_eq!(answer["code"], 0, "{name}: {answer}");
                    if answer["id"] == 77 {
                        return;
                    }
                }
            }
        }
    }
}

/// The binary frame at the front: kind, body, and bytes of the whole.
fn cut(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&kind, rest) = bytes.split_first()?;
    if kind == 0 {
        return Some((0, &[], 1));
    }
    let mut len = 0;
    for (at, &byte) in rest.iter().enumerate().take(4) {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            let body = rest.get(at + 1..at + 1 + len)?;
            return Some((kind, body, at + 2 + len));
        }
    }
    None
}
