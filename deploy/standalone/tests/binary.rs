//! The binary protocol on raw TCP and inside WebSocket messages, beside JSON, against the started binary.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use codec::binary::{Decoder, Kind, Limits, PREFACE, Role, encode};
use common::{PATIENCE, Server, data_dir};
use prost::Message as _;
use proto::v1::{
    Ack, CreateConversation, Error, Goaway, Hello, Lagged, Membership, Page, Pull, Push, Send,
    Sync, Welcome,
};
use proto::v1::{ConversationReply, Conversations};
use serde_json::json;
use tungstenite::{Message, WebSocket};

/// One connection that speaks binary, on either transport.
enum Wire {
    Tcp(TcpStream),
    WebSocket(Box<WebSocket<TcpStream>>),
}

struct Peer {
    wire: Wire,
    decoder: Decoder,
    bytes: Vec<u8>,
}

impl Peer {
    fn tcp(server: &Server) -> Self {
        let mut stream = TcpStream::connect(&server.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&PREFACE).unwrap();
        Self { wire: Wire::Tcp(stream), decoder: Decoder::new(), bytes: Vec::new() }
    }

    fn websocket(server: &Server) -> Self {
        let stream = TcpStream::connect(&server.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{}/ws", server.addr), stream).unwrap();
        Self { wire: Wire::WebSocket(Box::new(socket)), decoder: Decoder::new(), bytes: Vec::new() }
    }

    fn both(server: &Server) -> [Self; 2] {
        [Self::tcp(server), Self::websocket(server)]
    }

    fn send(&mut self, kind: Kind, body: &impl prost::Message) {
        let mut frame = Vec::new();
        encode(&mut frame, kind, &body.encode_to_vec());
        self.raw(&frame);
    }

    fn raw(&mut self, frame: &[u8]) {
        match &mut self.wire {
            Wire::Tcp(stream) => stream.write_all(frame).unwrap(),
            Wire::WebSocket(socket) => socket.send(Message::binary(frame.to_vec())).unwrap(),
        }
    }

    /// The next frame, or `None` when the server has closed.
    fn next(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            let bytes = std::mem::take(&mut self.bytes);
            let mut rest = &bytes[..];
            let frame = self
                .decoder
                .next(&mut rest, &Limits::new(Role::Client))
                .expect("the server writes good frames");
            let frame = frame.map(|frame| (frame.kind, frame.body.to_vec()));
            self.bytes = rest.to_vec();
            if frame.is_some() {
                return frame;
            }
            match &mut self.wire {
                Wire::Tcp(stream) => {
                    let mut buffer = [0; 65536];
                    let count = stream.read(&mut buffer).unwrap_or(0);
                    if count == 0 {
                        return None;
                    }
                    self.bytes.extend_from_slice(&buffer[..count]);
                }
                Wire::WebSocket(socket) => match socket.read().ok()? {
                    Message::Binary(bytes) => self.bytes.extend_from_slice(&bytes),
                    Message::Text(text) => panic!("text on a binary connection: {text}"),
                    _ => {}
                },
            }
        }
    }

    fn expect<T: prost::Message + Default>(&mut self, kind: Kind) -> T {
        let (got, body) = self.next().unwrap_or_else(|| panic!("closed instead of {kind:?}"));
        if got == Kind::Error && kind != Kind::Error {
            panic!("{:?} instead of {kind:?}", Error::decode(&body[..]));
        }
        assert_eq!(got, kind);
        T::decode(&body[..]).unwrap()
    }

    fn log_in(&mut self, name: &str) -> Welcome {
        self.send(Kind::Hello, &Hello { dev_user: name.into(), ..Hello::default() });
        self.expect(Kind::Welcome)
    }

    fn say(&mut self, request_id: u32, id: &str, content: &str) -> Ack {
        let send = Send {
            request_id,
            conversation_id: "g".into(),
            client_msg_id: id.into(),
            msg_type: 1,
            content: content.to_owned().into(),
        };
        self.send(Kind::Send, &send);
        self.expect(Kind::Ack)
    }
}

