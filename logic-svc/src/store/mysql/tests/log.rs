//! The log: dense places, one writer at a time, one effect of a send.

use proptest::prelude::*;

use super::*;
use crate::ports::{Found, HistoryStore, Keep};

fn key(text: &str) -> ClientKey {
    ClientKey::parse(text).unwrap()
}

fn seqs(store: &Store, no: u64) -> Vec<u64> {
    let all = store.messages(no, 0, u64::MAX, Keep::Low, usize::MAX).unwrap();
    all.iter().map(|message| message.seq).collect()
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn ticks_of_any_size_read_back_as_they_were_written() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, user) = (fixture.conversations[0], fixture.users[0]);
    let mut last = 0;
    for size in [1, 2, 31, 32, 33, 63, 100, 255, 256, 300, 511, 512, 513, 1100] {
        let tick: Vec<_> =
            (0..size).map(|n| (no, user, format!("{size}/{n} \0 ä").into_bytes())).collect();
        let sent = fixture.append(&tick).unwrap();
        assert_eq!(sent[0].seq, last + 1);
        let read = fixture.store.messages(no, last + 1, u64::MAX, Keep::Low, usize::MAX).unwrap();
        assert_eq!(read.len(), size);
        for ((message, sent), (_, sender, content)) in read.iter().zip(&sent).zip(&tick) {
            assert_eq!((message.seq, message.message_id), (sent.seq, sent.message_id));
            assert_eq!((message.sender, message.msg_type), (*sender, 1));
            assert_eq!(message.client_msg_id, sent.message_id.to_string());
            assert_eq!(message.content, content[..]);
        }
        last += size as u64;
    }
    assert_eq!(fixture.store.last_seq(no).unwrap(), last);
    // A second service goes on where the first one was.
    let mut second = Fixture::with(&database.options(), 1 << 40);
    assert_eq!(second.append(&[(no, user, b"x".to_vec())]).unwrap()[0].seq, last + 1);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn contents_larger_than_a_packet_are_split() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, user) = (fixture.conversations[0], fixture.users[0]);
    let tick: Vec<_> = (0..400u32).map(|n| (no, user, vec![n as u8; 65_536])).collect();
    fixture.append(&tick).unwrap();
    let read = fixture.store.messages(no, 1, 400, Keep::Low, usize::MAX).unwrap();
    assert!(read.iter().zip(&tick).all(|(message, (.., content))| message.content == content[..]));
    assert_eq!(read.len(), 400);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_repeated_send_stores_nothing_of_its_tick() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (one, two) = (fixture.conversations[0], fixture.conversations[1]);
    let (alice, bob) = (fixture.users[0], fixture.users[1]);
    let first = (one, alice, b"hello".to_vec());
    let log = &mut fixture.log;
    let sent = append_as(log, std::slice::from_ref(&first), &[77], &["id-1".into()]).unwrap();
    for size in [2usize, 40, 140, 600] {
        // With many rows the repeated one stands in the last of several statements.
        let mut tick: Vec<_> = (1..size).map(|_| (one, alice, b"new".to_vec())).collect();
        tick.push(first.clone());
        let ids: Vec<u64> = (1000..).take(size).collect();
        let mut keys: Vec<String> = ids.iter().map(|id| format!("new-{id}")).collect();
        keys[size - 1] = "id-1".into();
        let refused = append_as(log, &tick, &ids, &keys);
        assert!(matches!(refused, Err(AppendError::Duplicate)), "{refused:?}");
        assert_eq!(database.count("messages"), 1);
    }
    let other = [(two, alice, b"elsewhere".to_vec()), (one, bob, b"another".to_vec())];
    append_as(log, &other, &[78, 79], &["id-1".into(), "id-1".into()]).unwrap();
    let (id, unknown) = (key("id-1"), key("id-2"));
    let ask =
        |key, conversation, sender| SendKey { key, conversation, sender, sent: Sent::default() };
    let mut keys = vec![ask(&id, one, alice), ask(&id, two, bob), ask(&unknown, one, alice)];
    keys.extend((0..200).map(|_| ask(&id, one, alice)));
    let found = log.find(&keys).unwrap();
    let expected = Found { sent: sent[0], body: said("hello") };
    assert_eq!(found[..3], [Some(expected.clone()), None, None]);
    assert!(found[3..].iter().all(|one| one.as_ref() == Some(&expected)));
    assert!(log.find(&[]).unwrap().is_empty());
}

