//! Peers that mean no good: floods, readers that do not read, breaks at the worst moment.

use super::*;

/// Sends `bytes` again and again until the server takes no more or breaks the connection; how many it
/// took.
fn pour(peer: &Peer, bytes: &[u8], most: usize) -> usize {
    let mut writer = peer.stream.try_clone().unwrap();
    writer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut poured = 0;
    while poured < most {
        match writer.write(&bytes[poured % bytes.len()..]) {
            Ok(count) => poured += count,
            Err(_) => break,
        }
    }
    poured
}

fn frames(opcode: Opcode, payload: &[u8], count: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame_masked(&mut frame, opcode, payload, [1, 2, 3, 4]);
    frame.repeat(count)
}

/// Pings, refused requests and empty messages are answered to a point, and then no more.
#[test]
fn floods_without_a_purpose_end_the_connection() {
    let ping = frames(Opcode::Ping, &[7; 125], 100);
    let floods = [
        ("pings", ping),
        ("pongs", frames(Opcode::Pong, b"", 1000)),
        ("heartbeats", frames(Opcode::Text, br#"{"cmd":0}"#, 1000)),
        ("bad JSON", frames(Opcode::Text, b"{", 1000)),
        ("over the rate", frames(Opcode::Text, send_text(1).as_bytes(), 100)),
    ];
    on_every_driver(|io| {
        for (name, flood) in &floods {
            let mut server = start(io, serve(), |_| {});
            let (mut other, _) = server.log_in(2);
            let (flooding, _) = server.log_in(1);
            // 400,000 pings are 52 MB. Taken they may be, since the server reads on for a moment after its
            // close; answered they are not.
            pour(&flooding, flood, 52 << 20);
            eventually(name, || server.gateway.stats().flooded == 1);
            eventually(name, || server.gateway.stats().connections == 1);
            let mut answers = Vec::new();
            let _ = (&flooding.stream).read_to_end(&mut answers);
            assert!(answers.len() < 512 << 10, "{name}: {} bytes of answers", answers.len());
            other.text(r#"{"cmd":0}"#);
            assert_eq!(other.next_json()["code"], 0, "{name}");
            drop((other, flooding));
            // What the flood had room for is answered, or stopping would wait for it.
            let frames = if *name == "over the rate" { server.next_frames(5) } else { vec![] };
            let replies = frames.iter().map(|frame| server.ack(frame, 1)).collect();
            server.mailbox.deliver(DeliveryBatch { replies, ..Default::default() });
            server.gateway.stop().unwrap();
        }
    });
}

#[test]
fn a_flood_is_told_why_and_patience_is_rewarded() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| {
            config.limits.idle_frames_per_second = 50;
            config.limits.idle_frame_burst = 20;
        });
        let (mut peer, _) = server.log_in(1);
        for _ in 0..60 {
            peer.send(&frames(Opcode::Ping, b"x", 1));
            assert_eq!(peer.next_frame().unwrap(), (10, b"x".to_vec()));
            std::thread::sleep(Duration::from_millis(25));
        }
        peer.send(&frames(Opcode::Ping, b"x", 60));
        assert_eq!(peer.close_code(), 4103);
        server.gateway.stop().unwrap();
    });
}

/// An echo peer that sends and does not read is not received from: memory is bounded. When it reads,
/// not a byte is missing.
#[test]
fn who_does_not_read_is_not_received_from() {
    on_every_driver(|io| {
        let server = start(io, Mode::Echo, |_| {});
        let mut peer = server.connect();
        peer.upgrade("/");
        let payload = vec![b'x'; 60_000];
        let frame = frames(Opcode::Binary, &payload, 1);
        let poured = pour(&peer, &frame, 256 << 20);
        assert!(poured < 64 << 20, "{poured} bytes were taken of a peer that does not read");
        let whole = poured / frame.len();
        for number in 0..whole {
            let (opcode, back) = peer.next_frame().unwrap();
            assert!(opcode == 2 && back == payload, "frame {number} of {whole}");
        }
        // The frame that was cut goes on where it was cut.
        peer.send(&frame[poured % frame.len()..]);
        assert!(peer.next_frame().unwrap().1 == payload);
        drop(peer);
        eventually("it is gone", || server.gateway.stats().connections == 0);
        server.gateway.stop().unwrap();
    });
}

