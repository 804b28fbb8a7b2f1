//! Opening many connections: source addresses, handshakes, and not flooding the accept queue.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, bail};
use codec::ws::handshake::{read_response, write_client_request};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};

use super::wire::{Exchange, Protocol, Wire};

/// Connections opened before their handshakes are read: well below any accept queue.
const BATCH: usize = 256;
/// One address has some 28,000 ports to connect from by default; half of them are used.
const CONNECTIONS_PER_ADDRESS: usize = 14_000;
/// A server that lets a handshake wait this long is broken, not slow.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// A 101 response of any server fits.
const MAX_RESPONSE_BYTES: usize = 8192;

/// The server under test.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub address: SocketAddrV4,
    /// How to speak to it.
    pub protocol: Protocol,
    /// Path and query of the WebSocket handshake. `{n}` becomes the connection's number.
    pub path: String,
    /// Number of the first connection, for `{n}`.
    pub first_number: usize,
}

/// Opens `count` connections to an echo server, blocking, each with its handshake done and its
/// server side accepted.
pub(super) fn open(target: &Target, wire: &mut Wire, count: usize) -> anyhow::Result<Vec<OwnedFd>> {
    open_with(target, count, &mut |batch| match target.protocol {
        Protocol::Tcp => confirm_accepted(wire, batch),
        Protocol::Ws | Protocol::Corelane => Ok(()),
    })
}

/// Opens `count` connections, blocking, each with its handshake done; `confirm` sees each batch
/// of them and makes sure that the server has accepted it.
///
/// # Errors
/// When the server refuses one, does not answer, or `confirm` fails.
pub(crate) fn open_with(
    target: &Target,
    count: usize,
    confirm: &mut dyn FnMut(&[OwnedFd]) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<OwnedFd>> {
    let mut sockets: Vec<OwnedFd> = Vec::with_capacity(count);
    while sockets.len() < count {
        let from = sockets.len();
        let to = (from + BATCH).min(count);
        for index in from..to {
            let socket = open_one(target, index)
                .with_context(|| format!("connection {} of {count}", index + 1))?;
            sockets.push(socket);
        }
        let batch = &sockets[from..];
        if target.protocol != Protocol::Tcp {
            for (socket, index) in batch.iter().zip(from..) {
                read_handshake(socket, nonce(target.first_number + index))
                    .with_context(|| format!("handshake of connection {}", index + 1))?;
            }
        }
        confirm(batch)?;
    }
    Ok(sockets)
}

fn open_one(target: &Target, index: usize) -> anyhow::Result<OwnedFd> {
    let number = target.first_number + index;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("socket")?;
    set_tcp_nodelay(&socket, true).context("TCP_NODELAY")?;
    // Closing sends a reset: no port stays in TIME_WAIT, so the next round finds them all free.
    set_socket_linger(&socket, Some(Duration::ZERO)).context("SO_LINGER")?;
    set_socket_timeout(&socket, Timeout::Recv, Some(HANDSHAKE_TIMEOUT)).context("SO_RCVTIMEO")?;
    if target.address.ip().is_loopback() {
        bind(&socket, &SocketAddrV4::new(source_address(number), 0)).context("bind")?;
    }
    connect(&socket, &target.address).with_context(|| format!("connect to {}", target.address))?;
    if target.protocol != Protocol::Tcp {
        let mut request = Vec::with_capacity(256);
        let path = target.path.replace("{n}", &number.to_string());
        let host = target.address.to_string();
        write_client_request(&mut request, &host, &path, &[], nonce(number));
        if send(&socket, &request, SendFlags::NOSIGNAL).context("send")? != request.len() {
            bail!("the handshake did not fit an empty socket buffer");
        }
    }
    Ok(socket)
}

/// 127.0.0.2, 127.0.0.3, ...: every address of 127/8 is this machine's own.
fn source_address(number: usize) -> Ipv4Addr {
    let [_, b, c, d] =
        u32::try_from(number / CONNECTIONS_PER_ADDRESS + 2).unwrap_or(2).to_be_bytes();
    Ipv4Addr::new(127, b, c, d)
}

fn nonce(number: usize) -> [u8; 16] {
    (number as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes()
}

/// Servers accept in order: when the last of a batch echoes, all before it are accepted.
fn confirm_accepted(wire: &mut Wire, batch: &[OwnedFd]) -> anyhow::Result<()> {
    let Some(last) = batch.last() else { return Ok(()) };
    let mut exchange = Exchange::new();
    exchange.sequence = 1;
    let message = wire.message(1);
    if send(last, message, SendFlags::NOSIGNAL).context("send")? != message.len() {
        bail!("the payload does not fit an empty socket buffer");
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let received = receive(last, &mut buffer)?;
        if wire.feed(&mut exchange, &mut buffer[..received], &mut Vec::new())? {
            return Ok(());
        }
    }
}

fn read_handshake(socket: &OwnedFd, nonce: [u8; 16]) -> anyhow::Result<()> {
    let mut bytes = [0; MAX_RESPONSE_BYTES];
    let mut filled = 0;
    loop {
        let received = receive(socket, &mut bytes[filled..])?;
        filled += received;
        if let Some(response) = read_response(&bytes[..filled], nonce)? {
            if response.head_len != filled {
                bail!("{} bytes came unasked behind the handshake", filled - response.head_len);
            }
            return Ok(());
        }
        if filled == bytes.len() {
            bail!("the handshake's answer is longer than {MAX_RESPONSE_BYTES} bytes");
        }
    }
}

/// Waits for bytes on a blocking socket.
///
/// # Errors
/// When the server closes, or is silent for too long.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> anyhow::Result<usize> {
    match recv(socket, &mut *buffer, RecvFlags::empty()) {
        Ok((_, 0)) => bail!("the server closed the connection"),
        Ok((_, received)) => Ok(received),
        Err(Errno::AGAIN) => bail!("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs()),
        Err(error) => Err(error).context("recv"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_spread_over_source_addresses() {
        assert_eq!(source_address(0), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source_address(CONNECTIONS_PER_ADDRESS - 1), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source_address(CONNECTIONS_PER_ADDRESS), Ipv4Addr::new(127, 0, 0, 3));
        assert_eq!(source_address(CONNECTIONS_PER_ADDRESS * 254), Ipv4Addr::new(127, 0, 1, 0));
    }

    #[test]
    fn every_connection_has_its_own_nonce() {
        assert_ne!(nonce(1), nonce(2));
        assert_ne!(nonce(0), nonce(1));
    }
}
