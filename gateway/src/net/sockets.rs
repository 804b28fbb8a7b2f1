//! System calls on one connection. None of them ever waits.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags};

/// What one `recv(2)` brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// That many bytes.
    Bytes(usize),
    /// Nothing is there now.
    WouldBlock,
    /// The peer finished sending, or the connection broke.
    End,
}

/// Receives what is there into `buffer`.
pub fn recv(fd: impl AsFd, buffer: &mut [u8]) -> Received {
    match rustix::net::recv(fd, buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Received::End,
        Ok((count, _)) => Received::Bytes(count),
        Err(Errno::AGAIN | Errno::INTR) => Received::WouldBlock,
        Err(_) => Received::End,
    }
}

/// Bytes for one socket. A flush holds at most one of them per socket: the order of two sends of one
/// socket in one submit is not kept once the first of them falls short.
pub struct Send<'a> {
    /// The socket.
    pub fd: BorrowedFd<'a>,
    /// What to send; stays where it is until the flush returns.
    pub bytes: Bytes<'a>,
}

/// Bytes in one piece or in several.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// In one piece.
    Whole(&'a [u8]),
    /// At most [`PARTS_MAX`] pieces, one behind the other.
    Parts(&'a [IoSlice<'a>]),
}

/// Most pieces that one send takes (UIO_MAXIOV of <linux/uio.h>).
pub const PARTS_MAX: usize = 1024;

impl Bytes<'_> {
    /// Bytes in all pieces together.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Parts(parts) => parts.iter().map(|part| part.len()).sum(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands on all pieces in order.
    pub fn each_part(&self, mut take: impl FnMut(&[u8])) {
        match self {
            Self::Whole(bytes) => take(bytes),
            Self::Parts(parts) => parts.iter().for_each(|part| take(part)),
        }
    }

    /// Sends as many of them as the socket takes now: 0 when it is full.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send_to(&self, fd: impl AsFd) -> io::Result<usize> {
        match self {
            Self::Whole(bytes) => send(fd, bytes),
            Self::Parts(parts) => {
                let mut nothing = SendAncillaryBuffer::new(&mut []);
                outcome(rustix::net::sendmsg(fd, parts, &mut nothing, FLAGS))
            }
        }
    }
}

const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

fn outcome(sent: rustix::io::Result<usize>) -> io::Result<usize> {
    match sent {
        Ok(count) => Ok(count),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Sends as many of `bytes` as the socket takes now: 0 when it is full.
///
/// # Errors
/// The connection is broken.
pub fn send(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    outcome(rustix::net::send(fd, bytes, FLAGS))
}

/// What one `accept4(2)` brought.
#[derive(Debug)]
pub enum Accepted {
    /// A connection and its peer's address.
    Connection(OwnedFd, SocketAddr),
    /// None waits.
    WouldBlock,
    /// A connection died before it was taken; others may wait.
    Gone,
    /// The process or the system is out of descriptors or memory.
    Exhausted(Errno),
}

/// Takes one waiting connection. The socket is left in blocking mode: every call on it says DONTWAIT.
pub fn accept(listener: &TcpListener) -> Accepted {
    match rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC) {
        Ok((fd, addr)) => match addr.and_then(|addr| SocketAddr::try_from(addr).ok()) {
            Some(addr) => Accepted::Connection(fd, addr),
            None => Accepted::Gone,
        },
        Err(Errno::AGAIN) => Accepted::WouldBlock,
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
            Accepted::Exhausted(error)
        }
        Err(_) => Accepted::Gone,
    }
}

/// Ends sending; what was sent before still arrives, then the peer sees the end.
pub fn finish_sending(fd: impl AsFd) {
    // A connection that broke meanwhile needs no farewell.
    let _ = rustix::net::shutdown(fd, Shutdown::Write);
}

/// A descriptor that stands for nothing: given up when there is no other left, so that one more
/// connection can be taken and told.
///
/// # Errors
/// There is none left.
pub fn spare_descriptor() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?)
}

/// Makes the next close send a reset instead of lingering: for connections that are refused.
pub fn reset_on_close(fd: impl AsFd) {
    let _ = rustix::net::sockopt::set_socket_linger(fd, Some(std::time::Duration::ZERO));
}
