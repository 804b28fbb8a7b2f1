use std::time::Instant;

use super::reports::wait_until;
use super::*;
use crate::ports::{RouteCache, RouteRequest};

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_server_that_hangs_costs_one_wait_and_comes_back() {
    let server = Server::start(&[]);
    let space = Space::hasty(&server.address());
    let (table, mut warm) = (space.table(), space.warm());
    change(&table, 8, vec![login(1, "a", space.on(1, 1))]).unwrap();
    server.signal("STOP");
    let request = RouteRequest { users: &[1], ..Default::default() };
    let begun = Instant::now();
    assert!(warm.tick(&request).is_err());
    let first = begun.elapsed();
    assert!(first < Duration::from_secs(1), "{first:?}");
    let begun = Instant::now();
    for _ in 0..1000 {
        assert!(warm.tick(&request).is_err());
        assert!(change(&table, 8, vec![login(2, "a", space.on(1, 2))]).is_err());
    }
    println!("first try {first:?}, 2,000 further ones {:?}", begun.elapsed());
    assert_eq!(space.client.counters().failures, 1, "one try, nothing after it");
    assert_ne!(space.client.standing(), Standing::Up);
    std::thread::sleep(Duration::from_millis(300));
    server.signal("CONT");
    wait_until(|| space.client.is_up());
    assert_eq!(of(&table, 1).len(), 1);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_server_that_is_not_there_yet_is_found_when_it_is() {
    let port = server::port();
    let space = Space::at(&format!("redis://127.0.0.1:{port}"));
    let table = space.table();
    assert!(table.of(&[1]).is_err());
    assert!(!space.client.is_up());
    let server = Server::start_in(tempfile::tempdir().unwrap(), port, &[]);
    wait_until(|| space.client.is_up());
    assert_eq!(of(&table, 1), []);
    let (dir, port) = server.kill();
    assert!(table.of(&[1]).is_err());
    let again = Server::start_in(dir, port, &[]);
    wait_until(|| space.client.is_up());
    assert_eq!(of(&table, 1), []);
    drop(again);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn forgotten_scripts_are_loaded_again() {
    let server = Server::start(&[]);
    let space = Space::at(&server.address());
    let table = space.table();
    change(&table, 8, vec![login(1, "a", space.on(1, 1))]).unwrap();
    let _: String = server.query(&["SCRIPT", "FLUSH"]).unwrap();
    assert!(change(&table, 8, vec![login(1, "a", space.on(1, 2))]).is_err());
    wait_until(|| space.client.is_up());
    let outcomes = change(&table, 8, vec![login(1, "a", space.on(1, 3))]).unwrap();
    assert_eq!(outcomes, [Login::Replaced(space.on(1, 1))]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_full_server_refuses_and_stays_up() {
    let server = Server::start(&[]);
    let space = Space::at(&server.address());
    let table = space.table();
    change(&table, 8, vec![login(1, "a", space.on(1, 1))]).unwrap();
    let _: String = server.query(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    assert!(change(&table, 8, vec![login(2, "a", space.on(1, 2))]).is_err());
    assert!(space.client.is_up());
    assert_eq!(of(&table, 1).len(), 1);
    let _: String = server.query(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    change(&table, 8, vec![login(2, "a", space.on(1, 2))]).unwrap();
}
