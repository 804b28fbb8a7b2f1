//! For tests: a port that is nobody else's.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// One on loopback that nobody else is given as long as this process lives: a socket that does not listen keeps it.
/// Servers that are told it can listen there all the same, and again after they were killed.
pub(crate) fn own_port() -> u16 {
    let socket = TcpSocket::new_v4().expect("a socket");
    // As servers set it: with it on both sides they may share the port.
    socket.set_reuseaddr(true).expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has ports");
    let port = socket.local_addr().expect("it is bound").port();
    // Never closed.
    std::mem::forget(socket);
    port
}
