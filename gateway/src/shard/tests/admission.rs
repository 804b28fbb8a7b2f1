//! Who is let in, and how the others are told.

use super::*;
use socket2::{Domain, Socket, Type};

/// A connection from one of the loopback's addresses.
fn connect_from(server: &Server, address: &str) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from: std::net::SocketAddr = format!("{address}:0").parse().unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&server.gateway.addr().into()).unwrap();
    Peer::new(socket.into())
}

/// Whether one more from that address is upgraded.
fn is_let_in(server: &Server, address: &str) -> bool {
    let mut peer = connect_from(server, address);
    peer.send(handshake("/ws").as_bytes());
    let mut first = [0; 12];
    peer.stream.read_exact(&mut first).unwrap();
    &first == b"HTTP/1.1 101"
}

/// All that comes until the end of the stream.
fn answer(mut peer: Peer) -> String {
    let mut answer = String::new();
    peer.stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_address_has_its_share_and_no_more() {
    on_every_driver(|io| {
        let server = start(io, serve(), |config| config.admission.max_per_address = 2);
        let mut held: Vec<_> = (0..2).map(|_| connect_from(&server, "127.0.0.1")).collect();
        held.iter_mut().for_each(|peer| peer.upgrade("/ws"));
        // Its request is there before it is refused: the answer must arrive all the same.
        let mut third = connect_from(&server, "127.0.0.1");
        third.send(handshake("/ws").as_bytes());
        let refusal = answer(third);
        assert!(refusal.starts_with("HTTP/1.1 429 "), "{refusal}");
        assert!(refusal.contains("\r\nRetry-After: 30\r\n"), "{refusal}");
        connect_from(&server, "127.0.0.2").upgrade("/ws");
        held.pop();
        eventually("the place is free again", || is_let_in(&server, "127.0.0.1"));
        assert!(server.gateway.stats().refused_address >= 1);
        drop(held);
        eventually("all are gone", || server.gateway.stats().connections == 0);
        server.gateway.stop().unwrap();
    });
}

#[test]
fn more_at_once_than_the_rate_allows_are_sent_away() {
    on_every_driver(|io| {
        let server = start(io, serve(), |config| {
            config.admission.connections_per_second = 0.25;
            config.admission.connection_burst = 3;
        });
        let mut let_in: Vec<_> = (0..3).map(|_| server.connect()).collect();
        let_in.iter_mut().for_each(|peer| peer.upgrade("/ws"));
        let mut late = server.connect();
        late.send(handshake("/ws").as_bytes());
        let refusal = answer(late);
        assert!(
            refusal.starts_with("HTTP/1.1 503 ") && refusal.contains("Retry-After: "),
            "{refusal}"
        );
        assert_eq!(server.gateway.stats().refused_rate, 1);
        eventually("the next is let in", || {
            std::thread::sleep(Duration::from_millis(50));
            is_let_in(&server, "127.0.0.1")
        });
        server.gateway.stop().unwrap();
    });
}

/// With as many logins under way as may be, a further one is told when to come back, whatever it speaks,
/// and a new connection is not let in; when they are answered, everything is as before.
#[test]
fn logins_over_the_bound_are_shed_with_a_delay() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.admission.max_logins = 2);
        let (mut json, mut tcp) = (server.connect(), server.connect());
        json.upgrade("/ws");
        tcp.send(&codec::binary::PREFACE);
        let mut waiting: Vec<_> = (0..2).map(|_| server.connect()).collect();
        waiting.iter_mut().for_each(|peer| peer.send(handshake("/ws?user_id=a").as_bytes()));
        let calls = [server.next_call(), server.next_call()];

        json.text(r#"{"cmd":1,"payload":{"token":"t"}}"#);
        let failure = json.next_json();
        assert_eq!(failure["error"]["name"], "BUSY");
        let goaway = json.next_json();
        assert_eq!((&goaway["cmd"], &goaway["code"]), (&11.into(), &4100.into()));
        assert!(goaway["reconnect_after_ms"].as_u64() >= Some(1_000), "{goaway}");
        assert_eq!(json.close_code(), 4100);

        let mut hello = Vec::new();
        codec::binary::encode(&mut hello, codec::binary::Kind::Hello, &[0x0a, 1, b't']);
        tcp.send(&hello);
        let mut bytes = Vec::new();
        tcp.stream.read_to_end(&mut bytes).unwrap();
        let goaway = bytes.iter().position(|&byte| byte == 0x15).expect("a GOAWAY");
        let goaway: proto::v1::Goaway = prost::Message::decode(&bytes[goaway + 2..]).unwrap();
        assert!(goaway.code == 4100 && goaway.reconnect_after_ms >= 1_000, "{goaway:?}");

        assert!(answer(server.connect()).starts_with("HTTP/1.1 503 "));
        let stats = server.gateway.stats();
        assert_eq!((stats.logins_shed, stats.refused_overload), (2, 1));
        calls.iter().for_each(|call| server.welcome(call, 7));
        for peer in &mut waiting {
            peer.upgraded();
            peer.text(r#"{"cmd":0}"#);
            assert_eq!(peer.next_json()["code"], 0);
        }
        drop(server.log_in(8));
        server.gateway.stop().unwrap();
    });
}

