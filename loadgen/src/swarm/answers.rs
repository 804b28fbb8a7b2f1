//! What servers say to connections that keep no state of their own: only what comes in pieces is kept.

use std::collections::HashMap;

use codec::ws::{self, Event, handshake};
use codec::{Role, binary};

use crate::client::{Incoming, Protocol, binary as frames, json};

const WEBSOCKET: ws::Limits =
    ws::Limits { max_message_bytes: 16 * 1024 * 1024, max_fragments: 1024 };

/// One thing that a server said.
#[derive(Debug)]
pub(crate) enum Said<'a> {
    /// The handshake is accepted.
    Upgraded,
    /// The handshake is refused with this status.
    Status(u16),
    /// An answer or a push.
    Frame(Incoming<'a>),
    /// A close frame with this code (1005: without one).
    Close(u16),
    /// Something a server must not say.
    Nonsense(String),
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The handshake's answer is awaited.
    #[default]
    Head,
    WebSocket,
    Stream,
}

impl Form {
    /// That of a new connection.
    pub(crate) fn first(protocol: Protocol) -> Self {
        if protocol.is_websocket() { Self::Head } else { Self::Stream }
    }
}

/// Reads answers.
pub(crate) struct Answers {
    nonce: [u8; 16],
    /// The first answer to a handshake that was checked; the others are usually the same.
    checked: Vec<u8>,
    heads: HashMap<u32, Vec<u8>>,
    websockets: HashMap<u32, ws::Decoder>,
    streams: HashMap<u32, binary::Decoder>,
}

impl Answers {
    /// Answers to handshakes of this nonce.
    pub(crate) fn new(nonce: [u8; 16]) -> Self {
        Self {
            nonce,
            checked: Vec::new(),
            heads: HashMap::new(),
            websockets: HashMap::new(),
            streams: HashMap::new(),
        }
    }

    /// The connection is over.
    pub(crate) fn forget(&mut self, slot: u32) {
        if !self.heads.is_empty() {
            self.heads.remove(&slot);
        }
        if !self.websockets.is_empty() {
            self.websockets.remove(&slot);
        }
        if !self.streams.is_empty() {
            self.streams.remove(&slot);
        }
    }

