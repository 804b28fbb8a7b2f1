//! Connections that end at the worst moment, and set-ups that cannot work.

use std::time::Instant;

use super::proxy::{At, Proxy};
use super::*;
use crate::ports::{Backend, Found, HistoryStore};

/// Host and port of the tests' server.
pub(super) fn server_address() -> String {
    let opts = Opts::from_url(&server_url()).unwrap();
    format!("{}:{}", opts.get_ip_or_hostname(), opts.get_tcp_port())
}

/// The tests' server through a proxy.
pub(super) fn through(proxy: &Proxy, database: &Database) -> Options {
    let url = database.url.replace(&server_address(), &format!("127.0.0.1:{}", proxy.port));
    assert_ne!(url, database.url);
    Options { url, ..database.options() }
}

fn unavailable<T: std::fmt::Debug>(done: Result<T, AppendError>) -> String {
    match done {
        Err(AppendError::Store(StoreError::Unavailable(text))) => text,
        other => panic!("{other:?}"),
    }
}

/// Ends all connections to a database but the one that asks.
fn kill_connections(database: &Database) -> usize {
    let mut raw = database.raw();
    let sql = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    let mut ids: Vec<u64> = raw.query(sql).unwrap();
    // Some may have ended by themselves meanwhile.
    ids.retain(|id| raw.query_drop(format!("KILL CONNECTION {id}")).is_ok());
    ids.len()
}

