//! tungstenite beside us. We may be stricter (shortest lengths, fragments, text that is bad before its
//! message is complete), never laxer, and what both take reads the same.

use std::io::{self, Cursor, Read, Write};

use codec::ws::{Limits, Role};
use tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::{Case, Outcome, Seen};

/// Below this our limit does not count control frames, and theirs does.
const LEAST_LIMIT: usize = 125;

/// Registered since ("bad gateway"); they do not know it.
const NEWER_CODE: u16 = 1014;

pub(super) fn check(case: &Case, limits: &Limits, ours: &Outcome) {
    if limits.max_message_bytes < LEAST_LIMIT {
        return;
    }
    let mut seen = ours.seen.clone();
    let refused = matches!(seen.last(), Some(Seen::Fault(_)));
    if refused {
        seen.pop();
    }
    let (their_seen, they_refused) = theirs(&case.bytes, case.role, limits);
    if let Some(Seen::Close(Some((NEWER_CODE, _)))) = seen.last() {
        return;
    }
    assert!(their_seen.starts_with(&seen), "{seen:?} is no beginning of {their_seen:?}: {case:?}");
    assert!(refused || (!they_refused && seen == their_seen), "they refuse: {case:?}");
}

/// What tungstenite reads, and whether it refused the stream in the end.
fn theirs(bytes: &[u8], role: Role, limits: &Limits) -> (Vec<Seen>, bool) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(limits.max_message_bytes))
        .max_frame_size(Some(limits.max_message_bytes));
    let role = match role {
        Role::Server => TheirRole::Server,
        Role::Client => TheirRole::Client,
    };
    let mut socket = WebSocket::from_raw_socket(Tape(Cursor::new(bytes)), role, Some(config));
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
                let refused = matches!(&frame, Some((1002, reason)) if reason == REFUSED_CODE);
                if !refused {
                    seen.push(Seen::Close(frame));
                }
                return (seen, refused);
            }
            Ok(Message::Frame(_)) => return (seen, true),
            Err(tungstenite::Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                return (seen, false);
            }
            Err(_) => return (seen, true),
        }
    }
}

/// The reason that tungstenite puts in the place of one that came with a bad code.
const REFUSED_CODE: &str = "Protocol violation";

/// A peer whose bytes are all there from the start; what is written to it is dropped.
struct Tape<'b>(Cursor<&'b [u8]>);

impl Read for Tape<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Tape<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
