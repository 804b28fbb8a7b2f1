//! For tests: an address that is nobody else's.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// One on loopback that nobody else is given as long as this process lives: a socket that does not listen keeps it.
/// Servers that are told it can listen there all the same; while none does, connections are refused.
pub(crate) fn own_address() -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    // As servers set it: with it on both sides they may share the address.
    socket.set_reuseaddr(true).expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has ports");
    let address = socket.local_addr().expect("it is bound");
    // Never closed.
    std::mem::forget(socket);
    address
}
