use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

mod measure;

fn on(shard: u32, slot: u32, generation: u32) -> ConnId {
    ConnId { shard, slot, generation }
}

fn entrant(connection: ConnId, user_id: u64) -> Entrant {
    Entrant { connection, user_id, device_id: "d1".into(), device_class: "web".into() }
}

fn interests(connection: ConnId, user_id: u64, ids: &[&str]) -> Interests {
    let ConnId { shard, slot, generation } = connection;
    let conversation_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    Interests { shard, slot, generation, user_id, conversation_ids }
}

fn joined(id: &str, users: &[u64]) -> InterestChange {
    InterestChange { conversation_id: id.into(), joined: users.to_vec(), ..Default::default() }
}

fn left(id: &str, users: &[u64]) -> InterestChange {
    InterestChange { conversation_id: id.into(), left: users.to_vec(), ..Default::default() }
}

fn key(connection: ConnId) -> (u32, u32, u32) {
    (connection.shard, connection.slot, connection.generation)
}

fn of_user(index: &Index, user_id: u64) -> BTreeSet<(u32, u32, u32)> {
    let mut found = BTreeSet::new();
    index.open().of_user(user_id, |connection| assert!(found.insert(key(connection))));
    found
}

fn of_conversation(index: &Index, id: &str) -> BTreeSet<(u32, u32, u32)> {
    let mut found = BTreeSet::new();
    index.open().of_conversation(id, |connection| assert!(found.insert(key(connection))));
    found
}

#[test]
fn a_login_brings_its_large_conversations_and_the_end_takes_them() {
    let index = Index::default();
    let (first, second) = (on(0, 3, 1), on(1, 0, 0));
    index.finish_changes(
        [Change::Entered(entrant(first, 7)), Change::Entered(entrant(second, 7))],
        &[interests(first, 7, &["big", "vast"]), interests(second, 7, &["big"])],
    );
    assert_eq!(of_conversation(&index, "big"), [key(first), key(second)].into());
    assert_eq!(of_conversation(&index, "vast"), [key(first)].into());
    index.finish_changes([Change::Left(first)], &[]);
    assert_eq!(of_conversation(&index, "big"), [key(second)].into());
    assert!(of_conversation(&index, "vast").is_empty());
    assert_eq!(of_user(&index, 7), [key(second)].into());
}

#[test]
fn interest_for_somebody_else_or_for_an_earlier_connection_is_not_taken() {
    let index = Index::default();
    index.finish_changes(
        [Change::Entered(entrant(on(0, 1, 5), 7))],
        &[interests(on(0, 1, 5), 8, &["big"]), interests(on(0, 1, 4), 7, &["big"])],
    );
    assert!(of_conversation(&index, "big").is_empty());
    // The end of an earlier connection of the slot does not end this one.
    index.finish_changes([Change::Left(on(0, 1, 4))], &[]);
    assert_eq!(index.len(), 1);
}

/// The answer to a login was made before the user joined; the news of the join overtook it.
#[test]
fn changes_that_overtake_a_login_are_not_lost() {
    let index = Index::default();
    let connection = on(0, 0, 0);
    index.begin_changes(false);
    index.open().apply(joined("big", &[7, 8]));
    index.open().apply(left("vast", &[7]));
    assert!(of_conversation(&index, "big").is_empty());
    index.finish_changes(
        [Change::Entered(entrant(connection, 7))],
        &[interests(connection, 7, &["vast"])],
    );
    assert_eq!(of_conversation(&index, "big"), [key(connection)].into());
    assert!(of_conversation(&index, "vast").is_empty());
}

#[test]
fn a_conversation_that_is_no_longer_large_is_forgotten() {
    let index = Index::default();
    index.finish_changes([Change::Entered(entrant(on(0, 0, 0), 7))], &[]);
    index.open().apply(joined("big", &[7]));
    assert_eq!(of_conversation(&index, "big").len(), 1);
    let forget =
        InterestChange { conversation_id: "big".into(), forget: true, ..Default::default() };
    index.open().apply(forget);
    assert!(of_conversation(&index, "big").is_empty());
    index.finish_changes([Change::Left(on(0, 0, 0))], &[]);
    assert!(index.is_empty());
}

#[test]
fn sessions_come_in_parts_with_their_devices() {
    let index = Index::default();
    let all = (0..2500).map(|n| Change::Entered(entrant(on(n % 3, n / 3, n), u64::from(n) + 1)));
    index.finish_changes(all, &[]);
    let (mut cursor, mut users, mut parts) = (Some(0), BTreeSet::new(), 0);
    while let Some(at) = cursor {
        let (sessions, next) = index.sessions(at, 1000);
        assert!(sessions.len() <= 1000);
        for session in sessions {
            assert_eq!((session.device_id.as_str(), session.device_class.as_str()), ("d1", "web"));
            let connection = session.connection.unwrap();
            assert_eq!(u64::from(connection.generation) + 1, session.user_id);
            assert!(users.insert(session.user_id));
        }
        (cursor, parts) = (next, parts + 1);
    }
    assert_eq!((users.len(), parts), (2500, 3));
}

