//! What one service changes is seen by the next tick of another.

use super::*;
use crate::domain::conversation::Kind;
use crate::ports::{
    Backend, Change, ConversationInfo, ConversationRecord, Created, Crowds, Fanout, Known, Large,
    Members, NewGroup, Tip,
};

fn group(store: &Store, id: &str, owner: u64, members: &[u64]) -> ConversationInfo {
    let new = NewGroup { id, name: "G", owner, members };
    assert!(matches!(store.create_group(&new, 1 << 30).unwrap(), Created::New(_)));
    store.conversation_of(id, owner).unwrap().unwrap().0
}

fn changes(directory: &mut Directory, known: &[(&ConversationRecord, &str)]) -> Vec<Change> {
    let known: Vec<Known<'_>> = known
        .iter()
        .map(|(record, id)| Known { no: record.no, id, version: record.version })
        .collect();
    let mut into = Vec::new();
    directory.changes(&known, &mut into).unwrap();
    into
}

/// What the pipeline's cache does with them.
fn apply(record: &mut ConversationRecord, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Joined { user, .. } => drop(record.members.insert(*user)),
            Change::Left { user, .. } => drop(record.members.remove(*user)),
            Change::Version { version, fanout, .. } => {
                record.version = *version;
                record.fanout = *fanout;
            }
        }
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_second_directory_sees_joins_leaves_and_switches() {
    let database = Database::new();
    let (ours, theirs) = (database.open(), database.open());
    let users = ours.ensure_users(&["a", "b", "c"], 1).unwrap();
    let info = group(&ours, "g", users[0], &[users[1]]);
    let mut directory = Directory::new(theirs);
    assert!(directory.asks_versions());
    let mut record = directory.conversation("g").unwrap().unwrap();
    assert_eq!((record.kind, record.fanout, record.dev_made), (Kind::Group, Fanout::Write, false));
    assert_eq!(record.members.as_slice(), [users[0], users[1]]);
    assert!(changes(&mut directory, &[(&record, "g")]).is_empty());
    assert!(ours.join(&info, users[2], 2 << 30).unwrap());
    assert!(!ours.join(&info, users[2], 2 << 30).unwrap(), "already in");
    assert!(ours.leave(&info, users[1]).unwrap());
    assert!(!ours.leave(&info, users[1]).unwrap(), "not in");
    let seen = changes(&mut directory, &[(&record, "g")]);
    let id = || "g".to_owned();
    assert_eq!(
        seen,
        [
            Change::Joined { id: id(), user: users[2] },
            Change::Left { id: id(), user: users[1] },
            Change::Version { id: id(), version: record.version + 2, fanout: Fanout::Write },
        ]
    );
    apply(&mut record, &seen);
    assert!(changes(&mut directory, &[(&record, "g")]).is_empty());
    assert!(ours.set_fanout(info.no, Fanout::Read, 17).unwrap());
    assert!(!ours.set_fanout(info.no, Fanout::Read, 18).unwrap(), "it is so already");
    assert!(ours.join(&info, users[1], 3 << 30).unwrap(), "a row that left comes back");
    let seen = changes(&mut directory, &[(&record, "g")]);
    apply(&mut record, &seen);
    assert_eq!(record, directory.conversation("g").unwrap().unwrap());
    assert_eq!(record.fanout, Fanout::Read);
    assert_eq!(directory.conversation("G").unwrap(), None, "ids are compared byte by byte");
    assert_eq!(directory.conversation("g ").unwrap(), None, "spaces count");
    assert_eq!(directory.username(users[2]).unwrap().as_deref(), Some("c"));
    assert_eq!(directory.username(999).unwrap(), None);
    let large = |least| ours.large_of(&users, least).unwrap();
    let group = Large { no: info.no, id: id() };
    assert!(large(500).iter().all(|of| *of == [group.clone()]));
    assert!(ours.leave(&info, users[1]).unwrap());
    assert_eq!(large(500)[1], []);
    let crowd = ours.crowd("g").unwrap().unwrap();
    assert_eq!((crowd.no, crowd.members, crowd.fanout), (info.no, 2, Fanout::Read));
    assert_eq!(ours.members_after(info.no, users[0], 9).unwrap(), [users[2]]);
    assert!(ours.set_fanout(info.no, Fanout::Write, 20).unwrap());
    assert_eq!((large(500)[0].len(), large(2)[0].len(), large(3)[0].len()), (0, 1, 0));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn groups_on_the_wrong_side_of_a_threshold_are_found() {
    let database = Database::new();
    let store = database.open();
    let users = store.ensure_users(&["a"], 1).unwrap();
    let wanted: Vec<Ensure> =
        (0..4).map(|n| Ensure::DevGroup { id: format!("g{n}"), user: users[0] }).collect();
    let made = Directory::new(Arc::clone(&store)).ensure(&wanted, 1 << 30).unwrap();
    let nos: Vec<u64> = made.into_iter().map(|record| record.unwrap().no).collect();
    for no in &nos[2..] {
        assert!(store.set_fanout(*no, Fanout::Read, 0).unwrap());
    }
    let found = |up, down, after, limit| -> Vec<(u64, Fanout)> {
        let found = store.misfits(up, down, after, limit).unwrap();
        found.into_iter().map(|(group, right)| (group.no, right)).collect()
    };
    assert_eq!(found(2, 1, 0, 9), []);
    assert_eq!(found(1, 1, 0, 9), [(nos[0], Fanout::Read), (nos[1], Fanout::Read)]);
    assert_eq!(found(3, 2, 0, 9), [(nos[2], Fanout::Write), (nos[3], Fanout::Write)]);
    assert_eq!(found(3, 2, nos[2], 9), [(nos[3], Fanout::Write)]);
    assert_eq!(found(3, 2, 0, 1), [(nos[2], Fanout::Write)]);
    assert_eq!(store.misfits(3, 2, nos[2], 9).unwrap()[0].0.id, "g3");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn many_conversations_are_asked_about_at_once_and_only_the_changed_are_told() {
    let database = Database::new();
    let store = database.open();
    let users = store.ensure_users(&["a", "b"], 1).unwrap();
    let ids: Vec<String> = (0..700).map(|n| format!("g{n}")).collect();
    let wanted: Vec<Ensure> =
        ids.iter().map(|id| Ensure::DevGroup { id: id.clone(), user: users[0] }).collect();
    let mut directory = Directory::new(Arc::clone(&store));
    let mut records: Vec<ConversationRecord> =
        directory.ensure(&wanted, 1 << 30).unwrap().into_iter().map(Option::unwrap).collect();
    assert!(records.iter().all(|r| r.dev_made && r.members.as_slice() == [users[0]]));
    let known = |records: &[ConversationRecord]| -> Vec<(ConversationRecord, String)> {
        records.iter().cloned().zip(ids.iter().cloned()).collect()
    };
    let ask = |directory: &mut Directory, records: &[ConversationRecord]| {
        let known = known(records);
        let known: Vec<_> = known.iter().map(|(record, id)| (record, id.as_str())).collect();
        changes(directory, &known)
    };
    assert!(ask(&mut directory, &records).is_empty());
    let joins: Vec<Ensure> = (0..700)
        .step_by(7)
        .map(|n| Ensure::DevGroup { id: ids[n].clone(), user: users[1] })
        .collect();
    database.open().ensure(&joins, 2 << 30).unwrap();
    let seen = ask(&mut directory, &records);
    assert_eq!(seen.len(), 2 * joins.len());
    for (n, record) in records.iter_mut().enumerate() {
        let own: Vec<Change> = seen
            .iter()
            .filter(|change| {
                let (Change::Joined { id, .. }
                | Change::Left { id, .. }
                | Change::Version { id, .. }) = change;
                *id == ids[n]
            })
            .cloned()
            .collect();
        assert!(matches!(own.as_slice(), [] | [Change::Joined { .. }, Change::Version { .. }]));
        apply(record, &own);
    }
    assert!(ask(&mut directory, &records).is_empty());
    assert_eq!(records[7].members.len(), 2);
    assert_eq!(records[8].members.len(), 1);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn conversations_are_made_once_however_many_make_them() {
    let database = Database::new();
    let users = database.open().ensure_users(&["a", "b", "c", "d"], 1).unwrap();
    let (database, users) = (&database, &users);
    let all: Vec<Vec<Option<ConversationRecord>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4usize)
            .map(|n| {
                scope.spawn(move || {
                    let store = database.open();
                    let mut wanted: Vec<Ensure> = (0..30)
                        .map(|g| Ensure::DevGroup { id: format!("g{g}"), user: users[n] })
                        .collect();
                    for low in 0..4 {
                        for high in low..4 {
                            wanted.push(Ensure::Direct { low: users[low], high: users[high] });
                        }
                    }
                    wanted.push(Ensure::Direct { low: users[0], high: 999_999 });
                    // Everybody in another order.
                    wanted.rotate_left(n * 7);
                    let mut made = store.ensure(&wanted, 1 << 30).unwrap();
                    made.rotate_right(n * 7);
                    made
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for made in &all {
        assert_eq!(made.len(), 41);
        assert!(made[40].is_none(), "a user that does not exist");
        let numbers = |made: &[Option<ConversationRecord>]| -> Vec<u64> {
            made[..40].iter().map(|one| one.as_ref().unwrap().no).collect()
        };
        assert_eq!(numbers(made), numbers(&all[0]));
    }
    assert_eq!(database.count("conversations"), 40);
    assert_eq!(database.count("conversation_members"), 30 * 4 + 4 + 6 * 2);
    let wrong: u64 = database.ask(
        "SELECT COUNT(*) FROM conversations c WHERE c.member_count <> \
         (SELECT COUNT(*) FROM conversation_members m WHERE m.conversation = c.id)",
    );
    assert_eq!(wrong, 0, "counts are right");
    let owners: u64 = database.ask(
        "SELECT COUNT(*) FROM conversations c JOIN conversation_members m ON m.conversation = c.id \
         AND m.user_id = c.owner_id AND m.role = 1 WHERE c.type = 2",
    );
    assert_eq!(owners, 30, "one owner each");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn rows_of_others_are_not_waited_for() {
    let database = Database::new();
    // A lock that is waited for is given up after a while: then this fails.
    let store = database.open();
    let users = store.ensure_users(&["a"], 1).unwrap();
    let dev = |n: usize, user| Ensure::DevGroup { id: format!("g{n:02}"), user };
    let all: Vec<Ensure> = (0..32).map(|n| dev(n, users[0])).collect();
    let made = store.ensure(&all, 1 << 30).unwrap();
    let numbers: Vec<u64> = made.into_iter().map(|one| one.unwrap().no).collect();
    let mut other = database.raw();
    for (table, key) in [("conversations", "id"), ("conversation_members", "conversation")] {
        other.query_drop("START TRANSACTION").unwrap();
        let lock = format!("SELECT 1 FROM {table} WHERE {key} = {} FOR UPDATE", numbers[31]);
        assert_eq!(other.query::<u64, _>(lock).unwrap().len(), 1);
        let user = store.ensure_users(&[table], 1).unwrap()[0];
        let wanted: Vec<Ensure> = (0..24).map(|n| dev(n, user)).collect();
        let taken = store.ensure(&wanted, 1 << 30).unwrap();
        assert!(taken.iter().flatten().all(|one| one.members.contains(user)), "{table}");
        let marks: Vec<_> = numbers[..24].iter().map(|&no| (no, user, 0)).collect();
        assert_eq!(store.mark_read(&marks).unwrap(), [Some(0); 24], "{table}");
        other.query_drop("ROLLBACK").unwrap();
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_was_fetched_answers_for_one_tick() {
    let database = Database::new();
    let store = database.open();
    let users = store.ensure_users(&["a", "b"], 1).unwrap();
    let info = group(&store, "g", users[0], &[]);
    let mut directory = Directory::new(Arc::clone(&store));
    directory.fetch(&["g", "later"], &[users[0], 999]).unwrap();
    group(&store, "later", users[0], &[]);
    store.join(&info, users[1], 2 << 30).unwrap();
    let record = directory.conversation("g").unwrap().unwrap();
    assert_eq!(record.members.len(), 1, "as it was when it was fetched");
    assert_eq!(changes(&mut Directory::new(store), &[(&record, "g")]).len(), 2, "and that is seen");
    assert_eq!(directory.conversation("g").unwrap().unwrap().members.len(), 2, "asked again");
    assert_eq!(directory.conversation("later").unwrap(), None);
    assert_eq!(directory.conversation("later").unwrap(), None);
    assert_eq!(directory.username(users[0]).unwrap().as_deref(), Some("a"));
    assert_eq!(directory.username(999).unwrap(), None);
    assert_eq!(directory.username(users[1]).unwrap().as_deref(), Some("b"), "not fetched");
    directory.changes(&[], &mut Vec::new()).unwrap();
    assert!(directory.conversation("later").unwrap().is_some(), "the next tick asks anew");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_large_group_is_read_in_pages() {
    const MEMBERS: u64 = 20_000;
    let database = Database::new();
    let store = database.open();
    let owner = store.ensure_users(&["a"], 1).unwrap()[0];
    let info = group(&store, "huge", owner, &[]);
    let mut raw = database.raw();
    for chunk in (owner + 1..owner + MEMBERS).collect::<Vec<_>>().chunks(5000) {
        let rows: Vec<String> =
            chunk.iter().map(|user| format!("({}, {user}, 3, 0, 1, 0, 0)", info.no)).collect();
        let sql = "INSERT INTO conversation_members(conversation, user_id, role, joined_seq, \
                   joined_at_ms, read_seq, version) VALUES";
        raw.query_drop(format!("{sql}{}", rows.join(","))).unwrap();
    }
    raw.query_drop(format!("UPDATE conversations SET member_count = {MEMBERS}")).unwrap();
    let mut directory = Directory::new(store);
    let record = directory.conversation("huge").unwrap().unwrap();
    assert_eq!(record.members.len() as u64, MEMBERS);
    assert!(record.members.contains(owner) && record.members.contains(owner + MEMBERS - 1));
}

/// What a login that resumes asks.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn tips_are_those_of_the_users_own_conversations_in_the_order_asked() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (alice, bob) = (fixture.users[0], fixture.users[1]);
    let store = Arc::clone(&fixture.store);
    let made = ["g", "left", "not in", "empty"].map(|id| {
        let members: &[u64] = if id == "not in" { &[] } else { &[alice] };
        group(&store, id, bob, members)
    });
    assert!(store.leave(&made[1], alice).unwrap());
    for no in [made[0].no, made[0].no, made[1].no, made[2].no] {
        fixture.append(&[(no, bob, b"x".to_vec())]).unwrap();
    }
    let tip = |at: usize, last_seq| Some(Tip { no: made[at].no, last_seq });
    let asked = ["empty", "left", "G", "g", "not in", "nowhere", "g"];
    let found = store.tips(&asked, alice).unwrap();
    assert_eq!(found, [tip(3, 0), None, None, tip(0, 2), None, None, tip(0, 2)]);
    let many: Vec<String> =
        (0..600).map(|n| if n == 599 { "g".into() } else { format!("c{n}") }).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let found = store.tips(&many, bob).unwrap();
    assert_eq!((found.len(), found[599], found.iter().flatten().count()), (600, tip(0, 2), 1));
    assert_eq!(store.tips(&[], bob).unwrap(), []);
}
