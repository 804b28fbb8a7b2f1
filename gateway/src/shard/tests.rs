//! A gateway over real sockets, on every driver this machine grants. The test plays the logic service.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
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

/// Both ways to do I/O, or only epoll where io_uring is denied.
fn on_every_driver(test: impl Fn(IoChoice)) {
    test(IoChoice::Epoll);
    match crate::rt::IoDriver::detect() {
        crate::rt::IoDriver::IoUring => test(IoChoice::IoUring),
        crate::rt::IoDriver::Epoll => eprintln!("io_uring is denied here: only epoll is tested"),
    }
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
        peer.upgrade(&format!("/ws?user_id=u{user_id}"));
        let call = self.next_call();
        self.welcome(&call, user_id);
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

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_message_goes_up_and_its_answer_and_push_come_back() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let (mut alice, _) = server.log_in(1);
        let (mut bob, bob_call) = server.log_in(2);
        alice.text(&send_text(1));
        let frame = server.next_frames(1).remove(0);
        assert_eq!(frame.user_id, 1);
        let message = Message {
            conversation_id: "c".into(),
            seq: 9,
            content: "x".into(),
            ..Message::default()
        };
        let target = Target { message: 0, slot: bob_call.slot, generation: bob_call.generation };
        let replies = vec![server.ack(&frame, 9)];
        server.mailbox.deliver(DeliveryBatch {
            shard: 0,
            replies,
            messages: vec![message],
            targets: vec![target],
        });
        assert_eq!(alice.next_json()["seq"], 9);
        assert_eq!(bob.next_json()["payload"]["seq"], 9);
        server.gateway.stop().unwrap();
    });
}

#[test]
fn large_messages_are_echoed_whole_however_they_arrive() {
    on_every_driver(|io| {
        let server = start(io, Mode::Echo, |config| config.limits.max_message_bytes = 8 << 20);
        let mut peer = server.connect();
        peer.upgrade("/");
        // Larger than the receive buffer and both socket buffers: both tail and resumption are needed.
        let payload: Vec<u8> = (0..6_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut frame = Vec::new();
        encode_frame_masked(&mut frame, Opcode::Binary, &payload, [1, 2, 3, 4]);
        let mut writer = peer.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            for chunk in frame.chunks(100_003) {
                writer.write_all(chunk).unwrap();
            }
        });
        let (opcode, back) = peer.next_frame().unwrap();
        sender.join().unwrap();
        assert_eq!(opcode, 2);
        assert!(back == payload, "the echo differs");
        server.gateway.stop().unwrap();
    });
}

/// FIN together with data makes one edge only: the data must still be worked on, and the end seen.
#[test]
fn the_end_behind_data_is_seen() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let (mut peer, _) = server.log_in(1);
        peer.text(&send_text(1));
        peer.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.next_frames(1).len(), 1);
        let closed = server.next_call();
        assert!(matches!(closed.request, Some(call::Request::Closed(_))));
        assert_eq!(closed.user_id, 1);
        let stats = server.gateway.stats();
        assert_eq!(stats.connections, 0);
        server.gateway.stop().unwrap();
    });
}

/// Answers for a connection that is gone must not reach the one that took its slot.
#[test]
fn a_reused_slot_gets_nothing_of_its_predecessor() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let (old, old_call) = server.log_in(1);
        drop(old);
        assert!(matches!(server.next_call().request, Some(call::Request::Closed(_))));
        let (mut new, new_call) = server.log_in(2);
        assert_eq!(old_call.slot, new_call.slot);
        assert_ne!(old_call.generation, new_call.generation);
        server.push(&old_call, "secret", 1..2, 10);
        server.push(&new_call, "own", 1..2, 10);
        assert_eq!(new.next_json()["conversation_id"], "own");
        server.gateway.stop().unwrap();
    });
}

#[test]
fn a_connection_that_does_not_read_is_marked_lagged_once_and_others_are_unharmed() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.limits.outbound_bytes = 64 * 1024);
        let (mut slow, slow_call) = server.log_in(1);
        let (mut quick, quick_call) = server.log_in(2);
        // More than both socket buffers and the queue hold.
        server.push(&slow_call, "hot", 1..8_001, 4000);
        eventually("pushes are left out", || server.gateway.stats().lagged > 0);
        server.push(&quick_call, "cool", 1..2, 10);
        assert_eq!(quick.next_json()["conversation_id"], "cool");
        let mut last = 0;
        let from_seq = loop {
            let frame = slow.next_json();
            if frame["cmd"] == 10 {
                break frame["from_seq"].as_u64().unwrap();
            }
            assert_eq!(
                frame["payload"]["seq"].as_u64().unwrap(),
                last + 1,
                "no push is skipped without a mark"
            );
            last += 1;
        };
        assert_eq!(from_seq, last + 1);
        // Caught up: pushes come again.
        eventually("the queue is gone", || {
            server.push(&slow_call, "hot", 9_000..9_001, 10);
            let frame = slow.next_json();
            frame["cmd"] == 4 && frame["payload"]["seq"] == 9_000
        });
        server.gateway.stop().unwrap();
    });
}

