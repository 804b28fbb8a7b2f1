//! A small chat and echo server on real sockets, honest unless told otherwise. Thread per connection,
//! everything in memory, for a few dozen connections.
#![allow(dead_code, reason = "each test file uses its part")]

mod chat;
mod wire;
mod writer;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::ws::deflate::{Config, Deflater, Inflater, WindowBits};
use codec::ws::handshake::{self, Request};
use codec::ws::{self, Event, Opcode};
use codec::{Role, binary};

use chat::{Chat, ConnId};
pub(crate) use chat::{Misbehave, What};
use wire::{Answer, Ask, Form};
use writer::{Out, Writer};

/// A running server; stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    chat: Mutex<Chat>,
    stopped: AtomicBool,
    /// From connecting to being logged in.
    deadline: Option<Duration>,
}

impl Shared {
    fn chat(&self) -> MutexGuard<'_, Chat> {
        self.chat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub(crate) fn start(misbehave: Option<Misbehave>) -> Self {
        Self::with_deadline(misbehave, None)
    }

    /// A server that closes connections which are not logged in after this time.
    pub(crate) fn with_deadline(misbehave: Option<Misbehave>, deadline: Option<Duration>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            chat: Mutex::new(Chat::new(misbehave)),
            stopped: AtomicBool::new(false),
            deadline,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn ws(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    pub(crate) fn tcp(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Breaks every connection, as a crash would; what is stored stays.
    pub(crate) fn sever(&self) {
        self.shared.chat().sever();
    }

    /// Connections that are logged in.
    pub(crate) fn online(&self) -> usize {
        self.shared.chat().online()
    }

    /// Messages stored.
    pub(crate) fn stored(&self) -> usize {
        self.shared.chat().stored()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.sever();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    stream.set_nodelay(true).expect("a socket");
    let limit = shared.deadline.map(|deadline| Instant::now() + deadline);
    let mut head = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let Some(received @ 1..) = read_until(&mut stream, &mut piece, limit) else { return };
        head.extend_from_slice(&piece[..received]);
        if head.starts_with(&binary::PREFACE) {
            let rest = head.split_off(binary::PREFACE.len());
            return converse(stream, shared, Form::Tcp, None, rest, limit);
        }
        match handshake::read_request(&head, &handshake::Limits::DEFAULT) {
            Ok(Request::NeedMore) => {}
            Ok(Request::Http) => {
                if chat::rest(&mut stream, &mut head).is_none() {
                    return;
                }
            }
            Ok(Request::Upgrade(upgrade)) => {
                let protocol =
                    upgrade.protocols().find(|p| *p == "corelane.json.v1").map(str::to_owned);
                let bearer = upgrade
                    .protocols()
                    .find_map(|p| p.strip_prefix("bearer.tok-").map(str::to_owned));
                let named = upgrade
                    .query
                    .and_then(|query| query.strip_prefix("user_id="))
                    .map(str::to_owned);
                let echo = upgrade.path == "/echo";
                let deflate = upgrade.agree_deflate(&DEFLATE).filter(|_| echo);
                let mut answer = Vec::new();
                upgrade.accept_with(protocol.as_deref(), deflate.as_ref(), &mut answer);
                let rest = head.split_off(upgrade.head_len);
                if stream.write_all(&answer).is_err() {
                    return;
                }
                if echo {
                    return echo_messages(stream, shared, rest, deflate.is_some());
                }
                return converse(stream, shared, Form::Json, named.or(bearer), rest, limit);
            }
            Err(rejection) => panic!("the generator sent a bad handshake: {rejection:?}"),
        }
    }
}

/// Reads, at most until the limit; `None` when it has passed or the connection broke.
fn read_until(stream: &mut TcpStream, piece: &mut [u8], limit: Option<Instant>) -> Option<usize> {
    let left = limit.map(|limit| limit.saturating_duration_since(Instant::now()));
    if left == Some(Duration::ZERO) {
        return None;
    }
    stream.set_read_timeout(left).ok()?;
    stream.read(piece).ok()
}

/// A chat connection from its login to its end.
fn converse(
    stream: TcpStream,
    shared: &Shared,
    mut form: Form,
    user: Option<String>,
    mut bytes: Vec<u8>,
    limit: Option<Instant>,
) {
    let writer = Writer::start(&stream);
    let mut reader = stream;
    let mut decoder = ws::Decoder::new();
    let mut frames = binary::Decoder::new();
    let mut conn: Option<ConnId> = None;
    if let Some(user) = user {
        conn = Some(shared.chat().log_in(&user, Out::new(&writer, form)));
    }
    let mut piece = [0; 16 * 1024];
    loop {
        let mut asks = Vec::new();
        let alive = match form {
            Form::Tcp => wire::decode_stream(&mut frames, &bytes, &mut asks),
            _ => wire::decode_websocket(&mut decoder, &mut bytes, &mut form, &mut asks),
        };
        for ask in asks {
            let out = Out::new(&writer, form);
            match (ask, conn) {
                (Ask::Hello { user }, _) => {
                    conn = Some(shared.chat().log_in(&user, out.clone()));
                    out.send(&Answer::Welcome);
                }
                (Ask::Heartbeat, _) => out.send(&Answer::Heartbeat),
                (ask, Some(conn)) => shared.chat().handle(conn, ask),
                (_, None) => out.send(&Answer::failure(0, "", "UNAUTHENTICATED", false)),
            }
        }
        if !alive {
            writer.say_goodbye(1000);
            break;
        }
        match read_until(&mut reader, &mut piece, limit.filter(|_| conn.is_none())) {
            Some(received @ 1..) => bytes = piece[..received].to_vec(),
            Some(0) => break,
            None => {
                writer.say_goodbye(4201);
                break;
            }
        }
    }
    if let Some(conn) = conn {
        shared.chat().log_out(conn);
    }
    writer.finish();
    let _ = reader.shutdown(Shutdown::Both);
}

/// What the echo server agrees to, when asked.
const DEFLATE: Config = Config { min_bytes: 1, ..Config::DEFAULT };

/// Echoes every data message, unless told to misbehave.
fn echo_messages(mut stream: TcpStream, shared: &Shared, mut bytes: Vec<u8>, deflates: bool) {
    let mut decoder = ws::Decoder::new();
    let (mut inflater, mut deflater) = (Inflater::new(), Deflater::new(&DEFLATE));
    let mut piece = [0; 16 * 1024];
    let mut held: Option<Vec<u8>> = None;
    loop {
        let mut out = Vec::new();
        let mut input = bytes.as_mut_slice();
        loop {
            let (role, limits) = (Role::Server, &ws::Limits::DEFAULT);
            let event = match deflates {
                true => decoder.next_inflating(&mut input, role, limits, &mut inflater, None),
                false => decoder.next(&mut input, role, limits),
            };
            let Some(event) = event.expect("well-formed") else { break };
            let (opcode, payload) = match event {
                Event::Text(text) => (Opcode::Text, text.as_bytes().to_vec()),
                Event::Binary(payload) => (Opcode::Binary, payload.to_vec()),
                Event::Ping(payload) => (Opcode::Pong, payload.to_vec()),
                Event::Pong(_) => continue,
                Event::Close(_) => return,
            };
            let mut frame = Vec::new();
            if deflates && opcode != Opcode::Pong {
                let bits = WindowBits::Fifteen;
                deflater.encode(&mut frame, opcode, &payload, bits, None, None);
            } else {
                ws::encode_frame(&mut frame, opcode, &payload);
            }
            match shared.chat().misbehaves() {
                _ if opcode == Opcode::Pong => out.extend(frame),
                Some(What::LoseAcked | What::DropPush) => {}
                Some(What::Duplicate) => out.extend([frame.clone(), frame].concat()),
                Some(What::Reorder) if held.is_none() => held = Some(frame),
                Some(What::Corrupt) => {
                    let last = frame.len() - 1;
                    frame[last] = b'!';
                    out.extend(frame);
                }
                _ => {
                    out.extend(frame);
                    out.extend(held.take().unwrap_or_default());
                }
            }
        }
        if stream.write_all(&out).is_err() {
            return;
        }
        match stream.read(&mut piece) {
            Ok(received @ 1..) => bytes = piece[..received].to_vec(),
            _ => return,
        }
    }
}

/// A server that sends every byte back.
pub(crate) fn byte_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().expect("a socket");
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    address
}
