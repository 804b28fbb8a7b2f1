//! What one message looks like on the wire, and whether an answer is the right one.

use anyhow::{Context, bail};
use clap::ValueEnum;
use codec::ws::{self, Event, Opcode, Role};

/// A payload begins with its sequence number, so that no answer can pass for another.
pub const SMALLEST_PAYLOAD_BYTES: usize = 8;

const HEARTBEAT: &[u8] = br#"{"cmd":0}"#;

/// How the client speaks to the server under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Raw bytes; the server sends the same bytes back.
    Tcp,
    /// Binary WebSocket messages; the server sends the same messages back.
    Ws,
    /// The chat server's JSON heartbeat over WebSocket, each connection its own user.
    Corelane,
}

/// One connection's side of an exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Number of the message under way; 0 when there is none.
    pub(super) sequence: u64,
    received_bytes: usize,
    decoder: ws::Decoder,
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self { sequence: 0, received_bytes: 0, decoder: ws::Decoder::new() }
    }

    fn finish(&mut self) {
        self.sequence = 0;
        self.received_bytes = 0;
    }
}

/// Makes the messages of one run and checks their answers.
#[derive(Debug)]
pub(super) struct Wire {
    protocol: Protocol,
    template: Vec<u8>,
    encoded: Vec<u8>,
    limits: ws::Limits,
}

impl Wire {
    pub(super) fn new(protocol: Protocol, payload_bytes: usize) -> anyhow::Result<Self> {
        if payload_bytes < SMALLEST_PAYLOAD_BYTES {
            bail!("a payload has at least {SMALLEST_PAYLOAD_BYTES} bytes, not {payload_bytes}");
        }
        let template = (0..payload_bytes).map(|at| (at * 31 + 7) as u8).collect();
        // Room for an answer of the chat server when the payload is tiny.
        let max_message_bytes = payload_bytes.max(4096);
        let limits = ws::Limits { max_message_bytes, ..ws::Limits::default() };
        Ok(Self { protocol, template, encoded: Vec::new(), limits })
    }

    /// The bytes that start message `sequence` (which must not be 0).
    pub(super) fn message(&mut self, sequence: u64) -> &[u8] {
        self.template[..SMALLEST_PAYLOAD_BYTES].copy_from_slice(&sequence.to_le_bytes());
        // Any key will do against a server of our own; a new one each time keeps the unmasking
        // honest.
        let key = (sequence as u32).wrapping_mul(0x9E37_79B9).to_be_bytes();
        match self.protocol {
            Protocol::Tcp => return &self.template,
            Protocol::Ws => self.encode(Opcode::Binary, None, key),
            Protocol::Corelane => self.encode(Opcode::Text, Some(HEARTBEAT), key),
        }
        &self.encoded
    }

    fn encode(&mut self, opcode: Opcode, payload: Option<&[u8]>, key: [u8; 4]) {
        self.encoded.clear();
        let payload = payload.unwrap_or(&self.template);
        ws::encode_frame_masked(&mut self.encoded, opcode, payload, key);
    }

    /// Takes bytes that arrived on a connection. `Ok(true)` when they complete its message.
    /// What must be sent at once (a pong) is appended to `reply`.
    ///
    /// # Errors
    /// When the answer is not the message sent, nothing was asked, or the frames are malformed.
    pub(super) fn feed(
        &mut self,
        exchange: &mut Exchange,
        bytes: &mut [u8],
        reply: &mut Vec<u8>,
    ) -> anyhow::Result<bool> {
        match self.protocol {
            Protocol::Tcp => self.feed_raw(exchange, bytes),
            Protocol::Ws | Protocol::Corelane => self.feed_frames(exchange, bytes, reply),
        }
    }

    fn feed_raw(&mut self, exchange: &mut Exchange, bytes: &[u8]) -> anyhow::Result<bool> {
        let from = exchange.received_bytes;
        let to = from + bytes.len();
        if exchange.sequence == 0 || to > self.template.len() {
            bail!("the server sent {} bytes that nobody waits for", bytes.len());
        }
        self.template[..SMALLEST_PAYLOAD_BYTES].copy_from_slice(&exchange.sequence.to_le_bytes());
        if bytes != &self.template[from..to] {
            bail!("the echo of message {} differs from what was sent", exchange.sequence);
        }
        exchange.received_bytes = to;
        let complete = to == self.template.len();
        if complete {
            exchange.finish();
        }
        Ok(complete)
    }

