//! The rules of one connection: a message, a heartbeat.

use codec::binary::Kind;
use codec::ws::handshake::write_client_request;
use codec::ws::{Opcode, encode_frame_masked};
use gateway::ids::ConnId;
use gateway::limits::Limits;
use gateway::session::rules::{Access, Mode, Rules};
use gateway::session::{Context, Outputs, Phase, Session};
use proto::v1::Welcome;

use crate::Scenario;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A message as the browser SDK sends it.
pub(crate) const SEND: &str = r#"{"cmd":2,"id":7,"msg_id":"0190a6f0-7c1e-7a3b-8c55-0242ac120002","conversation_id":"group_101","payload":{"content":"See you at nine, then. Bring the blue folder.","msg_type":1}}"#;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        on_bytes("session: one JSON message", text(SEND), false),
        on_bytes("session: one JSON heartbeat", text(r#"{"cmd":0}"#), false),
        on_bytes("session: one binary message", binary_send(), true),
        on_bytes("session: one binary heartbeat", vec![Kind::Heartbeat as u8], true),
    ]
}

fn text(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame_masked(&mut frame, Opcode::Text, text.as_bytes(), KEY);
    frame
}

/// SEND with request id, conversation, client id, type and content (codec/PROTOCOL.md).
fn binary_send() -> Vec<u8> {
    let body = [
        &[8, 7, 18, 9][..],
        b"group_101",
        &[26, 36],
        b"0190a6f0-7c1e-7a3b-8c55-0242ac120002",
        &[32, 1, 42, 11],
        b"Hello World",
    ];
    let mut frame = Vec::new();
    codec::binary::encode(&mut frame, Kind::Send, &body.concat());
    frame
}

/// Rules under which nothing is refused for coming too often.
pub(crate) fn limits() -> Limits {
    Limits {
        messages_per_second: 1e9,
        message_burst: 1 << 20,
        requests_per_second: 1e9,
        request_burst: 1 << 20,
        ..Limits::default()
    }
}

fn on_bytes(name: &str, frame: Vec<u8>, on_tcp: bool) -> Scenario {
    let rules = Rules::new(Mode::Serve(Access { dev_login: true, ..Access::default() }), limits());
    let mut session = Session::new(&rules, 0);
    let mut out = Outputs::default();
    let mut now_ms = 0;
    let mut with = move |work: &dyn Fn(&mut Session, &mut Context<'_>)| {
        // Nobody is in a hurry, so nothing is owed for coming too often.
        now_ms += 1000;
        out.debt_ms = 0;
        let id = ConnId { shard: 0, slot: 0, generation: 0 };
        let mut cx = Context { id, now_ms, rules: &rules, deflate: None, out: &mut out };
        work(&mut session, &mut cx);
        let made = (out.bytes.len(), out.messages.len());
        out.bytes.clear();
        out.messages.clear();
        out.calls.clear();
        (session.phase(), made)
    };
    let mut door = Vec::new();
    if on_tcp {
        door.extend(codec::binary::PREFACE);
        codec::binary::encode(&mut door, Kind::Hello, &[10, 1, b't']);
    } else {
        write_client_request(&mut door, "127.0.0.1", "/ws?user_id=alice", &[], [7; 16]);
    }
    with(&|session, cx| session.on_bytes(cx, &mut door.clone()));
    let welcome = Welcome { user_id: 7, ..Welcome::default() };
    let (phase, _) = with(&|session, cx| session.on_welcome(cx, &welcome));
    assert_eq!(phase, Phase::Open);
    let mut buffer = frame.clone();
    let work = move || {
        buffer.copy_from_slice(&frame);
        let input = std::cell::RefCell::new(&mut buffer);
        let (_, made) = with(&|session, cx| session.on_bytes(cx, &mut input.borrow_mut()[..]));
        assert!(made != (0, 0), "a message or an answer");
    };
    Scenario::new(name, 1000, work)
}
