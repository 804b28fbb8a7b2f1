//! Messages on which their handler panics, sent by a client that also says whether others get through behind them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::twins::{frame, handshake};
use crate::interrupt::Interrupt;

/// What services of this row panic on: the whole content of a message.
pub(super) const CONTENT: &str = "a handler panics on this";
/// Messages with it of one helping, each in a conversation of its own: they go to several partitions.
pub(super) const SENT: u64 = 3;
/// Whatever comes after so long was not let through in time; a busy machine may need long for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// A message without an answer is sent again after this time.
const AGAIN: Duration = Duration::from_secs(2);
/// Between two messages that must not come in one record.
const APART: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(100);

/// Sends one helping through the gateways in turn. Gives which partition stood still, if one did.
///
/// # Errors
/// When a gateway takes no connection.
pub(super) fn send(
    gateways: &[String],
    user: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<String>> {
    for (number, gateway) in (0..SENT).zip(gateways.iter().cycle()) {
        let conversation = format!("group-{user}-{number}");
        let mut client = Client::log_in(gateway, user)?;
        if !client.say(&conversation, "before", interrupt)? {
            return Ok(Some(format!("nothing in {conversation} was answered")));
        }
        client.send(&conversation, "poison", CONTENT)?;
        thread::sleep(APART);
        if !client.say(&conversation, "after", interrupt)? {
            return Ok(Some(format!("behind a panic, nothing in {conversation} was answered")));
        }
    }
    Ok(None)
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn log_in(gateway: &str, user: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(gateway).with_context(|| format!("cannot connect to {gateway}"))?;
        stream.set_read_timeout(Some(TICK)).context("cannot log in")?;
        let mut client = Self { stream, received: Vec::new() };
        client.stream.write_all(handshake(gateway, user).as_bytes()).context("cannot log in")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(head) = client.received.windows(4).position(|four| four == b"\r\n\r\n") {
                client.received.drain(..head + 4);
                return Ok(client);
            }
            if Instant::now() > deadline {
                bail!("{gateway} does not let {user} in");
            }
            client.read()?;
        }
    }

    fn send(&mut self, conversation: &str, id: &str, content: &str) -> anyhow::Result<()> {
        let text = format!(
            "{{\"cmd\":2,\"msg_id\":\"{id}\",\"conversation_id\":\"{conversation}\",\
             \"payload\":{{\"content\":\"{content}\"}}}}"
        );
        self.stream.write_all(&masked(text.as_bytes())).context("cannot send")
    }

    /// Sends a message until it is stored; false when it is not in time.
    fn say(&mut self, conversation: &str, id: &str, interrupt: &Interrupt) -> anyhow::Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.send(conversation, id, "words")?;
            let again = Instant::now() + AGAIN;
            while Instant::now() < again {
                if interrupt.raised() {
                    bail!("interrupted");
                }
                if self.is_stored(id)? {
                    return Ok(true);
                }
                self.read()?;
            }
        }
        Ok(false)
    }

    /// Looks through the frames that are there.
    fn is_stored(&mut self, id: &str) -> anyhow::Result<bool> {
        loop {
            let Some((opcode, payload, rest)) = frame(&self.received) else { return Ok(false) };
            if opcode == 8 {
                bail!("the gateway ended the connection");
            }
            let found = is_yes(payload, id);
            let left = rest.len();
            self.received.drain(..self.received.len() - left);
            if found {
                return Ok(true);
            }
        }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut part = [0; 4096];
        match self.stream.read(&mut part) {
            Ok(0) => bail!("the gateway ended the connection"),
            Ok(length) => self.received.extend_from_slice(&part[..length]),
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted]
                    .contains(&error.kind()) => {}
            Err(error) => return Err(error).context("cannot read"),
        }
        Ok(())
    }
}

/// Whether a frame says that the message of this id is stored.
fn is_yes(payload: &[u8], id: &str) -> bool {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(payload) else { return false };
    answer["cmd"] == 2 && answer["msg_id"] == id && answer["code"] == 0
}

/// A text frame with a mask of zeros.
fn masked(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(short) if short < 126 => bytes.push(0x80 | short),
        _ => {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(text);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_refusals_and_others() {
        let yes = br#"{"cmd":2,"code":0,"msg_id":"after","seq":2,"message_id":"7"}"#;
        assert!(is_yes(yes, "after") && !is_yes(yes, "before"));
        assert!(!is_yes(br#"{"cmd":2,"code":503,"msg_id":"after"}"#, "after"));
        assert!(!is_yes(br#"{"cmd":4,"code":0,"msg_id":"after"}"#, "after"));
        assert!(!is_yes(b"after", "after"));
    }

    #[test]
    fn a_message_is_one_masked_frame() {
        let bytes = masked(&[b'x'; 200]);
        assert_eq!(bytes[..8], [0x81, 0xfe, 0, 200, 0, 0, 0, 0]);
        assert_eq!(bytes.len(), 208);
        assert_eq!(masked(b"ab"), [0x81, 0x82, 0, 0, 0, 0, b'a', b'b']);
    }
}
