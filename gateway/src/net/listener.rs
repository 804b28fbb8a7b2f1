//! One listening socket per shard, all on the same address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// With 128 a herd of reconnecting clients loses SYNs, and each lost one costs its client a second.
const BACKLOG: i32 = 4096;

/// What the kernel keeps of a connection's bytes that it cannot send yet. Without it a client that does not
/// read costs the kernel up to 4 MiB (`tcp_wmem`) before we hear of it, 40 GB for 10,000 of them. Bytes
/// under way are not counted, so a fast client far away is not slowed.
const UNSENT_MAX_BYTES: u32 = 64 * 1024;

/// Opens `count` listeners on `addr`, one per shard; the kernel spreads connections over them
/// (SO_REUSEPORT). Port 0 picks one free port for all. With `congestion_control` connections are paced by that
/// algorithm (`tcp_allowed_congestion_control`), else by the system's.
///
/// # Errors
/// The address is in use by anyone (also by another process that shares ports), or cannot be bound; the kernel does
/// not have the algorithm, or not for everybody.
pub fn open(
    addr: SocketAddr,
    count: usize,
    congestion_control: Option<&str>,
) -> io::Result<Vec<TcpListener>> {
    // SO_REUSEPORT would let a second server steal half of our connections without a word: the first
    // socket does not share until it listens, and so finds out (binding alone does not collide with a
    // listener under SO_REUSEADDR). The kernel asks for the option when another one binds: the others
    // join it, and at no time is the port anybody else's.
    let first = listen(addr, false, congestion_control)?;
    first.set_reuse_port(true)?;
    let addr = local_addr(&first)?;
    let others = (1..count).map(|_| listen(addr, true, congestion_control));
    std::iter::once(Ok(first)).chain(others).map(|socket| socket.map(Into::into)).collect()
}

fn listen(
    addr: SocketAddr,
    share_port: bool,
    congestion_control: Option<&str>,
) -> io::Result<Socket> {
    let socket = bind(addr, share_port)?;
    // Inherited by every accepted socket: no system call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_MAX_BYTES)?;
    if let Some(name) = congestion_control {
        let explain = |error| no_algorithm(name, &error);
        socket.set_tcp_congestion(name.as_bytes()).map_err(explain)?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Says what may be named; the kernel's own words would be "no such file or directory".
fn no_algorithm(name: &str, error: &io::Error) -> io::Error {
    let path = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let allowed = std::fs::read_to_string(path).unwrap_or_default();
    io::Error::other(format!(
        "the congestion control {name:?} cannot be used ({error}); {path} has: {}",
        allowed.trim()
    ))
}

fn bind(addr: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the listener has no internet address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No system call per connection: what is set on the listener is there on each socket.
    #[test]
    fn accepted_sockets_inherit_the_options() {
        use super::super::sockets::{Accepted, accept};
        let listener = open("127.0.0.1:0".parse().unwrap(), 1, None).unwrap().remove(0);
        let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Accepted::Connection(socket, _) = accept(&listener) else { panic!("not accepted") };
        let socket = Socket::from(socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_MAX_BYTES);
    }

    #[test]
    fn connections_are_paced_by_the_algorithm_asked_for() {
        use super::super::sockets::{Accepted, accept};
        let open = |name| open("127.0.0.1:0".parse().unwrap(), 1, Some(name));
        // Every kernel has it, and lets everybody use it.
        let listener = open("reno").unwrap().remove(0);
        let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Accepted::Connection(socket, _) = accept(&listener) else { panic!("not accepted") };
        let name = Socket::from(socket).tcp_congestion().unwrap();
        assert!(name.starts_with(b"reno"), "{name:?}");
        let error = open("carrier-pigeon").unwrap_err().to_string();
        assert!(error.contains("carrier-pigeon") && error.contains("reno"), "{error}");
    }

    /// 10,000 clients that do not read must not take the machine's memory for sockets.
    #[test]
    fn the_kernel_keeps_little_for_a_reader_that_does_not_read() {
        use super::super::sockets::{Accepted, accept, send};
        let listener = open("127.0.0.1:0".parse().unwrap(), 1, None).unwrap().remove(0);
        let peer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        peer.set_recv_buffer_size(8 * 1024).unwrap();
        peer.connect(&listener.local_addr().unwrap().into()).unwrap();
        let Accepted::Connection(socket, _) = accept(&listener) else { panic!("not accepted") };
        let (mut taken, message) = (0, [0; 1000]);
        loop {
            match send(&socket, &message).unwrap() {
                0 => break,
                count => taken += count,
            }
        }
        assert!(taken < 4 * UNSENT_MAX_BYTES as usize, "{taken} bytes");
    }

    #[test]
    fn shards_share_one_port_but_a_second_server_does_not() {
        let listeners = open("127.0.0.1:0".parse().unwrap(), 2, None).unwrap();
        let addr = listeners[0].local_addr().unwrap();
        assert_eq!(addr, listeners[1].local_addr().unwrap());
        assert_eq!(open(addr, 1, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    /// Also with the one that did not share its port at first.
    #[test]
    fn connections_are_spread_over_all_shards() {
        use super::super::sockets::{Accepted, accept};
        let listeners = open("127.0.0.1:0".parse().unwrap(), 3, None).unwrap();
        let addr = listeners[0].local_addr().unwrap();
        let _peers: Vec<_> =
            (0..300).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        let (mut accepted, begun) = ([0; 3], std::time::Instant::now());
        while accepted.iter().sum::<u32>() < 300 {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{accepted:?} of 300");
            for (listener, count) in listeners.iter().zip(&mut accepted) {
                *count += u32::from(matches!(accept(listener), Accepted::Connection(..)));
            }
        }
        assert!(accepted.iter().all(|&count| count > 30), "{accepted:?}");
    }
}