/// In echo mode the deadline holds as well, as long as there is nothing to echo.
#[test]
fn echo_has_a_handshake_deadline_and_no_other() {
    on_every_driver(|io| {
        let server = start(io, Mode::Echo, |config| config.limits.handshake_ms = 3_000);
        let mut echo = server.connect();
        echo.upgrade("/");
        let mut silent = server.connect();
        let mut half = server.connect();
        half.send(b"GET / HTTP/1.1\r\nHost: ");
        for peer in [&mut silent, &mut half] {
            assert_eq!(peer.fill(), 0, "closed at the deadline");
        }
        drop((silent, half));
        eventually("only the echo is left", || server.gateway.stats().connections == 1);
        assert_eq!(server.gateway.stats().timed_out, 2);
        echo.text("still here");
        assert_eq!(echo.next_frame().unwrap().1, b"still here");
        server.gateway.stop().unwrap();
    });
}

fn reset(peer: Peer) {
    socket2::SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A reset at any step of getting in: nothing is left, and the logic service hears of every end it has
/// to hear of.
#[test]
fn resets_on_the_way_in_leave_nothing_behind() {
    if !alone("shard::tests::hostile::resets_on_the_way_in_leave_nothing_behind") {
        return;
    }
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let head = handshake("/ws?user_id=u1");
        for _ in 0..20 {
            reset(server.connect());
            for cut in [1, 20, head.len() - 1] {
                let mut peer = server.connect();
                peer.send(&head.as_bytes()[..cut]);
                reset(peer);
            }
            let mut upgraded = server.connect();
            upgraded.upgrade("/ws");
            reset(upgraded);
            let mut logging_in = server.connect();
            logging_in.send(head.as_bytes());
            let call = server.next_call();
            reset(logging_in);
            server.welcome(&call, 1);
            let closed = server.next_call();
            assert!(matches!(closed.request, Some(call::Request::Closed(_))), "{closed:?}");
            assert_eq!((closed.slot, closed.generation), (call.slot, call.generation));
        }
        eventually("all are gone", || server.gateway.stats().connections == 0);
        eventually("all descriptors are closed", || {
            std::fs::read_dir("/proc/self/fd").unwrap().count() <= before + 20
        });
        drop(server.log_in(2));
        server.gateway.stop().unwrap();
    });
}

/// What was on its way when the server closes arrives, in order, the close behind it; who does not take
/// it within the linger time is let go.
#[test]
fn a_close_waits_behind_what_is_pending() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.limits.outbound_bytes = 64 << 20);
        let (mut reads, call) = server.log_in(1);
        let (never, never_call) = server.log_in(2);
        let push_and_close = |call: &Call| {
            let pushes = server.gateway.stats().pushes + 100;
            // Far more than the socket buffers hold.
            server.push(call, "c", 1..101, 50_000);
            // Orders overtake deliveries: what was not begun when the close comes is not sent.
            eventually("all is begun", || server.gateway.stats().pushes == pushes);
            server.mailbox.order(crate::mailbox::Order::Close {
                slot: call.slot,
                generation: call.generation,
                code: 4900,
                reason: "enough".into(),
            });
        };
        push_and_close(&call);
        // All of it at once: while it is looked at the linger time would run.
        reads.stream.read_to_end(&mut reads.bytes).unwrap();
        for seq in 1..101 {
            assert_eq!(reads.next_json()["payload"]["seq"], seq);
        }
        assert_eq!(reads.close_code(), 4900);
        push_and_close(&never_call);
        drop(reads);
        eventually("both are gone", || server.gateway.stats().connections == 0);
        drop(never);
        server.gateway.stop().unwrap();
    });
}
