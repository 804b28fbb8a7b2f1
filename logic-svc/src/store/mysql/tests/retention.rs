//! What retention deletes, and what it never does.

use super::*;
use crate::ports::{HistoryStore, Keep, Keeping, Retention, StoredMessage};
use crate::snowflake::first_at;

/// When the first message was made; each later one a second after.
const BEGIN_MS: u64 = 1_750_000_000_000;

/// A conversation with so many messages in it, a second apart; its number.
fn spoken(fixture: &mut Fixture, at: usize, messages: u64) -> u64 {
    let (no, user) = (fixture.conversations[at], fixture.users[0]);
    for n in 0..messages {
        let id = first_at(BEGIN_MS + n * 1000) + at as u64;
        let message = (no, user, format!("m{n}").into_bytes());
        append_as(&mut fixture.log, &[message], &[id], &[id.to_string()]).unwrap();
    }
    no
}

fn seqs(store: &Store, no: u64) -> Vec<u64> {
    let all = store.messages(no, 1, u64::MAX, Keep::Low, usize::MAX).unwrap();
    all.iter().map(|StoredMessage { seq, .. }| *seq).collect()
}

/// All that goes, however many rounds it takes.
fn expire(store: &Store, keeping: Keeping) -> u64 {
    let (mut after, mut sum) = (0, 0);
    loop {
        let expired = store.expire(keeping, after).unwrap();
        sum += expired.messages;
        let Some(next) = expired.next else { return sum };
        after = next;
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_is_old_goes_and_the_last_message_stays() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let [a, b] = [spoken(&mut fixture, 0, 10), spoken(&mut fixture, 1, 4)];
    let store = Arc::clone(&fixture.store);
    assert_eq!(expire(&store, Keeping::default()), 0, "nothing is asked for");
    let since = |seconds: u64| Keeping { since_ms: BEGIN_MS + seconds * 1000, messages: 0 };
    assert_eq!(expire(&store, since(0)), 0);
    assert_eq!(expire(&store, since(3)), 6);
    assert_eq!((seqs(&store, a), seqs(&store, b)), ((4..=10).collect(), vec![4]));
    // Everything is old now: the last of each stays, and seqs go on from it, in this service and in another.
    assert_eq!(expire(&store, since(1_000_000)), 6);
    assert_eq!((seqs(&store, a), seqs(&store, b)), (vec![10], vec![4]));
    let user = fixture.users[0];
    let next = fixture.append(&[(a, user, b"next".to_vec())]).unwrap();
    assert_eq!(next[0].seq, 11);
    let mut other = Fixture::with(&database.options(), 1 << 60);
    assert_eq!(other.append(&[(a, user, b"more".to_vec())]).unwrap()[0].seq, 12);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_is_too_many_goes_in_steps_and_the_newest_stay() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, user) = (fixture.conversations[0], fixture.users[0]);
    for _ in 0..26 {
        let tick: Vec<_> = (0..500).map(|_| (no, user, b"x".to_vec())).collect();
        fixture.append(&tick).unwrap();
    }
    let store = Arc::clone(&fixture.store);
    let keeping = Keeping { since_ms: 0, messages: 500 };
    let first = store.expire(keeping, 0).unwrap();
    assert_eq!((first.messages, first.next), (1_000, Some(no - 1)), "one step, then once more");
    assert_eq!(first.conversations, [no]);
    assert_eq!(expire(&store, keeping), 11_500);
    assert_eq!(seqs(&store, no), (12_501..=13_000).collect::<Vec<_>>());
    assert_eq!(expire(&store, keeping), 0);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn all_conversations_are_looked_at() {
    let database = Database::new();
    let fixture = Fixture::new(&database);
    let store = &fixture.store;
    let names: Vec<String> = (0..600).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let users = store.ensure_users(&names, 1).unwrap();
    let pairs: Vec<Ensure> =
        users.windows(2).map(|pair| Ensure::Direct { low: pair[0], high: pair[1] }).collect();
    let made = store.ensure(&pairs, 1).unwrap();
    let numbers: Vec<u64> = made.into_iter().map(|one| one.unwrap().no).collect();
    let mut log = Log::new(Arc::clone(store));
    for round in 0..2_u64 {
        let tick: Vec<_> = numbers.iter().map(|&no| (no, users[0], b"x".to_vec())).collect();
        let ids: Vec<u64> = (0..tick.len() as u64).map(|n| (round << 40) + n + 1).collect();
        let keys: Vec<String> = ids.iter().map(u64::to_string).collect();
        append_as(&mut log, &tick, &ids, &keys).unwrap();
    }
    let keeping = Keeping { since_ms: 0, messages: 1 };
    assert_eq!(expire(store, keeping), numbers.len() as u64);
    assert!(numbers.iter().all(|&no| seqs(store, no) == [2]));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_message_stays_for_an_hour_whatever_is_asked() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, user) = (fixture.conversations[0], fixture.users[0]);
    let ids = [7_200_000, 3_700_000, 3_500_000, 10].map(|ago_ms| first_at(now_ms() - ago_ms));
    for id in ids {
        let message = (no, user, b"x".to_vec());
        append_as(&mut fixture.log, &[message], &[id], &[id.to_string()]).unwrap();
    }
    assert_eq!(expire(&fixture.store, Keeping { since_ms: now_ms(), messages: 1 }), 2);
    assert_eq!(seqs(&fixture.store, no), [3, 4]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_log_that_stood_still_does_not_write_to_places_that_are_free_again() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let no = spoken(&mut fixture, 0, 3);
    let user = fixture.users[0];
    let mut still = Fixture::with(&database.options(), 1 << 60);
    still.append(&[(no, user, b"4".to_vec())]).unwrap();
    // It has taken the place 5 when it is stopped; others go on, and what they wrote goes.
    let mut runs = [Run { conversation: no, first_seq: 0, count: 1, start: 0 }];
    still.log.place(&mut runs).unwrap();
    let mut other = Fixture::with(&database.options(), 1 << 50);
    for n in 5..10 {
        assert_eq!(other.append(&[(no, user, b"x".to_vec())]).unwrap()[0].seq, n);
    }
    database.raw().query_drop("DELETE FROM messages WHERE seq < 9").unwrap();
    still.log = still.log.holding(Duration::ZERO);
    std::thread::sleep(Duration::from_millis(2));
    let key = ClientKey::parse("late").unwrap();
    let message =
        NewMessage { message_id: 1 << 61, sender: user, msg_type: 1, key: &key, content: b"late" };
    let sent = Sent { seq: runs[0].first_seq, message_id: 1 << 61 };
    let keys = [SendKey { key: &key, conversation: no, sender: user, sent }];
    let append = Append { runs: &runs, messages: &[message], keys: &keys };
    assert!(matches!(still.log.append(append), Err(AppendError::Fenced)));
    assert_eq!(seqs(&fixture.store, no), [9]);
    still.log.place(&mut runs).unwrap();
    assert_eq!(runs[0].first_seq, 10);
}
