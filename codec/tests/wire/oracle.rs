//! tungstenite as an oracle: it reads what we write, we read what it writes, and where it refuses
//! bytes so do we.

use std::io::{self, Cursor, Read, Write};

use codec::ws::handshake::{self, Request, read_request, read_response, write_client_request};
use codec::ws::{Limits, Role, encode_frame};
use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use crate::round_trip::{Item, Payload, item, keys, write};
use crate::support::{Seen, cut, decode};

const LIMITS: Limits = Limits { max_message_bytes: 100_000, max_fragments: 64 };

/// A peer whose bytes are all there from the start; what is written to it is kept.
struct Tape {
    input: Cursor<Vec<u8>>,
    written: Vec<u8>,
}

impl Tape {
    fn new(input: Vec<u8>) -> Self {
        Self { input: Cursor::new(input), written: Vec::new() }
    }
}

impl Read for Tape {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite reads from these bytes, and whether it refused them in the end.
fn theirs(bytes: Vec<u8>, role: TheirRole) -> (Vec<Seen>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.max_message_bytes))
        .max_frame_size(Some(LIMITS.max_message_bytes));
    let mut socket = WebSocket::from_raw_socket(Tape::new(bytes), role, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => seen.push(Seen::Pong(bytes.to_vec())),
            Ok(Message::Close(frame)) => {
                let frame = frame.map(|f| (u16::from(f.code), f.reason.to_string()));
                // This is how it reports a close code that must not be sent.
                if frame.as_ref().is_some_and(|(code, reason)| *code == 1002 && !reason.is_empty())
                {
                    return (seen, true);
                }
                seen.push(Seen::Close(frame));
                return (seen, false);
            }
            Ok(Message::Frame(frame)) => panic!("a raw frame: {frame:?}"),
            Err(tungstenite::Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                return (seen, false);
            }
            Err(_) => return (seen, true),
        }
    }
}

/// What tungstenite writes for these items.
fn written_by_them(items: &[Item], role: TheirRole) -> (Vec<u8>, Vec<Seen>) {
    let mut socket = WebSocket::from_raw_socket(Tape::new(Vec::new()), role, None);
    let mut expected = Vec::new();
    for item in items {
        let (message, seen) = match item {
            Item::Message { payload: Payload::Text(text), .. } => {
                (Message::text(text.clone()), Seen::Text(text.clone()))
            }
            Item::Message { payload: Payload::Binary(bytes), .. } => {
                (Message::binary(bytes.clone()), Seen::Binary(bytes.clone()))
            }
            Item::Ping(bytes) => (Message::Ping(bytes.clone().into()), Seen::Ping(bytes.clone())),
            Item::Pong(bytes) => (Message::Pong(bytes.clone().into()), Seen::Pong(bytes.clone())),
        };
        socket.send(message).expect("the tape takes everything");
        expected.push(seen);
    }
    socket.close(None).expect("the tape takes everything");
    socket.flush().expect("the tape takes everything");
    expected.push(Seen::Close(None));
    (socket.into_inner().written, expected)
}

proptest! {
    #[test]
    fn they_read_what_our_client_writes(items in vec(item(), 0..8)) {
        let mut bytes = Vec::new();
        let mut key = keys();
        let expected: Vec<Seen> =
            items.iter().flat_map(|item| write(item, &mut key, &mut bytes)).collect();
        prop_assert_eq!(theirs(bytes, TheirRole::Server), (expected, false));
    }

    #[test]
    fn they_read_what_our_server_writes(items in vec(item(), 0..8)) {
        let mut bytes = Vec::new();
        let expected: Vec<Seen> =
            items.iter().flat_map(|item| write(item, || None, &mut bytes)).collect();
        prop_assert_eq!(theirs(bytes, TheirRole::Client), (expected, false));
    }

    #[test]
    fn our_server_reads_what_they_write(items in vec(item(), 0..8), places in vec(any::<usize>(), 0..8)) {
        let (bytes, expected) = written_by_them(&items, TheirRole::Client);
        prop_assert_eq!(decode(cut(&bytes, &places), Role::Server, &LIMITS), expected);
    }

    #[test]
    fn our_client_reads_what_they_write(items in vec(item(), 0..8), places in vec(any::<usize>(), 0..8)) {
        let (bytes, expected) = written_by_them(&items, TheirRole::Server);
        prop_assert_eq!(decode(cut(&bytes, &places), Role::Client, &LIMITS), expected);
    }

    /// A conversation with a few changed bytes. We may be stricter (shortest lengths, fragments, text
    /// that is bad before it is complete), never laxer, and what we take reads the same.
    #[test]
    fn what_they_refuse_we_refuse(
        items in vec(item(), 1..5),
        changes in vec((any::<usize>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = Vec::new();
        let mut key = keys();
        for item in &items {
            write(item, &mut key, &mut bytes);
        }
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let mut ours = decode([&bytes[..]], Role::Server, &LIMITS);
        let refused = matches!(ours.last(), Some(Seen::Fault(_)));
        if refused {
            ours.pop();
        }
        let (their_seen, they_refused) = theirs(bytes, TheirRole::Server);
        prop_assert!(their_seen.starts_with(&ours), "{:?} is no beginning of {:?}", ours, their_seen);
        prop_assert!(refused || (!they_refused && ours == their_seen));
    }
}

/// A server made of our handshake and encoder, in memory.
struct OurServer {
    request: Vec<u8>,
    answer: Cursor<Vec<u8>>,
}

impl Write for OurServer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.request.extend_from_slice(bytes);
        let limits = handshake::Limits::DEFAULT;
        if let Request::Upgrade(upgrade) = read_request(&self.request, &limits).unwrap() {
            assert_eq!(upgrade.path, "/ws");
            assert_eq!(upgrade.query, Some("x=1"));
            assert_eq!(upgrade.host, "example.test");
            let named: Vec<_> = upgrade.protocols().collect();
            assert_eq!(named, ["corelane.json.v1", "bearer.abc"]);
            upgrade.accept(Some("corelane.json.v1"), self.answer.get_mut());
            encode_frame(self.answer.get_mut(), codec::ws::Opcode::Text, b"welcome");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for OurServer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.answer.read(buffer)
    }
}

#[test]
fn their_client_opens_a_connection_to_our_server() {
    use tungstenite::client::ClientRequestBuilder;
    let request = ClientRequestBuilder::new("ws://example.test/ws?x=1".parse().unwrap())
        .with_sub_protocol("corelane.json.v1")
        .with_sub_protocol("bearer.abc");
    let server = OurServer { request: Vec::new(), answer: Cursor::new(Vec::new()) };
    let (mut socket, response) = tungstenite::client(request, server).expect("a handshake");
    assert_eq!(response.headers()["sec-websocket-protocol"], "corelane.json.v1");
    assert_eq!(socket.read().unwrap(), Message::text("welcome"));
}

#[test]
fn our_client_opens_a_connection_to_their_server() {
    let nonce = *b"sixteen random b";
    let mut request = Vec::new();
    write_client_request(&mut request, "example.test", "/ws?x=1", &[], nonce);
    let mut socket = tungstenite::accept(Tape::new(request)).expect("a handshake");
    socket.send(Message::text("welcome")).unwrap();
    let answer = socket.into_inner().written;
    let response = read_response(&answer, nonce).unwrap().expect("a whole head");
    assert_eq!(response.protocol, None);
    let head_len = response.head_len;
    let seen = decode([&answer[head_len..]], Role::Client, &LIMITS);
    assert_eq!(seen, [Seen::Text("welcome".to_owned())]);
}
