//! The store against a plain model, through restarts and half-done merges.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;

use super::merge::Pace;
use super::*;
use crate::domain::message::ClientKey;
use crate::ports::{
    AppendError, ConversationStore, Ensure, Found, HistoryStore, Keep, MessageLog, SendKey, Sent,
    UserStore,
};
use crate::store::appending::append_as;

/// Two users and a few direct conversations with oneself and each other serve as conversations 1..=3.
struct Fixture {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    log: Log,
    next_message_id: u64,
}

fn options(dir: &tempfile::TempDir) -> Options {
    Options {
        path: dir.path().join("t.db"),
        read_connections: 2,
        wal_bytes: 1 << 20,
        unique_sends: true,
    }
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&options(&dir)).unwrap();
        let users = store.ensure_users(&["alice", "bob"], 1).unwrap();
        let ensure =
            |low: usize, high: usize| Ensure::Direct { low: users[low], high: users[high] };
        let made = store.ensure(&[ensure(0, 1), ensure(0, 0), ensure(1, 1)], 1).unwrap();
        assert_eq!(made.iter().map(|one| one.as_ref().unwrap().no).collect::<Vec<_>>(), [1, 2, 3]);
        let log = Log::new(Arc::clone(&store));
        Self { dir, store, log, next_message_id: 1 << 30 }
    }

    /// Ends this store as a crash would, and opens it anew.
    fn reopen(self) -> Self {
        let Self { dir, store, log, next_message_id } = self;
        drop(log);
        drop(Arc::into_inner(store).expect("nobody else holds the store"));
        let store = Store::open(&options(&dir)).unwrap();
        let log = Log::new(Arc::clone(&store));
        Self { dir, store, log, next_message_id }
    }

    fn raw(&self) -> Connection {
        Connection::open(self.dir.path().join("t.db")).unwrap()
    }

    /// One tick: (conversation, sender, content) each; client ids are the message ids.
    fn append(&mut self, messages: &[(u64, u64, Vec<u8>)]) -> Result<Vec<Sent>, AppendError> {
        let ids: Vec<u64> = messages
            .iter()
            .map(|_| {
                self.next_message_id += 1;
                self.next_message_id
            })
            .collect();
        let keys: Vec<String> = ids.iter().map(u64::to_string).collect();
        append_as(&mut self.log, messages, &ids, &keys)
    }

    fn merge(&self, pace: Pace, stop: &dyn Fn() -> bool) -> u64 {
        self.store.merge_window(&mut self.store.merger().unwrap(), pace, stop).unwrap()
    }

    fn count(&self, table: &str) -> i64 {
        self.raw()
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap()
    }
}

const WHOLE: Pace = Pace { window_bytes: 1 << 30, slice: Duration::from_secs(1), rest_percent: 0 };

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u64, u64, usize)>),
    Merge { window_bytes: usize, slices: u32 },
    Restart,
    Read { conversation: u64, low: u64, span: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec((1u64..=3, 1u64..=2, prop_oneof![0usize..40, 900usize..3000]), 1..12).prop_map(Step::Append),
        3 => (1usize..40_000, 0u32..8).prop_map(|(window_bytes, slices)| Step::Merge { window_bytes, slices }),
        1 => Just(Step::Restart),
        4 => (1u64..=3, 0u64..60, 0u64..60).prop_map(|(conversation, low, span)| Step::Read { conversation, low, span }),
    ]
}

type Model = BTreeMap<u64, Vec<(u64, u64, Vec<u8>)>>;

