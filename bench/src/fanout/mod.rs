//! One sender, many receivers: what a delivery costs, with every single one checked.
//!
//! Each receiver must see each message once, whole and in order; the sender must see its own copy
//! (a server that broadcasts) or its acknowledgement (the chat server). The next message goes out
//! when one is with everybody, so there are `window` under way at any time.

mod dialect;
mod members;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{RecvFlags, recv};

use crate::client::{Target, send_all};
use dialect::{Dialect, Receiver};
pub use members::join_all;

const EVENTS: usize = 512;
const RECEIVE_BYTES: usize = 64 * 1024;
/// Number of the connection that sends.
const SENDER: usize = 0;
/// What one phase showed.
#[derive(Debug)]
pub struct Phase {
    /// Messages that reached every receiver.
    pub messages: u64,
    /// Messages times receivers; the sender's own copies or acknowledgements are not counted.
    pub deliveries: u64,
    /// From the first message out to the last delivery in.
    pub wall: Duration,
    /// From each message out to its last delivery in, nanoseconds.
    pub complete_ns: Histogram<u64>,
}

/// A message that has not reached everybody yet.
#[derive(Debug)]
struct UnderWay {
    sent_at: Instant,
    missing: usize,
}

/// A sender and its receivers, connected.
pub struct Fanout {
    sockets: Vec<OwnedFd>,
    receivers: Vec<Receiver>,
    dialect: Dialect,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    /// Messages sent so far; the newest has this number.
    sent: u64,
    under_way: VecDeque<UnderWay>,
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fanout").field("connections", &self.sockets.len()).finish()
    }
}

impl Fanout {
    /// Opens one connection that sends and `receivers` that receive. The chat server's members of
    /// `conversation` are expected to have joined before (see [`join_all`]).
    ///
    /// # Errors
    /// When the payload is too small, or the server refuses or does not answer.
    pub fn connect(
        target: &Target,
        receivers: usize,
        payload_bytes: usize,
        conversation: &str,
    ) -> anyhow::Result<Self> {
        let dialect = Dialect::new(target.protocol, payload_bytes, conversation)?;
        let sockets = members::open(target, receivers + 1)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create1")?;
        for (index, socket) in sockets.iter().enumerate() {
            ioctl_fionbio(socket, true).context("FIONBIO")?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, socket, data, epoll::EventFlags::IN).context("epoll_ctl")?;
        }
        let receivers = sockets.iter().map(|_| Receiver::new()).collect();
        let buffer = vec![0; RECEIVE_BYTES];
        let under_way = VecDeque::new();
        Ok(Self { sockets, receivers, dialect, epoll, buffer, sent: 0, under_way })
    }

    /// Sends `messages` messages to everybody, `window` of them under way at any time.
    ///
    /// # Errors
    /// When a delivery is wrong, comes twice, or nothing is delivered for the time of `patience`.
    pub fn exchange(
        &mut self,
        messages: u64,
        window: u64,
        patience: Duration,
    ) -> anyhow::Result<Phase> {
        if window == 0 {
            bail!("at least one message must be under way");
        }
        let mut complete_ns = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
        let started = Instant::now();
        let last = self.sent + messages;
        while self.sent < last && (self.under_way.len() as u64) < window {
            self.send_next()?;
        }
        while !self.under_way.is_empty() {
            if !self.receive_some(patience)? {
                let missing: usize = self.under_way.iter().map(|message| message.missing).sum();
                bail!("{missing} deliveries are missing after {patience:?}");
            }
            while let Some(done) = self.under_way.pop_front_if(|message| message.missing == 0) {
                let nanoseconds = done.sent_at.elapsed().as_nanos();
                complete_ns.saturating_record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
                if self.sent < last {
                    self.send_next()?;
                }
            }
        }
        let deliveries = messages * (self.sockets.len() as u64 - 1);
        Ok(Phase { messages, deliveries, wall: started.elapsed(), complete_ns })
    }

    /// Checks that nothing comes that was not sent.
    ///
    /// # Errors
    /// When something does.
    pub fn stays_quiet(&mut self, how_long: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + how_long;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.receive_some(left)?;
        }
        Ok(())
    }

    fn send_next(&mut self) -> anyhow::Result<()> {
        self.sent += 1;
        let missing = self.sockets.len();
        self.under_way.push_back(UnderWay { sent_at: Instant::now(), missing });
        send_all(&self.sockets[SENDER], self.dialect.message(self.sent)).context("the sender")
    }

    /// Handles what has arrived. False when nothing did in time.
    fn receive_some(&mut self, timeout: Duration) -> anyhow::Result<bool> {
        let timeout = Timespec::try_from(timeout)?;
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll_wait"),
        }
        for event in &events {
            let index = event.data.u64() as usize;
            self.receive(index).with_context(|| format!("connection {index}"))?;
        }
        Ok(true)
    }

    fn receive(&mut self, index: usize) -> anyhow::Result<()> {
        let received = match recv(&self.sockets[index], &mut *self.buffer, RecvFlags::empty()) {
            Ok((_, 0)) => bail!("the server closed the connection"),
            Ok((_, received)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("recv"),
        };
        let receiver = &mut self.receivers[index];
        let before = receiver.seen;
        let bytes = &mut self.buffer[..received];
        self.dialect.feed(receiver, bytes, self.sent, index == SENDER)?;
        // The oldest message under way is the one after those that reached everybody.
        let oldest = self.sent - self.under_way.len() as u64 + 1;
        for number in before + 1..=receiver.seen {
            let message = number
                .checked_sub(oldest)
                .and_then(|at| self.under_way.get_mut(usize::try_from(at).unwrap_or(usize::MAX)));
            message.with_context(|| format!("message {number} came again"))?.missing -= 1;
        }
        Ok(())
    }
}