/// A login that ends before it is answered must not count for ever.
#[test]
fn logins_that_never_end_well_do_not_use_up_the_bound() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.admission.max_logins = 2);
        for _ in 0..5 {
            let mut peer = server.connect();
            peer.send(handshake("/ws?user_id=a").as_bytes());
            let call = server.next_call();
            server.mailbox.order(crate::mailbox::Order::Close {
                slot: call.slot,
                generation: call.generation,
                code: 4900,
                reason: String::new(),
            });
            peer.upgraded();
            assert_eq!(peer.close_code(), 4900);
            assert!(matches!(server.next_call().request, Some(call::Request::Closed(_))));
        }
        drop(server.log_in(8));
        server.gateway.stop().unwrap();
    });
}

/// Refused connections are kept for a moment so that they see their answer; a crowd of them must not
/// use up the descriptors.
#[test]
fn a_crowd_that_is_refused_leaves_nothing_behind() {
    on_every_driver(|io| {
        let server = start(io, serve(), |config| config.admission.max_connections = 1);
        let mut held = server.connect();
        held.upgrade("/ws");
        let crowd: Vec<_> = (0..300).map(|_| server.connect()).collect();
        let answers = crowd.into_iter().map(|mut peer| {
            peer.send(handshake("/ws").as_bytes());
            answer(peer)
        });
        assert!(answers.into_iter().all(|answer| answer.starts_with("HTTP/1.1 503 ")));
        assert_eq!(server.gateway.stats().refused_full, 300);
        eventually("only the first is left", || server.gateway.stats().connections == 1);
        held.text(r#"{"cmd":0}"#);
        assert_eq!(held.next_json()["code"], 0);
        drop(held);
        eventually("the place is free again", || server.gateway.stats().connections == 0);
        server.connect().upgrade("/ws");
        server.gateway.stop().unwrap();
    });
}

/// Plain HTTP leaves its place among the connections.
#[test]
fn handed_over_connections_do_not_count_as_ours() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| {
            config.admission.max_connections = 1;
            config.admission.max_per_address = 2;
        });
        let mut http = server.gateway.take_http().unwrap();
        let mut plain = server.connect();
        plain.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        let handed_over = http.blocking_recv().unwrap();
        assert!(handed_over.read.starts_with(b"GET /healthz"));
        let mut socket = server.connect();
        socket.upgrade("/ws");
        drop(socket);
        eventually("the place is free again", || server.gateway.stats().connections == 0);
        // Two of this address now: the handed-over one, and the next.
        let mut second = server.connect();
        second.upgrade("/ws");
        drop(handed_over);
        drop(second);
        eventually("the place is free again", || server.gateway.stats().connections == 0);
        assert_eq!(server.gateway.stats().refused, 0);
        server.gateway.stop().unwrap();
    });
}
