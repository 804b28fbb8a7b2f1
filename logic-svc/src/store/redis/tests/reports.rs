use std::time::Instant;

use proto::v1::{Connection, Session};

use super::*;
use crate::ports::{RouteCache, RouteRequest};
use crate::ports::{UserState, Watches};

fn session(user: u64, device: &str, slot: u32) -> Session {
    Session {
        user_id: user,
        device_id: device.to_owned(),
        device_class: "web".to_owned(),
        connection: Some(Connection { shard: 0, slot, generation: 1 }),
    }
}

/// Whether the routes are taken for whole.
fn is_whole(space: &Space) -> bool {
    space.warm().tick(&RouteRequest { users: &[1], ..Default::default() }).is_ok()
}

/// All gateways report what they have, as they do after they were asked.
fn register(space: &Space, table: &SessionTable, sessions: &[&[Session]; 2]) -> Vec<ConnectionId> {
    let mut kicks = Vec::new();
    for (number, sessions) in (1..).zip(sessions) {
        let (gateway, count) = (space.gateway(number), sessions.len() as u32);
        let asked = table.report(gateway, count).unwrap();
        assert_eq!(asked, count > 0, "gateway {number}");
        for part in sessions.chunks(2) {
            kicks.extend(table.register_all(gateway, part).unwrap());
            assert!(!table.report(gateway, count).unwrap(), "parts are coming in");
        }
    }
    assert_eq!(is_whole(space), sessions.iter().all(|sessions| sessions.is_empty()));
    space.pass_ms(1500);
    for (number, sessions) in (1..).zip(sessions) {
        assert!(!table.report(space.gateway(number), sessions.len() as u32).unwrap());
    }
    kicks
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn routes_are_whole_when_every_gateway_told_of_its_connections() {
    let space = Space::shared();
    let table = space.table();
    assert!(!is_whole(&space));
    let one = [session(1, "a", 1), session(2, "a", 2), session(3, "", 3)];
    let two = [session(1, "b", 1)];
    assert_eq!(register(&space, &table, &[&one, &two]), []);
    assert!(is_whole(&space));
    assert_eq!(of(&table, 1).len(), 2);
    // A new gateway has to report first, if only that it has nobody.
    let lives = [("gw-1".to_owned(), 11), ("gw-2".to_owned(), 12), ("gw-3".to_owned(), 13)];
    space.gateways.set_live(lives);
    assert!(!is_whole(&space));
    assert!(!table.report(space.gateway(3), 0).unwrap());
    assert!(is_whole(&space));
    // After a while everything is told again, and routes stay whole meanwhile.
    space.pass_ms(400_000);
    assert!(table.report(space.gateway(1), 3).unwrap() && is_whole(&space));
    assert_eq!(table.register_all(space.gateway(1), &one).unwrap(), []);
    assert!(!table.report(space.gateway(1), 3).unwrap() && is_whole(&space));
    // Whoever is not told of any more is gone some time.
    space.pass_ms(600_000);
    assert_eq!(of(&table, 1), [(space.gateway(1), 0, 1, 1)]);
    assert_eq!(change(&table, 8, vec![login(1, "c", space.on(2, 5))]).unwrap(), [Login::Added]);
    assert_eq!(value::int(&space.ask("HLEN", "user_session:1", &[])), 2);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn too_few_connections_are_not_all_of_them() {
    let space = Space::shared();
    let table = space.table();
    let gateway = space.gateway(1);
    assert!(!table.report(space.gateway(2), 0).unwrap());
    assert!(table.report(gateway, 1000).unwrap());
    table.register_all(gateway, &[session(1, "a", 1)]).unwrap();
    assert!(!table.report(gateway, 1000).unwrap());
    space.pass_ms(1500);
    assert!(table.report(gateway, 1000).unwrap() && !is_whole(&space));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn of_two_that_claim_a_device_one_is_closed() {
    let space = Space::shared();
    let table = space.table();
    change(&table, 8, vec![login(1, "a", space.on(2, 1))]).unwrap();
    let kicks = register(&space, &table, &[&[session(1, "a", 1)], &[session(1, "a", 1)]]);
    assert_eq!(kicks, [space.on(1, 1)], "the later login stays");
    assert_eq!(of(&table, 1), [(space.gateway(2), 0, 1, 1)]);
    // The place of a dead one is free.
    space.gateways.set_live([("gw-1".to_owned(), 11), ("gw-2".to_owned(), 22)]);
    assert_eq!(table.register_all(space.gateway(1), &[session(1, "a", 1)]).unwrap(), []);
    assert_eq!(of(&table, 1), [(space.gateway(1), 0, 1, 1)]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn presence_tells_devices_and_when_somebody_was_seen_last() {
    let space = Space::shared();
    let table = space.table();
    change(&table, 8, vec![login(1, "a", space.on(1, 1)), login(1, "b", space.on(2, 1))]).unwrap();
    let unsure = table.states(&[1, 2]);
    assert!(
        matches!(unsure, Err(StoreError::Unavailable(_))),
        "2 may be at a gateway that did not report"
    );
    assert_eq!(table.states(&[1]).unwrap()[0].devices.len(), 2, "who is there is there");
    for gateway in 1..=2 {
        table.report(space.gateway(gateway), 0).unwrap();
    }
    let there = table.states(&[1, 2]).unwrap();
    let devices = |state: &UserState| -> Vec<String> {
        let mut all: Vec<_> = state
            .devices
            .iter()
            .map(|one| format!("{}/{}", one.device_id, one.device_class))
            .collect();
        all.sort();
        all
    };
    assert_eq!(devices(&there[0]), ["a/web", "b/web"]);
    assert!(there[0].is_online() && there[0].last_seen_ms == 0 && !there[1].is_online());
    space.pass_ms(5000);
    change(&table, 8, vec![closed(1, space.on(1, 1)), closed(1, space.on(2, 1))]).unwrap();
    let gone = table.states(&[1]).unwrap().remove(0);
    assert_eq!((gone.is_online(), gone.last_seen_ms), (false, space.clock.now_ms()));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_flush_asks_everybody_for_everything() {
    let server = Server::start(&[]);
    let space = Space::at(&server.address());
    let table = space.table();
    let one: Vec<Session> = (1..=5).map(|user| session(user, "a", user as u32)).collect();
    register(&space, &table, &[&one, &[]]);
    assert!(is_whole(&space));
    let _: String = server.query(&["FLUSHALL"]).unwrap();
    assert!(!is_whole(&space));
    assert_eq!(register(&space, &table, &[&one, &[]]), []);
    assert!(is_whole(&space));
    assert_eq!(table.of(&[1, 2, 3, 4, 5]).unwrap().len(), 5);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_server_that_comes_back_from_an_old_file_is_not_believed() {
    let server = Server::start(&[]);
    let space = Space::at(&server.address());
    let table = space.table();
    let mut one = vec![session(1, "a", 1)];
    register(&space, &table, &[&one, &[]]);
    let _: String = server.query(&["SAVE"]).unwrap();
    change(&table, 8, vec![login(2, "a", space.on(1, 2)), closed(1, space.on(1, 1))]).unwrap();
    one = vec![session(2, "a", 2)];
    let (dir, port) = server.kill();
    let server = Server::start_in(dir, port, &[]);
    // The connections broke; they are tried anew in the background.
    assert!(table.of(&[1]).is_err());
    wait_until(|| space.client.is_up());
    assert_eq!(of(&table, 1).len(), 1, "the file is old");
    assert!(!is_whole(&space), "and is known to be");
    register(&space, &table, &[&one, &[]]);
    assert!(is_whole(&space));
    assert_eq!(of(&table, 2), [(space.gateway(1), 0, 2, 1)]);
    drop(server);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_hundred_thousand_are_registered_anew() {
    let space = Space::shared();
    let table = space.table();
    let users: Vec<u64> = (1..=100_000).collect();
    let begun = Instant::now();
    for part in users.chunks(4096) {
        let sessions: Vec<Session> =
            part.iter().map(|&user| session(user, "phone", user as u32)).collect();
        assert_eq!(table.register_all(space.gateway(1), &sessions).unwrap(), []);
    }
    println!("100,000 sessions registered anew: {:?}", begun.elapsed());
    assert_eq!(table.of(&users).unwrap().len(), users.len());
}

pub(super) fn wait_until(mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(20), "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
