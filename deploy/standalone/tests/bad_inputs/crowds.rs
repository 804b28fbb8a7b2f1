//! Crowds of hostile clients: each is let go at the deadline, and one honest pair of users notices
//! nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use codec::binary::PREFACE;
use codec::ws::Opcode;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::common::{Client, DEV, PATIENCE, Server, data_dir};
use crate::peer::{frame, handshake, hello};
use crate::process;

const CROWD: usize = 300;
const DEADLINE: Duration = Duration::from_millis(1_500);
/// Two ticks of the wheel, and what a busy machine adds.
const SLACK: Duration = Duration::from_millis(2_500);

/// One hostile client: bytes it sends one by one, then silence.
struct Crawler {
    stream: TcpStream,
    bytes: Vec<u8>,
    sent: usize,
    closed_after: Option<Duration>,
}

impl Crawler {
    fn new(addr: &str, at_once: &[u8], trickle: Vec<u8>) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(at_once).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, bytes: trickle, sent: 0, closed_after: None }
    }

    fn step(&mut self, since: Instant) {
        if self.closed_after.is_some() {
            return;
        }
        if let Some(byte) = self.bytes.get(self.sent) {
            let _ = self.stream.write(&[*byte]);
            self.sent += 1;
        }
        match self.stream.read(&mut [0; 1024]) {
            Ok(0) => self.closed_after = Some(since.elapsed()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.closed_after = Some(since.elapsed()),
            Ok(_) => {}
        }
    }
}

/// Lets a crowd go its way beside an honest pair, twice: the first time the server learns how much memory
/// such a crowd takes, the second time it must not take more.
fn withstand(name: &str, at_once: &[u8], trickle: &[u8]) {
    let data = data_dir();
    let server = Server::start(data.path(), &[DEV, &["--handshake-ms", "1500"]].concat());
    let mut calm = Calm { alice: server.dev_user("alice"), bob: server.dev_user("bob"), sent: 0 };
    calm.bob.pull("calm", 0, 1);
    let before = process::held(server.pid());
    calm.beside(name, &server, at_once, trickle);
    let warm = process::settled(server.pid());
    calm.beside(name, &server, at_once, trickle);
    let after = process::settled(server.pid());
    println!("{name}: {before:?}, {warm:?}, {after:?}");
    assert_eq!(before.descriptors, after.descriptors, "{name}");
    assert!(after.anonymous_kib <= warm.anonymous_kib + 2_048, "{name}: {warm:?} -> {after:?}");
}

/// The honest pair.
struct Calm {
    alice: Client,
    bob: Client,
    sent: u64,
}

impl Calm {
    fn beside(&mut self, name: &str, server: &Server, at_once: &[u8], trickle: &[u8]) {
        let started = Instant::now();
        let mut crowd: Vec<_> =
            (0..CROWD).map(|_| Crawler::new(&server.addr, at_once, trickle.to_vec())).collect();
        let arrived = started.elapsed();
        while crowd.iter().any(|crawler| crawler.closed_after.is_none()) {
            assert!(started.elapsed() < PATIENCE, "{name}: not all are closed");
            crowd.iter_mut().for_each(|crawler| crawler.step(started));
            self.talk(name);
            std::thread::sleep(Duration::from_millis(50));
        }
        let times = crowd.iter().filter_map(|crawler| crawler.closed_after);
        let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
        println!("{name}: all there after {arrived:?}, closed after {first:?} to {last:?}");
        // The server's clock has milliseconds.
        assert!(first + Duration::from_millis(5) >= DEADLINE, "{name}: {first:?}");
        assert!(last <= arrived + DEADLINE + SLACK, "{name}: {last:?}");
    }

    /// One message, acknowledged and delivered.
    fn talk(&mut self, name: &str) {
        self.sent += 1;
        let ack = self.alice.send("calm", &format!("m{}", self.sent), "calm");
        assert_eq!(ack["seq"], self.sent, "{name}");
        while self.bob.next().unwrap()["payload"]["seq"] != self.sent {}
    }
}

#[test]
fn silent_connections() {
    withstand("silent", b"", b"");
}

#[test]
fn slow_headers() {
    withstand("slow headers", b"GET /ws HTTP/1.1\r\n", &b"X: y\r\n".repeat(1_000));
}

#[test]
fn handshakes_byte_by_byte() {
    withstand("byte by byte", b"", &handshake("/ws?user_id=mallory", &"X: y\r\n".repeat(100)));
}

#[test]
fn upgraded_and_never_logged_in() {
    let trickle =
        frame(Opcode::Text, format!(r#"{{"cmd":0,"x":"{}"}}"#, "y".repeat(2_000)).as_bytes());
    withstand("never logged in", &handshake("/ws", ""), &trickle);
}

#[test]
fn hello_byte_by_byte() {
    let mut long = hello(&"m".repeat(200));
    long.truncate(150);
    withstand("hello byte by byte", &PREFACE, &long);
}

/// 30 members of a busy group that never read: what waits for them is bounded, and the one who reads
/// gets everything.
#[test]
fn receivers_that_never_read() {
    const RECEIVERS: usize = 30;
    const MESSAGES: u64 = 1_500;
    const ROOM_KIB: usize = 64;
    let data = data_dir();
    let server = Server::start(data.path(), &[DEV, &["--outbound-bytes", "65536"]].concat());
    let (mut alice, mut bob) = (server.dev_user("alice"), server.dev_user("bob"));
    bob.pull("busy", 0, 1);
    let deaf: Vec<_> = (0..RECEIVERS).map(|number| deaf(&server, number)).collect();
    let before = process::held(server.pid());
    let content = "x".repeat(4_000);
    let mut most = before;
    for number in 1..=MESSAGES {
        assert_eq!(alice.send("busy", &format!("m{number}"), &content)["seq"], number);
        while bob.next().unwrap()["payload"]["seq"] != number {}
        if number % 100 == 0 {
            let now = process::held(server.pid());
            most.anonymous_kib = most.anonymous_kib.max(now.anonymous_kib);
        }
    }
    println!("{before:?}, at most {most:?}");
    // What waits, twice over for queues that grow by doubling, and the caches of the store.
    let allowed = (RECEIVERS * ROOM_KIB * 2 + 24 * 1_024) as u64;
    assert!(most.anonymous_kib <= before.anonymous_kib + allowed, "{before:?} -> {most:?}");
    drop(deaf);
    assert_eq!(alice.ask(&json!({"cmd":0}))["code"], 0);
}

/// A member of the group with a small receive buffer, who will not read.
fn deaf(server: &Server, number: usize) -> TcpStream {
    let addr: std::net::SocketAddr = server.addr.parse().unwrap();
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&handshake(&format!("/ws?user_id=deaf{number}"), "")).unwrap();
    stream
        .write_all(&frame(Opcode::Text, br#"{"cmd":3,"id":9,"conversation_id":"busy"}"#))
        .unwrap();
    // The answer tells that it is a member.
    let mut seen = Vec::new();
    while !seen.windows(6).any(|six| six == br#""id":9"#) {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    stream
}