fn check_range(fixture: &Fixture, model: &Model, conversation: u64, low: u64, high: u64) {
    let all = model.get(&conversation).map_or(&[][..], Vec::as_slice);
    let got = fixture.store.messages(conversation, low, high, Keep::Low, usize::MAX).unwrap();
    let got: Vec<_> = got
        .into_iter()
        .map(|m| (m.seq, m.message_id, m.sender, m.client_msg_id, m.content.to_vec()))
        .collect();
    let want: Vec<_> = (1u64..)
        .zip(all)
        .filter(|(seq, _)| (low.max(1)..=high).contains(seq))
        .map(|(seq, (id, sender, content))| (seq, *id, *sender, id.to_string(), content.clone()))
        .collect();
    assert_eq!(got, want, "conversation {conversation}, {low}..={high}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_log_behaves_like_a_list_per_conversation(steps in prop::collection::vec(step(), 1..60)) {
        let mut fixture = Fixture::new();
        let mut model = Model::new();
        let mut own: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(messages) => {
                    let messages: Vec<_> = messages.into_iter().map(|(no, sender, length)| (no, sender, vec![length as u8; length])).collect();
                    let sent = fixture.append(&messages).unwrap();
                    for ((no, sender, content), sent) in messages.into_iter().zip(sent) {
                        let list = model.entry(no).or_default();
                        list.push((sent.message_id, sender, content));
                        prop_assert_eq!(sent.seq, list.len() as u64);
                        own.insert((no, sender), sent.seq);
                    }
                }
                Step::Merge { window_bytes, slices } => {
                    let left = Cell::new(slices);
                    let stop = || { left.set(left.get().saturating_sub(1)); left.get() == 0 };
                    fixture.merge(Pace { window_bytes, slice: Duration::ZERO, rest_percent: 0 }, &stop);
                }
                Step::Restart => fixture = fixture.reopen(),
                Step::Read { conversation, low, span } => check_range(&fixture, &model, conversation, low, low + span),
            }
            for no in 1..=3 {
                prop_assert_eq!(fixture.store.last_seq(no).unwrap(), model.get(&no).map_or(0, |list| list.len() as u64));
            }
        }
        for no in 1..=3 {
            check_range(&fixture, &model, no, 0, u64::MAX);
            let newest = model.get(&no).and_then(|list| list.last()).map_or(1, |last| last.0);
            prop_assert_eq!(fixture.store.heads().get(no).active, newest);
        }
        // Whoever wrote has read: members are alice in 1 and 2, bob in 1 and 3.
        for (no, user) in [(1, 1), (1, 2), (2, 1), (3, 2)] {
            let view = fixture.store.view(no, user).unwrap().unwrap();
            prop_assert_eq!(view.read_seq, own.get(&(no, user)).copied().unwrap_or(0));
        }
        fixture.merge(WHOLE, &|| false);
        prop_assert_eq!(fixture.count("chunks"), 0);
        let fixture = fixture.reopen();
        for no in 1..=3 {
            check_range(&fixture, &model, no, 0, u64::MAX);
        }
        for (no, user) in [(1, 1), (1, 2), (2, 1), (3, 2)] {
            let view = fixture.store.view(no, user).unwrap().unwrap();
            prop_assert_eq!(view.read_seq, own.get(&(no, user)).copied().unwrap_or(0));
        }
    }
}

#[test]
fn a_long_chain_is_read_from_any_place_before_and_after_merging() {
    let mut fixture = Fixture::new();
    let mut model = Model::new();
    for n in 0..300u64 {
        let sent = fixture.append(&[(1, 1, vec![n as u8; 50])]).unwrap();
        model.entry(1).or_default().push((sent[0].message_id, 1, vec![n as u8; 50]));
    }
    for (low, high) in [(1, 1), (1, 50), (17, 17), (100, 149), (299, 300), (300, 400), (301, 302)] {
        check_range(&fixture, &model, 1, low, high);
    }
    // Some chunks merged, the rest not; pages across the border.
    let first = fixture.merge(Pace { window_bytes: 10_000, ..WHOLE }, &|| false);
    assert!(first > 0 && first < 300);
    assert_eq!(fixture.count("chunks") as u64, 300 - first);
    assert_eq!(fixture.store.heads().waiting(), 300 - first);
    for low in (1..300).step_by(7) {
        check_range(&fixture, &model, 1, low, low + 49);
    }
    assert_eq!(fixture.merge(WHOLE, &|| false), 300 - first);
    assert_eq!(fixture.store.heads().waiting(), 0);
    check_range(&fixture, &model, 1, 1, 300);
}