#[test]
fn numbers_that_no_shard_has_are_not_taken_in() {
    let index = Index::default();
    let far = [on(u32::MAX, 0, 0), on(0, u32::MAX, 0), on(0, 1 << 24, 0)];
    index.finish_changes(far.map(|connection| Change::Entered(entrant(connection, 1))), &[]);
    assert!(index.is_empty() && index.heap_bytes() == 0);
}

/// What the README says of memory. Of the heap's own overhead nothing is counted.
#[test]
fn what_a_session_costs() {
    const SESSIONS: u32 = 100_000;
    let cost = |device: &str, large: usize| {
        let index = Index::default();
        let ids: Vec<String> = (0..large).map(|n| format!("large-{n}")).collect();
        for n in 0..SESSIONS {
            let (connection, user_id) = (on(n % 2, n / 2, 0), u64::from(n) + 1);
            let entrant = Entrant {
                connection,
                user_id,
                device_id: device.to_owned(),
                device_class: String::new(),
            };
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let interests = interests(connection, user_id, &ids);
            index.finish_changes([Change::Entered(entrant)], &[interests]);
        }
        index.heap_bytes() as f64 / f64::from(SESSIONS)
    };
    let (bare, device, large) = (cost("", 0), cost(&"u".repeat(36), 0), cost("", 1) - cost("", 0));
    println!(
        "bare {bare:.1}, with a device id of 36 bytes {device:.1}, a large conversation {large:.1}"
    );
    assert!(bare <= 56.0, "{bare}");
    assert!(device <= 92.0, "{device}");
    assert!(large <= 128.0, "{large}");
}

#[derive(Clone, Debug)]
enum Op {
    Enter(u32, u32, u64),
    Leave(u32, u32),
    Join(u8, u64),
    Part(u8, u64),
    Forget(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let one = prop_oneof![
        4 => (0..2_u32, 0..6_u32, 1..5_u64).prop_map(|(shard, slot, user)| Op::Enter(shard, slot, user)),
        3 => (0..2_u32, 0..6_u32).prop_map(|(shard, slot)| Op::Leave(shard, slot)),
        3 => (0..3_u8, 1..5_u64).prop_map(|(id, user)| Op::Join(id, user)),
        2 => (0..3_u8, 1..5_u64).prop_map(|(id, user)| Op::Part(id, user)),
        1 => (0..3_u8).prop_map(Op::Forget),
    ];
    proptest::collection::vec(one, 0..80)
}

proptest! {
    /// The tables agree with plain maps, whatever comes and goes.
    #[test]
    fn it_agrees_with_a_plain_model(ops in ops()) {
        let index = Index::default();
        let mut generation = 0;
        let mut sessions: BTreeMap<(u32, u32), (u32, u64)> = BTreeMap::new();
        let mut members: BTreeSet<(u8, (u32, u32, u32))> = BTreeSet::new();
        for op in ops {
            match op {
                Op::Enter(shard, slot, user) => {
                    generation += 1;
                    if let Some((old, _)) = sessions.insert((shard, slot), (generation, user)) {
                        members.retain(|(_, at)| *at != (shard, slot, old));
                    }
                    let change = Change::Entered(entrant(on(shard, slot, generation), user));
                    index.finish_changes([change], &[]);
                }
                Op::Leave(shard, slot) => {
                    if let Some((old, _)) = sessions.remove(&(shard, slot)) {
                        members.retain(|(_, at)| *at != (shard, slot, old));
                        index.finish_changes([Change::Left(on(shard, slot, old))], &[]);
                    }
                }
                Op::Join(id, user) => {
                    for (&(shard, slot), &(generation, who)) in &sessions {
                        if who == user {
                            members.insert((id, (shard, slot, generation)));
                        }
                    }
                    index.open().apply(joined(&id.to_string(), &[user]));
                }
                Op::Part(id, user) => {
                    for (&(shard, slot), &(generation, who)) in &sessions {
                        if who == user {
                            members.remove(&(id, (shard, slot, generation)));
                        }
                    }
                    index.open().apply(left(&id.to_string(), &[user]));
                }
                Op::Forget(id) => {
                    members.retain(|(of, _)| *of != id);
                    index.open().apply(InterestChange { conversation_id: id.to_string(), forget: true, ..Default::default() });
                }
            }
            prop_assert_eq!(index.len(), sessions.len());
            for user in 1..5 {
                let theirs = sessions.iter().filter(|(_, (_, who))| *who == user);
                let theirs = theirs.map(|(&(shard, slot), &(generation, _))| (shard, slot, generation)).collect();
                prop_assert_eq!(of_user(&index, user), theirs);
            }
            for id in 0..3 {
                let inside = members.iter().filter(|(of, _)| *of == id).map(|(_, at)| *at).collect();
                prop_assert_eq!(of_conversation(&index, &id.to_string()), inside);
            }
        }
    }
}
