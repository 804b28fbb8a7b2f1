//! The turn: a shard on epoll behind real sockets, in lockstep with its clients, so that each step of
//! a scenario is one turn. What the kernel does does not count.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use codec::ws::handshake::{read_response, write_client_request};
use codec::ws::{Opcode, encode_frame_masked};
use gateway::Gateway;
use gateway::bus::direct::{Calls, Messages};
use gateway::config::{GatewayConfig, IoChoice};
use gateway::mailbox::{Mailbox, Order};
use gateway::session::rules::{Access, Mode};
use proto::v1::call_reply::Reply;
use proto::v1::{Ack, CallReply, DeliveryBatch, Message, SendReply, Target, Welcome};

use crate::Scenario;
use crate::session_work::{SEND, limits};

/// Nothing here takes as long, even on a busy machine under an emulator.
const PATIENCE: Duration = Duration::from_secs(30);
/// The client waits so long before its next step: by then the shard has gone back to waiting, and the
/// step is a turn of its own.
const SETTLE: Duration = Duration::from_millis(1);
/// Receivers of one message.
const RECEIVERS: usize = 32;
const NONCE: [u8; 16] = [7; 16];
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![echo(1), echo(16), send_and_ack(), deliver()]
}

fn start(mode: Mode) -> Gateway {
    let mut config = GatewayConfig::new(([127, 0, 0, 1], 0).into(), mode);
    config.shards = 1;
    config.io = IoChoice::Epoll;
    config.limits = limits();
    Gateway::start(&config).expect("a gateway on loopback")
}

fn connect(gateway: &Gateway, target: &str) -> TcpStream {
    let mut stream = knock(gateway, target);
    enter(&mut stream);
    stream
}

/// Asks for an upgrade.
fn knock(gateway: &Gateway, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.addr()).expect("a connection");
    stream.set_nodelay(true).expect("a socket option");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut request = Vec::new();
    write_client_request(&mut request, "127.0.0.1", target, &[], NONCE);
    stream.write_all(&request).expect("a request");
    stream
}

/// Reads the answer.
fn enter(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    while !matches!(read_response(&answer, NONCE), Ok(Some(_))) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a response");
        answer.push(byte[0]);
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame_masked(&mut frame, Opcode::Text, text.as_bytes(), KEY);
    frame
}

/// `frames` messages in one piece, all echoed in one turn.
fn echo(frames: usize) -> Scenario {
    let gateway = start(Mode::Echo);
    let mut stream = connect(&gateway, "/");
    let question = text(&"p".repeat(128)).repeat(frames);
    // Without the mask.
    let mut answer = vec![0; question.len() - 4 * frames];
    let work = move || {
        stream.write_all(&question).expect("room");
        stream.read_exact(&mut answer).expect("the echo");
        std::thread::sleep(SETTLE);
        let _running = &gateway;
    };
    let name = format!("turn: echo a message of 128 bytes, {frames} a turn");
    Scenario::new(name, 200, work).units(frames).of_shard()
}

/// A gateway and the logic service's side of it.
struct Service {
    gateway: Gateway,
    mailbox: Arc<Mailbox>,
    calls: Calls,
    messages: Messages,
}

impl Service {
    fn start() -> Self {
        let gateway = start(Mode::Serve(Access { dev_login: true, ..Access::default() }));
        let mailbox = gateway.mailboxes().remove(0);
        let (calls, messages) = (Calls(gateway.uplink()), Messages(gateway.uplink()));
        Self { gateway, mailbox, calls, messages }
    }

    /// A connection that is logged in, and how it is named as a receiver.
    fn log_in(&mut self, user_id: u64) -> (TcpStream, Target) {
        let mut stream = knock(&self.gateway, &format!("/ws?user_id=u{user_id}"));
        let mut calls = Vec::new();
        self.calls.take(&mut calls, PATIENCE);
        let call = calls.pop().expect("a login");
        let welcome = Welcome { user_id, heartbeat_ms: 30_000, ..Welcome::default() };
        self.mailbox.order(Order::Reply(Box::new(CallReply {
            slot: call.slot,
            generation: call.generation,
            reply: Some(Reply::Welcome(welcome)),
            ..CallReply::default()
        })));
        // The upgrade is answered with the login's outcome.
        enter(&mut stream);
        stream.write_all(&text(r#"{"cmd":0}"#)).expect("room");
        read_frame(&mut stream, &mut Vec::new());
        (stream, Target { message: 0, slot: call.slot, generation: call.generation })
    }
}

/// A frame of less than 64 KiB.
fn read_frame(stream: &mut TcpStream, payload: &mut Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a frame");
    let mut len = usize::from(head[1]);
    if head[1] == 126 {
        stream.read_exact(&mut head).expect("a frame");
        len = u16::from_be_bytes(head).into();
    }
    payload.resize(len, 0);
    stream.read_exact(payload).expect("a frame");
}

/// Up in one turn, its acknowledgement down in another.
fn send_and_ack() -> Scenario {
    let mut service = Service::start();
    let (mut stream, target) = service.log_in(1);
    let question = text(SEND);
    let mut batches = Vec::new();
    let mut answer = Vec::new();
    let work = move || {
        stream.write_all(&question).expect("room");
        batches.clear();
        service.messages.take(&mut batches, PATIENCE);
        std::thread::sleep(SETTLE);
        let ack = Ack {
            request_id: 7,
            client_msg_id: "0190a6f0-7c1e-7a3b-8c55-0242ac120002".into(),
            seq: 1000,
            message_id: 1 << 40,
            created_at_ms: 1_700_000_000_000,
        };
        let reply = SendReply {
            slot: target.slot,
            generation: target.generation,
            ack: Some(ack),
            failure: None,
        };
        service.mailbox.deliver(DeliveryBatch { replies: vec![reply], ..Default::default() });
        read_frame(&mut stream, &mut answer);
        std::thread::sleep(SETTLE);
    };
    Scenario::new("turn: one JSON message up and its acknowledgement down", 200, work).of_shard()
}

/// One message to many connections in one turn.
fn deliver() -> Scenario {
    let mut service = Service::start();
    let (mut streams, targets): (Vec<_>, Vec<_>) =
        (1..=RECEIVERS as u64).map(|user_id| service.log_in(user_id)).unzip();
    let mut seq = 0;
    let mut payload = Vec::new();
    let work = move || {
        seq += 1;
        let message = Message {
            conversation_id: "group_101".into(),
            seq,
            message_id: 1 << 40,
            sender_id: 9,
            sender: "alice".into(),
            client_msg_id: "0190a6f0-7c1e-7a3b-8c55-0242ac120002".into(),
            msg_type: 1,
            content: vec![b'x'; 128].into(),
            created_at_ms: 1_700_000_000_000,
        };
        service.mailbox.deliver(DeliveryBatch {
            messages: vec![message],
            targets: targets.clone(),
            ..Default::default()
        });
        streams.iter_mut().for_each(|stream| read_frame(stream, &mut payload));
        std::thread::sleep(SETTLE);
    };
    let name = format!("turn: deliver a message of 128 bytes, {RECEIVERS} receivers");
    Scenario::new(name, 60, work).units(RECEIVERS).of_shard()
}
