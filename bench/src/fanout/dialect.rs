//! What a message looks like on its way out and on its way in.

use anyhow::{Context, bail};
use codec::ws::{self, Event, Opcode, Role};
use serde::Deserialize;

use crate::client::Protocol;

/// A payload begins with its number in hexadecimal digits.
const NUMBER_BYTES: usize = 16;

/// One connection's side.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Messages seen so far, which is also the number of the last one.
    pub(super) seen: u64,
    /// Bytes of the next one that are here (raw TCP).
    partial: usize,
    decoder: ws::Decoder,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self { seen: 0, partial: 0, decoder: ws::Decoder::new() }
    }
}

/// Makes messages and checks deliveries.
#[derive(Debug)]
pub(super) struct Dialect {
    protocol: Protocol,
    conversation: String,
    /// Tells the message ids of this run from those of others on the same database.
    run: String,
    /// The payload of message `numbered`.
    payload: Vec<u8>,
    numbered: u64,
    encoded: Vec<u8>,
    limits: ws::Limits,
}

/// The keys of a chat server's frame that are looked at.
#[derive(Debug, Deserialize)]
struct Frame<'a> {
    cmd: u32,
    #[serde(default)]
    code: u32,
    #[serde(borrow)]
    payload: Option<Payload<'a>>,
}

#[derive(Debug, Deserialize)]
struct Payload<'a> {
    content: Option<&'a str>,
}

const SEND: u32 = 2;
const PUSH: u32 = 4;
const EVENT: u32 = 12;

impl Dialect {
    pub(super) fn new(
        protocol: Protocol,
        payload_bytes: usize,
        conversation: &str,
    ) -> anyhow::Result<Self> {
        if payload_bytes < NUMBER_BYTES {
            bail!("a payload has at least {NUMBER_BYTES} bytes, not {payload_bytes}");
        }
        // Letters only: JSON carries them as they are.
        let payload = (0..payload_bytes).map(|at| b'a' + (at % 26) as u8).collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let mut dialect = Self {
            protocol,
            conversation: conversation.to_owned(),
            run: format!("{:x}-{:x}", now.as_nanos(), std::process::id()),
            payload,
            numbered: 0,
            encoded: Vec::new(),
            limits: ws::Limits::default(),
        };
        dialect.number(1);
        Ok(dialect)
    }

    /// Writes the number into the payload.
    fn number(&mut self, number: u64) {
        if self.numbered != number {
            self.numbered = number;
            self.payload[..NUMBER_BYTES].copy_from_slice(format!("{number:016x}").as_bytes());
        }
    }

    /// The bytes the sender sends.
    pub(super) fn message(&mut self, number: u64) -> &[u8] {
        self.number(number);
        let key = (number as u32).wrapping_mul(0x9E37_79B9).to_be_bytes();
        self.encoded.clear();
        match self.protocol {
            Protocol::Tcp => return &self.payload,
            Protocol::Ws => {
                ws::encode_frame_masked(&mut self.encoded, Opcode::Binary, &self.payload, key);
            }
            Protocol::Corelane => {
                let request = serde_json::json!({
                    "cmd": SEND,
                    "msg_id": format!("{}-{number}", self.run),
                    "conversation_id": self.conversation,
                    "payload": { "content": String::from_utf8_lossy(&self.payload), "msg_type": 1 },
                });
                let request = request.to_string();
                ws::encode_frame_masked(&mut self.encoded, Opcode::Text, request.as_bytes(), key);
            }
        }
        &self.encoded
    }

    /// Takes bytes that arrived on a connection and counts the messages they complete. `sent` is
    /// the number of the newest message.
    ///
    /// # Errors
    /// When something is not the next message, or nothing was sent that it could be.
    pub(super) fn feed(
        &mut self,
        receiver: &mut Receiver,
        bytes: &mut [u8],
        sent: u64,
        sender: bool,
    ) -> anyhow::Result<()> {
        match self.protocol {
            Protocol::Tcp => self.feed_raw(receiver, bytes, sent),
            Protocol::Ws | Protocol::Corelane => self.feed_frames(receiver, bytes, sent, sender),
        }
    }

