//! Sockets and readiness: the only room with system calls of the event loop.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_linger, set_socket_reuseaddr, set_tcp_nodelay, socket_error,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::clock;

const EVENTS: usize = 64;

/// Readiness of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer sent its last byte, or the connection broke: read on until the end shows.
    pub(super) ended: bool,
}

/// One edge-triggered epoll set.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Watches a socket until it is closed.
    pub(super) fn add(&self, socket: &OwnedFd, token: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// Waits at most `timeout_ns` and fills `ready`. Few events at a time, so that messages that fall due
    /// do not wait behind a long queue.
    pub(super) fn wait(&mut self, timeout_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = clock::timespec(timeout_ns);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
                ended: flags.intersects(
                    epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR,
                ),
            }
        }));
        Ok(())
    }
}

/// Starts a connection; whether it succeeds shows as readiness.
pub(super) fn connect(to: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    set_tcp_nodelay(&socket, true)?;
    if let Some(ip) = from {
        set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(ip, 0))?;
    }
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// The outcome of a connection that has become ready.
pub(super) fn connect_result(socket: &OwnedFd) -> io::Result<()> {
    Ok(socket_error(socket)??)
}

/// Receives without waiting; `None` when nothing is there, `Some(0)` at the end.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::net::recv(socket.as_fd(), buffer, RecvFlags::DONTWAIT) {
        Ok((received, _)) => Ok(Some(received)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends without waiting; `None` when the socket is full.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    match rustix::net::send(socket.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(Some(sent)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes closing end the connection at once, so that tens of thousands leave no TIME_WAIT behind.
pub(super) fn close_abruptly(socket: &OwnedFd) {
    // Only the manner of closing depends on it.
    let _ = set_socket_linger(socket, Some(Duration::ZERO));
}

/// Name of an error for counting, such as `ECONNREFUSED`-like kinds in words.
pub(super) fn error_name(error: &io::Error) -> String {
    format!("{:?}", error.kind())
}