#[test]
fn both_transports_and_json_share_one_conversation() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut json = server.dev_user("carol");
    json.pull("g", 0, 1);
    let [mut tcp, mut ws] = Peer::both(&server);
    let welcome = tcp.log_in("alice");
    assert_eq!(
        (welcome.username.as_str(), welcome.heartbeat_ms, welcome.features),
        ("alice", 30_000, 0)
    );
    ws.log_in("bob");
    for peer in [&mut tcp, &mut ws] {
        peer.send(
            Kind::Pull,
            &Pull { request_id: 1, conversation_id: "g".into(), ..Pull::default() },
        );
        assert_eq!(peer.expect::<Page>(Kind::Page).request_id, 1);
    }
    let ack = tcp.say(2, "m1", "from tcp");
    assert_eq!((ack.request_id, ack.seq, ack.client_msg_id.as_str()), (2, 1, "m1"));
    let push: Push = ws.expect(Kind::Push);
    assert_eq!(push.push_no, 1);
    let message = push.message.unwrap();
    assert_eq!(
        (message.sender.as_str(), &message.content[..], message.seq),
        ("alice", &b"from tcp"[..], 1)
    );
    assert_eq!(message.message_id, ack.message_id);
    assert_eq!(json.next().unwrap()["payload"]["content"], "from tcp");

    assert_eq!(json.send("g", "m2", "from json")["seq"], 2);
    assert_eq!(ws.expect::<Push>(Kind::Push).push_no, 2);
    assert_eq!(tcp.expect::<Push>(Kind::Push).message.unwrap().content, "from json".as_bytes());
    assert_eq!(tcp.say(9, "m1", "from tcp").seq, 1, "a retry keeps its seq");

    ws.send(Kind::Sync, &Sync { request_id: 5, ..Sync::default() });
    let list: Conversations = ws.expect(Kind::Conversations);
    assert_eq!(
        (list.request_id, list.items[0].conversation_id.as_str(), list.items[0].max_seq),
        (5, "g", 2)
    );
    ws.raw(&[0]);
    assert_eq!(ws.next(), Some((Kind::Heartbeat, vec![])));
}

#[test]
fn groups_and_errors_work_in_binary() {
    let data = data_dir();
    let server = Server::dev(data.path());
    for mut peer in Peer::both(&server) {
        let name = if matches!(peer.wire, Wire::Tcp(_)) { "tcp" } else { "ws" };
        peer.log_in(name);
        let create = CreateConversation {
            request_id: 1,
            r#type: "group".into(),
            name: "Team".into(),
            ..Default::default()
        };
        peer.send(Kind::CreateConversation, &create);
        let made: ConversationReply = peer.expect(Kind::Conversation);
        assert_eq!((made.request_id, made.conversation.unwrap().role.as_str()), (1, "owner"));
        peer.send(Kind::Join, &Membership { request_id: 2, conversation_id: "nowhere".into() });
        let error: Error = peer.expect(Kind::Error);
        assert_eq!(
            (error.request_id, error.name.as_str(), error.temporary),
            (2, "CONVERSATION_NOT_FOUND", false)
        );
        let send = Send {
            request_id: 3,
            conversation_id: "g".into(),
            client_msg_id: "x".repeat(65),
            msg_type: 1,
            content: "x".into(),
        };
        peer.send(Kind::Send, &send);
        let error: Error = peer.expect(Kind::Error);
        assert_eq!(
            (error.request_id, error.name.as_str(), error.client_msg_id.len()),
            (3, "BAD_REQUEST", 65)
        );
        peer.raw(&[Kind::Pull as u8, 2, 0xff, 0xff]);
        assert_eq!(peer.expect::<Error>(Kind::Error).name, "BAD_REQUEST");
        assert_eq!(peer.say(4, "still", "here").seq, if name == "tcp" { 1 } else { 2 });
    }
}

#[test]
fn a_client_that_breaks_the_protocol_is_told_and_closed() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let cases: [(&str, &[u8], u32); 5] = [
        ("not HELLO first", &[0x06, 2, 8, 1], 4200),
        ("256 MiB declared", &[0x01, 0x80, 0x80, 0x80, 0x7f], 4902),
        ("an unknown kind", &[0x3f, 1, 0], 4901),
        ("a reserved bit", &[0x41, 1, 0], 4901),
        ("an empty body", &[0x01, 0], 4901),
    ];
    for (what, bytes, code) in cases {
        let mut peer = Peer::tcp(&server);
        peer.raw(bytes);
        let goaway: Goaway = peer.expect(Kind::Goaway);
        assert_eq!(goaway.code, code, "{what}");
        assert_eq!(peer.next(), None, "{what}");
    }
    let mut twice = Peer::tcp(&server);
    twice.log_in("alice");
    twice.send(Kind::Hello, &Hello { dev_user: "alice".into(), ..Hello::default() });
    assert_eq!(twice.expect::<Goaway>(Kind::Goaway).code, 4901);
}

