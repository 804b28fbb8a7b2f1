//! Long payloads that go out from where they lie.

use codec::binary::Kind;
use prost::Message as _;
use proto::v1::Push;

use super::*;
use crate::limits::{LEFT_IN_PLACE_BYTES, RECV_BUFFER_BYTES};

/// Distinct from its neighbours at every byte, so that a piece from elsewhere shows.
fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251 + number * 31) as u8).collect()
}

/// Long messages, short ones and pings, in one stream that is cut anywhere: some lie whole in the receive buffer, some
/// are put together elsewhere.
#[test]
fn long_and_short_messages_are_echoed_in_their_order() {
    on_every_driver(|io| {
        let server = start(io, Mode::Echo, |_| {});
        let lens = [5, 3_000, LEFT_IN_PLACE_BYTES - 1, LEFT_IN_PLACE_BYTES, 60_000, 0, 20_000];
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for number in 0..70 {
            let bytes = payload(number, lens[number % lens.len()]);
            encode_frame_masked(&mut stream, Opcode::Binary, &bytes, [1, 2, 3, number as u8]);
            expected.push((2, bytes));
            if number % 4 == 0 {
                encode_frame_masked(&mut stream, Opcode::Ping, b"there?", [9; 4]);
                expected.push((10, b"there?".to_vec()));
            }
        }
        for chunk in [stream.len(), RECV_BUFFER_BYTES + 1, 4_321] {
            let mut peer = server.connect();
            peer.upgrade("/");
            let mut writer = peer.stream.try_clone().unwrap();
            let stream = stream.clone();
            let sender = std::thread::spawn(move || {
                for piece in stream.chunks(chunk) {
                    writer.write_all(piece).unwrap();
                }
            });
            for (number, expected) in expected.iter().enumerate() {
                assert!(peer.next_frame().as_ref() == Some(expected), "{number}, by {chunk}");
            }
            sender.join().unwrap();
        }
        server.gateway.stop().unwrap();
    });
}

/// Two connections in one turn use the receive buffer one after the other.
#[test]
fn what_is_left_in_place_is_sent_before_the_next_receive() {
    on_every_driver(|io| {
        let server = start(io, Mode::Echo, |_| {});
        let mut peers: Vec<_> = (0..40).map(|_| server.connect()).collect();
        peers.iter_mut().for_each(|peer| peer.upgrade("/"));
        for round in 0..20 {
            for (number, peer) in peers.iter_mut().enumerate() {
                let mut frame = Vec::new();
                let bytes = payload(round * 40 + number, 900 + 100 * (number % 7));
                encode_frame_masked(&mut frame, Opcode::Binary, &bytes, [7, 7, 7, 7]);
                peer.send(&frame);
            }
            for (number, peer) in peers.iter_mut().enumerate() {
                let bytes = payload(round * 40 + number, 900 + 100 * (number % 7));
                assert!(peer.next_frame() == Some((2, bytes)), "{number} in round {round}");
            }
        }
        server.gateway.stop().unwrap();
    });
}

/// A connection that is logged in as `user_id` and speaks the binary form.
fn log_in_binary(server: &mut Server, user_id: u64, websocket: bool) -> (Peer, Call) {
    let mut peer = server.connect();
    let mut hello = Vec::new();
    // Field 5: the user, of whom no proof is asked here.
    codec::binary::encode(&mut hello, Kind::Hello, &[0x2a, 1, b'u']);
    if websocket {
        peer.upgrade("/ws");
        let mut message = Vec::new();
        encode_frame_masked(&mut message, Opcode::Binary, &hello, [4, 3, 2, 1]);
        peer.send(&message);
    } else {
        peer.send(&codec::binary::PREFACE);
        peer.send(&hello);
    }
    let call = server.next_call();
    server.welcome(&call, user_id);
    assert_eq!(next_binary(&mut peer, websocket).0, Kind::Welcome);
    (peer, call)
}

/// The next binary frame, alone or in a message of its own.
fn next_binary(peer: &mut Peer, websocket: bool) -> (Kind, Vec<u8>) {
    let limits =
        codec::binary::Limits { role: codec::binary::Role::Client, max_body_bytes: 1 << 20 };
    if websocket {
        let (opcode, message) = peer.next_frame().expect("a message");
        assert_eq!(opcode, 2);
        let frame = codec::binary::next_in_message(&mut &message[..], &limits).unwrap().unwrap();
        return (frame.kind, frame.body.to_vec());
    }
    let mut decoder = codec::binary::Decoder::new();
    loop {
        let mut rest = &peer.bytes[..];
        if let Some(frame) = decoder.next(&mut rest, &limits).unwrap() {
            let frame = (frame.kind, frame.body.to_vec());
            let used = peer.bytes.len() - rest.len();
            peer.bytes.drain(..used);
            return frame;
        }
        decoder = codec::binary::Decoder::new();
        assert!(peer.fill() > 0, "the stream ended");
    }
}

/// All receivers of a push share its bytes, each behind a head of its own; with more than a flush takes at once.
#[test]
fn a_long_push_is_whole_for_every_receiver_of_every_form() {
    on_every_driver(|io| {
        let mut server = start(io, serve(), |config| config.limits.outbound_bytes = 4 << 20);
        let mut peers: Vec<_> = (1..=9)
            .map(|user| match user % 3 {
                0 => server.log_in(user),
                form => log_in_binary(&mut server, user, form == 1),
            })
            .collect();
        let lens = [4_000, 10, LEFT_IN_PLACE_BYTES, 3_000, 500];
        let messages: Vec<_> = (0..150_usize)
            .map(|number| Message {
                conversation_id: "c".into(),
                seq: number as u64 + 1,
                content: payload(number, lens[number % lens.len()]).into(),
                msg_type: 2,
                ..Message::default()
            })
            .collect();
        let targets = (0..150)
            .flat_map(|message| peers.iter().map(move |(_, call)| (message, call)))
            .map(|(message, call)| Target { message, slot: call.slot, generation: call.generation })
            .collect();
        let batch = DeliveryBatch { messages: messages.clone(), targets, ..Default::default() };
        std::thread::scope(|scope| {
            scope.spawn(|| server.mailbox.deliver(batch));
            for (at, (peer, _)) in peers.iter_mut().enumerate() {
                let messages = &messages;
                scope.spawn(move || {
                    for (number, message) in messages.iter().enumerate() {
                        if (at + 1) % 3 == 0 {
                            assert_eq!(peer.next_json()["payload"]["seq"], message.seq);
                            continue;
                        }
                        let (kind, body) = next_binary(peer, (at + 1) % 3 == 1);
                        assert_eq!(kind, Kind::Push);
                        let push = Push::decode(&body[..]).unwrap();
                        assert_eq!(push.push_no, number as u64 + 1);
                        assert_eq!(push.message.as_ref(), Some(message));
                    }
                });
            }
        });
        server.gateway.stop().unwrap();
    });
}
