//! Messages up, answers and pushes down.

use std::sync::atomic::{AtomicBool, Ordering};

use proto::v1::{EventDelivery, PresenceChange};
use serde_json::json;

use super::*;
use crate::mailbox::Order;

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

/// A socket with bytes waiting gets no send of its own: what was short goes first, whatever turn it is.
#[test]
fn what_a_slow_reader_is_sent_stays_in_order() {
    on_every_driver(|io| {
        let server = start(io, Mode::Echo, |config| config.limits.outbound_bytes = 64 << 20);
        let mut peer = server.connect();
        // A small window makes nearly every send short.
        rustix::net::sockopt::set_socket_recv_buffer_size(&peer.stream, 65_536).unwrap();
        peer.upgrade("/");
        let mut writer = peer.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            for number in 0..3_000_u32 {
                let mut payload = vec![0; 1 + (number as usize * 7919) % 3_000];
                payload.splice(..0, number.to_be_bytes());
                let mut frame = Vec::new();
                encode_frame_masked(&mut frame, Opcode::Binary, &payload, [9, 8, 7, 6]);
                writer.write_all(&frame).unwrap();
            }
        });
        for number in 0..3_000_u32 {
            if number % 500 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            let (_, payload) = peer.next_frame().unwrap();
            assert_eq!(payload[..4], number.to_be_bytes());
            assert_eq!(payload.len(), 5 + (number as usize * 7919) % 3_000);
        }
        sender.join().unwrap();
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
        assert_eq!(server.gateway.stats().lagged_marks, 1);
        // Caught up: pushes come again.
        eventually("the queue is gone", || {
            server.push(&slow_call, "hot", 9_000..9_001, 10);
            let frame = slow.next_json();
            frame["cmd"] == 4 && frame["payload"]["seq"] == 9_000
        });
        server.gateway.stop().unwrap();
    });
}

/// More at once than may wait for a slow reader: whether it is slow only its socket can tell.
#[test]
fn a_burst_is_no_reason_to_leave_pushes_out() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.limits.outbound_bytes = 64 * 1024);
        let (mut peer, call) = server.log_in(1);
        let (mut other, other_call) = server.log_in(2);
        let (mut messages, mut targets) = (Vec::new(), Vec::new());
        for (at, seq) in (0..).zip(1..=25) {
            let content = vec![b'x'; 4000].into();
            messages.push(Message {
                conversation_id: "hot".into(),
                seq,
                content,
                ..Message::default()
            });
            let to = |call: &Call| (call.slot, call.generation);
            targets.extend([to(&call), to(&other_call)].map(|(slot, generation)| Target {
                message: at,
                slot,
                generation,
            }));
        }
        server.mailbox.deliver(DeliveryBatch { messages, targets, ..Default::default() });
        for reader in [&mut peer, &mut other] {
            for seq in 1..=25 {
                let frame = reader.next_json();
                assert_eq!((&frame["cmd"], &frame["payload"]["seq"]), (&json!(4), &json!(seq)));
            }
        }
        assert_eq!(server.gateway.stats().lagged, 0);
        server.gateway.stop().unwrap();
    });
}

/// However much the logic service has for a shard, its connections get their turn.
#[test]
fn a_mailbox_that_is_never_empty_keeps_nobody_waiting() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let (mut peer, _) = server.log_in(1);
        let enough = Arc::new(AtomicBool::new(false));
        let feeders = [0; 3].map(|_| {
            let (enough, mailbox) = (Arc::clone(&enough), Arc::clone(&server.mailbox));
            std::thread::spawn(move || {
                let nobody = Target { message: 0, slot: 1 << 20, generation: 1 };
                let batch = DeliveryBatch {
                    messages: vec![Message::default()],
                    targets: vec![nobody; 65_536],
                    ..Default::default()
                };
                // They end also when the test fails.
                let deadline = Instant::now() + 2 * PATIENCE;
                while !enough.load(Ordering::Relaxed) && Instant::now() < deadline {
                    mailbox.deliver(batch.clone());
                }
            })
        });
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(50));
            peer.text(r#"{"cmd":0}"#);
            assert_eq!(peer.next_json()["cmd"], 0);
        }
        enough.store(true, Ordering::Relaxed);
        for feeder in feeders {
            feeder.join().unwrap();
        }
        server.gateway.stop().unwrap();
    });
}

/// Behind Kafka a push may overtake the welcome. Whoever resumed would not ask for it.
#[test]
fn a_push_that_comes_before_the_welcome_is_told_of_behind_it() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |_| {});
        let (mut other, other_call) = server.log_in(2);
        let mut peer = server.connect();
        peer.send(handshake("/ws?user_id=u1").as_bytes());
        let call = server.next_call();
        server.push(&call, "hot", 7..9, 10);
        server.push(&call, "cool", 3..4, 10);
        // Orders overtake deliveries: the welcome is put in when those before this one have been looked at.
        server.push(&other_call, "behind", 1..2, 10);
        assert_eq!(other.next_json()["conversation_id"], "behind");
        server.welcome(&call, 1);
        peer.upgraded();
        let marks: Vec<_> = (0..2)
            .map(|_| peer.next_json())
            .map(|mark| {
                assert_eq!(mark["cmd"], 10);
                (mark["conversation_id"].as_str().unwrap().to_owned(), mark["from_seq"].as_u64())
            })
            .collect();
        assert_eq!(marks, [("hot".to_owned(), Some(7)), ("cool".to_owned(), Some(3))]);
        // From here on they come as ever.
        server.push(&call, "hot", 9..10, 10);
        assert_eq!(peer.next_json()["payload"]["seq"], 9);
        server.gateway.stop().unwrap();
    });
}

#[test]
fn what_comes_while_a_login_is_under_way_is_not_lost() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.limits.message_burst = 100);
        let mut peer = server.connect();
        peer.send(handshake("/ws?user_id=u1").as_bytes());
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
fn news_of_presence_comes_and_is_dropped_for_who_does_not_read() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.limits.outbound_bytes = 64 * 1024);
        let (mut slow, call) = server.log_in(1);
        let tell = |server: &Server, user_id| {
            let change = PresenceChange { user_id, username: "bob".into(), ..Default::default() };
            let peers = vec![proto::v1::Peer { slot: call.slot, generation: call.generation }];
            let delivery = EventDelivery { event: None, peers, presence: Some(change) };
            server.mailbox.order(Order::Event(Box::new(delivery)));
        };
        tell(&server, 7);
        let told = json!({"cmd":16,"payload":{"user_id":"7","username":"bob","online":false,"last_seen_ms":0}});
        assert_eq!(slow.next_json(), told);
        server.push(&call, "hot", 1..8_001, 4000);
        eventually("pushes are left out", || server.gateway.stats().lagged > 0);
        (0..1000).for_each(|user| tell(&server, user));
        let mut cmd = 4;
        while cmd == 4 {
            cmd = slow.next_json()["cmd"].as_u64().unwrap();
        }
        assert_eq!(cmd, 10, "no news stands before what is durable, nor after");
        server.gateway.stop().unwrap();
    });
}
