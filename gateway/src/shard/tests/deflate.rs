//! Compressed messages through a whole shard.

use codec::ws::deflate::{Agreement, Config, Deflater, Inflater, Offer, WindowBits, Windows};
use codec::ws::handshake::{read_response_to, write_client_request_offering};
use codec::ws::{Decoder, Event, Limits, Role};

use super::*;

const NONCE: [u8; 16] = *b"the sample nonce";

const TAKEOVER: Config = Config {
    server_context_takeover: true,
    client_context_takeover: true,
    server_max_window_bits: WindowBits::Twelve,
    client_max_window_bits: WindowBits::Twelve,
    ..Config::DEFAULT
};

/// A client that agreed on compression.
struct Compressing {
    peer: Peer,
    agreement: Agreement,
    windows: Option<Windows>,
    inflater: Inflater,
    deflater: Deflater,
    decoder: Decoder,
}

impl Compressing {
    fn open(server: &Server, target: &str) -> Self {
        Self::agreed(Self::offered(server, target))
    }

    fn offer() -> Offer {
        Offer { client_max_window_bits: Some(WindowBits::Fifteen), ..Offer::default() }
    }

    fn offered(server: &Server, target: &str) -> Peer {
        let mut peer = server.connect();
        let mut request = Vec::new();
        let offer = Self::offer();
        write_client_request_offering(&mut request, "a", target, &[], Some(&offer), NONCE);
        peer.send(&request);
        peer
    }

    fn agreed(mut peer: Peer) -> Self {
        let offer = Self::offer();
        let (head_len, agreement) = loop {
            assert!(peer.fill() > 0);
            if let Some(response) = read_response_to(&peer.bytes, Some(&offer), NONCE).unwrap() {
                break (response.head_len, response.deflate.expect("compression"));
            }
        };
        peer.bytes.drain(..head_len);
        Self {
            peer,
            windows: Windows::new(&agreement, Role::Client),
            agreement,
            inflater: Inflater::new(),
            deflater: Deflater::new(&Config { min_bytes: 0, ..Config::DEFAULT }),
            decoder: Decoder::new(),
        }
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut out = Vec::new();
        let bits = self.agreement.client_max_window_bits;
        let windows = self.windows.as_mut();
        self.deflater.encode(&mut out, opcode, payload, bits, windows, Some([5, 6, 7, 8]));
        self.peer.send(&out);
    }

    /// The next message, the first byte of its frame, and the frame's length.
    fn next(&mut self) -> (Vec<u8>, u8, usize) {
        let payload = loop {
            if let Some((_, payload)) = self.peek() {
                break payload;
            }
            assert!(self.peer.fill() > 0, "the stream ended");
        };
        let (first, second) = (self.peer.bytes[0], self.peer.bytes[1]);
        let mut frame: Vec<u8> = self.peer.bytes.drain(..payload).collect();
        let limits = Limits { max_message_bytes: 1 << 24, ..Limits::DEFAULT };
        let mut input = &mut frame[..];
        let windows = self.windows.as_mut();
        let event = self
            .decoder
            .next_inflating(&mut input, Role::Client, &limits, &mut self.inflater, windows)
            .unwrap();
        match event.expect("a whole frame") {
            Event::Text(text) => (text.as_bytes().to_vec(), first, payload),
            Event::Binary(bytes) => (bytes.to_vec(), first, payload),
            other => panic!("{other:?} {second}"),
        }
    }

    /// Opcode and length of the frame at the front, when it is whole.
    fn peek(&self) -> Option<(u8, usize)> {
        let bytes = &self.peer.bytes;
        let len = match *bytes.get(1)? {
            126 => 4 + usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            127 => 10 + u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
            short => 2 + usize::from(short),
        };
        (bytes.len() >= len).then_some((bytes[0], len))
    }

    fn next_json(&mut self) -> (Value, bool) {
        let (text, first, _) = self.next();
        (serde_json::from_slice(&text).unwrap(), first & 0x40 != 0)
    }

