//! A road to a server that can be cut in one direction: requests get through, answers wait.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;

/// How often a closed valve looks whether it was opened.
const TICK: Duration = Duration::from_millis(10);

/// A listener in front of a server. Ends with its value; connections end with their peers.
#[derive(Debug)]
pub(super) struct Valve {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Where the server is; 0 while that is not known.
    target: AtomicU16,
    open: AtomicBool,
    ended: AtomicBool,
}

impl Valve {
    /// Listens on a free port of loopback; connections wait until the server's port is told.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen for the valve")?;
        let port = listener.local_addr().context("cannot listen for the valve")?.port();
        let state = Arc::new(State {
            target: AtomicU16::new(0),
            open: AtomicBool::new(true),
            ended: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Ok(Self { port, state })
    }

    /// Where clients connect.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Tells where the server is.
    pub(super) fn lead_to(&self, port: u16) {
        self.state.target.store(port, Ordering::Relaxed);
    }

    /// Lets answers through, or holds them back.
    pub(super) fn set(&self, open: bool) {
        self.state.open.store(open, Ordering::Relaxed);
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming() {
        if state.ended.load(Ordering::Relaxed) {
            return;
        }
        let target = state.target.load(Ordering::Relaxed);
        let Ok(client) = client else { continue };
        // A server that is away closes the connection of whoever asks for it.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
        let _ = connect(client, server, state);
    }
}

fn connect(client: TcpStream, server: TcpStream, state: &Arc<State>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (requests, to_server) = (client.try_clone()?, server.try_clone()?);
    let (answers, to_client) = (server, client);
    let there = Arc::clone(state);
    let back = Arc::clone(state);
    thread::spawn(move || pump(requests, to_server, || !there.ended.load(Ordering::Relaxed)));
    thread::spawn(move || {
        pump(answers, to_client, || {
            while !back.open.load(Ordering::Relaxed) && !back.ended.load(Ordering::Relaxed) {
                thread::sleep(TICK);
            }
            !back.ended.load(Ordering::Relaxed)
        });
    });
    Ok(())
}

/// Carries bytes one way until either end closes; `may_pass` waits, and says whether to go on.
fn pump(mut from: TcpStream, mut to: TcpStream, may_pass: impl Fn() -> bool) {
    let mut part = vec![0; 64 * 1024];
    loop {
        let length = match from.read(&mut part) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if !may_pass() || to.write_all(&part[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_wait_while_it_is_closed() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let valve = Valve::listen().unwrap();
        valve.lead_to(server.local_addr().unwrap().port());
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, valve.port())).unwrap();
        let (mut peer, _) = server.accept().unwrap();
        valve.set(false);
        client.write_all(b"ask").unwrap();
        let mut asked = [0; 3];
        peer.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"ask");
        peer.write_all(b"yes").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut answer = [0; 3];
        assert!(client.read_exact(&mut answer).is_err());
        valve.set(true);
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"yes");
        drop(peer);
        assert_eq!(client.read(&mut answer).unwrap(), 0, "the end is passed on");
    }
}