    /// Reads what came on a connection; `each` returns whether it wants to hear more.
    pub(crate) fn read(
        &mut self,
        slot: u32,
        form: &mut Form,
        bytes: &mut [u8],
        each: &mut dyn FnMut(Said<'_>) -> bool,
    ) {
        match form {
            Form::Head => self.read_head(slot, form, bytes, each),
            Form::WebSocket => self.read_frames(slot, bytes, each),
            Form::Stream => self.read_stream(slot, bytes, each),
        }
    }

    fn read_head(
        &mut self,
        slot: u32,
        form: &mut Form,
        bytes: &mut [u8],
        each: &mut dyn FnMut(Said<'_>) -> bool,
    ) {
        let known = self.checked.len();
        if known > 0 && bytes.starts_with(&self.checked) && !self.heads.contains_key(&slot) {
            *form = Form::WebSocket;
            if each(Said::Upgraded) {
                self.read_frames(slot, &mut bytes[known..], each);
            }
            return;
        }
        let mut head = self.heads.remove(&slot).unwrap_or_default();
        head.extend_from_slice(bytes);
        match handshake::read_response(&head, self.nonce) {
            Ok(None) => _ = self.heads.insert(slot, head),
            Ok(Some(response)) => {
                let mut rest = head.split_off(response.head_len);
                self.checked = head;
                *form = Form::WebSocket;
                if each(Said::Upgraded) {
                    self.read_frames(slot, &mut rest, each);
                }
            }
            Err(handshake::ResponseError::Status(status)) => _ = each(Said::Status(status)),
            Err(error) => _ = each(Said::Nonsense(format!("HANDSHAKE: {error}"))),
        }
    }

    fn read_frames(
        &mut self,
        slot: u32,
        mut bytes: &mut [u8],
        each: &mut dyn FnMut(Said<'_>) -> bool,
    ) {
        if bytes.is_empty() {
            return;
        }
        let kept = if self.websockets.is_empty() { None } else { self.websockets.remove(&slot) };
        let mut decoder = kept.unwrap_or_default();
        loop {
            let more = match decoder.next(&mut bytes, Role::Client, &WEBSOCKET) {
                Ok(None) => break,
                Ok(Some(event)) => on_event(event, each),
                Err(error) => {
                    each(Said::Nonsense(format!("WEBSOCKET: {error}")));
                    false
                }
            };
            if !more {
                return;
            }
        }
        if !decoder.is_idle() {
            self.websockets.insert(slot, decoder);
        }
    }

    fn read_stream(&mut self, slot: u32, bytes: &[u8], each: &mut dyn FnMut(Said<'_>) -> bool) {
        let mut decoder = self.streams.remove(&slot).unwrap_or_default();
        let limits = binary::Limits::new(Role::Client);
        let mut rest = bytes;
        loop {
            let more = match decoder.next(&mut rest, &limits) {
                Ok(None) => break,
                Ok(Some(frame)) => each(said(frame)),
                Err(error) => {
                    each(Said::Nonsense(format!("PROTOCOL: {error}")));
                    false
                }
            };
            if !more {
                return;
            }
        }
        if !decoder.is_idle() {
            self.streams.insert(slot, decoder);
        }
    }
}

fn on_event(event: Event<'_>, each: &mut dyn FnMut(Said<'_>) -> bool) -> bool {
    match event {
        Event::Text(text) => each(match json::read(text) {
            Ok(incoming) => Said::Frame(incoming),
            Err(error) => Said::Nonsense(format!("PROTOCOL: {error}")),
        }),
        Event::Binary(mut bytes) => {
            let limits = binary::Limits::new(Role::Client);
            loop {
                let more = match binary::next_in_message(&mut bytes, &limits) {
                    Ok(None) => return true,
                    Ok(Some(frame)) => each(said(frame)),
                    Err(error) => each(Said::Nonsense(format!("PROTOCOL: {error}"))),
                };
                if !more {
                    return false;
                }
            }
        }
        Event::Ping(_) | Event::Pong(_) => true,
        Event::Close(close) => each(Said::Close(close.map_or(1005, |close| close.code))),
    }
}

fn said(frame: binary::Frame<'_>) -> Said<'_> {
    match frames::read(frame.kind, frame.body) {
        Ok(incoming) => Said::Frame(incoming),
        Err(error) => Said::Nonsense(format!("PROTOCOL: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::ws::Opcode;
    use codec::ws::handshake::{Limits, Request};

    const NONCE: [u8; 16] = [7; 16];

    fn accepted() -> Vec<u8> {
        let mut request = Vec::new();
        handshake::write_client_request(&mut request, "h", "/ws", &[], NONCE);
        let Ok(Request::Upgrade(upgrade)) = handshake::read_request(&request, &Limits::DEFAULT)
        else {
            panic!("an upgrade")
        };
        let mut out = Vec::new();
        upgrade.accept(None, &mut out);
        out
    }

    fn text(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        ws::encode_frame(&mut out, Opcode::Text, text.as_bytes());
        out
    }

    /// Everything said when the bytes come in pieces of this length.
    fn heard(bytes: &[u8], piece: usize) -> Vec<String> {
        let mut answers = Answers::new(NONCE);
        let mut all = Vec::new();
        for slot in 0..2 {
            let mut form = Form::Head;
            for piece in bytes.chunks(piece) {
                let mut each = |said: Said<'_>| {
                    all.push(format!("{slot} {said:?}"));
                    true
                };
                answers.read(slot, &mut form, &mut piece.to_vec(), &mut each);
            }
            answers.forget(slot);
        }
        all
    }

    #[test]
    fn pieces_say_the_same_as_the_whole() {
        let mut close = Vec::new();
        ws::encode_close(&mut close, 1000, "");
        let bytes = [accepted(), text(r#"{"cmd":0,"code":0}"#), close].concat();
        let whole = heard(&bytes, bytes.len());
        let expected = ["Upgraded", "Frame(Heartbeat)", "Close(1000)"];
        let expected: Vec<String> =
            (0..2).flat_map(|slot| expected.map(|said| format!("{slot} {said}"))).collect();
        assert_eq!(whole, expected);
        for piece in [1, 7, 100] {
            assert_eq!(heard(&bytes, piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn refusals_and_nonsense() {
        let refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(heard(refused, 1000)[0], "0 Status(503)");
        assert!(heard(b"SSH-2.0\r\n\r\n", 1000)[0].contains("HANDSHAKE"));
        let nonsense = [accepted(), text("no JSON")].concat();
        assert!(heard(&nonsense, 1000)[1].contains("PROTOCOL"));
        let mut other = accepted();
        let at = other.len() - 10;
        other[at] ^= 1;
        assert!(heard(&other, 1000)[0].contains("Nonsense"), "a wrong Sec-WebSocket-Accept");
    }
}