/// Every insert that was prepared still works when all others are: none has to leave the connection for another.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_tick_may_have_any_number_of_messages() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, user) = (fixture.conversations[0], fixture.users[0]);
    let mut stored = 0;
    for size in (1..=130).chain([256, 512, 600]).chain((1..=130).rev()) {
        let tick: Vec<_> = (0..size).map(|_| (no, user, b"x".to_vec())).collect();
        let ids = fixture.ids(size);
        let keys: Vec<String> = ids.iter().map(u64::to_string).collect();
        append_as(&mut fixture.log, &tick, &ids, &keys).unwrap();
        stored += size as u64;
    }
    assert_eq!(database.count("messages"), stored);
    assert_eq!(seqs(&fixture.store, no), (1..=stored).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn the_same_send_twice_in_one_statement_is_a_duplicate() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    for size in [2usize, 8, 530] {
        let tick: Vec<_> = (0..size).map(|_| (no, alice, b"x".to_vec())).collect();
        let ids: Vec<u64> = (1..).take(size).collect();
        let mut keys: Vec<String> = ids.iter().map(|id| format!("k-{id}")).collect();
        keys[size - 1] = keys[0].clone();
        let refused = append_as(&mut fixture.log, &tick, &ids, &keys);
        assert!(matches!(refused, Err(AppendError::Duplicate)), "{size}: {refused:?}");
        assert_eq!(database.count("messages"), 0);
    }
    assert_eq!(fixture.append(&[(no, alice, b"y".to_vec())]).unwrap()[0].seq, 1);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn another_writer_is_noticed_and_its_messages_are_taken_in() {
    let database = Database::new();
    let mut ours = Fixture::new(&database);
    let mut theirs = Fixture::with(&database.options(), 1 << 40);
    let (one, two, alice) = (ours.conversations[0], ours.conversations[1], ours.users[0]);
    ours.append(&[(one, alice, b"ours".to_vec())]).unwrap();
    theirs.append(&[(one, alice, b"theirs".to_vec())]).unwrap();
    let late = [(one, alice, b"late".to_vec()), (two, alice, b"with it".to_vec())];
    let refused = ours.append(&late);
    assert!(matches!(refused, Err(AppendError::Fenced)), "{refused:?}");
    assert_eq!(ours.store.last_seq(two).unwrap(), 0, "all or nothing");
    assert_eq!(ours.append(&late).unwrap()[0].seq, 3);
    // Told that others may have written, nothing has to be refused first.
    theirs.log.forget();
    assert_eq!(theirs.append(&late).unwrap()[0].seq, 4);
    assert_eq!(seqs(&ours.store, one), [1, 2, 3, 4]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_run_that_leaves_a_gap_is_refused() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    let mut runs = [Run { conversation: no, first_seq: 0, count: 1, start: 0 }];
    fixture.log.place(&mut runs).unwrap();
    runs[0].first_seq = 5;
    let key = key("k");
    let message =
        NewMessage { message_id: 1, sender: alice, msg_type: 1, key: &key, content: b"x" };
    let refused = fixture.log.append(Append { runs: &runs, messages: &[message], keys: &[] });
    let Err(AppendError::Store(StoreError::Internal(text))) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains("seq 5 would follow 0"), "{text}");
    assert_eq!(database.count("messages"), 0);
}

/// Repeats a tick until it is in, as the pipeline does.
fn append_at_last(
    log: &mut Log,
    tick: &[(u64, u64, Vec<u8>)],
    ids: &[u64],
    keys: &[String],
) -> Vec<Sent> {
    for _ in 0..200 {
        match append_as(log, tick, ids, keys) {
            Ok(sent) => return sent,
            Err(AppendError::Fenced | AppendError::Store(StoreError::Unavailable(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("fenced two hundred times")
}

/// Which conversations a tick speaks in; every tenth or so takes two statements.
fn ticks() -> impl Strategy<Value = Vec<usize>> {
    let of = |sizes| prop::collection::vec(0usize..3, sizes);
    prop_oneof![9 => of(1..40), 1 => of(129..150)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Each element: whose turn, and the tick as indices of conversations.
    #[test]
    #[ignore = "needs the servers of `cargo xtask servers up`"]
    fn two_logs_in_any_order_leave_dense_seqs_and_every_batch_once(
        turns in prop::collection::vec((any::<bool>(), ticks()), 1..30)
    ) {
        let database = Database::new();
        let mut logs = [Fixture::new(&database), Fixture::with(&database.options(), 1 << 40)];
        let mut model = vec![Vec::new(); 3];
        for (whose, tick) in turns {
            let fixture = &mut logs[usize::from(whose)];
            let ids = fixture.ids(tick.len());
            let keys: Vec<String> = ids.iter().map(u64::to_string).collect();
            let rows: Vec<_> = tick.iter().map(|&at| (fixture.conversations[at], fixture.users[0], b"x".to_vec())).collect();
            let sent = append_at_last(&mut fixture.log, &rows, &ids, &keys);
            for (&at, sent) in tick.iter().zip(sent) {
                model[at].push(sent.message_id);
                prop_assert_eq!(sent.seq, model[at].len() as u64);
            }
        }
        for (at, ids) in model.iter().enumerate() {
            let stored = logs[0].store.messages(logs[0].conversations[at], 0, u64::MAX, Keep::Low, usize::MAX).unwrap();
            prop_assert_eq!(&stored.iter().map(|message| message.message_id).collect::<Vec<_>>(), ids);
        }
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn logs_that_fight_at_the_same_moment_lose_nothing() {
    const TICKS: usize = 25;
    let database = Database::new();
    Fixture::new(&database);
    let database = &database;
    std::thread::scope(|scope| {
        for writer in 1..=3u64 {
            scope.spawn(move || {
                let mut fixture = Fixture::with(&database.options(), writer << 40);
                for n in 0..TICKS {
                    // Several statements in every third tick, and the conversations in turn.
                    let size = if n % 3 == 0 { 140 } else { 3 };
                    let tick: Vec<_> = (0..size)
                        .map(|at| (fixture.conversations[at % 3], fixture.users[0], vec![1]))
                        .collect();
                    let ids = fixture.ids(size);
                    let keys: Vec<String> = ids.iter().map(u64::to_string).collect();
                    append_at_last(&mut fixture.log, &tick, &ids, &keys);
                }
            });
        }
    });
    let fixture = Fixture::new(database);
    let all: Vec<Vec<u64>> =
        fixture.conversations.iter().map(|&no| seqs(&fixture.store, no)).collect();
    for seqs in &all {
        assert_eq!(*seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    }
    let expected = 3 * (0..TICKS).map(|n| if n % 3 == 0 { 140 } else { 3 }).sum::<usize>();
    assert_eq!(all.iter().map(Vec::len).sum::<usize>(), expected);
}
