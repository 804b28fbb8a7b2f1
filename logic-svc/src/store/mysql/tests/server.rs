//! A server of our own that stops, freezes and comes back.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::ports::{Backend, HistoryStore};
use crate::store::own_port::own_port;

struct Server {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = own_port();
        let data = dir.path().join("data");
        let installed = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(Self::user())
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", dir.path().display()))
            .output()
            .expect("mariadb-install-db is there");
        let said = [&installed.stdout[..], &installed.stderr[..]].concat();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&said));
        let child = Self::spawn(&data, port);
        let server = Self { dir, port, child };
        server.wait();
        server
    }

    fn user() -> Option<String> {
        rustix::process::getuid().is_root().then(|| "--user=root".to_owned())
    }

    fn spawn(data: &Path, port: u16) -> Child {
        Command::new("mariadbd")
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M"])
            .args(["--innodb-log-file-size=16M", "--skip-log-bin"])
            .args(Self::user())
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", data.join("s").display()))
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mariadbd is there")
    }

    fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port)
    }

    fn wait(&self) {
        let begun = Instant::now();
        while Conn::new(Opts::from_url(&self.url()).unwrap()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::spawn(&self.dir.path().join("data"), self.port);
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_unavailable<T: std::fmt::Debug>(done: &Result<T, StoreError>) -> bool {
    matches!(done, Err(StoreError::Unavailable(_)))
}

#[test]
#[ignore = "needs mariadbd and mariadb-install-db"]
fn a_server_that_is_killed_and_comes_back_has_what_was_acknowledged() {
    let mut server = Server::start();
    let database = Database::on(server.url());
    let mut fixture = Fixture::new(&database);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    let mut directory = Directory::new(Arc::clone(&fixture.store));
    for round in 0..2 {
        let tick: Vec<_> = (0..100).map(|_| (no, alice, b"x".to_vec())).collect();
        assert_eq!(fixture.append(&tick).unwrap()[99].seq, round * 100 + 100);
        server.kill();
        let begun = Instant::now();
        let refused = fixture.append(&tick);
        assert!(
            matches!(refused, Err(AppendError::Store(StoreError::Unavailable(_)))),
            "{refused:?}"
        );
        assert!(is_unavailable(&fixture.store.last_seq(no)));
        assert!(is_unavailable(&fixture.store.ensure_users(&["new"], 1)));
        assert!(is_unavailable(&crate::ports::Members::conversation(&mut directory, "dm_1_2")));
        assert!(!fixture.store.can_write());
        assert!(begun.elapsed() < PATIENCE, "nothing waits for its limit");
        server.start_again();
        assert_eq!(fixture.store.last_seq(no).unwrap(), round * 100 + 100);
        assert!(fixture.store.can_write());
        assert!(crate::ports::Members::conversation(&mut directory, "dm_1_2").unwrap().is_some());
    }
    assert_eq!(fixture.append(&[(no, alice, b"on".to_vec())]).unwrap()[0].seq, 201);
}

#[test]
#[ignore = "needs mariadbd and mariadb-install-db"]
fn a_server_that_is_frozen_makes_nobody_wait_for_ever() {
    let server = Server::start();
    let database = Database::on(server.url());
    let options = impatient(database.options());
    let mut fixture = Fixture::with(&options, 1 << 30);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    let tick: Vec<_> = (0..100).map(|_| (no, alice, b"x".to_vec())).collect();
    fixture.append(&tick).unwrap();
    server.signal(Signal::STOP);
    let begun = Instant::now();
    assert!(is_unavailable(&fixture.store.last_seq(no)));
    let refused = fixture.append(&tick);
    let again = fixture.append(&tick);
    assert!(is_unavailable(&fixture.store.ensure_users(&["new"], 1)));
    assert!(is_unavailable(&Store::open(&options).map(drop)));
    let waited = begun.elapsed();
    server.signal(Signal::CONT);
    for refused in [refused, again] {
        assert!(
            matches!(refused, Err(AppendError::Store(StoreError::Unavailable(_)))),
            "{refused:?}"
        );
    }
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    // The frozen statement may take place after all: the next tick finds out.
    let mut sent = fixture.append(&tick);
    for _ in 0..20 {
        if !matches!(sent, Err(AppendError::Fenced | AppendError::Store(_))) {
            break;
        }
        sent = fixture.append(&tick);
    }
    let last = sent.unwrap()[99].seq;
    assert!(last == 200 || last == 300, "{last}");
    assert_eq!(fixture.store.last_seq(no).unwrap(), last);
    assert_eq!(database.count("messages"), last, "dense");
}
