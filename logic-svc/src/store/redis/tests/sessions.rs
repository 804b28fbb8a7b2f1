use std::collections::BTreeMap;
use std::sync::Barrier;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::domain::device::DevicePolicies;
use crate::store::presence::LocalPresence;

/// No limit.
const ANY: usize = 1_000_000;

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn the_same_device_takes_over_wherever_it_was() {
    let space = Space::shared();
    let table = space.table();
    let (a, b, c) = (space.on(1, 1), space.on(2, 1), space.on(1, 2));
    let outcomes =
        change(&table, ANY, vec![login(7, "phone", a), login(7, "web", c), login(7, "phone", b)]);
    assert_eq!(outcomes.unwrap(), [Login::Added, Login::Added, Login::Replaced(a)]);
    assert_eq!(of(&table, 7).len(), 2);
    // The end of the old one comes late and changes nothing.
    assert_eq!(change(&table, ANY, vec![closed(7, a)]).unwrap(), []);
    assert_eq!(of(&table, 7).len(), 2);
    assert_eq!(change(&table, ANY, vec![closed(7, b), closed(7, c)]).unwrap(), []);
    assert_eq!(of(&table, 7), []);
    // A login told twice is the same login.
    for _ in 0..2 {
        assert_eq!(change(&table, ANY, vec![login(7, "phone", a)]).unwrap(), [Login::Added]);
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn dead_entries_neither_count_nor_get_a_kick_and_go_on_the_way() {
    let space = Space::shared();
    let table = space.table();
    let one = |slot| space.on(1, slot);
    let first = vec![login(7, "a", one(1)), login(7, "b", one(2)), login(7, "", one(3))];
    change(&table, 2, first).unwrap();
    assert_eq!(change(&table, 2, vec![login(7, "c", one(4))]).unwrap(), [Login::TooMany]);
    // The first gateway dies; the second one takes its users.
    space.gateways.set_live([("gw-1".to_owned(), 15), ("gw-2".to_owned(), 12)]);
    assert_eq!(of(&table, 7), [], "fenced at once");
    let two = space.on(2, 9);
    assert_eq!(change(&table, 2, vec![login(7, "a", two)]).unwrap(), [Login::Added]);
    assert_eq!(value::int(&space.ask("HLEN", "user_session:7", &[])), 1, "the other one went, too");
    let more = vec![login(7, "x", space.on(2, 10)), login(7, "y", space.on(2, 11))];
    assert_eq!(change(&table, 2, more).unwrap(), [Login::Added, Login::TooMany]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_full_user_whose_gateway_died_is_let_in_and_an_end_in_the_same_batch_counts() {
    let space = Space::shared();
    let table = space.table();
    let first = vec![login(7, "a", space.on(1, 1)), login(7, "b", space.on(1, 2))];
    change(&table, 2, first).unwrap();
    space.gateways.set_live([("gw-2".to_owned(), 12)]);
    let (new, other) = (space.on(2, 1), space.on(2, 2));
    let changes = vec![login(7, "c", new), closed(0, new), login(7, "d", other)];
    assert_eq!(change(&table, 2, changes).unwrap(), [Login::Added, Login::Added]);
    assert_eq!(of(&table, 7), [(other.gateway, 0, 2, 1)]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn classes_have_their_policies() {
    let space = Space::shared();
    let classes = DevicePolicies::parse(["tv=kick_old", "kiosk=refuse_new"]).unwrap();
    let table = space.table_with(RouteSettings { classes, ..RouteSettings::default() });
    let enter = |device: &str, class: &str, connection| {
        let (device_id, device_class) = (device.to_owned(), class.to_owned());
        let login = SessionChange::Login { user: 7, connection, device_id, device_class };
        change(&table, ANY, vec![login]).unwrap().remove(0)
    };
    let on = |slot| space.on(1, slot);
    assert_eq!(enter("a", "tv", on(1)), Login::Added);
    assert_eq!(enter("b", "tv", on(2)), Login::Kicked(vec![on(1)]));
    assert_eq!(enter("c", "kiosk", on(3)), Login::Added);
    assert_eq!(enter("d", "kiosk", on(4)), Login::ClassTaken);
    assert_eq!(enter("c", "kiosk", on(5)), Login::Replaced(on(3)), "the same device");
    assert_eq!(enter("e", "web", on(6)), Login::Added);
    let both = Login::Kicked(vec![on(6), on(2)]);
    assert_eq!(enter("e", "tv", on(7)), both, "its device, and the class");
    assert_eq!(of(&table, 7).len(), 2);
    // A kiosk whose gateway died refuses nobody.
    space.gateways.set_live([("gw-2".to_owned(), 12)]);
    assert_eq!(enter("z", "kiosk", space.on(2, 1)), Login::Added);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn numbers_out_of_range_are_refused() {
    let space = Space::shared();
    let table = space.table();
    for wrong in [
        ConnectionId { shard: 4096, ..space.on(1, 1) },
        ConnectionId { slot: 1 << 24, ..space.on(1, 1) },
        ConnectionId { gateway: 99, ..space.on(1, 1) },
    ] {
        let changes = vec![login(7, "a", wrong), login(8, "a", space.on(1, 1))];
        assert_eq!(change(&table, ANY, changes).unwrap(), [Login::OutOfRange, Login::Added]);
        change(&table, ANY, vec![closed(8, space.on(1, 1)), closed(7, wrong)]).unwrap();
    }
    assert_eq!((of(&table, 7), of(&table, 8)), (vec![], vec![]));
}

/// Logins and ends in any order, in batches, give what the table in memory gives.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn behaves_like_the_table_in_memory() {
    let op = (0u8..3, 1u64..5, 0u32..4, 0u32..12);
    let batches = prop::collection::vec(prop::collection::vec(op, 1..12), 1..12);
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    let ran = runner.run(&(batches, 1usize..5), |(batches, most)| {
        let space = Space::shared();
        let (table, model) = (space.table(), LocalPresence::default());
        let mut there: BTreeMap<u32, (u64, ConnectionId)> = BTreeMap::new();
        let mut generation = 0;
        for batch in batches {
            let (mut changes, mut plain) = (Vec::new(), Vec::new());
            for (op, user, device, slot) in batch {
                let old = there.remove(&slot);
                if let Some((user, connection)) = old {
                    changes.push(closed(user, connection));
                    plain.push(closed(user, ConnectionId { gateway: 0, ..connection }));
                }
                if op == 0 {
                    continue;
                }
                generation += 1;
                let connection = ConnectionId { generation, ..space.on(1, slot) };
                let device = if device == 0 { String::new() } else { format!("d{device}") };
                changes.push(login(user, &device, connection));
                plain.push(login(user, &device, ConnectionId { gateway: 0, ..connection }));
                there.insert(slot, (user, connection));
            }
            let got = change(&table, most, changes).unwrap();
            let want = change(&model, most, plain).unwrap();
            let numbered = |outcome| match outcome {
                Login::Replaced(old) => {
                    Login::Replaced(ConnectionId { gateway: space.gateway(1), ..old })
                }
                other => other,
            };
            let want: Vec<Login> = want.into_iter().map(numbered).collect();
            prop_assert_eq!(got, want);
            for user in 1..5 {
                let plain = |all: Vec<(u32, u32, u32, u32)>| -> Vec<_> {
                    all.into_iter().map(|(_, shard, slot, use_of)| (shard, slot, use_of)).collect()
                };
                prop_assert_eq!(plain(of(&table, user)), plain(of(&model, user)));
            }
        }
        Ok(())
    });
    ran.unwrap();
}

/// The same device at two gateways at once: one stays, and the other one is told.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_race_of_the_same_device_has_one_winner() {
    const ROUNDS: u32 = 10_000;
    const BATCH: u32 = 1;
    let space = Space::shared();
    let table = space.table();
    let start = Barrier::new(2);
    let run = |gateway: u64| -> Vec<Login> {
        let mut outcomes = Vec::new();
        for first in (0..ROUNDS).step_by(BATCH as usize) {
            let slots = first..first + BATCH;
            let logins =
                slots.map(|slot| login(u64::from(slot) + 1, "phone", space.on(gateway, slot)));
            let logins = logins.collect();
            start.wait();
            outcomes.extend(change(&table, ANY, logins).unwrap());
        }
        outcomes
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| run(1));
        let two = run(2);
        (one.join().unwrap(), two)
    });
    let mut first = 0;
    for slot in 0..ROUNDS {
        let stays = of(&table, u64::from(slot) + 1);
        let (a, b) = (space.on(1, slot), space.on(2, slot));
        let winner = match (one[slot as usize].clone(), two[slot as usize].clone()) {
            (Login::Added, Login::Replaced(told)) if told == a => b,
            (Login::Replaced(told), Login::Added) if told == b => a,
            other => panic!("user {slot}: {other:?}"),
        };
        assert_eq!(stays, [(winner.gateway, 0, slot, 1)]);
        first += u32::from(winner == a);
    }
    println!("gateway 1 won {first} of {ROUNDS}");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_hundred_thousand_come_and_go_in_batches() {
    const USERS: u64 = 100_000;
    let space = Space::shared();
    let table = space.table();
    let begun = Instant::now();
    let users: Vec<u64> = (1..=USERS).collect();
    for users in users.chunks(1000) {
        let enter = |&user: &u64| login(user, "phone", space.on(1, user as u32));
        let outcomes = change(&table, 8, users.iter().map(enter).collect()).unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Login::Added));
    }
    let login_time = begun.elapsed();
    let begun = Instant::now();
    assert_eq!(table.of(&users).unwrap().len(), users.len());
    let look_time = begun.elapsed();
    let begun = Instant::now();
    for users in users.chunks(1000) {
        let leave = |&user: &u64| closed(user, space.on(1, user as u32));
        change(&table, 8, users.iter().map(leave).collect()).unwrap();
    }
    println!(
        "100,000 sessions: in {login_time:?}, looked up {look_time:?}, out {:?}",
        begun.elapsed()
    );
    assert_eq!(table.of(&users).unwrap(), []);
}
