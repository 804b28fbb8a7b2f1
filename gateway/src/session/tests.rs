//! The rules of a connection: what goes in, what comes out, with a hand-moved clock.

mod logins;

use super::*;
use crate::limits::Limits;
use codec::ws::{Opcode, Role, encode_frame_masked};
use proto::v1::{Failure, Hello, Welcome, call};
use rules::{Access, Mode};
use serde_json::{Value, json};

const KEY: [u8; 4] = [1, 2, 3, 4];

/// A client in front of one session.
struct Client {
    session: Session,
    rules: Rules,
    deflate: Option<Deflate>,
    out: Outputs,
    now_ms: u32,
}

impl Client {
    fn new(mode: Mode) -> Self {
        let rules = Rules::new(mode, Limits::default());
        let session = Session::new(&rules, 0);
        Self { session, rules, deflate: None, out: Outputs::default(), now_ms: 0 }
    }

    fn serve() -> Self {
        Self::new(Mode::Serve(Access::default()))
    }

    fn with<R>(&mut self, work: impl FnOnce(&mut Session, &mut Context<'_>) -> R) -> R {
        let id = ConnId { shard: 1, slot: 2, generation: 3 };
        let mut cx = Context {
            id,
            now_ms: self.now_ms,
            rules: &self.rules,
            deflate: self.deflate.as_mut(),
            out: &mut self.out,
        };
        work(&mut self.session, &mut cx)
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.with(|session, cx| session.on_bytes(cx, &mut bytes.to_vec()));
    }

    fn text(&mut self, text: &str) {
        let mut frame = Vec::new();
        encode_frame_masked(&mut frame, Opcode::Text, text.as_bytes(), KEY);
        self.feed(&frame);
    }

    fn upgrade(&mut self, target: &str, more: &str) -> String {
        self.feed(handshake(target, more).as_bytes());
        self.head()
    }

    fn head(&mut self) -> String {
        let end = self
            .out
            .bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(self.out.bytes.len(), |at| at + 4);
        String::from_utf8(self.out.bytes.drain(..end).collect()).unwrap()
    }

    /// The frames written so far: opcode and payload.
    fn frames(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut bytes = std::mem::take(&mut self.out.bytes);
        let mut rest = &mut bytes[..];
        let mut frames = Vec::new();
        let mut decoder = codec::ws::Decoder::new();
        let limits = codec::ws::Limits::default();
        while let Some(event) = decoder.next(&mut rest, Role::Client, &limits).unwrap() {
            use codec::ws::Event;
            let (opcode, payload) = match event {
                Event::Text(text) => (1, text.as_bytes().to_vec()),
                Event::Binary(bytes) => (2, bytes.to_vec()),
                Event::Ping(bytes) => (9, bytes.to_vec()),
                Event::Pong(bytes) => (10, bytes.to_vec()),
                Event::Close(frame) => {
                    (8, frame.map_or(vec![], |frame| frame.code.to_be_bytes().to_vec()))
                }
            };
            frames.push((opcode, payload));
        }
        frames
    }

    fn answers(&mut self) -> Vec<Value> {
        let texts = self.frames().into_iter().filter(|(opcode, _)| *opcode == 1);
        texts.map(|(_, text)| serde_json::from_slice(&text).unwrap()).collect()
    }

    fn close_code(&mut self) -> Option<u16> {
        let close = self.frames().into_iter().find(|(opcode, _)| *opcode == 8)?;
        Some(u16::from_be_bytes(close.1.try_into().ok()?))
    }

    fn logged_in() -> Self {
        let mut client = Self::serve();
        client.upgrade("/ws", "");
        client.text(r#"{"cmd":1,"payload":{"token":"t"}}"#);
        client.welcome();
        client.out.bytes.clear();
        client.out.calls.clear();
        client
    }

    fn welcome(&mut self) {
        let welcome = Welcome {
            user_id: 77,
            username: "alice".into(),
            heartbeat_ms: 30_000,
            ..Welcome::default()
        };
        self.with(|session, cx| session.on_welcome(cx, &welcome));
    }
}

fn handshake(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

fn login_asked(client: &Client) -> Option<Hello> {
    match client.out.calls.first()?.request.clone()? {
        call::Request::Login(hello) => Some(hello),
        _ => None,
    }
}

#[test]
fn a_login_by_command_is_answered_and_opens_the_connection() {
    let mut client = Client::serve();
    let head = client.upgrade("/ws", "");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.text(r#"{"cmd":1,"id":5,"payload":{"token":"abc","device_id":"d"}}"#);
    let hello = login_asked(&client).unwrap();
    assert_eq!((hello.token.as_str(), hello.device_id.as_str()), ("abc", "d"));
    assert_eq!(client.session.phase(), Phase::LoggingIn);
    client.welcome();
    assert_eq!(client.session.phase(), Phase::Open);
    assert_eq!(client.session.user_id(), 77);
    let answer = &client.answers()[0];
    assert_eq!(answer["payload"]["user_id"], "77");
    assert_eq!((&answer["cmd"], &answer["id"], &answer["code"]), (&json!(1), &json!(5), &json!(0)));
}

#[test]
fn a_login_by_subprotocol_is_answered_by_the_subprotocol_alone() {
    let mut client = Client::serve();
    let more = "Sec-WebSocket-Protocol: corelane.json.v1, bearer.abc.def\r\n";
    assert_eq!(client.upgrade("/ws", more), "", "the 101 waits for the login");
    assert_eq!(login_asked(&client).unwrap().token, "abc.def");
    client.welcome();
    let head = client.head();
    assert!(head.contains("corelane.json.v1\r\n") && !head.contains("bearer"), "{head}");
    assert_eq!(client.session.phase(), Phase::Open);
    assert!(client.out.bytes.is_empty(), "no frame is sent unasked");
}

#[test]
fn logging_in_by_name_works_only_where_it_is_switched_on() {
    let mut closed = Client::serve();
    closed.upgrade("/ws?user_id=alice", "");
    assert!(login_asked(&closed).is_none());
    let mut open = Client::new(Mode::Serve(Access { dev_login: true, ..Access::default() }));
    open.upgrade("/ws?user_id=alice&device_id=d1", "");
    let hello = login_asked(&open).unwrap();
    assert_eq!(
        (hello.dev_user.as_str(), hello.device_id.as_str(), hello.token.as_str()),
        ("alice", "d1", "")
    );
    let mut foreign = Client::new(Mode::Serve(Access { dev_login: true, ..Access::default() }));
    let head = foreign.upgrade("/ws?user_id=alice", "Origin: http://evil.net\r\n");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

#[test]
fn the_token_in_the_query_works_only_where_it_is_switched_on() {
    for (query_token, asked) in [(false, false), (true, true)] {
        let mut client = Client::new(Mode::Serve(Access { query_token, ..Access::default() }));
        client.upgrade("/ws?token=abc", "");
        assert_eq!(login_asked(&client).is_some(), asked);
    }
}

#[test]
fn what_comes_behind_a_login_waits_for_its_answer() {
    let mut client = Client::serve();
    let mut bytes = handshake("/ws", "Sec-WebSocket-Protocol: bearer.t\r\n").into_bytes();
    encode_frame_masked(&mut bytes, Opcode::Text, br#"{"cmd":0}"#, KEY);
    client.feed(&bytes);
    client.text(r#"{"cmd":3,"conversation_id":"c"}"#);
    assert!(client.out.bytes.is_empty() && client.out.calls.len() == 1);
    client.welcome();
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.answers(), [json!({"cmd":0,"code":0})]);
    assert!(matches!(client.out.calls[1].request, Some(call::Request::Pull(_))));
    assert_eq!(client.out.calls[1].user_id, 77);
}

/// Every way to cut the first bytes leads to the same place.
#[test]
fn a_conversation_cut_anywhere_ends_the_same() {
    let mut whole = handshake("/ws", "Sec-WebSocket-Protocol: corelane.json.v1\r\n").into_bytes();
    encode_frame_masked(&mut whole, Opcode::Text, br#"{"cmd":0}"#, KEY);
    encode_frame_masked(&mut whole, Opcode::Ping, b"hi", KEY);
    let mut reference = Client::serve();
    reference.feed(&whole);
    for cut in 0..=whole.len() {
        let mut client = Client::serve();
        client.feed(&whole[..cut]);
        client.feed(&whole[cut..]);
        assert_eq!(client.out.bytes, reference.out.bytes, "cut at {cut}");
    }
    let mut client = Client::serve();
    whole.iter().for_each(|byte| client.feed(&[*byte]));
    assert_eq!(client.out.bytes, reference.out.bytes);
    assert!(matches!(client.session.buffer, Buffer::Nothing), "an idle connection holds nothing");
}

#[test]
fn a_refused_login_says_why_and_closes_by_range() {
    for (temporary, code) in [(false, 4200), (true, 4100)] {
        let mut client = Client::serve();
        client.upgrade("/ws", "");
        client.text(r#"{"cmd":1,"payload":{"token":"t"}}"#);
        let failure = Failure {
            name: "X".into(),
            code: 401,
            temporary,
            detail: "no".into(),
            ..Failure::default()
        };
        client.with(|session, cx| session.on_login_failed(cx, &failure));
        let frames = client.frames();
        assert_eq!(frames[0].0, 1);
        assert_eq!(frames[1].1, u16::to_be_bytes(code));
        assert_eq!(client.out.verdict, Verdict::Close);
    }
}

#[test]
fn oversized_logins_are_refused_before_anyone_parses_them() {
    let mut client = Client::serve();
    client.upgrade("/ws", "");
    client.text(&json!({"cmd":1,"payload":{"token":"x".repeat(5000)}}).to_string());
    assert!(client.out.calls.is_empty());
    assert_eq!(client.close_code(), Some(4200));
}

#[test]
fn nothing_but_heartbeats_before_login() {
    let mut client = Client::serve();
    client.upgrade("/ws", "");
    for text in [
        r#"{"cmd":2,"msg_id":"m","conversation_id":"c","payload":{"content":"x"}}"#,
        r#"{"cmd":3,"conversation_id":"c"}"#,
        r#"{"cmd":5}"#,
    ] {
        client.text(text);
        let answer = client.answers().remove(0);
        assert_eq!(answer["error"]["name"], "UNAUTHENTICATED", "{answer}");
    }
    client.text(r#"{"cmd":0}"#);
    assert_eq!(client.answers(), [json!({"cmd":0,"code":0})]);
    assert!(client.out.messages.is_empty() && client.out.calls.is_empty());
    assert_eq!(client.session.phase(), Phase::Anonymous);
}

#[test]
fn a_second_login_is_a_violation() {
    let mut client = Client::logged_in();
    client.text(r#"{"cmd":1,"payload":{"token":"t"}}"#);
    assert_eq!(client.close_code(), Some(4901));
}

#[test]
fn messages_leave_with_the_identity_of_the_login() {
    let mut client = Client::logged_in();
    client.text(r#"{"cmd":2,"msg_id":"m","conversation_id":"c","user_id":"1","payload":{"content":"x","sender":"bob"}}"#);
    let frame = &client.out.messages[0];
    assert_eq!((frame.user_id, frame.slot, frame.generation), (77, 2, 3));
}

#[test]
fn bad_requests_get_a_named_error_and_the_connection_stays() {
    let mut client = Client::logged_in();
    let send = |id: &str, conversation: &str, content: &str| {
        json!({"cmd":2,"msg_id":id,"conversation_id":conversation,"payload":{"content":content}})
            .to_string()
    };
    for (text, name) in [
        ("{".to_owned(), "BAD_REQUEST"),
        ("[1]".to_owned(), "BAD_REQUEST"),
        (r#"{"cmd":77}"#.to_owned(), "UNKNOWN_COMMAND"),
        (send("", "c", "x"), "BAD_REQUEST"),
        (send(&"m".repeat(65), "c", "x"), "BAD_REQUEST"),
        (send("m", "", "x"), "BAD_REQUEST"),
        (send("m", &"c".repeat(65), "x"), "BAD_REQUEST"),
        (send("m", "a\u{0}b", "x"), "BAD_REQUEST"),
        (send("m", "c", &"x".repeat(4097)), "TOO_LARGE"),
        (r#"{"cmd":2,"msg_id":"m","conversation_id":"c","payload":{"content":"x","msg_type":0}}"#.to_owned(), "BAD_REQUEST"),
        (r#"{"cmd":3,"conversation_id":""}"#.to_owned(), "BAD_REQUEST"),
    ] {
        client.text(&text);
        let answers = client.answers();
        assert_eq!(answers.len(), 1, "{text}");
        assert_eq!(answers[0]["error"]["name"], name, "{text}");
        assert_ne!(answers[0]["code"], 0);
        assert_eq!(client.session.phase(), Phase::Open);
    }
    assert!(client.out.messages.is_empty() && client.out.calls.is_empty());
}

#[test]
fn the_rate_limit_answers_with_a_delay_and_nothing_goes_upstream() {
    let mut client = Client::logged_in();
    let send = |n: u32| {
        json!({"cmd":2,"msg_id":n.to_string(),"conversation_id":"c","payload":{"content":"x"}})
            .to_string()
    };
    (0..6).for_each(|n| client.text(&send(n)));
    assert_eq!(client.out.messages.len(), 5);
    let refused = client.answers().remove(0);
    assert_eq!(refused["error"]["name"], "RATE_LIMITED");
    assert_eq!((&refused["msg_id"], &refused["error"]["temporary"]), (&json!("5"), &json!(true)));
    let delay = u32::try_from(refused["error"]["retry_after_ms"].as_u64().unwrap()).unwrap();
    client.now_ms += delay;
    client.text(&send(5));
    assert_eq!(client.out.messages.len(), 6);
}

#[test]
fn control_frames_are_answered() {
    let mut client = Client::logged_in();
    let mut bytes = Vec::new();
    encode_frame_masked(&mut bytes, Opcode::Ping, b"abc", KEY);
    encode_frame_masked(&mut bytes, Opcode::Close, &1000_u16.to_be_bytes(), KEY);
    encode_frame_masked(&mut bytes, Opcode::Text, br#"{"cmd":0}"#, KEY);
    client.feed(&bytes);
    let frames = client.frames();
    assert_eq!(frames[0], (10, b"abc".to_vec()));
    assert_eq!(frames[1], (8, 1000_u16.to_be_bytes().to_vec()));
    assert_eq!(frames.len(), 2, "what comes behind a close is ignored");
    assert_eq!(client.out.verdict, Verdict::Close);
}

#[test]
fn broken_frames_close_with_the_code_of_the_rfc() {
    for (bytes, code) in [
        (&b"\x81\x01x"[..], 1002),                          // not masked
        (&b"\xc1\x80\0\0\0\0"[..], 1002),                   // a reserved bit
        (&b"\x83\x80\0\0\0\0"[..], 1002),                   // a reserved opcode
        (&b"\x81\xff\x40\0\0\0\0\0\0\0\0\0\0\0"[..], 1009), // 2^62 bytes declared
        (&b"\x81\x81\0\0\0\0\xff"[..], 1007),               // not UTF-8
    ] {
        let mut client = Client::logged_in();
        client.feed(bytes);
        assert_eq!(client.close_code(), Some(code), "{bytes:x?}");
    }
}

#[test]
fn the_binary_form_in_a_websocket_is_answered_in_binary() {
    use prost::Message;
    let mut client = Client::serve();
    client.upgrade("/ws", "Sec-WebSocket-Protocol: corelane.bin.v1\r\n");
    let mut message = Vec::new();
    let hello = Hello { token: "t".into(), ..Hello::default() };
    codec::binary::encode(&mut message, codec::binary::Kind::Hello, &hello.encode_to_vec());
    let mut bytes = Vec::new();
    encode_frame_masked(&mut bytes, Opcode::Binary, &message, KEY);
    client.feed(&bytes);
    assert_eq!(login_asked(&client), Some(hello));
    client.welcome();
    let frames = client.frames();
    assert_eq!((frames[0].0, frames[0].1[0]), (2, codec::binary::Kind::Welcome as u8));
    let mut bytes = Vec::new();
    encode_frame_masked(&mut bytes, Opcode::Binary, &[0, 0], KEY);
    client.feed(&bytes);
    assert_eq!(client.frames(), [(2, vec![0]), (2, vec![0])]);
    client.text("{}");
    assert_eq!(client.close_code(), Some(4901), "a connection keeps its form");
}

#[test]
fn the_binary_form_on_tcp_allows_nothing_before_hello() {
    use codec::binary::{Kind, PREFACE, encode};
    let mut heartbeat_first = Client::serve();
    heartbeat_first.feed(&[&PREFACE[..], &[0]].concat());
    let mut bytes = PREFACE.to_vec();
    encode(&mut bytes, Kind::Pull, &[8, 1]);
    let mut pull_first = Client::serve();
    pull_first.feed(&bytes);
    for client in [heartbeat_first, pull_first] {
        assert_eq!(client.out.bytes[0], Kind::Goaway as u8);
        assert_eq!(client.out.verdict, Verdict::Close);
        assert!(client.out.calls.is_empty());
    }
}

#[test]
fn a_bad_preface_or_an_unknown_protocol_is_closed() {
    for bytes in [&b"CRLN\x02"[..], b"\x16\x03\x01", b"\0\0\0\0", b"SSH-2.0-x\r\n"] {
        let mut client = Client::serve();
        client.feed(bytes);
        assert_eq!(client.out.verdict, Verdict::Close, "{bytes:?}");
    }
}

#[test]
fn plain_http_is_handed_over_with_its_bytes() {
    let request = b"POST /api/v1/users HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    for cut in 1..request.len() {
        let mut client = Client::serve();
        client.feed(&request[..cut]);
        if client.out.verdict != Verdict::HandOver {
            client.feed(&request[cut..]);
            assert_eq!(client.out.handed_over, request);
        }
        assert_eq!(client.out.verdict, Verdict::HandOver);
        assert!(client.out.bytes.is_empty());
    }
}

#[test]
fn websocket_lives_at_one_path() {
    let mut client = Client::serve();
    assert!(client.upgrade("/other", "").starts_with("HTTP/1.1 404"));
}

#[test]
fn echo_sends_back_what_it_gets_at_any_path() {
    let mut client = Client::new(Mode::Echo);
    assert!(client.upgrade("/any?x=1", "").starts_with("HTTP/1.1 101"));
    client.text("hello");
    assert_eq!(client.frames(), [(1, b"hello".to_vec())]);
}

#[test]
fn going_away_tells_when_to_come_back() {
    let mut client = Client::logged_in();
    client.with(|session, cx| session.go_away(cx, 1500));
    let frames = client.frames();
    let goaway: Value = serde_json::from_slice(&frames[0].1).unwrap();
    assert_eq!((&goaway["cmd"], &goaway["reconnect_after_ms"]), (&json!(11), &json!(1500)));
    assert_eq!(frames[1].1, 4000_u16.to_be_bytes());
    let mut client = Client::serve();
    client.feed(&codec::binary::PREFACE);
    client.with(|session, cx| session.go_away(cx, 1500));
    let goaway: proto::v1::Goaway = prost::Message::decode(&client.out.bytes[2..]).unwrap();
    assert_eq!(
        (goaway.code, goaway.reconnect_after_ms),
        (4000, 1500),
        "the delay travels on TCP too"
    );
}

proptest::proptest! {
    /// Whatever arrives, cut however: no panic, and nothing goes upstream before a login.
    #[test]
    fn arbitrary_bytes_do_no_harm(chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..200), 0..8), start in 0..3_usize) {
        let mut client = Client::serve();
        match start {
            1 => drop(client.upgrade("/ws", "")),
            2 => client.feed(&codec::binary::PREFACE),
            _ => {}
        }
        for chunk in &chunks {
            client.feed(chunk);
        }
        proptest::prop_assert!(client.out.messages.is_empty());
    }

    /// The same behind a login, as well-formed frames with arbitrary text.
    #[test]
    fn arbitrary_text_is_answered(texts in proptest::collection::vec("\\PC*|\\{\"cmd\":[0-9]{1,2},\"(msg_id|limit|payload|cursor)\":(1|\"a\"|\\{\\}|null)\\}", 1..8)) {
        let mut client = Client::logged_in();
        for text in &texts {
            client.text(text);
            if client.session.phase() == Phase::Ended { break; }
        }
        for answer in client.answers() {
            proptest::prop_assert!(answer.get("code").is_some());
        }
    }
}
