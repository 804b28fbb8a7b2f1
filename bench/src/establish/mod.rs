//! Connections as fast as one thread can open them: connected, upgraded, logged in.
//!
//! The generator shares the machine with the server, so it does as little as it can: every
//! request is written beforehand, the heartbeat goes out in the same segment, and instead of an
//! event loop there is a window of connections whose oldest is waited for. By then it has usually
//! answered, so that a connection costs five or six system calls and no wake-up.

mod tokens;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use codec::ws::handshake::{read_response, write_client_request};
use codec::ws::{self, Event, Opcode, Role};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};

pub use tokens::fetch as fetch_tokens;

/// The same for all connections: then all good answers are the same, too.
const NONCE: [u8; 16] = *b"establish client";
const HEARTBEAT: &[u8] = br#"{"cmd":0}"#;
const ANSWER_BYTES: usize = 4096;
/// A server that leaves a login waiting this long is broken, not slow.
const STALL: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// Ports used of each source address, from [`FIRST_PORT`].
const PORTS_PER_ADDRESS: usize = 4_000;
const FIRST_PORT: usize = 20_000;
/// Ports tried when one is taken.
const PORT_TRIES: usize = 10;

/// How the connections of a run log in.
#[derive(Debug, Clone)]
pub enum Login {
    /// Not at all: the run is over when the upgrade is answered.
    None,
    /// By name, `u0`, `u1`, ..., under development login.
    Name,
    /// By access token in the subprotocol, these in turn.
    Tokens(Vec<String>),
}

/// What is sent on each connection, written before the clock starts.
#[derive(Debug)]
pub struct Requests {
    bytes: Vec<Vec<u8>>,
    answered: bool,
}

impl Requests {
    /// The requests of connections `0..count`.
    ///
    /// # Errors
    /// When there is no token to log in with.
    pub fn write(address: SocketAddrV4, login: &Login, count: usize) -> anyhow::Result<Self> {
        let host = address.to_string();
        let mut bytes = Vec::with_capacity(count);
        for number in 0..count {
            let mut request = Vec::with_capacity(1024);
            match login {
                Login::None => write_client_request(&mut request, &host, "/", &[], NONCE),
                Login::Name => {
                    let path = format!("/ws?user_id=u{number}");
                    write_client_request(&mut request, &host, &path, &[], NONCE);
                }
                Login::Tokens(tokens) => {
                    if tokens.is_empty() {
                        bail!("there is no token to log in with");
                    }
                    let bearer = format!("bearer.{}", tokens[number % tokens.len()]);
                    let protocols = ["corelane.json.v1", &bearer];
                    write_client_request(&mut request, &host, "/ws", &protocols, NONCE);
                }
            }
            if !matches!(login, Login::None) {
                // Held back until the login is over: its answer says that it is.
                ws::encode_frame_masked(&mut request, Opcode::Text, HEARTBEAT, [7, 77, 177, 27]);
            }
            request.shrink_to_fit();
            bytes.push(request);
        }
        Ok(Self { bytes, answered: !matches!(login, Login::None) })
    }

    /// How many connections these are for.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bytes.len()
    }
}

/// Connections that are all open and logged in.
#[derive(Debug)]
pub struct Established {
    sockets: Vec<OwnedFd>,
    /// From the first connect to the last answer.
    pub wall: Duration,
}

impl Established {
    /// Ends them all by reset: no port stays in TIME_WAIT, so that the next run finds them free.
    ///
    /// # Errors
    /// When a connection is no longer open on this side.
    pub fn reset(self) -> anyhow::Result<usize> {
        for socket in &self.sockets {
            set_socket_linger(socket, Some(Duration::ZERO)).context("SO_LINGER")?;
        }
        Ok(self.sockets.len())
    }
}