    fn feed_frames(
        &mut self,
        exchange: &mut Exchange,
        bytes: &mut [u8],
        reply: &mut Vec<u8>,
    ) -> anyhow::Result<bool> {
        let total = bytes.len();
        let mut consumed = 0;
        let mut complete = false;
        loop {
            let mut view = &mut bytes[consumed..];
            let event = exchange
                .decoder
                .next(&mut view, Role::Client, &self.limits)
                .context("the server's frames are malformed")?;
            consumed = total - view.len();
            let data = match event {
                None => return Ok(complete),
                Some(Event::Binary(data)) => data,
                Some(Event::Text(text)) => text.as_bytes(),
                Some(Event::Ping(data)) => {
                    ws::encode_frame_masked(reply, Opcode::Pong, data, [7, 77, 177, 27]);
                    continue;
                }
                Some(Event::Pong(_)) => continue,
                Some(Event::Close(Some(close))) => {
                    bail!("the server closed with {} {:?}", close.code, close.reason)
                }
                Some(Event::Close(None)) => bail!("the server closed without a reason"),
            };
            if exchange.sequence == 0 {
                bail!("the server sent a message that nobody waits for");
            }
            let heartbeat = self.protocol == Protocol::Corelane;
            check(heartbeat, &mut self.template, exchange.sequence, data)?;
            exchange.finish();
            complete = true;
        }
    }
}

fn check(heartbeat: bool, template: &mut [u8], sequence: u64, data: &[u8]) -> anyhow::Result<()> {
    if heartbeat {
        let answer: serde_json::Value =
            serde_json::from_slice(data).context("the answer to a heartbeat is no JSON")?;
        if answer["cmd"] != 0 || answer["code"] != 0 {
            bail!("a heartbeat was answered with {answer}");
        }
        return Ok(());
    }
    template[..SMALLEST_PAYLOAD_BYTES].copy_from_slice(&sequence.to_le_bytes());
    if data != template {
        bail!("the echo of message {sequence} differs from what was sent");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(sequence: u64) -> Exchange {
        Exchange { sequence, ..Exchange::new() }
    }

    #[test]
    fn a_raw_echo_counts_however_it_is_cut() {
        for cut in 0..=64 {
            let mut wire = Wire::new(Protocol::Tcp, 64).unwrap();
            let mut bytes = wire.message(9).to_vec();
            let mut exchange = asked(9);
            let (head, tail) = bytes.split_at_mut(cut);
            let first = wire.feed(&mut exchange, head, &mut Vec::new()).unwrap();
            assert_eq!(first, cut == 64);
            if !first {
                assert!(wire.feed(&mut exchange, tail, &mut Vec::new()).unwrap());
            }
            assert_eq!(exchange.sequence, 0);
        }
    }

    #[test]
    fn a_wrong_raw_echo_is_found() {
        let mut wire = Wire::new(Protocol::Tcp, 64).unwrap();
        let right = wire.message(9).to_vec();
        for at in 0..64 {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            assert!(wire.feed(&mut asked(9), &mut wrong, &mut Vec::new()).is_err(), "byte {at}");
        }
        assert!(wire.feed(&mut asked(8), &mut right.clone(), &mut Vec::new()).is_err());
        assert!(wire.feed(&mut asked(0), &mut right.clone(), &mut Vec::new()).is_err());
        let mut longer = [right.clone(), right].concat();
        assert!(wire.feed(&mut asked(9), &mut longer, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_frame_is_compared_and_a_ping_answered() {
        let mut wire = Wire::new(Protocol::Ws, 64).unwrap();
        wire.message(5);
        let payload = wire.template.clone();
        let mut bytes = Vec::new();
        ws::encode_frame(&mut bytes, Opcode::Ping, b"there?");
        ws::encode_frame(&mut bytes, Opcode::Binary, &payload);
        let mut reply = Vec::new();
        assert!(wire.feed(&mut asked(5), &mut bytes.clone(), &mut reply).unwrap());
        assert_eq!(reply.len(), 2 + 4 + 6, "one masked pong with the ping's 6 bytes");
        assert!(wire.feed(&mut asked(6), &mut bytes, &mut reply).is_err());
    }

    #[test]
    fn a_close_names_its_code() {
        let mut wire = Wire::new(Protocol::Ws, 64).unwrap();
        let mut bytes = Vec::new();
        ws::encode_close(&mut bytes, 1009, "too big");
        let error = wire.feed(&mut asked(1), &mut bytes, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("1009"), "{error}");
    }

    #[test]
    fn only_a_granted_heartbeat_counts() {
        let mut wire = Wire::new(Protocol::Corelane, 8).unwrap();
        let mut answer = |text: &str| {
            let mut bytes = Vec::new();
            ws::encode_frame(&mut bytes, Opcode::Text, text.as_bytes());
            wire.feed(&mut asked(1), &mut bytes, &mut Vec::new())
        };
        assert!(answer(r#"{ "code": 0, "cmd": 0 }"#).unwrap());
        assert!(answer(r#"{"cmd":0,"code":401}"#).is_err());
        assert!(answer(r#"{"cmd":2,"code":0}"#).is_err());
        assert!(answer("pong").is_err());
    }

    #[test]
    fn a_payload_without_room_for_its_number_is_refused() {
        assert!(Wire::new(Protocol::Tcp, SMALLEST_PAYLOAD_BYTES - 1).is_err());
    }
}