#[test]
fn a_handshake_that_trickles_ends_at_the_deadline_in_total() {
    on_every_driver(|io| {
        let server = start(io, serve(), |config| config.limits.handshake_ms = 700);
        let mut trickle = server.connect();
        let started = Instant::now();
        let head = handshake("/ws");
        for byte in head.as_bytes() {
            if trickle.stream.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            if started.elapsed() > Duration::from_secs(8) {
                break;
            }
        }
        let mut rest = [0; 1024];
        assert_eq!(trickle.stream.read(&mut rest).unwrap_or(0), 0);
        let mut anonymous = server.connect();
        anonymous.upgrade("/ws");
        assert_eq!(anonymous.close_code(), 4201);
        eventually("both are gone", || {
            server.gateway.stats().connections == 0 || {
                let _ = anonymous.stream.shutdown(Shutdown::Both);
                false
            }
        });
        server.gateway.stop().unwrap();
    });
}

#[test]
fn silence_ends_a_connection_and_any_byte_keeps_it() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| {
            config.limits.heartbeat_ms = 400;
            config.limits.heartbeat_misses = 3;
        });
        let (mut silent, _) = server.log_in(1);
        let (mut alive, _) = server.log_in(2);
        for _ in 0..25 {
            alive.text(r#"{"cmd":0}"#);
            assert_eq!(alive.next_json()["code"], 0);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(silent.close_code(), 4102);
        let closed = server.next_call();
        assert!(matches!(closed.request, Some(call::Request::Closed(_))));
        assert_eq!(closed.user_id, 1, "the silent one ends first");
        server.gateway.stop().unwrap();
    });
}

#[test]
fn what_comes_while_a_login_is_under_way_is_not_lost() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.limits.message_burst = 100);
        let mut peer = server.connect();
        peer.upgrade("/ws?user_id=u1");
        let call = server.next_call();
        (0..50).for_each(|id| peer.text(&send_text(id)));
        std::thread::sleep(Duration::from_millis(100));
        server.welcome(&call, 1);
        let frames = server.next_frames(50);
        let ids: Vec<_> =
            frames.iter().map(|frame| frame.send.as_ref().unwrap().client_msg_id.clone()).collect();
        assert_eq!(ids, (0..50).map(|id| format!("m{id}")).collect::<Vec<_>>());
        server.gateway.stop().unwrap();
    });
}

#[test]
fn a_full_uplink_is_answered_busy() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| {
            config.limits.messages_per_second = 1e6;
            config.limits.message_burst = 1_000_000;
        });
        let (mut peer, _) = server.log_in(1);
        let mut writer = peer.stream.try_clone().unwrap();
        let total = crate::limits::UPLINK_MESSAGES as u64 + 10_000;
        let sender = std::thread::spawn(move || {
            let frames: Vec<u8> = (0..total).flat_map(|id| text_frame(&send_text(id))).collect();
            writer.write_all(&frames).unwrap();
        });
        let frame = peer.next_json();
        assert_eq!(frame["error"]["name"], "BUSY");
        assert!(frame["error"]["retry_after_ms"].as_u64().unwrap() > 0);
        peer.stream.shutdown(Shutdown::Read).unwrap();
        let _ = peer.stream.shutdown(Shutdown::Both);
        let _ = sender.join();
        server.gateway.stop().unwrap();
    });
}

#[test]
fn stopping_answers_what_is_under_way_and_says_goodbye() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let (mut peer, _) = server.log_in(1);
        peer.text(&send_text(1));
        let frame = server.next_frames(1).remove(0);
        let (mailbox, reply) = (Arc::clone(&server.mailbox), server.ack(&frame, 5));
        let logic = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            mailbox.deliver(DeliveryBatch { replies: vec![reply], ..Default::default() });
        });
        let client = std::thread::spawn(move || {
            let ack = peer.next_json();
            let goaway = peer.next_json();
            (ack, goaway, peer.close_code())
        });
        server.gateway.stop().unwrap();
        logic.join().unwrap();
        let (ack, goaway, code) = client.join().unwrap();
        assert_eq!((&ack["seq"], &goaway["cmd"], code), (&5.into(), &11.into(), 4000));
    });
}

#[test]
fn connections_over_the_limit_are_refused_politely() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.max_connections = 2);
        let (mut first, _) = server.log_in(1);
        let (_second, _) = server.log_in(2);
        let mut third = server.connect();
        let mut answer = String::new();
        third.stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        first.text(r#"{"cmd":0}"#);
        assert_eq!(first.next_json()["code"], 0);
        server.gateway.stop().unwrap();
    });
}

/// An idle shard must not spin: the epoll driver does when it trusts its own readiness flag.
#[test]
fn an_idle_shard_takes_no_turns() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let (_peer, _) = server.log_in(1);
        std::thread::sleep(Duration::from_millis(200));
        let before = server.gateway.stats().turns;
        std::thread::sleep(Duration::from_millis(500));
        let turns = server.gateway.stats().turns - before;
        assert!(turns <= 5, "{turns} turns without traffic");
        server.gateway.stop().unwrap();
    });
}

#[test]
fn many_connections_come_and_go_without_a_trace() {
    on_every_driver(|io| {
        let mut server = start(io, Mode::Echo, |_| {});
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        for round in 0..5 {
            let mut peers: Vec<_> = (0..200).map(|_| server.connect()).collect();
            for (index, peer) in peers.iter_mut().enumerate() {
                match index % 3 {
                    0 => peer.upgrade("/"),
                    1 => peer.send(b"GET / HTTP/1.1\r\nHo"),
                    _ => {}
                }
            }
            drop(peers);
            eventually(&format!("round {round} is gone"), || {
                server.gateway.stats().connections == 0
            });
        }
        eventually("all descriptors are closed", || descriptors() <= before + 20);
        let mut calls = Vec::new();
        server.calls.take(&mut calls, Duration::ZERO);
        assert!(calls.is_empty());
        server.gateway.stop().unwrap();
    });
}
