//! The open-file limit: kept away from by a reserve, survived when it is hit all the same.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::common::{DEV, PATIENCE, Server, data_dir};
use crate::peer::{Peer, handshake};
use crate::process;

/// Tries to open a WebSocket: the connection and the status of the answer.
fn knock(server: &Server) -> (Peer, u16) {
    let mut peer = Peer::connect(&server.addr);
    peer.send(&handshake("/ws", ""));
    let status = peer.head()[9..12].parse().unwrap();
    (peer, status)
}

fn health(server: &Server) -> u16 {
    let mut peer = Peer::connect(&server.addr);
    peer.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    peer.head()[9..12].parse().unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn limit_files(server: &Server, files: u64) {
    let pid = Pid::from_raw(server.pid().cast_signed());
    let limit = Rlimit { current: Some(files), maximum: Some(20_000.max(files)) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

/// Far more connections than open files: as many as there is room for are served, the others are told,
/// and the limit is never reached.
#[test]
fn a_flood_stops_at_the_reserve() {
    let data = data_dir();
    let server = Server::start_with_files(150, data.path(), &[DEV, &["--shards", "2"]].concat());
    let mut healthy = server.dev_user("alice");
    let mut inside = Vec::new();
    let mut refused = 0;
    for _ in 0..400 {
        match knock(&server) {
            (peer, 101) => inside.push(peer),
            (_, status) => {
                assert_eq!(status, 503);
                refused += 1;
            }
        }
    }
    let held = process::held(server.pid());
    println!("{} inside, {refused} refused, {held:?}", inside.len());
    // Half of 150 is reserve, an eighth of the rest is for plain HTTP.
    assert!((60..=66).contains(&inside.len()), "{} are inside", inside.len());
    assert!(held.descriptors <= 150 - 20, "{held:?}");
    assert_eq!(healthy.send("calm", "m1", "x")["seq"], 1);
    assert_eq!(health(&server), 200, "health is told even when there is no room for clients");
    inside.clear();
    eventually("there is room again", || knock(&server).1 == 101);
}

/// Whatever uses up the last descriptor: connections are told so instead of waiting, nothing spins, and
/// all is well when there are some again.
#[test]
fn without_descriptors_it_says_so_and_does_not_spin() {
    let data = data_dir();
    let server = Server::start(data.path(), &[DEV, &["--shards", "1"]].concat());
    let mut healthy = server.dev_user("alice");
    healthy.send("calm", "m1", "x");
    assert_eq!(health(&server), 200);
    // Numbers up to the highest in use are all taken, or else a lower one is free and can still be given.
    let open = || {
        let names = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        names
            .map(|name| name.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap())
            .collect::<Vec<_>>()
    };
    process::settled(server.pid());
    let highest = open().into_iter().max().unwrap();
    limit_files(&server, highest + 1);
    let mut fill = Vec::new();
    eventually("all numbers are taken", || {
        fill.push(Peer::connect(&server.addr));
        open().len() as u64 > highest
    });
    for _ in 0..50 {
        assert_eq!(knock(&server).1, 503);
    }
    let (before, started) = (process::ticks(server.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let used = process::ticks(server.pid()) - before;
    assert!(used <= 30, "{used} ticks of 10 ms in {:?}", started.elapsed());
    assert_eq!(healthy.ask(&json!({"cmd":0}))["code"], 0);
    limit_files(&server, 20_000);
    drop(fill);
    eventually("connections are taken again", || knock(&server).1 == 101);
    assert_eq!(health(&server), 200);
    assert_eq!(healthy.send("calm", "m2", "x")["seq"], 2);
}
