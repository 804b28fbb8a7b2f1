//! A gateway over real sockets, on every driver this machine grants. The test plays the logic service.

mod admission;
mod deflate;
mod delivery;
mod hostile;
mod in_place;
mod life;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::ws::{Opcode, encode_frame_masked};
use proto::v1::{
    Ack, Call, CallReply, DeliveryBatch, Message, SendReply, Target, UpstreamBatch, UpstreamFrame,
    Welcome, call, call_reply::Reply,
};
use serde_json::Value;

use crate::bus::direct::{Calls, Messages};
use crate::config::{GatewayConfig, IoChoice};
use crate::mailbox::Mailbox;
use crate::session::rules::{Access, Mode};
use crate::supervisor::Gateway;

const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    gateway: Gateway,
    calls: Calls,
    called: Vec<Call>,
    messages: Messages,
    mailbox: Arc<Mailbox>,
}

fn start(io: IoChoice, mode: Mode, change: impl FnOnce(&mut GatewayConfig)) -> Server {
    let mut config = GatewayConfig::new("127.0.0.1:0".parse().unwrap(), mode);
    config.shards = 1;
    config.io = io;
    change(&mut config);
    let gateway = Gateway::start(&config).unwrap();
    let (calls, messages) = (Calls(gateway.uplink()), Messages(gateway.uplink()));
    let mailbox = gateway.mailboxes().remove(0);
    Server { gateway, calls, called: Vec::new(), messages, mailbox }
}

/// Runs the test on every way to do I/O that this build and this machine have, side by side.
fn on_every_driver(test: impl Fn(IoChoice) + Sync) {
    use crate::rt::IoDriver;
    let mut drivers = vec![IoChoice::Epoll];
    match IoDriver::detect() {
        IoDriver::IoUring => drivers.push(IoChoice::IoUring),
        _ => eprintln!("io_uring is denied here"),
    }
    match IoDriver::check_glommio() {
        Ok(()) => drivers.push(IoChoice::Glommio),
        Err(error) => eprintln!("not tested on glommio: {error}"),
    }
    std::thread::scope(|scope| {
        for driver in drivers {
            let test = &test;
            std::thread::Builder::new()
                .name(format!("{driver:?}"))
                .spawn_scoped(scope, move || test(driver))
                .unwrap();
        }
    });
}

fn serve() -> Mode {
    Mode::Serve(Access { dev_login: true, ..Access::default() })
}

impl Server {
    fn next_call(&mut self) -> Call {
        let deadline = Instant::now() + PATIENCE;
        while self.called.is_empty() {
            assert!(Instant::now() < deadline, "no call came");
            self.calls.take(&mut self.called, PATIENCE);
        }
        self.called.remove(0)
    }

    fn next_frames(&mut self, count: usize) -> Vec<UpstreamFrame> {
        let mut batches: Vec<UpstreamBatch> = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while batches.iter().map(|batch| batch.frames.len()).sum::<usize>() < count {
            assert!(Instant::now() < deadline, "only {} batches came", batches.len());
            self.messages.take(&mut batches, Duration::from_millis(100));
        }
        batches.into_iter().flat_map(|batch| batch.frames).collect()
    }

    fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.gateway.addr()).unwrap())
    }

    /// A connection that is logged in as `user_id`, and its slot and generation.
    fn log_in(&mut self, user_id: u64) -> (Peer, Call) {
        let mut peer = self.connect();
        peer.send(handshake(&format!("/ws?user_id=u{user_id}")).as_bytes());
        let call = self.next_call();
        self.welcome(&call, user_id);
        peer.upgraded();
        // The answer to a heartbeat tells that the welcome was taken in.
        peer.text(r#"{"cmd":0}"#);
        assert_eq!(peer.next_json()["cmd"], 0);
        (peer, call)
    }

    fn welcome(&self, call: &Call, user_id: u64) {
        let welcome = Welcome { user_id, heartbeat_ms: 30_000, ..Welcome::default() };
        self.mailbox.order(crate::mailbox::Order::Reply(Box::new(CallReply {
            shard: 0,
            slot: call.slot,
            generation: call.generation,
            request_id: 0,
            command: 5,
            reply: Some(Reply::Welcome(welcome)),
        })));
    }

    fn push(&self, call: &Call, conversation: &str, seqs: std::ops::Range<u64>, size: usize) {
        for seq in seqs {
            let message = Message {
                conversation_id: conversation.into(),
                seq,
                msg_type: 1,
                content: vec![b'x'; size].into(),
                ..Message::default()
            };
            let target = Target { message: 0, slot: call.slot, generation: call.generation };
            self.mailbox.deliver(DeliveryBatch {
                messages: vec![message],
                targets: vec![target],
                ..Default::default()
            });
        }
    }

    fn ack(&self, frame: &UpstreamFrame, seq: u64) -> SendReply {
        let send = frame.send.clone().unwrap();
        let ack = Ack {
            request_id: send.request_id,
            client_msg_id: send.client_msg_id,
            seq,
            ..Ack::default()
        };
        SendReply { slot: frame.slot, generation: frame.generation, ack: Some(ack), failure: None }
    }
}

struct Peer {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, bytes: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn upgrade(&mut self, target: &str) {
        self.send(handshake(target).as_bytes());
        self.upgraded();
    }

    /// Reads the 101. With a login by handshake it comes when the login is over.
    fn upgraded(&mut self) {
        while !self.bytes.windows(4).any(|four| four == b"\r\n\r\n") {
            assert!(self.fill() > 0);
        }
        assert!(
            self.bytes.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&self.bytes)
        );
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        self.bytes.drain(..end);
    }

    fn text(&mut self, text: &str) {
        self.send(&text_frame(text));
    }

    fn fill(&mut self) -> usize {
        let mut buffer = [0; 65536];
        let count = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                outcome => break outcome.unwrap(),
            }
        };
        self.bytes.extend_from_slice(&buffer[..count]);
        count
    }

    /// The next frame as opcode and payload; `None` at the end of the stream.
    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = self.cut_frame() {
                return Some(frame);
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }

    fn cut_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, length, ..] = *self.bytes else { return None };
        let (start, len) = match length {
            126 => (4, usize::from(u16::from_be_bytes(self.bytes.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(self.bytes.get(2..10)?.try_into().unwrap()) as usize),
            short => (2, usize::from(short)),
        };
        let payload = self.bytes.get(start..start + len)?.to_vec();
        self.bytes.drain(..start + len);
        Some((first & 0x0f, payload))
    }

    fn next_json(&mut self) -> Value {
        let (opcode, payload) = self.next_frame().expect("a frame");
        assert_eq!(opcode, 1, "{payload:?}");
        serde_json::from_slice(&payload).unwrap()
    }

    fn close_code(&mut self) -> u16 {
        loop {
            match self.next_frame() {
                Some((8, payload)) => return u16::from_be_bytes(payload[..2].try_into().unwrap()),
                Some(_) => {}
                None => panic!("the stream ended without a close"),
            }
        }
    }
}

fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame_masked(&mut frame, Opcode::Text, text.as_bytes(), [5, 6, 7, 8]);
    frame
}

fn send_text(id: u64) -> String {
    format!(r#"{{"cmd":2,"msg_id":"m{id}","conversation_id":"c","payload":{{"content":"x"}}}}"#)
}

/// Where what the whole process has open is counted, no other test may run beside: the test is run again in a process of
/// its own, and `true` says that this is it.
fn alone(test: &str) -> bool {
    const ALONE: &str = "CORELANE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again.args(["--exact", test]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
