//! Several servers: a cluster, and sentinels.

use std::process::{Command, Stdio};

use super::reports::wait_until;
use super::*;
use crate::ports::{RouteCache, RouteRequest};

/// Three masters.
fn cluster() -> Vec<Server> {
    let more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let nodes: Vec<Server> = (0..3).map(|_| Server::start(&more)).collect();
    let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
    let made = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(addresses)
        .args(["--cluster-replicas", "0", "--cluster-yes"])
        .stdout(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()));
    for node in &nodes {
        wait_until(|| {
            let info = node.query::<String>(&["CLUSTER", "INFO"]).unwrap_or_default();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
    }
    nodes
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_cluster_takes_batches_over_all_its_slots() {
    let nodes = cluster();
    let address = format!("redis://127.0.0.1:{},127.0.0.1:{}", nodes[0].port, nodes[1].port);
    let space = Space::at(&address);
    let (table, mut warm) = (space.table(), space.warm());
    let users: Vec<u64> = (1..=1000).collect();
    let enter = |gateway: u64| -> Vec<Login> {
        let on = |&user: &u64| login(user, "phone", space.on(gateway, user as u32));
        change(&table, 8, users.iter().map(on).collect()).unwrap()
    };
    assert!(enter(1).iter().all(|outcome| *outcome == Login::Added));
    let replaced: Vec<Login> =
        users.iter().map(|&user| Login::Replaced(space.on(1, user as u32))).collect();
    assert_eq!(enter(2), replaced);
    let request = RouteRequest { users: &users, ..Default::default() };
    assert!(warm.tick(&request).is_err(), "nobody has reported");
    assert!(!table.report(space.gateway(1), 0).unwrap());
    assert!(!table.report(space.gateway(2), 0).unwrap());
    let routes = warm.tick(&request).unwrap();
    for (&user, found) in users.iter().zip(routes.connections) {
        assert_eq!(found, [space.on(2, user as u32)]);
    }
    for node in &nodes {
        assert!(node.query::<u64>(&["DBSIZE"]).unwrap() > 200, "keys are spread");
    }
    // A node that lost its keys makes the routes doubtful, whichever it is.
    for node in &nodes {
        let _: String = node.query(&["FLUSHALL"]).unwrap();
        assert!(warm.tick(&request).is_err());
        assert!(!table.report(space.gateway(1), 0).unwrap());
        assert!(!table.report(space.gateway(2), 0).unwrap());
        assert!(warm.tick(&request).is_ok());
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn slots_that_move_are_followed() {
    let nodes = cluster();
    let space = Space::at(&format!("redis+cluster://127.0.0.1:{}", nodes[0].port));
    let table = space.table();
    let users: Vec<u64> = (1..=300).collect();
    let on = |&user: &u64| login(user, "", space.on(1, user as u32));
    change(&table, 8, users.iter().map(on).collect()).unwrap();
    let id = nodes[1].query::<String>(&["CLUSTER", "MYID"]).unwrap();
    let from = nodes[0].query::<String>(&["CLUSTER", "MYID"]).unwrap();
    let moved = Command::new("redis-cli")
        .args(["--cluster", "reshard", &format!("127.0.0.1:{}", nodes[0].port)])
        .args(["--cluster-from", &from, "--cluster-to", &id, "--cluster-slots", "3000"])
        .args(["--cluster-yes"])
        .stdout(Stdio::null())
        .status();
    assert!(moved.is_ok_and(|status| status.success()));
    assert_eq!(table.of(&users).unwrap().len(), users.len());
    let off = |&user: &u64| closed(user, space.on(1, user as u32));
    change(&table, 8, users.iter().map(off).collect()).unwrap();
    assert_eq!(table.of(&users).unwrap(), []);
    assert_eq!(space.client.counters().failures, 0);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn sentinels_name_the_master_and_the_next_one() {
    let master = Server::start(&[]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    wait_until(|| {
        let info = replica.query::<String>(&["INFO", "replication"]).unwrap_or_default();
        info.contains("master_link_status:up")
    });
    let sentinels: Vec<Server> = (0..3).map(|_| sentinel(master.port)).collect();
    for one in &sentinels {
        wait_until(|| {
            let info = one.query::<String>(&["INFO", "sentinel"]).unwrap_or_default();
            info.contains("slaves=1,sentinels=3")
        });
    }
    let names: Vec<String> =
        sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
    let space = Space::at(&format!("sentinel://{}/main", names.join(",")));
    let table = space.table();
    change(&table, 8, vec![login(1, "a", space.on(1, 1))]).unwrap();
    assert!(!table.report(space.gateway(1), 0).unwrap());
    assert!(!table.report(space.gateway(2), 0).unwrap());
    let request = RouteRequest { users: &[1], ..Default::default() };
    assert!(space.warm().tick(&request).is_ok());
    // Written where the replica has it, so that it is the next master's, too.
    wait_until(|| replica.query::<u64>(&["DBSIZE"]).is_ok_and(|keys| keys >= 4));
    drop(master);
    assert!(table.of(&[1]).is_err());
    wait_until(|| space.client.is_up());
    assert_eq!(of(&table, 1).len(), 1);
    assert!(space.warm().tick(&request).is_err(), "the new master may lack the last entries");
}

fn sentinel(master: u16) -> Server {
    let start = |_| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {master} 2\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n"
        );
        std::fs::write(&file, text).unwrap();
        Server::sentinel(dir, server::port(), &file)
    };
    (0..5).find_map(start).expect("a sentinel")
}
