//! One device that logs in through two gateways at the same moment: one session stays, the other
//! is closed and told why.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::random::Random;
use crate::interrupt::Interrupt;

/// Pairs of logins in one trial.
const PAIRS: u64 = 100;
/// After so many of which both lived on, enough was seen.
const BOTH_ALIVE_MAX: u64 = 5;
/// After this long two sessions of one device are a fault.
const PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(5);
/// A heartbeat in a masked text frame; the mask is zero.
const HEARTBEAT: &[u8] = b"\x81\x89\0\0\0\0{\"cmd\":0}";

/// What became of the pairs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) pairs: u64,
    /// Both lived on.
    pub(super) both_alive: u64,
    /// None was left.
    pub(super) none_alive: u64,
    /// The loser's connection ended without a close frame.
    pub(super) not_told: u64,
    /// Longest time until one was left.
    pub(super) longest: Duration,
}

impl Tally {
    pub(super) fn reasons(&self) -> Vec<String> {
        let counts = [
            (self.both_alive, "both lived on"),
            (self.none_alive, "none was left"),
            (self.not_told, "the loser was not told"),
        ];
        let bad = counts.iter().filter(|(count, _)| *count > 0);
        bad.map(|(count, what)| format!("{count} pairs: {what}")).collect()
    }
}

/// Runs the pairs one after the other through gateways that are drawn.
///
/// # Errors
/// When a gateway takes no connection.
pub(super) fn run(gateways: &[String], seed: u64, interrupt: &Interrupt) -> anyhow::Result<Tally> {
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    for pair in 0..PAIRS {
        if interrupt.raised() {
            anyhow::bail!("interrupted");
        }
        let count = u32::try_from(gateways.len()).unwrap_or(u32::MAX);
        let order = random.order(count);
        let of = |at: usize| order.get(at).and_then(|number| gateways.get(*number as usize - 1));
        let (Some(first), Some(second)) = (of(0), of(1)) else {
            anyhow::bail!("two gateways are needed")
        };
        let user = format!("twin-{seed:x}-{pair}");
        let gap = Duration::from_micros(random.between(0, 1000));
        one_pair([first, second], &user, gap, &mut tally)?;
        if tally.both_alive >= BOTH_ALIVE_MAX {
            break;
        }
    }
    Ok(tally)
}

fn one_pair(
    gateways: [&String; 2],
    user: &str,
    gap: Duration,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut sessions = [Session::connect(gateways[0])?, Session::connect(gateways[1])?];
    sessions[0].log_in(gateways[0], user)?;
    std::thread::sleep(gap);
    sessions[1].log_in(gateways[1], user)?;
    let begun = Instant::now();
    let mut beats = 0;
    while begun.elapsed() < PATIENCE {
        for session in &mut sessions {
            session.read();
        }
        if sessions.iter().any(|session| session.end.is_some()) {
            break;
        }
        std::thread::sleep(TICK);
        beats += 1;
        // A session that is gone without a word shows when it is written to.
        if beats % 50 == 0 {
            sessions.iter_mut().for_each(Session::beat);
        }
    }
    tally.longest = tally.longest.max(begun.elapsed());
    // The winner has to answer.
    sessions.iter_mut().for_each(Session::beat);
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until && !sessions.iter().all(Session::is_settled) {
        sessions.iter_mut().for_each(Session::read);
        std::thread::sleep(TICK);
    }
    tally.pairs += 1;
    match sessions.iter().filter(|session| session.end.is_none()).count() {
        0 => tally.none_alive += 1,
        1 => {
            let told = sessions.iter().any(|session| session.end == Some(End::Told));
            tally.not_told += u64::from(!told);
        }
        _ => tally.both_alive += 1,
    }
    Ok(())
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By a close frame.
    Told,
    /// Without a word.
    Silent,
}

struct Session {
    stream: TcpStream,
    received: Vec<u8>,
    /// Answers to heartbeats so far.
    answers: usize,
    /// Answers there were before the last heartbeat.
    answers_before: usize,
    end: Option<End>,
}

impl Session {
    fn connect(gateway: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(gateway).with_context(|| format!("cannot connect to {gateway}"))?;
        stream.set_nodelay(true)?;
        let (received, end) = (Vec::new(), None);
        Ok(Self { stream, received, answers: 0, answers_before: 0, end })
    }

    /// The handshake carries the login.
    fn log_in(&mut self, gateway: &str, user: &str) -> anyhow::Result<()> {
        let request = handshake(gateway, user);
        self.stream.write_all(request.as_bytes()).context("cannot log in")?;
        self.stream.set_nonblocking(true).context("cannot log in")
    }

    fn beat(&mut self) {
        self.answers_before = self.answers;
        if self.end.is_none() && self.stream.write_all(HEARTBEAT).is_err() {
            self.read();
            self.end.get_or_insert(End::Silent);
        }
    }

    /// Whether it ended or answered the last heartbeat.
    fn is_settled(&self) -> bool {
        self.end.is_some() || self.answers > self.answers_before
    }

    fn read(&mut self) {
        let mut part = [0; 4096];
        while self.end.is_none() {
            match self.stream.read(&mut part) {
                Ok(0) => self.end = Some(End::Silent),
                Ok(length) => {
                    self.received.extend_from_slice(&part[..length]);
                    let (answers, closed) = look(&self.received);
                    self.answers = answers;
                    self.end = closed.then_some(End::Told);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = Some(End::Silent),
            }
        }
    }
}

/// The handshake of a user, which logs in.
pub(super) fn handshake(gateway: &str, user: &str) -> String {
    format!(
        "GET /ws?user_id={user}&device_id=one HTTP/1.1\r\nHost: {gateway}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Heartbeats answered, and whether a close frame is among the frames after the handshake.
fn look(received: &[u8]) -> (usize, bool) {
    let head = received.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(mut rest) = head.and_then(|at| received.get(at + 4..)) else { return (0, false) };
    let (mut answers, mut closed) = (0, false);
    while let Some((opcode, payload, after)) = frame(rest) {
        closed |= opcode == 8;
        answers += usize::from(payload.windows(8).any(|eight| eight == b"\"cmd\":0,"));
        rest = after;
    }
    (answers, closed)
}

/// One unmasked frame at the front: opcode, payload, what follows.
pub(super) fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, head) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        127 => {
            let long: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            (usize::try_from(u64::from_be_bytes(long)).ok()?, 10)
        }
        short => (usize::from(short), 2),
    };
    let end = head + length;
    Some((first & 0x0f, bytes.get(head..end)?, bytes.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart() {
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        assert_eq!(look(&bytes), (0, false));
        bytes.extend_from_slice(b"\x81\x12{\"cmd\":0,\"code\":0}");
        assert_eq!(look(&bytes), (1, false));
        let welcome = vec![b'x'; 300];
        bytes.extend_from_slice(&[0x81, 126, 1, 44]);
        bytes.extend_from_slice(&welcome);
        assert_eq!(look(&bytes), (1, false));
        bytes.extend_from_slice(b"\x88\x04\x10\x69");
        assert_eq!(look(&bytes), (1, false), "the close frame is not whole yet");
        bytes.extend_from_slice(b"by");
        assert_eq!(look(&bytes), (1, true));
    }

    #[test]
    fn the_heartbeat_is_one_masked_frame() {
        let (opcode, length) = (HEARTBEAT[0] & 0x0f, usize::from(HEARTBEAT[1] & 0x7f));
        assert_eq!((opcode, length), (1, HEARTBEAT.len() - 6));
    }
}