/// A binary client that stops reading is told from where to pull, and pulling gives it everything.
#[test]
fn a_slow_reader_is_complete_after_its_pull() {
    const MESSAGES: u64 = 6_000;
    let data = data_dir();
    let server = Server::start(
        data.path(),
        &[
            "--dev-login",
            "--outbound-bytes",
            "65536",
            "--messages-per-second",
            "1000000",
            "--message-burst",
            "1000000",
        ],
    );
    let mut slow = Peer::tcp(&server);
    slow.log_in("slow");
    slow.send(Kind::Pull, &Pull { request_id: 1, conversation_id: "g".into(), ..Pull::default() });
    slow.expect::<Page>(Kind::Page);
    let mut quick = server.dev_user("quick");
    let content = "x".repeat(4000);
    for n in 1..=MESSAGES {
        quick.json(&json!({"cmd":2,"msg_id":n.to_string(),"conversation_id":"g","payload":{"content":content}}));
        if n % 100 == 0 {
            (0..100).for_each(|_| assert_eq!(quick.next().unwrap()["code"], 0));
        }
    }
    let mut last = 0;
    let from = loop {
        match slow.next().unwrap() {
            (Kind::Push, body) => {
                let seq = Push::decode(&body[..]).unwrap().message.unwrap().seq;
                assert_eq!(seq, last + 1, "nothing is left out without a mark");
                last = seq;
            }
            (Kind::Lagged, body) => break Lagged::decode(&body[..]).unwrap().from_seq,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(from, last + 1);
    while last < MESSAGES {
        slow.send(
            Kind::Pull,
            &Pull {
                request_id: 2,
                conversation_id: "g".into(),
                cursor_seq: last,
                limit: 500,
                ..Pull::default()
            },
        );
        // Caught up with the queue, it gets pushes again between the answers, and may lag again.
        let page = loop {
            match slow.next().unwrap() {
                (Kind::Page, body) => break Page::decode(&body[..]).unwrap(),
                (kind, _) => assert!(matches!(kind, Kind::Push | Kind::Lagged), "{kind:?}"),
            }
        };
        for item in page.items {
            assert_eq!(item.seq, last + 1);
            last = item.seq;
        }
    }
}

#[test]
fn json_refuses_what_only_binary_can_say() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let mut json = server.dev_user("carol");
    json.pull("g", 0, 1);
    let mut tcp = Peer::tcp(&server);
    tcp.log_in("alice");
    let send = |msg_type| Send {
        request_id: 1,
        conversation_id: "g".into(),
        client_msg_id: "m".into(),
        msg_type,
        content: vec![0xff, 0xfe].into(),
    };
    tcp.send(Kind::Send, &send(1));
    assert_eq!(tcp.expect::<Error>(Kind::Error).name, "BAD_REQUEST", "text is UTF-8");
    tcp.send(Kind::Send, &send(100));
    tcp.expect::<Ack>(Kind::Ack);
    let push = json.next().unwrap();
    let payload = &push["payload"];
    assert_eq!((&payload["content_base64"], &payload["msg_type"]), (&json!("//4="), &json!(100)));
    assert_eq!(&json.pull("g", 0, 10)["payload"][0], payload);
}

#[test]
fn rest_shows_bytes_as_the_frames_do() {
    let data = data_dir();
    let server = Server::dev(data.path());
    let token = server.user("dave")["access_token"].as_str().unwrap().to_owned();
    let mut tcp = Peer::tcp(&server);
    tcp.send(Kind::Hello, &Hello { token: token.clone(), ..Hello::default() });
    tcp.expect::<Welcome>(Kind::Welcome);
    let content = vec![0xff, 0xfe].into();
    tcp.send(
        Kind::Send,
        &Send {
            request_id: 1,
            conversation_id: "g".into(),
            client_msg_id: "m".into(),
            msg_type: 100,
            content,
        },
    );
    tcp.expect::<Ack>(Kind::Ack);
    let page = server.rest("GET", "/api/v1/conversations/g/messages", Some(&token), None);
    assert_eq!(page.body["items"][0]["content_base64"], "//4=", "{page:?}");
}