#[test]
fn a_repeated_send_stores_nothing_of_its_tick() {
    let mut fixture = Fixture::new();
    let one = (1, 1, b"hello".to_vec());
    let sent =
        append_as(&mut fixture.log, std::slice::from_ref(&one), &[77], &["id-1".into()]).unwrap();
    let tick = [(2, 1, b"new".to_vec()), one];
    let refused = append_as(&mut fixture.log, &tick, &[78, 79], &["id-2".into(), "id-1".into()]);
    assert!(matches!(refused, Err(AppendError::Duplicate)), "{refused:?}");
    assert_eq!((fixture.count("chunks"), fixture.count("dedupe")), (1, 1));
    assert_eq!(fixture.store.last_seq(2).unwrap(), 0);
    let key = ClientKey::parse("id-1").unwrap();
    let ask =
        |conversation, sender| SendKey { key: &key, conversation, sender, sent: Sent::default() };
    let found = fixture.log.find(&[ask(1, 1), ask(1, 2), ask(2, 1)]).unwrap();
    assert_eq!(found, [Some(Found { sent: sent[0], body: None }), None, None]);
}

#[test]
fn a_full_disk_is_temporary_and_heals() {
    let mut fixture = Fixture::new();
    fixture.append(&[(1, 1, vec![0; 100])]).unwrap();
    let pages: i64 =
        fixture.store.writer().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let set_max = |fixture: &Fixture, pages: i64| {
        let set: i64 = fixture
            .store
            .writer()
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(set, pages);
    };
    set_max(&fixture, pages);
    let big = vec![1; 100_000];
    for _ in 0..3 {
        let refused = fixture.append(&[(1, 1, big.clone()), (3, 2, big.clone())]);
        assert!(
            matches!(refused, Err(AppendError::Store(StoreError::Unavailable(_)))),
            "{refused:?}"
        );
        assert!(fixture.store.health.failing.load(Ordering::Relaxed));
    }
    assert_eq!((fixture.store.last_seq(1).unwrap(), fixture.store.last_seq(3).unwrap()), (1, 0));
    set_max(&fixture, 1_000_000);
    assert!(fixture.store.can_write());
    let sent = fixture.append(&[(1, 1, big.clone()), (3, 2, big)]).unwrap();
    assert_eq!(sent.iter().map(|sent| sent.seq).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn another_writer_is_noticed_and_its_messages_are_taken_in() {
    let mut fixture = Fixture::new();
    fixture.append(&[(1, 1, b"ours".to_vec())]).unwrap();
    let copy = fixture.raw();
    copy.execute("INSERT INTO chunks SELECT id + 1, 1, 2, 1, id, body FROM chunks", []).unwrap();
    let refused = fixture.append(&[(1, 1, b"late".to_vec())]);
    assert!(matches!(refused, Err(AppendError::Fenced)), "{refused:?}");
    assert_eq!(fixture.store.last_seq(1).unwrap(), 2, "the heads were loaded anew");
    assert_eq!(fixture.append(&[(1, 1, b"again".to_vec())]).unwrap()[0].seq, 3);
}

#[test]
fn a_second_process_is_kept_out() {
    let fixture = Fixture::new();
    let Err(StoreError::Unavailable(text)) = Store::open(&options(&fixture.dir)).map(drop) else {
        panic!("opened twice")
    };
    assert!(text.contains("held by another process"), "{text}");
}

#[test]
fn a_hole_in_the_log_is_an_error_not_a_wrong_seq() {
    let mut fixture = Fixture::new();
    for _ in 0..3 {
        fixture.append(&[(1, 1, b"x".to_vec())]).unwrap();
    }
    fixture.raw().execute("DELETE FROM chunks WHERE first_seq = 2", []).unwrap();
    assert!(matches!(
        fixture.store.messages(1, 1, 3, Keep::Low, 1000),
        Err(StoreError::Corrupt(_))
    ));
    let Fixture { dir, store, log, .. } = fixture;
    drop(log);
    drop(store);
    assert!(matches!(Store::open(&options(&dir)), Err(StoreError::Corrupt(_))));
}

#[test]
fn the_byte_limit_cuts_the_right_end() {
    let mut fixture = Fixture::new();
    let tick: Vec<_> = (0..10).map(|_| (1, 1, vec![0; 100])).collect();
    fixture.append(&tick).unwrap();
    let seqs = |keep, max_bytes| -> Vec<u64> {
        fixture.store.messages(1, 1, 10, keep, max_bytes).unwrap().iter().map(|m| m.seq).collect()
    };
    assert_eq!(seqs(Keep::Low, 350), [1, 2, 3]);
    assert_eq!(seqs(Keep::High, 350), [8, 9, 10]);
    assert_eq!(seqs(Keep::Low, 0), [1], "at least one");
    assert_eq!(seqs(Keep::High, 0), [10], "at least one");
}

#[test]
fn the_write_ahead_log_is_copied_back_when_it_is_long_and_only_then() {
    let mut fixture = Fixture::new();
    let mut checkpointer =
        maintenance::Checkpointer::new(Arc::clone(&fixture.store), 1 << 20).unwrap();
    let wal = fixture.dir.path().join("t.db-wal");
    let tick: Vec<_> = (0..30).map(|_| (1, 1, vec![7; 4000])).collect();
    fixture.append(&tick).unwrap();
    checkpointer.round().unwrap();
    let state = maintenance::checkpoint(&fixture.raw(), "NOOP").unwrap();
    assert!(state.pages > 0 && state.copied == 0, "a short one is left alone: {state:?}");
    for _ in 0..100 {
        fixture.append(&tick).unwrap();
        checkpointer.round().unwrap();
    }
    let bytes = std::fs::metadata(&wal).unwrap().len();
    assert!(bytes < 3 << 20, "{bytes} bytes");
    fixture.store.checkpoint_all().unwrap();
    assert_eq!(std::fs::metadata(&wal).unwrap().len(), 0);
}

/// Bytes this thread had read from disks.
fn bytes_from_disk() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.map_or(0, |number| number.parse().unwrap())
}

/// Where the system has dropped the log that is written over, a commit reads it; but not what was kept for it.
#[test]
fn a_commit_does_not_read_what_it_writes_over() {
    let mut fixture = Fixture::new();
    let mut checkpointer =
        maintenance::Checkpointer::new(Arc::clone(&fixture.store), 1 << 20).unwrap();
    let tick: Vec<_> = (0..30).map(|_| (1, 1, vec![7; 4000])).collect();
    let raw = fixture.raw();
    let pages = || maintenance::checkpoint(&raw, "NOOP").unwrap().pages;
    let wal = fixture.dir.path().join("t.db-wal");
    let mut read_in_commit = |begin_anew: bool, kept_for: Option<Duration>| {
        while begin_anew && pages() * 4096 < 1 << 20 {
            fixture.append(&tick).unwrap();
        }
        let wal = File::open(&wal).unwrap();
        if begin_anew && kept_for.is_none() {
            maintenance::checkpoint(&raw, "PASSIVE").unwrap();
        }
        rustix::fs::fadvise(&wal, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if let Some(time) = kept_for {
            checkpointer.round().unwrap();
            std::thread::sleep(time);
        }
        let before = bytes_from_disk();
        fixture.append(&[(1, 1, vec![7; 4000])]).unwrap();
        assert!(!begin_anew || pages() < 20, "the log did not begin anew");
        bytes_from_disk() - before
    };
    for begin_anew in [true, false] {
        if read_in_commit(begin_anew, None) == 0 {
            eprintln!("nothing is read from a disk here: not tested");
            return;
        }
        // The reading is begun, not waited for: a slow disk gets more time.
        let mut waits = (0..8).map(|n| Duration::from_millis(10 << n));
        assert!(waits.any(|wait| read_in_commit(begin_anew, Some(wait)) == 0), "{begin_anew}");
    }
}

#[test]
fn small_merges_continue_the_last_row_and_large_rows_are_left_alone() {
    let mut fixture = Fixture::new();
    for _ in 0..20 {
        fixture.append(&[(1, 1, vec![1; 50])]).unwrap();
        fixture.merge(WHOLE, &|| false);
    }
    assert_eq!(fixture.count("history"), 1);
    for _ in 0..4 {
        fixture.append(&[(1, 1, vec![1; 3000])]).unwrap();
        fixture.merge(WHOLE, &|| false);
    }
    assert_eq!(fixture.count("history"), 4, "each is large enough to stay as it is");
    assert_eq!(fixture.store.messages(1, 1, 100, Keep::Low, usize::MAX).unwrap().len(), 24);
}