/// Opens a connection for each of the requests `range`, at most `window` of them waiting for
/// their answer at any time.
///
/// # Errors
/// When one is refused, answered wrongly, or not answered within 20 s.
pub fn establish(
    address: SocketAddrV4,
    requests: &Requests,
    range: std::ops::Range<usize>,
    window: usize,
) -> anyhow::Result<Established> {
    let mut sockets = Vec::with_capacity(range.len());
    let mut waiting: VecDeque<(usize, OwnedFd)> = VecDeque::with_capacity(window.max(1));
    let mut reader = Reader::new(requests.answered);
    let started = Instant::now();
    for number in range {
        if waiting.len() >= window.max(1) {
            sockets.extend(reader.oldest(&mut waiting)?);
        }
        let socket = begin(address, number, &requests.bytes[number])
            .with_context(|| format!("connection {number}"))?;
        waiting.push_back((number, socket));
    }
    while !waiting.is_empty() {
        sockets.extend(reader.oldest(&mut waiting)?);
    }
    Ok(Established { sockets, wall: started.elapsed() })
}

fn begin(address: SocketAddrV4, number: usize, request: &[u8]) -> anyhow::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("socket")?;
    if address.ip().is_loopback() {
        bind_source(&socket, number)?;
    }
    // Blocking, but on loopback it is done when the call returns.
    connect(&socket, &address).with_context(|| format!("connect to {address}"))?;
    if send(&socket, request, SendFlags::NOSIGNAL).context("send")? != request.len() {
        bail!("the request did not fit an empty socket buffer");
    }
    Ok(socket)
}

/// A port of our own choice: letting the kernel look for one costs more the more are open.
fn bind_source(socket: &OwnedFd, number: usize) -> anyhow::Result<()> {
    for attempt in 0..PORT_TRIES {
        match bind(socket, &source(number, attempt)) {
            Err(Errno::ADDRINUSE) => {}
            outcome => return outcome.context("bind"),
        }
    }
    bail!("{PORT_TRIES} ports in a row are taken")
}

/// 127.0.16.0, 127.0.16.1, ...: addresses that nothing else uses. A port that is taken is
/// replaced by one beyond those in use.
fn source(number: usize, attempt: usize) -> SocketAddrV4 {
    let [_, _, c, d] = u32::try_from(number / PORTS_PER_ADDRESS).unwrap_or(0).to_be_bytes();
    let port = FIRST_PORT + number % PORTS_PER_ADDRESS + attempt * PORTS_PER_ADDRESS;
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 16 + c, d), u16::try_from(port).unwrap_or(0))
}

/// Reads answers. The first is read with care; the others must be the same bytes, or are read
/// with the same care.
struct Reader {
    answered: bool,
    first: Vec<u8>,
    buffer: Vec<u8>,
}

impl Reader {
    fn new(answered: bool) -> Self {
        Self { answered, first: Vec::new(), buffer: vec![0; ANSWER_BYTES] }
    }

    fn oldest(
        &mut self,
        waiting: &mut VecDeque<(usize, OwnedFd)>,
    ) -> anyhow::Result<Option<OwnedFd>> {
        let Some((number, socket)) = waiting.pop_front() else { return Ok(None) };
        self.read(&socket).with_context(|| format!("connection {number}"))?;
        Ok(Some(socket))
    }

    fn read(&mut self, socket: &OwnedFd) -> anyhow::Result<()> {
        let mut filled = 0;
        loop {
            filled += receive(socket, &mut self.buffer[filled..])?;
            if self.buffer[..filled] == self.first[..] {
                return Ok(());
            }
            let mut bytes = self.buffer[..filled].to_vec();
            if is_complete(&mut bytes, self.answered)? {
                self.first.clear();
                self.first.extend_from_slice(&self.buffer[..filled]);
                return Ok(());
            }
            if filled == self.buffer.len() {
                bail!("the answer is longer than {ANSWER_BYTES} bytes");
            }
        }
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> anyhow::Result<usize> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => bail!("the server closed the connection"),
            Ok((_, received)) => return Ok(received),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let readable = PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN);
                match poll(&mut [readable], Some(&STALL)) {
                    Ok(0) => bail!("no answer within {} s", STALL.tv_sec),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error).context("poll"),
                }
            }
            Err(error) => return Err(error).context("recv"),
        }
    }
}

