//! How connections begin and end.

use super::*;

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

#[test]
fn a_handshake_that_trickles_ends_at_the_deadline_in_total() {
    on_every_driver(|io| {
        let server = start(io, serve(), |config| config.limits.handshake_ms = 3_000);
        let mut trickle = server.connect();
        let mut anonymous = server.connect();
        anonymous.upgrade("/ws");
        let head = handshake("/ws");
        // At this pace the whole head would take twice the deadline.
        let pause = Duration::from_millis(6_000 / head.len() as u64);
        for byte in head.as_bytes() {
            if trickle.stream.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(pause);
        }
        let mut rest = [0; 1024];
        assert_eq!(trickle.stream.read(&mut rest).unwrap_or(0), 0);
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
            config.limits.heartbeat_ms = 1_500;
            config.limits.heartbeat_misses = 3;
            config.limits.handshake_ms = 60_000;
        });
        let silence = Duration::from_millis(4_500);
        let connected = Instant::now();
        let (mut silent, _) = server.log_in(1);
        let silent = std::thread::spawn(move || (silent.close_code(), connected.elapsed()));
        let (mut alive, _) = server.log_in(2);
        let logged_in = Instant::now();
        while !silent.is_finished() || logged_in.elapsed() < silence + Duration::from_millis(500) {
            alive.text(r#"{"cmd":0}"#);
            assert_eq!(alive.next_json()["code"], 0);
            std::thread::sleep(Duration::from_millis(100));
        }
        let (code, lasted) = silent.join().unwrap();
        assert_eq!(code, 4102);
        // The shard's clock has whole milliseconds.
        let due = silence - Duration::from_millis(1)..2 * silence;
        assert!(due.contains(&lasted), "the deadline is that of silence: {lasted:?}");
        let closed = server.next_call();
        assert!(matches!(closed.request, Some(call::Request::Closed(_))));
        assert_eq!(closed.user_id, 1, "the silent one ends first");
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
        let mut server = start(io, serve(), |config| config.admission.max_connections = 2);
        let (mut first, _) = server.log_in(1);
        let (_second, _) = server.log_in(2);
        let mut third = server.connect();
        third.send(handshake("/ws").as_bytes());
        let mut answer = String::new();
        third.stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
        let mut tcp = server.connect();
        tcp.send(&codec::binary::PREFACE);
        let mut goaway = Vec::new();
        tcp.stream.read_to_end(&mut goaway).unwrap();
        let goaway: proto::v1::Goaway = prost::Message::decode(&goaway[2..]).unwrap();
        assert_eq!((goaway.code, goaway.reconnect_after_ms), (4100, 5_000));
        assert_eq!(server.gateway.stats().refused_full, 2);
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
    if !alone("shard::tests::life::many_connections_come_and_go_without_a_trace") {
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    on_every_driver(|io| {
        let mut server = start(io, Mode::Echo, |_| {});
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
        let mut calls = Vec::new();
        server.calls.take(&mut calls, Duration::ZERO);
        assert!(calls.is_empty());
        server.gateway.stop().unwrap();
    });
    // Tests beside this one open some too.
    eventually("all descriptors are closed", || descriptors() <= before + 100);
}

/// More than one turn accepts, all at once: the edge of the listener is told only once.
#[test]
fn a_herd_is_accepted_whole() {
    on_every_driver(|io| {
        let server = start(io, Mode::Echo, |_| {});
        let mut herd: Vec<_> = (0..3 * crate::limits::ACCEPTS_PER_TURN)
            .map(|_| {
                let mut peer = server.connect();
                peer.send(handshake("/").as_bytes());
                peer
            })
            .collect();
        for peer in &mut herd {
            peer.bytes.clear();
            assert!(peer.fill() > 0, "no answer");
            assert!(peer.bytes.starts_with(b"HTTP/1.1 101"));
        }
        // While the herd came the listener was looked at once in a while; afterwards it is watched again,
        // and nobody looks at it for nothing.
        std::thread::sleep(Duration::from_millis(100));
        let before = server.gateway.stats();
        for _ in 0..3 {
            server.connect().upgrade("/");
        }
        let passed = |stats: &crate::shard::StatsSnapshot| stats.turns - before.turns;
        eventually("they are gone", || server.gateway.stats().connections == before.connections);
        let after = passed(&server.gateway.stats());
        assert!((3..100).contains(&after), "{after} turns");
        std::thread::sleep(Duration::from_millis(200));
        let idle = passed(&server.gateway.stats()) - after;
        assert!(idle <= 3, "{idle} turns without traffic");
        server.gateway.stop().unwrap();
    });
}

/// A shard that panics must not leave a server behind that looks alive: nobody waits for its
/// mailbox, and the process is told.
#[test]
fn a_shard_that_panics_is_noticed() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let (_peer, call) = server.log_in(1);
        server.mailbox.order(crate::mailbox::Order::Panic);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let alarm = server.gateway.alarm();
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, alarm.rang()).await })
            .expect("the alarm rings");
        server.push(&call, "c", 0..2 * crate::limits::MAILBOX_BATCHES as u64, 1);
        assert!(server.gateway.stop().is_err());
    });
}

/// A connection that asks to log in and breaks the protocol in one and the same message: the logic
/// service hears of the login, so it must hear of the end too, or the user stays online for ever.
#[test]
fn a_login_that_ends_in_its_own_message_is_reported_as_ended() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let mut peer = server.connect();
        peer.upgrade("/ws");
        let mut message = Vec::new();
        codec::binary::encode(&mut message, codec::binary::Kind::Hello, &[0x2a, 1, b'u']);
        message.push(0);
        let mut frame = Vec::new();
        encode_frame_masked(&mut frame, Opcode::Binary, &message, [1, 2, 3, 4]);
        peer.send(&frame);
        assert_eq!(peer.close_code(), 4901);
        assert!(matches!(server.next_call().request, Some(call::Request::Login(_))));
        assert!(matches!(server.next_call().request, Some(call::Request::Closed(_))));
        server.gateway.stop().unwrap();
    });
}
