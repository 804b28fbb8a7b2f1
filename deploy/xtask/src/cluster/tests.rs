//! A cluster of stand-ins: shell scripts that say the ready line, without servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;

use super::binaries::Binaries;
use super::layout::{self, Layout};
use super::newly_ended;
use super::node::{Node, Size};
use super::set::{Cluster, Plan};
use crate::interrupt::Interrupt;
use crate::servers::Servers;

const GATEWAY: &str = "#!/bin/sh\n\
    trap 'exit 0' TERM\n\
    echo \"gateway ready on http://$(sed -n 's/^listen = \"\\(.*\\)\"/\\1/p' \"$2\")\"\n\
    while :; do sleep 0.05; done\n";
const LOGIC: &str = "#!/bin/sh\n\
    [ -z \"$CRASH\" ] || { echo the reason >&2; exit 3; }\n\
    echo logic-svc ready\n\
    exec sleep 1000\n";

fn stand_ins(folder: &Path) -> Binaries {
    for (name, script) in [("gateway", GATEWAY), ("logic-svc", LOGIC)] {
        let path = folder.join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Binaries::kept_in(folder)
}

fn cluster(folder: &Path, size: Size) -> Cluster {
    let servers = Servers::none(&folder.join("servers")).unwrap();
    let plan = Plan { size, dev_login: true, settings: Vec::new() };
    let mut cluster = Cluster::beside(servers, &stand_ins(folder), plan).unwrap();
    cluster.asks_readyz = false;
    cluster
}

#[test]
fn processes_start_die_come_back_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    let mut cluster = cluster(folder.path(), Size { gateways: 2, logic: 1 });
    let (lines, complete) = cluster.status().unwrap();
    assert_eq!(lines, ["gateway-1 down", "gateway-2 down", "logic-1 down"]);
    assert!(!complete);

    cluster.up(&interrupt).unwrap();
    let (lines, complete) = cluster.status().unwrap();
    let pid = |node| cluster.running(node).unwrap().unwrap().pid();
    let url = cluster.gateway(Node::Gateway(2)).unwrap();
    assert_eq!(lines[1], format!("gateway-2 ready on {url} pid {}", pid(Node::Gateway(2))));
    assert_eq!(lines[2], format!("logic-1 ready pid {}", pid(Node::Logic(1))));
    assert!(complete);

    let before = pid(Node::Gateway(2));
    cluster.kill(Node::Gateway(2)).unwrap();
    assert_eq!(cluster.status().unwrap().0[1], "gateway-2 down");
    cluster.start(Node::Gateway(2), &interrupt).unwrap();
    let after = cluster.running(Node::Gateway(2)).unwrap().unwrap().pid();
    assert_ne!(before, after);
    assert_eq!(cluster.gateway(Node::Gateway(2)), Some(url));

    cluster.signal(Node::Gateway(1), Signal::STOP).unwrap();
    let all: Vec<_> =
        cluster.nodes().into_iter().map(|node| cluster.running(node).unwrap().unwrap()).collect();
    cluster.stop_all().unwrap();
    assert!(all.iter().all(|daemon| !daemon.runs()));
    assert!(cluster.start(Node::Gateway(3), &interrupt).is_err());
}

/// Who ends the cluster from elsewhere is not told to bring it back.
#[test]
fn what_ends_is_told_once_and_not_while_another_command_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    let size = Size { gateways: 2, logic: 1 };
    let mut cluster = cluster(folder.path(), size);
    let at = layout::folder(cluster.servers());
    std::fs::create_dir_all(&at).unwrap();
    let layout = Layout { size, dev_login: true, web_dir: None, servers: Vec::new() };
    layout.save(&at).unwrap();
    cluster.up(&interrupt).unwrap();
    let mut down = Vec::new();
    assert_eq!(newly_ended(&mut cluster, &mut down).unwrap(), []);

    cluster.kill(Node::Gateway(2)).unwrap();
    assert_eq!(newly_ended(&mut cluster, &mut down).unwrap(), [Node::Gateway(2)]);
    assert_eq!(newly_ended(&mut cluster, &mut down).unwrap(), []);
    cluster.start(Node::Gateway(2), &interrupt).unwrap();
    assert_eq!(newly_ended(&mut cluster, &mut down).unwrap(), []);
    cluster.kill(Node::Gateway(2)).unwrap();
    assert_eq!(newly_ended(&mut cluster, &mut down).unwrap(), [Node::Gateway(2)]);

    let lock = cluster.servers().lock(&interrupt).unwrap();
    cluster.stop_all().unwrap();
    assert_eq!(newly_ended(&mut cluster, &mut down).unwrap(), []);
    Layout::remove(&at).unwrap();
    drop(lock);
    assert_eq!(newly_ended(&mut cluster, &mut down).unwrap(), []);
}

#[test]
fn a_process_that_fails_takes_the_others_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = cluster(folder.path(), Size { gateways: 1, logic: 2 });
    cluster.set_environment(Node::Logic(2), "CRASH", Some("1".into()));
    let error = cluster.up(&Interrupt::default()).unwrap_err().to_string();
    assert!(error.contains("logic-2") && error.contains("the reason"), "{error}");
    assert!(cluster.nodes().into_iter().all(|node| cluster.running(node).unwrap().is_none()));
}
