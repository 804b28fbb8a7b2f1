//! The loop itself: one epoll set, answers in, next messages out.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::Random;
use super::connect::{self, Target};
use super::wire::{Exchange, Wire};

const EVENTS: usize = 512;
const RECEIVE_BYTES: usize = 64 * 1024;
/// Longest latency the histogram tells apart; nothing waits longer than [`STALL`].
const HIGHEST_NS: u64 = 60_000_000_000;
/// A server that answers nothing for so long is stuck.
const STALL: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Which connection carries the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Any that is free, drawn at random.
    Random,
    /// One after the other, so that N messages touch all N connections.
    Sweep,
}

/// What one phase of exchanges showed.
#[derive(Debug)]
pub struct Phase {
    /// Messages answered.
    pub messages: u64,
    /// From the first message out to the last answer in.
    pub wall: Duration,
    /// From each message out to its whole answer in, nanoseconds.
    pub latency_ns: Histogram<u64>,
}

struct Connection {
    socket: OwnedFd,
    exchange: Exchange,
    sent_at: Instant,
}

/// Open connections and the loop that drives them.
pub struct Client {
    connections: Vec<Connection>,
    wire: Wire,
    epoll: OwnedFd,
    random: Random,
    order: Order,
    cursor: usize,
    sequence: u64,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("connections", &self.connections.len()).finish()
    }
}

impl Client {
    /// A client without connections.
    ///
    /// # Errors
    /// When the payload is too small or the system gives no epoll set.
    pub fn new(target: &Target, payload_bytes: usize, order: Order) -> anyhow::Result<Self> {
        Ok(Self {
            connections: Vec::new(),
            wire: Wire::new(target.protocol, payload_bytes)?,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create1")?,
            random: Random::new(1),
            order,
            cursor: 0,
            sequence: 1,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Opens `count` more connections, handshakes done.
    ///
    /// # Errors
    /// When the server refuses one or does not answer.
    pub fn connect(&mut self, target: &Target, count: usize) -> anyhow::Result<()> {
        let mut target = target.clone();
        target.first_number += self.connections.len();
        for socket in connect::open(&target, &mut self.wire, count)? {
            ioctl_fionbio(&socket, true).context("FIONBIO")?;
            let data = epoll::EventData::new_u64(self.connections.len() as u64);
            epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN).context("epoll_ctl")?;
            let exchange = Exchange::new();
            self.connections.push(Connection { socket, exchange, sent_at: Instant::now() });
        }
        Ok(())
    }

    /// Exchanges `messages` messages, `outstanding` of them under way at any time.
    ///
    /// # Errors
    /// When an answer is wrong, a connection ends, or nothing is answered for 20 s.
    pub fn exchange(&mut self, messages: u64, outstanding: usize) -> anyhow::Result<Phase> {
        let mut latency_ns = latencies()?;
        let started = Instant::now();
        self.run(messages, outstanding, |_, took_ns| {
            latency_ns.saturating_record(took_ns);
            Ok(())
        })?;
        Ok(Phase { messages, wall: started.elapsed(), latency_ns })
    }

    /// Exchanges `messages` messages and tells `answered` of each answer: how many there are by now, and how long this
    /// one took, in nanoseconds.
    pub(super) fn run(
        &mut self,
        messages: u64,
        outstanding: usize,
        mut answered: impl FnMut(u64, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if outstanding == 0 || outstanding > self.connections.len() {
            bail!("{outstanding} outstanding messages need as many connections and at least one");
        }
        let mut sent = 0;
        while sent < messages.min(outstanding as u64) {
            self.send_next()?;
            sent += 1;
        }
        let mut done = 0;
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        while done < messages {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&STALL)) {
                Ok(0) => bail!("no answer for {} s, {done} of {messages} done", STALL.tv_sec),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("epoll_wait"),
            }
            for event in &events {
                let index = event.data.u64() as usize;
                if !self.receive(index).with_context(|| format!("connection {index}"))? {
                    continue;
                }
                done += 1;
                answered(done, nanoseconds(self.connections[index].sent_at))?;
                if sent < messages {
                    self.send_next()?;
                    sent += 1;
                }
            }
        }
        Ok(())
    }

    fn send_next(&mut self) -> anyhow::Result<()> {
        let index = self.pick();
        self.sequence += 1;
        let connection = &mut self.connections[index];
        connection.exchange.sequence = self.sequence;
        connection.sent_at = Instant::now();
        send_all(&connection.socket, self.wire.message(self.sequence))
            .with_context(|| format!("connection {index}"))
    }

    /// A connection without a message under way. There is one: no more messages are
    /// outstanding than there are connections, and the caller is about to send one of them.
    fn pick(&mut self) -> usize {
        loop {
            let index = match self.order {
                Order::Random => self.random.below(self.connections.len()),
                Order::Sweep => {
                    self.cursor = (self.cursor + 1) % self.connections.len();
                    self.cursor
                }
            };
            if self.connections[index].exchange.sequence == 0 {
                return index;
            }
        }
    }

    fn receive(&mut self, index: usize) -> anyhow::Result<bool> {
        let connection = &mut self.connections[index];
        let received = match recv(&connection.socket, &mut *self.buffer, RecvFlags::empty()) {
            Ok((_, 0)) => bail!("the server closed the connection"),
            Ok((_, received)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(error).context("recv"),
        };
        let mut reply = Vec::new();
        let bytes = &mut self.buffer[..received];
        let complete = self.wire.feed(&mut connection.exchange, bytes, &mut reply)?;
        if !reply.is_empty() {
            send_all(&connection.socket, &reply)?;
        }
        Ok(complete)
    }
}

/// An empty histogram of latencies in nanoseconds.
pub(super) fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, HIGHEST_NS, 3)?)
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Messages fit an empty socket buffer; only a large payload waits here.
///
/// # Errors
/// When the server is gone or takes nothing in.
pub(crate) fn send_all(socket: &OwnedFd, mut bytes: &[u8]) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let fd = socket.as_fd();
                let ready = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&STALL));
                if ready.context("poll")? == 0 {
                    bail!("the server takes nothing in for {} s", STALL.tv_sec);
                }
            }
            Err(error) => return Err(error).context("send"),
        }
    }
    Ok(())
}