/// Whether these bytes are a granted upgrade and, when a login is part of it, an answered
/// heartbeat.
fn is_complete(bytes: &mut [u8], answered: bool) -> anyhow::Result<bool> {
    let head_len = match read_response(bytes, NONCE)? {
        None => return Ok(false),
        Some(response) => response.head_len,
    };
    let mut rest = &mut bytes[head_len..];
    let mut decoder = ws::Decoder::new();
    let limits = ws::Limits::default();
    match decoder.next(&mut rest, Role::Client, &limits).context("malformed frames")? {
        None => Ok(!answered && decoder.is_idle()),
        Some(Event::Text(text)) if answered => {
            let answer: serde_json::Value =
                serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))?;
            if answer["cmd"] != 0 || answer["code"] != 0 {
                bail!("the heartbeat was answered with {text}");
            }
            Ok(true)
        }
        Some(Event::Close(close)) => bail!("the server closed: {close:?}"),
        Some(other) => bail!("unexpected: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

    fn answer(text: &str) -> Vec<u8> {
        let key = codec::ws::handshake::read_request(
            &Requests::write(ADDRESS, &Login::None, 1).unwrap().bytes[0],
            &codec::ws::handshake::Limits::default(),
        )
        .map(|request| match request {
            codec::ws::handshake::Request::Upgrade(upgrade) => {
                let mut out = Vec::new();
                upgrade.accept(None, &mut out);
                out
            }
            _ => panic!("no upgrade"),
        });
        let mut bytes = key.unwrap();
        if !text.is_empty() {
            ws::encode_frame(&mut bytes, Opcode::Text, text.as_bytes());
        }
        bytes
    }

    #[test]
    fn every_connection_has_its_own_address_and_port() {
        let mut seen = std::collections::HashSet::new();
        for number in 0..60_000 {
            let source = source(number, 0);
            assert!(source.ip().is_loopback() && source.port() >= 20_000);
            assert!(seen.insert(source), "{source} twice");
        }
        assert_ne!(source(0, 0), source(0, 1));
        assert_ne!(source(PORTS_PER_ADDRESS - 1, PORT_TRIES - 1).port(), 0);
    }

    #[test]
    fn an_answer_is_complete_at_its_last_byte() {
        let mut bytes = answer(r#"{"cmd":0,"code":0}"#);
        for cut in 0..bytes.len() {
            assert!(!is_complete(&mut bytes[..cut].to_vec(), true).unwrap(), "{cut} bytes");
        }
        assert!(is_complete(&mut bytes, true).unwrap());
        assert!(is_complete(&mut answer(""), false).unwrap());
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut closed = answer("");
        ws::encode_close(&mut closed, 4401, "no such token");
        assert!(is_complete(&mut closed, true).unwrap_err().to_string().contains("4401"));
        assert!(is_complete(&mut answer(r#"{"cmd":0,"code":401}"#), true).is_err());
        let mut forbidden = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec();
        assert!(is_complete(&mut forbidden, true).is_err());
    }

    #[test]
    fn requests_differ_by_user_or_token() {
        let names = Requests::write(ADDRESS, &Login::Name, 3).unwrap();
        let text = |at: usize, requests: &Requests| {
            String::from_utf8_lossy(&requests.bytes[at]).into_owned()
        };
        assert!(text(2, &names).starts_with("GET /ws?user_id=u2 HTTP/1.1\r\n"));
        let login = Login::Tokens(vec![String::from("AAA"), String::from("BBB")]);
        let tokens = Requests::write(ADDRESS, &login, 3).unwrap();
        assert!(text(1, &tokens).contains("bearer.BBB") && text(2, &tokens).contains("bearer.AAA"));
        assert!(Requests::write(ADDRESS, &Login::Tokens(Vec::new()), 1).is_err());
    }
}