    /// A connection that is logged in as `user_id`.
    fn log_in(server: &mut Server, user_id: u64) -> (Self, Call) {
        let peer = Self::offered(server, &format!("/ws?user_id=u{user_id}"));
        let call = server.next_call();
        server.welcome(&call, user_id);
        let mut client = Self::agreed(peer);
        client.send(Opcode::Text, br#"{"cmd":0}"#);
        assert_eq!(client.next_json().0["cmd"], 0);
        (client, call)
    }
}

#[test]
fn messages_are_echoed_compressed() {
    on_every_driver(|io| {
        for (config, takes_over) in [(Config::DEFAULT, false), (TAKEOVER, true)] {
            let server = start(io, Mode::Echo, |c| {
                c.deflate = Some(config);
                c.limits.max_message_bytes = 8 << 20;
            });
            let mut client = Compressing::open(&server, "/");
            assert_eq!(client.windows.is_some(), takes_over);
            let text = "compressed messages of a conversation that says the same ".repeat(20);
            let mut lens = Vec::new();
            for _ in 0..3 {
                client.send(Opcode::Text, text.as_bytes());
                let (echoed, first, len) = client.next();
                assert_eq!((echoed.len(), first), (text.len(), 0xC1));
                lens.push(len);
            }
            assert!(lens[0] < 200, "{lens:?}");
            assert_eq!(lens[2] < lens[0] / 2, takes_over, "{lens:?}");
            // Too short for the configuration, and one that arrives and leaves in many pieces.
            client.send(Opcode::Binary, b"short");
            assert_eq!(client.next(), (b"short".to_vec(), 0x82, 7));
            let long: Vec<u8> = (0..1_000_000_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> (n >> 17)) as u8)
                .collect();
            client.send(Opcode::Binary, &long);
            assert!(client.next().0 == long);
            server.gateway.stop().unwrap();
        }
    });
}

#[test]
fn nothing_is_agreed_on_unless_it_is_switched_on() {
    let server = start(IoChoice::Epoll, Mode::Echo, |_| {});
    let mut peer = server.connect();
    let mut request = Vec::new();
    let offer = Offer::default();
    write_client_request_offering(&mut request, "a", "/", &[], Some(&offer), NONCE);
    peer.send(&request);
    let response = loop {
        assert!(peer.fill() > 0);
        if let Some(response) = read_response_to(&peer.bytes, Some(&offer), NONCE).unwrap() {
            break response;
        }
    };
    assert_eq!(response.deflate, None);
    peer.bytes.clear();
    peer.send(b"\xc1\x81\0\0\0\0\x00");
    assert_eq!(peer.close_code(), 1002);
    server.gateway.stop().unwrap();
}

#[test]
fn a_bomb_closes_with_1009() {
    let server = start(IoChoice::Epoll, Mode::Echo, |c| c.deflate = Some(Config::DEFAULT));
    let mut client = Compressing::open(&server, "/");
    client.send(Opcode::Binary, &vec![0; 4 << 20]);
    assert_eq!(client.peer.close_code(), 1009);
    server.gateway.stop().unwrap();
}

/// Answers are compressed for each, pushes once for all who take nothing over.
#[test]
fn answers_and_pushes() {
    for (config, takes_over) in [(Config::DEFAULT, false), (TAKEOVER, true)] {
        let mut server = start(IoChoice::Auto, serve(), |c| c.deflate = Some(config));
        let (mut alice, alice_call) = Compressing::log_in(&mut server, 1);
        let (mut bob, bob_call) = Compressing::log_in(&mut server, 2);
        let (mut plain, plain_call) = server.log_in(3);
        let target =
            |call: &Call| Target { message: 0, slot: call.slot, generation: call.generation };
        for seq in 1..4 {
            let message = Message {
                conversation_id: "c".into(),
                seq,
                msg_type: 1,
                content: vec![b'x'; 600].into(),
                ..Message::default()
            };
            server.mailbox.deliver(DeliveryBatch {
                messages: vec![message],
                targets: vec![target(&alice_call), target(&plain_call), target(&bob_call)],
                ..Default::default()
            });
            for client in [&mut alice, &mut bob] {
                let (push, is_compressed) = client.next_json();
                assert_eq!(push["payload"]["seq"], seq);
                assert_eq!(is_compressed, !takes_over);
            }
            assert_eq!(plain.next_json()["payload"]["seq"], seq);
            alice.send(Opcode::Text, br#"{"cmd":3,"id":7,"conversation_id":"c"}"#);
            let call = server.next_call();
            let items = vec![Message { content: "y".repeat(500).into(), ..Message::default() }];
            let page = proto::v1::Page { request_id: 7, items, ..Default::default() };
            server.mailbox.order(crate::mailbox::Order::Reply(Box::new(CallReply {
                shard: 0,
                slot: call.slot,
                generation: call.generation,
                request_id: 7,
                command: 6,
                reply: Some(Reply::Page(page)),
            })));
            let (answer, is_compressed) = alice.next_json();
            assert_eq!((&answer["id"], is_compressed), (&Value::from(7), true));
        }
        server.gateway.stop().unwrap();
    }
}