    fn feed_raw(
        &mut self,
        receiver: &mut Receiver,
        mut bytes: &[u8],
        sent: u64,
    ) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            self.expect(receiver.seen + 1, sent)?;
            let rest = &self.payload[receiver.partial..];
            let (piece, after) = bytes.split_at(rest.len().min(bytes.len()));
            if piece != &rest[..piece.len()] {
                bail!("message {} differs from what was sent", self.numbered);
            }
            receiver.partial += piece.len();
            if receiver.partial == self.payload.len() {
                receiver.partial = 0;
                receiver.seen += 1;
            }
            bytes = after;
        }
        Ok(())
    }

    fn feed_frames(
        &mut self,
        receiver: &mut Receiver,
        bytes: &mut [u8],
        sent: u64,
        sender: bool,
    ) -> anyhow::Result<()> {
        let total = bytes.len();
        let mut consumed = 0;
        loop {
            let mut view = &mut bytes[consumed..];
            let event = receiver
                .decoder
                .next(&mut view, Role::Client, &self.limits)
                .context("the server's frames are malformed")?;
            consumed = total - view.len();
            let data = match event {
                None => return Ok(()),
                Some(Event::Binary(data)) => data,
                Some(Event::Text(text)) => text.as_bytes(),
                Some(Event::Ping(_)) => bail!("the server asks for a sign of life in a short run"),
                Some(Event::Pong(_)) => continue,
                Some(Event::Close(Some(close))) => {
                    bail!("the server closed with {} {:?}", close.code, close.reason)
                }
                Some(Event::Close(None)) => bail!("the server closed without a reason"),
            };
            let number = receiver.seen + 1;
            receiver.seen += u64::from(self.check(data, number, sent, sender)?);
        }
    }

    /// Whether `data` is message `number` (or its acknowledgement); false for what may come
    /// besides.
    fn check(&mut self, data: &[u8], number: u64, sent: u64, sender: bool) -> anyhow::Result<bool> {
        if self.protocol == Protocol::Ws {
            self.expect(number, sent)?;
            return self.compare(data).map(|()| true);
        }
        let text = || String::from_utf8_lossy(data).into_owned();
        let frame: Frame<'_> =
            serde_json::from_slice(data).with_context(|| format!("unexpected frame {}", text()))?;
        match (frame.cmd, sender) {
            (EVENT, _) => Ok(false),
            (SEND, true) if frame.code == 0 => self.expect(number, sent).map(|()| true),
            (PUSH, false) => {
                self.expect(number, sent)?;
                let content = frame.payload.and_then(|payload| payload.content);
                self.compare(content.unwrap_or_default().as_bytes()).map(|()| true)
            }
            _ => bail!("unexpected frame {}", text()),
        }
    }

    fn expect(&mut self, number: u64, sent: u64) -> anyhow::Result<()> {
        if number > sent {
            bail!("something came that was not sent, after message {sent}");
        }
        self.number(number);
        Ok(())
    }

    fn compare(&self, data: &[u8]) -> anyhow::Result<()> {
        if data != self.payload {
            bail!("message {} differs from what was sent", self.numbered);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(protocol: Protocol) -> Dialect {
        Dialect::new(protocol, 32, "room").unwrap()
    }

    fn push(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        ws::encode_frame(&mut bytes, Opcode::Text, text.as_bytes());
        bytes
    }

    #[test]
    fn raw_messages_count_however_they_are_cut() {
        let mut dialect = dialect(Protocol::Tcp);
        let two = [dialect.message(1).to_vec(), dialect.message(2).to_vec()].concat();
        for cut in 0..=two.len() {
            let mut receiver = Receiver::new();
            let mut bytes = two.clone();
            let (head, tail) = bytes.split_at_mut(cut);
            dialect.feed(&mut receiver, head, 2, false).unwrap();
            assert_eq!(receiver.seen, (cut / 32) as u64);
            dialect.feed(&mut receiver, tail, 2, false).unwrap();
            assert_eq!(receiver.seen, 2);
        }
    }

    #[test]
    fn what_is_wrong_early_or_doubled_is_found() {
        for protocol in [Protocol::Tcp, Protocol::Ws] {
            let mut dialect = dialect(protocol);
            let mut deliver = |number: u64, sent, flip: Option<usize>| {
                let mut bytes = Vec::new();
                dialect.message(number);
                match protocol {
                    Protocol::Tcp => bytes.extend_from_slice(&dialect.payload),
                    _ => ws::encode_frame(&mut bytes, Opcode::Binary, &dialect.payload),
                }
                if let Some(at) = flip {
                    let at = bytes.len() - 1 - at;
                    bytes[at] ^= 1;
                }
                dialect.feed(&mut Receiver::new(), &mut bytes, sent, false)
            };
            deliver(1, 1, None).unwrap();
            assert!(deliver(2, 2, None).is_err(), "the first one is missing");
            assert!(deliver(1, 0, None).is_err(), "nothing was sent");
            for at in 0..32 {
                assert!(deliver(1, 1, Some(at)).is_err(), "byte {at} from the end");
            }
        }
    }

    #[test]
    fn a_push_counts_for_receivers_and_an_acknowledgement_for_the_sender() {
        let mut dialect = dialect(Protocol::Corelane);
        dialect.message(1);
        let content = String::from_utf8(dialect.payload.clone()).unwrap();
        let mut feed = |text: &str, sender| {
            let mut receiver = Receiver::new();
            dialect.feed(&mut receiver, &mut push(text), 1, sender).map(|()| receiver.seen)
        };
        let right = format!(
            r#"{{"cmd":4,"conversation_id":"room","payload":{{"seq":1,"content":"{content}"}}}}"#
        );
        assert_eq!(feed(&right, false).unwrap(), 1);
        assert_eq!(feed(r#"{"cmd":2,"code":0,"seq":1}"#, true).unwrap(), 1);
        assert_eq!(feed(r#"{"cmd":12,"payload":{"event":"joined"}}"#, false).unwrap(), 0);
        assert!(feed(&right, true).is_err(), "the sender gets no push of its own");
        assert!(feed(&right.replace("abc", "abd"), false).is_err() || !right.contains("abc"));
        assert!(feed(r#"{"cmd":2,"code":429}"#, true).is_err());
        assert!(feed(r#"{"cmd":10,"conversation_id":"room","from_seq":1}"#, false).is_err());
        assert!(feed("[]", false).is_err());
    }

    #[test]
    fn a_payload_without_room_for_its_number_is_refused() {
        assert!(Dialect::new(Protocol::Tcp, NUMBER_BYTES - 1, "").is_err());
    }
}
