//! Sockets and readiness: the only room with system calls of the event loop.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_reuseaddr, set_tcp_nodelay,
    socket_error,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::clock;

const EVENTS: usize = 64;

/// Readiness of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer sent its last byte, or the connection broke: read on until the end shows.
    pub(crate) ended: bool,
}

/// Token of the timer; no connection has it.
const TIMER: u64 = u64::MAX;

/// One edge-triggered epoll set, and a timer in it: the timeout of `epoll_wait` is in milliseconds, too
/// coarse for due times.
pub(crate) struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed_ns: u64,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Never read: each expiry is an edge of its own, and arming it anew clears it.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), edge)?;
        Ok(Self { epoll, timer, armed_ns: 0, events: Vec::with_capacity(EVENTS) })
    }

    fn arm(&mut self, at_ns: u64) -> io::Result<()> {
        if at_ns != self.armed_ns {
            let time =
                Itimerspec { it_interval: clock::timespec(0), it_value: clock::timespec(at_ns) };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &time)?;
            self.armed_ns = at_ns;
        }
        Ok(())
    }

    /// Watches a socket until it is closed.
    pub(crate) fn add(&self, socket: &OwnedFd, token: u64) -> io::Result<()> {
        self.watch(socket, token, true)
    }

    /// As [`Poller::add`]; whether it can be written is told only on demand, which saves an event.
    pub(crate) fn watch(&self, socket: &OwnedFd, token: u64, writable: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        flags.set(epoll::EventFlags::OUT, writable);
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// Waits for readiness, at most until `until_ns` (not at all when that is past), and fills `ready`. Few
    /// events at a time, so that messages that fall due do not wait behind a long queue.
    pub(crate) fn wait(&mut self, until_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let sleeps = until_ns > clock::now_ns();
        if sleeps {
            self.arm(until_ns)?;
        }
        let no_wait = clock::timespec(0);
        let timeout = (!sleeps).then_some(&no_wait);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let sockets = self.events.iter().filter(|event| event.data.u64() != TIMER);
        ready.extend(sockets.map(|event| {
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
pub(crate) fn connect(
    to: SocketAddr,
    from: Option<SocketAddrV4>,
    receive_bytes: Option<usize>,
) -> io::Result<OwnedFd> {
    let socket = unconnected(to, receive_bytes)?;
    set_tcp_nodelay(&socket, true)?;
    if from.is_some() {
        set_socket_reuseaddr(&socket, true)?;
    }
    start(socket, to, from)
}

/// Starts a connection that sends next to nothing, with as few system calls as possible. `from` must be
/// free: it is not shared with a connection that has just ended.
pub(crate) fn dial(
    to: SocketAddr,
    from: Option<SocketAddrV4>,
    receive_bytes: Option<usize>,
) -> io::Result<OwnedFd> {
    start(unconnected(to, receive_bytes)?, to, from)
}

fn unconnected(to: SocketAddr, receive_bytes: Option<usize>) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(bytes) = receive_bytes {
        // Bounds what the kernel takes for a socket that is not read; only before connecting.
        set_socket_recv_buffer_size(&socket, bytes)?;
    }
    Ok(socket)
}

fn start(socket: OwnedFd, to: SocketAddr, from: Option<SocketAddrV4>) -> io::Result<OwnedFd> {
    if let Some(from) = from {
        rustix::net::bind(&socket, &from)?;
    }
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// The outcome of a connection that has become ready.
pub(crate) fn connect_result(socket: &OwnedFd) -> io::Result<()> {
    Ok(socket_error(socket)??)
}

/// Receives without waiting; `None` when nothing is there, `Some(0)` at the end.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::net::recv(socket.as_fd(), buffer, RecvFlags::DONTWAIT) {
        Ok((received, _)) => Ok(Some(received)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends without waiting; `None` when the socket is full.
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    match rustix::net::send(socket.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(Some(sent)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes closing end the connection at once, so that tens of thousands leave no TIME_WAIT behind.
pub(crate) fn close_abruptly(socket: &OwnedFd) {
    // Only the manner of closing depends on it.
    let _ = set_socket_linger(socket, Some(Duration::ZERO));
}

/// Name of an error for counting, such as `ECONNREFUSED`-like kinds in words.
pub(crate) fn error_name(error: &io::Error) -> String {
    format!("{:?}", error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_timer_wakes_when_its_time_has_come_and_not_before() {
        let mut poller = Poller::new().expect("a poller");
        let mut ready = Vec::new();
        for _ in 0..3 {
            let until_ns = clock::now_ns() + 3 * clock::MILLISECOND_NS;
            poller.wait(until_ns, &mut ready).expect("waits");
            assert!(clock::now_ns() >= until_ns);
            assert!(ready.is_empty());
        }
        poller.wait(0, &mut ready).expect("does not wait");
    }

    #[test]
    fn a_connection_comes_from_the_address_it_is_given() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let from = SocketAddrV4::new([127, 1, 0, 9].into(), 0);
        let socket =
            connect(listener.local_addr().expect("bound"), Some(from), None).expect("connects");
        let (_accepted, peer) = listener.accept().expect("accepts");
        assert_eq!(peer.ip(), std::net::IpAddr::from(*from.ip()));
        let mut poller = Poller::new().expect("a poller");
        poller.add(&socket, 7).expect("watched");
        let mut ready = Vec::new();
        poller.wait(u64::MAX / 2, &mut ready).expect("waits");
        assert_eq!((ready[0].token, ready[0].writable, ready[0].ended), (7, true, false));
        connect_result(&socket).expect("connected");
        assert_eq!(receive(&socket, &mut [0; 8]).expect("nothing there"), None);
    }
}
