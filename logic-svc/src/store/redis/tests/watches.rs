use std::sync::Barrier;

use super::*;
use crate::domain::device::DevicePolicies;
use crate::ports::{Turned, UserState, Watches};

/// A table whose gateways have told everything.
fn whole(space: &Space) -> SessionTable {
    let table = space.table();
    for gateway in 1..=2 {
        table.report(space.gateway(gateway), 0).unwrap();
    }
    table
}

/// What is told now and in the seconds after.
fn told(space: &Space, table: &SessionTable) -> Vec<Turned> {
    let mut all = Vec::new();
    for _ in 0..4 {
        all.extend(table.turned().unwrap());
        space.pass_ms(600);
    }
    all
}

fn brief(turned: &[Turned]) -> Vec<(u64, bool, usize)> {
    turned.iter().map(|one| (one.user, one.online, one.watchers.len())).collect()
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn watchers_anywhere_are_told_by_whoever_changes_something() {
    let space = Space::shared();
    let (one, two) = (whole(&space), whole(&space));
    let (a, b) = (space.on(1, 70), space.on(2, 70));
    change(&one, 8, vec![login(8, "x", space.on(1, 8))]).unwrap();
    let states = one.watch(a, &[7, 8]).unwrap();
    assert_eq!(states.iter().map(UserState::is_online).collect::<Vec<_>>(), [false, true]);
    two.watch(b, &[7]).unwrap();
    let quiet = (told(&space, &one), told(&space, &two));
    assert_eq!(quiet, (vec![], vec![]), "nothing new to whom was answered");
    change(&two, 8, vec![login(7, "p", space.on(2, 1)), login(7, "q", space.on(1, 1))]).unwrap();
    let came = told(&space, &two);
    assert_eq!(brief(&came), [(7, true, 2)]);
    assert!(came[0].watchers.contains(&a) && came[0].watchers.contains(&b));
    change(&one, 8, vec![closed(7, space.on(2, 1))]).unwrap();
    assert_eq!(told(&space, &one), [], "another device is still there");
    change(&one, 8, vec![closed(7, space.on(1, 1))]).unwrap();
    let went = told(&space, &one);
    assert_eq!(brief(&went), [(7, false, 2)]);
    assert!(went[0].last_seen_ms > 0);
    // Lists are replaced, and end with their connection.
    one.watch(a, &[8]).unwrap();
    change(&two, 8, vec![closed(1, b)]).unwrap();
    assert_eq!(told(&space, &two), []);
    change(&two, 8, vec![login(7, "p", space.on(2, 1)), closed(8, space.on(1, 8))]).unwrap();
    assert_eq!(brief(&told(&space, &two)), [(8, false, 1)]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn whoever_flaps_is_told_once_a_second_and_the_last_state_last() {
    let space = Space::shared();
    let table = whole(&space);
    table.watch(space.on(1, 70), &[7]).unwrap();
    let mut all = Vec::new();
    let began = std::time::Instant::now();
    for _ in 0..50 {
        change(&table, 8, vec![login(7, "p", space.on(2, 1))]).unwrap();
        all.extend(table.turned().unwrap());
        change(&table, 8, vec![closed(7, space.on(2, 1))]).unwrap();
        all.extend(table.turned().unwrap());
        space.pass_ms(100);
    }
    // Five seconds passed, and those that the server itself counted meanwhile.
    let most = 7 + began.elapsed().as_secs() as usize;
    assert!((2..=most).contains(&all.len()), "{most}: {all:?}");
    all.extend(told(&space, &table));
    assert!(!all.last().unwrap().online);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn users_of_a_dead_gateway_are_away_and_others_notice() {
    let space = Space::shared();
    let (one, two) = (whole(&space), whole(&space));
    change(&one, 8, vec![login(7, "p", space.on(2, 1))]).unwrap();
    one.watch(space.on(1, 70), &[7]).unwrap();
    one.watch(space.on(2, 71), &[7]).unwrap();
    assert_eq!((told(&space, &one), told(&space, &two)), (vec![], vec![]));
    // The service that knew of it dies with the gateway.
    drop(one);
    space.gateways.set_live([("gw-1".to_owned(), 11)]);
    let went = told(&space, &two);
    assert_eq!(brief(&went), [(7, false, 1)], "and the dead watcher is not told");
    assert!(went[0].last_seen_ms > 0, "as far as the gateway told");
    assert!(!two.states(&[7]).unwrap()[0].is_online());
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_a_dead_service_left_untold_is_told_by_another_one() {
    let space = Space::shared();
    let (one, two) = (whole(&space), whole(&space));
    two.watch(space.on(1, 70), &[7]).unwrap();
    told(&space, &two);
    change(&one, 8, vec![login(7, "p", space.on(2, 1))]).unwrap();
    drop(one);
    space.ask("DEL", "presence_round", &[]);
    space.pass_ms(60_000);
    assert_eq!(brief(&told(&space, &two)), [(7, true, 1)]);
}

/// Devices of a class at two gateways at once: one stays, every other one is told exactly once.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_race_of_a_class_that_kicks_has_one_winner() {
    const ROUNDS: u32 = 2000;
    let space = Space::shared();
    let classes = DevicePolicies::parse(["web=kick_old"]).unwrap();
    let table = space.table_with(RouteSettings { classes, ..RouteSettings::default() });
    let start = Barrier::new(2);
    let run = |gateway: u64| -> Vec<Login> {
        let enter = |slot: u32| {
            let device = format!("device-{gateway}-{slot}");
            let logins = vec![login(u64::from(slot) + 1, &device, space.on(gateway, slot))];
            start.wait();
            change(&table, 100, logins).unwrap().remove(0)
        };
        (0..ROUNDS).map(enter).collect()
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| run(1));
        let two = run(2);
        (one.join().unwrap(), two)
    });
    for (slot, outcomes) in (0..ROUNDS).zip(one.into_iter().zip(two)) {
        let (a, b) = (space.on(1, slot), space.on(2, slot));
        let winner = match outcomes {
            (Login::Added, Login::Kicked(told)) if told == [a] => b,
            (Login::Kicked(told), Login::Added) if told == [b] => a,
            other => panic!("user {slot}: {other:?}"),
        };
        assert_eq!(of(&table, u64::from(slot) + 1), [(winner.gateway, 0, slot, 1)]);
    }
}
