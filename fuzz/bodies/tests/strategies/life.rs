//! Lives of connections: a door that fits, mostly a login, then anything.

use fuzz_bodies::session::Case;
use fuzz_bodies::session::ops::{Arrival, FRAMES, Op, PROTOCOLS, Part, TARGETS, TEXTS};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Copy, Debug)]
enum Door {
    Json,
    BinaryMessages,
    Stream,
}

fn arrival(part: impl Strategy<Value = Part>) -> impl Strategy<Value = Op> {
    let spoil = prop_oneof![9 => Just((0, 0)), 1 => any::<(u16, u8)>()];
    let cut = prop_oneof![1 => Just(0), 1 => any::<u16>()];
    (part, spoil, cut, prop::bool::weighted(0.15)).prop_map(|(part, spoil, cut, joined)| {
        Op::Bytes(Arrival { part, again: 0, spoil, cut, joined })
    })
}

/// Frames of the form that the door asks for.
fn fitting(door: Door) -> BoxedStrategy<Part> {
    let which = prop_oneof![2 => Just(0_u8), 1 => 2..TEXTS.len() as u8];
    match door {
        Door::Json => prop_oneof![
            8 => which.clone().prop_map(Part::Text),
            2 => which.prop_map(Part::Fragments),
            1 => Just(Part::Ping),
        ]
        .boxed(),
        Door::BinaryMessages => prop_oneof![Just(0), 2..FRAMES].prop_map(Part::Message).boxed(),
        Door::Stream => prop_oneof![Just(0), 2..FRAMES].prop_map(Part::Stream).boxed(),
    }
}

/// Frames without a purpose, many at once or few.
fn flood(door: Door) -> impl Strategy<Value = Op> {
    let part = match door {
        // A heartbeat, no JSON.
        Door::Json => select(vec![Part::Ping, Part::Pong, Part::Text(2), Part::Text(20)]),
        Door::BinaryMessages => select(vec![Part::Ping, Part::Empty, Part::Message(2)]),
        Door::Stream => select(vec![Part::Stream(2), Part::Stream(12)]),
    };
    let again = prop_oneof![2 => 0..8_u8, 1 => any::<u8>()];
    (part, again, any::<u16>())
        .prop_map(|(part, again, cut)| Op::Bytes(Arrival { again, cut, ..Arrival::plain(part) }))
}

fn anything() -> impl Strategy<Value = Part> {
    prop_oneof![
        (0..TARGETS.len() as u8, 0..PROTOCOLS.len() as u8)
            .prop_map(|(target, protocols)| Part::Handshake(target, protocols)),
        Just(Part::Preface),
        (0..TEXTS.len() as u8).prop_map(Part::Text),
        (0..FRAMES).prop_map(Part::Message),
        (0..FRAMES).prop_map(Part::Stream),
        Just(Part::Ping),
        Just(Part::Pong),
        Just(Part::Empty),
        Just(Part::Close),
        vec(any::<u8>(), 0..40).prop_map(Part::Raw),
    ]
}

fn event(door: Door) -> impl Strategy<Value = Op> {
    let wait = prop_oneof![0..2_000_u32, any::<u32>()].prop_map(|ms| Op::Wait { ms });
    prop_oneof![
        20 => arrival(fitting(door)),
        2 => arrival(anything()),
        2 => flood(door),
        4 => Just(Op::WaitAsAsked),
        3 => wait,
        2 => (0..2000_u16).prop_map(|size| Op::Push { size }),
        2 => Just(Op::Answer),
        1 => Just(Op::Busy),
        1 => Just(Op::TakeAnnounced),
        1 => prop_oneof![
            Just(Op::Welcome),
            Just(Op::LoginFailed { temporary: false }),
            Just(Op::Close),
            Just(Op::GoAway),
        ],
    ]
}

/// One life: the door, the login, events.
pub(crate) fn session() -> impl Strategy<Value = Case> {
    let door = prop_oneof![Just(Door::Json), Just(Door::BinaryMessages), Just(Door::Stream)];
    let begun = door.prop_flat_map(|door| {
        let first = match door {
            Door::Json => {
                prop_oneof![Just(Part::Handshake(0, 0)), Just(Part::Handshake(0, 1))].boxed()
            }
            Door::BinaryMessages => Just(Part::Handshake(0, 2)).boxed(),
            Door::Stream => Just(Part::Preface).boxed(),
        };
        let hello = match door {
            Door::Json => Part::Text(1),
            Door::BinaryMessages => Part::Message(1),
            Door::Stream => Part::Stream(1),
        };
        let login = vec![
            arrival(Just(hello)).boxed(),
            prop_oneof![6 => Just(Op::Welcome), 1 => event(door)].boxed(),
        ];
        let first = prop_oneof![8 => first, 1 => anything()];
        (arrival(first), prop::option::weighted(0.9, login), vec(event(door), 0..40))
    });
    (any::<u8>(), begun).prop_map(|(rules, (first, login, rest))| {
        let ops = [vec![first], login.unwrap_or_default(), rest].concat();
        Case { rules, ops }
    })
}
