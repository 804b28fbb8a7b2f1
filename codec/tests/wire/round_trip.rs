//! Random conversations, written by our encoders, cut at random, read by our decoder.

use codec::ws::{Limits, Opcode, Role, encode_close, encode_close_masked, encode_fragment};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{Seen, cut, decode, single_bytes};

const LIMITS: Limits = Limits { max_message_bytes: 100_000, max_fragments: 64 };

/// One message or control frame as it is to be sent.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The payload, the places to cut it at, and pings between the fragments.
    Message {
        payload: Payload,
        cuts: Vec<usize>,
        pings: Vec<Vec<u8>>,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        8 => "\\PC{0,40}".prop_map(Payload::Text),
        8 => "[a-zé€𝄞]{0,400}".prop_map(Payload::Text),
        8 => vec(any::<u8>(), 0..300).prop_map(Payload::Binary),
        1 => (any::<u8>(), 65_000..70_000_usize).prop_map(|(b, n)| Payload::Binary(vec![b; n])),
    ]
}

fn control() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(vec![]), vec(any::<u8>(), 0..=125)]
}

pub(crate) fn item() -> impl Strategy<Value = Item> {
    let message = (payload(), vec(any::<usize>(), 0..6), vec(control(), 0..6))
        .prop_map(|(payload, cuts, pings)| Item::Message { payload, cuts, pings });
    prop_oneof![
        6 => message,
        1 => control().prop_map(Item::Ping),
        1 => control().prop_map(Item::Pong),
    ]
}

/// Appends an item as frames (with a key: as the client's) and the events it must become.
pub(crate) fn write(
    item: &Item,
    mut key: impl FnMut() -> Option<[u8; 4]>,
    out: &mut Vec<u8>,
) -> Vec<Seen> {
    let (payload, cuts, pings) = match item {
        Item::Message { payload, cuts, pings } => (payload, cuts, pings),
        Item::Ping(bytes) => {
            encode_fragment(out, Opcode::Ping, true, bytes, key());
            return vec![Seen::Ping(bytes.clone())];
        }
        Item::Pong(bytes) => {
            encode_fragment(out, Opcode::Pong, true, bytes, key());
            return vec![Seen::Pong(bytes.clone())];
        }
    };
    let (opcode, bytes, whole) = match payload {
        Payload::Text(text) => (Opcode::Text, text.as_bytes(), Seen::Text(text.clone())),
        Payload::Binary(bytes) => (Opcode::Binary, &bytes[..], Seen::Binary(bytes.clone())),
    };
    let fragments = cut(bytes, cuts);
    let mut seen = Vec::new();
    for (i, fragment) in fragments.iter().enumerate() {
        let opcode = if i == 0 { opcode } else { Opcode::Continuation };
        let last = i + 1 == fragments.len();
        encode_fragment(out, opcode, last, fragment, key());
        if let (false, Some(ping)) = (last, pings.get(i)) {
            encode_fragment(out, Opcode::Ping, true, ping, key());
            seen.push(Seen::Ping(ping.clone()));
        }
    }
    seen.push(whole);
    seen
}

/// Different keys, the zero key among them.
pub(crate) fn keys() -> impl FnMut() -> Option<[u8; 4]> {
    let mut state = 0_u32;
    move || {
        let key = state.to_be_bytes();
        state = state.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15);
        Some(key)
    }
}

proptest! {
    #[test]
    fn what_a_client_writes_a_server_reads(
        items in vec(item(), 0..8), places in vec(any::<usize>(), 0..12), code in 3000..5000_u16,
    ) {
        let mut bytes = Vec::new();
        let mut key = keys();
        let mut expected: Vec<Seen> =
            items.iter().flat_map(|item| write(item, &mut key, &mut bytes)).collect();
        encode_close_masked(&mut bytes, code, "done", [9, 8, 7, 6]);
        expected.push(Seen::Close(Some((code, "done".to_owned()))));
        prop_assert_eq!(&decode(cut(&bytes, &places), Role::Server, &LIMITS), &expected);
        prop_assert_eq!(&decode(single_bytes(&bytes), Role::Server, &LIMITS), &expected);
    }

    #[test]
    fn what_a_server_writes_a_client_reads(
        items in vec(item(), 0..8), places in vec(any::<usize>(), 0..12), code in 3000..5000_u16,
    ) {
        let mut bytes = Vec::new();
        let mut expected: Vec<Seen> =
            items.iter().flat_map(|item| write(item, || None, &mut bytes)).collect();
        encode_close(&mut bytes, code, "done");
        expected.push(Seen::Close(Some((code, "done".to_owned()))));
        prop_assert_eq!(&decode(cut(&bytes, &places), Role::Client, &LIMITS), &expected);
    }

    /// Whatever bytes come: no panic, and the way they are cut changes nothing.
    #[test]
    fn noise_means_the_same_however_it_is_cut(
        frames in vec((any::<u8>(), 0..128_u8, vec(any::<u8>(), 0..20)), 0..6),
        places in vec(any::<usize>(), 0..8),
        is_client in any::<bool>(),
    ) {
        let role = if is_client { Role::Client } else { Role::Server };
        let mut bytes = Vec::new();
        for (first, length, payload) in &frames {
            // Half of the frames get a length that fits, so that some noise goes deep.
            let length = if length % 2 == 0 { payload.len() as u8 } else { *length };
            bytes.push(first & if length % 3 == 0 { 0xFF } else { 0x8F });
            bytes.push(if is_client { length } else { length | 0x80 });
            if !is_client {
                bytes.extend([5, 6, 7, 8]);
            }
            bytes.extend(payload);
        }
        let whole = decode([&bytes[..]], role, &LIMITS);
        prop_assert_eq!(&decode(cut(&bytes, &places), role, &LIMITS), &whole);
        prop_assert_eq!(&decode(single_bytes(&bytes), role, &LIMITS), &whole);
    }

    /// One byte of a good conversation is changed: no panic, the same meaning however it is cut.
    #[test]
    fn one_changed_byte_means_the_same_however_it_is_cut(
        items in vec(item(), 1..4), at in any::<usize>(), flip in 1..=255_u8,
        places in vec(any::<usize>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        let mut key = keys();
        for item in &items {
            write(item, &mut key, &mut bytes);
        }
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let whole = decode([&bytes[..]], Role::Server, &LIMITS);
        prop_assert_eq!(&decode(cut(&bytes, &places), Role::Server, &LIMITS), &whole);
    }
}