/// What became of a commit whose answer got lost is found out by repeating the tick with the same ids.
fn repeat_after(at: At, rows: usize, stored: bool) {
    let database = Database::new();
    let proxy = Proxy::start(&server_address());
    let mut fixture = Fixture::with(&through(&proxy, &database), 1 << 30);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    fixture.append(&[(no, alice, b"before".to_vec())]).unwrap();
    let tick: Vec<_> = (0..rows).map(|n| (no, alice, n.to_string().into_bytes())).collect();
    let ids = fixture.ids(rows);
    let keys: Vec<String> = ids.iter().map(|id| format!("again-{id}")).collect();
    proxy.set(at);
    let lost = unavailable(append_as(&mut fixture.log, &tick, &ids, &keys));
    assert!(lost.contains("connection"), "{lost}");
    assert_eq!(database.count("messages"), if stored { rows as u64 + 1 } else { 1 });
    let again = append_as(&mut fixture.log, &tick, &ids, &keys);
    if stored {
        assert!(matches!(again, Err(AppendError::Duplicate)), "{again:?}");
    } else {
        assert_eq!(again.unwrap()[0].seq, 2);
    }
    assert_eq!(database.count("messages"), rows as u64 + 1, "one effect");
    let parsed: Vec<ClientKey> = keys.iter().map(|key| ClientKey::parse(key).unwrap()).collect();
    let asked: Vec<SendKey<'_>> = parsed
        .iter()
        .map(|key| SendKey { key, conversation: no, sender: alice, sent: Sent::default() })
        .collect();
    let found = fixture.log.find(&asked).unwrap();
    for (n, found) in found.into_iter().enumerate() {
        let sent = Sent { seq: n as u64 + 2, message_id: ids[n] };
        assert_eq!(found, Some(Found { sent, body: said(&n.to_string()) }));
    }
    assert_eq!(fixture.append(&[(no, alice, b"on".to_vec())]).unwrap()[0].seq, rows as u64 + 2);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_commit_whose_answer_is_lost_took_place_once() {
    repeat_after(At::CommitAnswer, 300, true);
    repeat_after(At::ExecuteAnswer, 5, true);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_commit_that_is_lost_itself_took_not_place() {
    repeat_after(At::Commit, 300, false);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_connection_killed_at_the_commit_is_replaced() {
    let database = Arc::new(Database::new());
    let proxy = Proxy::start(&server_address());
    let mut fixture = Fixture::with(&through(&proxy, &database), 1 << 30);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    let tick: Vec<_> = (0..300).map(|n: u32| (no, alice, n.to_string().into_bytes())).collect();
    let for_kill = Arc::clone(&database);
    proxy.on_commit(move || assert!(kill_connections(&for_kill) > 0));
    unavailable(fixture.append(&tick));
    assert_eq!(database.count("messages"), 0);
    assert_eq!(fixture.append(&tick).unwrap()[0].seq, 1);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn killed_connections_are_replaced_without_an_error_where_nothing_can_be_done_twice() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    fixture.append(&[(no, alice, b"x".to_vec())]).unwrap();
    for n in 0..3 {
        assert!(kill_connections(&database) >= 2, "one for reading, one for writing");
        assert_eq!(fixture.store.last_seq(no).unwrap(), 1);
        assert_eq!(fixture.store.ensure_users(&[&format!("new{n}")], 1).unwrap().len(), 1);
        assert_eq!(fixture.store.signing_key(|| vec![1]).unwrap(), [1]);
    }
    kill_connections(&database);
    // The log must not repeat by itself; whoever asked does.
    unavailable(fixture.append(&[(no, alice, b"y".to_vec())]));
    assert_eq!(fixture.append(&[(no, alice, b"y".to_vec())]).unwrap()[0].seq, 2);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_row_held_by_another_makes_a_tick_wait_only_so_long() {
    let database = Database::new();
    let mut options = database.options();
    options.statement_timeout = Duration::from_secs(2);
    let mut fixture = Fixture::with(&options, 1 << 30);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    fixture.append(&[(no, alice, b"x".to_vec())]).unwrap();
    let mut other = database.raw();
    other.query_drop("START TRANSACTION").unwrap();
    other
        .query_drop(format!(
            "INSERT INTO messages VALUES({no}, 2, 9, {alice}, 'k', 1, 'theirs', NULL, DEFAULT)"
        ))
        .unwrap();
    let begun = Instant::now();
    for tick in [1usize, 100] {
        let rows: Vec<_> = (0..tick).map(|_| (no, alice, b"y".to_vec())).collect();
        unavailable(fixture.append(&rows));
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
    other.query_drop("COMMIT").unwrap();
    assert_eq!(fixture.append(&[(no, alice, b"z".to_vec())]).unwrap()[0].seq, 3);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_cannot_work_is_said_clearly_at_the_start() {
    let database = Database::new();
    let refused = |options: &Options| Store::open(options).map(drop).unwrap_err();
    let mut nowhere = impatient(database.options());
    nowhere.url = "mysql://root@127.0.0.1:1".into();
    let error = refused(&nowhere);
    assert!(
        matches!(&error, StoreError::Unavailable(text) if text.contains("127.0.0.1:1")),
        "{error}"
    );
    // A name that no resolver knows.
    nowhere.url = "mysql://root@no-such-host.invalid:3306".into();
    let error = refused(&nowhere);
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let mut stranger = database.options();
    stranger.url = format!("mysql://stranger:secret-word@{}", server_address());
    let error = refused(&stranger).to_string();
    assert!(error.contains("denied") && error.contains("stranger"), "{error}");
    assert!(!error.contains("secret-word"), "{error}");
    assert!(!format!("{stranger:?}").contains("secret-word"));
    for url in ["postgres://x", "mysql//x", "", "mysql://root@127.0.0.1:port"] {
        let mut options = database.options();
        options.url = url.into();
        assert!(matches!(refused(&options), StoreError::Internal(_)), "{url}");
    }
    let mut options = database.options();
    options.database = "bad`name".into();
    assert!(refused(&options).to_string().contains("database name"));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_user_who_may_not_make_the_database_is_told_so() {
    let database = Database::new();
    let name = format!("corelane_{}", &database.name[14..30]);
    let mut root = Conn::new(Opts::from_url(&database.url).unwrap()).unwrap();
    root.query_drop(format!("CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY 'p:a@s'")).unwrap();
    let mut options = database.options();
    options.url = format!("mysql://{name}:p%3Aa%40s@{}", server_address());
    let refused = Store::open(&options).map(drop);
    // Once it is there and granted, a password works too.
    let granted = root
        .query_drop(format!("CREATE DATABASE {}", database.name))
        .and_then(|()| {
            root.query_drop(format!("GRANT ALL ON {}.* TO '{name}'@'127.0.0.1'", database.name))
        })
        .map(|()| Store::open(&options).map(drop));
    root.query_drop(format!("DROP USER '{name}'@'127.0.0.1'")).unwrap();
    let Err(StoreError::Internal(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("denied") && text.contains(&database.name), "{text}");
    granted.unwrap().unwrap();
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn services_that_start_together_migrate_once() {
    let database = Database::new();
    let database = &database;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(move || database.open())).collect();
        for thread in threads {
            assert!(thread.join().unwrap().can_write());
        }
    });
    assert_eq!(database.count("schema_version"), 1);
    assert_eq!(
        database.ask::<u64>(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()"
        ),
        11
    );
    // Half done: the tables are there, the version is not.
    database.raw().query_drop("DELETE FROM schema_version").unwrap();
    database.raw().query_drop("DROP TABLE outbox").unwrap();
    database.open();
    assert_eq!(database.count("outbox"), 0);
    database.raw().query_drop("INSERT INTO schema_version VALUES(999, 1)").unwrap();
    let newer = Store::open(&database.options()).map(drop).unwrap_err();
    assert!(matches!(&newer, StoreError::Internal(text) if text.contains("999")), "{newer}");
}

#[cfg(feature = "fault-injection")]
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn without_the_unique_key_a_send_takes_effect_again() {
    let database = Database::new();
    let options = Options { unique_sends: false, ..database.options() };
    let mut fixture = Fixture::with(&options, 1 << 30);
    let one = [(fixture.conversations[0], fixture.users[0], b"x".to_vec())];
    for (n, seq) in [(0, 1), (1, 2)] {
        let sent = append_as(&mut fixture.log, &one, &[n], &["same".into()]).unwrap();
        assert_eq!(sent[0].seq, seq);
    }
    assert_eq!(database.count("messages"), 2);
}
