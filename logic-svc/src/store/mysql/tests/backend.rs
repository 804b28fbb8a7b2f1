//! Users, conversations, read positions, tokens, keys, dead letters: the same meaning as in the embedded store.

use super::*;
use crate::domain::conversation::{Kind, Role};
use crate::ports::{
    Backend, Created, DeadLetters, HistoryStore, Keep, NewDeadLetter, NewGroup, NewUser,
    RefreshToken, Refreshed, TokenStore,
};

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn users_are_made_once_and_names_are_exact() {
    let database = Database::new();
    let store = database.open();
    let new = |username| NewUser { username, nickname: "Grüße \u{1F600}", password_hash: "h" };
    let alice = store.create_user(&new("alice"), 7).unwrap().unwrap();
    assert_eq!(store.create_user(&new("alice"), 8).unwrap(), None, "taken");
    let other = store.create_user(&new("Alice"), 8).unwrap().unwrap();
    assert_ne!(alice, other);
    let user = store.user_by_name("alice").unwrap().unwrap();
    assert_eq!((user.id, user.nickname.as_str()), (alice, "Grüße \u{1F600}"));
    assert_eq!((user.password_hash.as_deref(), user.token_epoch), (Some("h"), 0));
    assert_eq!(store.user(alice).unwrap().unwrap(), user);
    assert_eq!(store.user(999).unwrap(), None);
    assert_eq!(store.user_by_name("ALICE").unwrap(), None);
    let names: Vec<String> = (0..1200).map(|n| format!("u{n}")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.extend(["alice", "u7", "u7"]);
    let ids = store.ensure_users(&names, 9).unwrap();
    assert_eq!(ids, store.ensure_users(&names, 9).unwrap());
    assert_eq!((ids[1200], ids[1201], ids[1202]), (alice, ids[7], ids[7]));
    let mut asked = ids.clone();
    asked.push(999_999);
    let found = store.names_and_epochs(&asked).unwrap();
    assert!(
        found[..1203].iter().zip(&names).all(|(found, name)| found.as_ref().unwrap().0 == *name)
    );
    assert_eq!(found[1203], None);
    assert_eq!(store.username(ids[3]).unwrap().as_deref(), Some("u3"));
    assert!(store.ensure_users(&[], 1).unwrap().is_empty());
    assert!(store.names_and_epochs(&[]).unwrap().is_empty());
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn users_ensured_by_several_at_once_are_the_same() {
    let database = Database::new();
    database.open();
    let database = &database;
    let all: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n: usize| {
                scope.spawn(move || {
                    let names: Vec<String> = (0..300).map(|at| format!("u{}", at + n)).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    database.open().ensure_users(&names, 1).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(all[0][3..], all[3][..297]);
    assert_eq!(database.count("users"), 303);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn groups_have_owners_members_and_counts() {
    let database = Database::new();
    let store = database.open();
    let users = store.ensure_users(&["a", "b", "c", "d"], 1).unwrap();
    let members = [users[2], users[1], users[0], users[1]];
    let new = NewGroup { id: "Küche 1 ", name: "Küche", owner: users[0], members: &members };
    let Created::New(no) = store.create_group(&new, 1 << 40).unwrap() else { panic!("taken") };
    assert_eq!(store.create_group(&new, 1 << 40).unwrap(), Created::Taken);
    assert!(store.conversation_of("Küche 1", users[0]).unwrap().is_none(), "spaces count");
    let (info, inside) = store.conversation_of("Küche 1 ", users[3]).unwrap().unwrap();
    assert_eq!((info.no, info.kind, info.name.as_str()), (no, Kind::Group, "Küche"));
    assert_eq!((info.member_count, info.dev_made, inside), (3, false, false));
    assert_eq!(store.member_ids(no, 2).unwrap(), users[..2]);
    let (list, more) = store.list_members(no, 0, 2).unwrap();
    assert_eq!((list[0].username.as_str(), list[0].role, more), ("a", Role::Owner, true));
    let (list, more) = store.list_members(no, list[1].user, 2).unwrap();
    assert_eq!((list.len(), list[0].user, list[0].role, more), (1, users[2], Role::Member, false));
    // The owner leaves: whoever has been in longest gets it; the last one out leaves it to nobody.
    assert!(store.join(&info, users[3], 2 << 40).unwrap());
    assert!(store.leave(&info, users[0]).unwrap());
    let roles = |store: &Store| -> Vec<(u64, Role)> {
        let (list, _) = store.list_members(no, 0, 10).unwrap();
        list.iter().map(|member| (member.user, member.role)).collect()
    };
    let left = [(users[1], Role::Owner), (users[2], Role::Member), (users[3], Role::Member)];
    assert_eq!(roles(&store), left);
    for user in &users[1..] {
        assert!(store.leave(&info, *user).unwrap());
    }
    assert_eq!(roles(&store), []);
    assert_eq!(database.ask::<Option<u64>>("SELECT owner_id FROM conversations"), None);
    assert!(store.join(&info, users[2], 3 << 40).unwrap());
    assert_eq!(
        roles(&store),
        [(users[2], Role::Owner)],
        "whoever comes into an empty group owns it"
    );
    let (info, inside) = store.conversation_of("Küche 1 ", users[2]).unwrap().unwrap();
    assert_eq!((info.member_count, inside), (1, true));
    assert_eq!(database.ask::<u64>("SELECT version FROM conversations"), 6, "joins and leaves");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn joins_and_leaves_at_once_keep_the_count() {
    let database = Database::new();
    let store = database.open();
    let names: Vec<String> = (0..12).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let users = store.ensure_users(&names, 1).unwrap();
    let new = NewGroup { id: "g", name: "", owner: users[0], members: &[] };
    store.create_group(&new, 1).unwrap();
    let info = store.conversation_of("g", users[0]).unwrap().unwrap().0;
    let (database, users, info) = (&database, &users, &info);
    std::thread::scope(|scope| {
        for n in 0..4usize {
            scope.spawn(move || {
                let store = database.open();
                for round in 0..3 {
                    for user in &users[1..] {
                        store.join(info, *user, 1).unwrap();
                        if round < 2 || user % 2 == n as u64 % 2 {
                            store.leave(info, *user).unwrap();
                        }
                    }
                }
            });
        }
    });
    let inside: u64 =
        database.ask("SELECT COUNT(*) FROM conversation_members WHERE left_at_ms IS NULL");
    assert_eq!(database.ask::<u64>("SELECT member_count FROM conversations"), inside);
    let owners: u64 = database
        .ask("SELECT COUNT(*) FROM conversation_members WHERE left_at_ms IS NULL AND role = 1");
    assert_eq!(owners, 1);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn read_positions_only_rise_and_own_messages_count() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (alice, bob, no) = (fixture.users[0], fixture.users[1], fixture.conversations[0]);
    let tick: Vec<_> = (0..10).map(|_| (no, alice, b"x".to_vec())).collect();
    fixture.append(&tick).unwrap();
    let store = Arc::clone(&fixture.store);
    let view = |user| store.view(no, user).unwrap().unwrap();
    assert_eq!((view(alice).read_seq, view(bob).read_seq, view(bob).max_seq), (10, 0, 10));
    assert_eq!((view(bob).active, view(bob).role), ((1 << 30) + 9, Role::Member));
    assert_eq!(store.view(no, 999).unwrap(), None);
    assert_eq!(store.view(999, bob).unwrap(), None);
    let mark = |marks: &[(u64, u64, u64)]| store.mark_read(marks).unwrap();
    assert_eq!(mark(&[(no, bob, 4), (no, 999, 4), (999, bob, 4)]), [Some(4), None, None]);
    assert_eq!(mark(&[(no, bob, 2), (no, alice, 1)]), [Some(4), Some(10)], "not back");
    assert_eq!(mark(&[(no, bob, 7), (no, bob, 5), (no, bob, 99)]), [Some(10); 3], "not beyond");
    fixture.append(&[(no, alice, b"x".to_vec()), (no, bob, b"y".to_vec())]).unwrap();
    assert_eq!((view(alice).read_seq, view(bob).read_seq), (11, 12));
    assert_eq!(mark(&[(no, alice, 0)]), [Some(11)]);
    assert_eq!(store.mark_read(&[]).unwrap(), []);
    // Many at once, in several statements.
    let many: Vec<_> = (0..150).map(|n| (no, [alice, bob][n % 2], n as u64)).collect();
    assert!(mark(&many).iter().all(|seq| *seq == Some(12)));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn activity_follows_the_last_message() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (alice, conversations) = (fixture.users[0], fixture.conversations.clone());
    let list = |store: &Store| -> std::collections::BTreeMap<u64, u64> {
        store.activities(alice).unwrap().into_iter().map(|one| (one.no, one.active)).collect()
    };
    assert_eq!(list(&fixture.store), [(conversations[0], 1), (conversations[1], 1)].into());
    fixture.append(&[(conversations[0], alice, b"x".to_vec())]).unwrap();
    assert_eq!(list(&fixture.store), [(conversations[0], 1 << 30), (conversations[1], 1)].into());
    let newest = fixture.store.newest_id().unwrap();
    assert!(crate::snowflake::time_ms(newest).abs_diff(super::super::now_ms()) < 60_000);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn the_byte_limit_cuts_the_right_end_and_a_hole_is_an_error() {
    let database = Database::new();
    let mut fixture = Fixture::new(&database);
    let (no, alice) = (fixture.conversations[0], fixture.users[0]);
    let tick: Vec<_> = (0..600).map(|_| (no, alice, vec![0; 100])).collect();
    fixture.append(&tick).unwrap();
    let store = &fixture.store;
    let seqs = |low, high, keep, max_bytes| -> Vec<u64> {
        let found = store.messages(no, low, high, keep, max_bytes).unwrap();
        found.iter().map(|message| message.seq).collect()
    };
    assert_eq!(seqs(1, 10, Keep::Low, 350), [1, 2, 3]);
    assert_eq!(seqs(1, 10, Keep::High, 350), [8, 9, 10]);
    assert_eq!(seqs(1, 10, Keep::Low, 0), [1], "at least one");
    assert_eq!(seqs(1, 10, Keep::High, 0), [10], "at least one");
    assert_eq!(seqs(0, u64::MAX, Keep::Low, usize::MAX), (1..=600).collect::<Vec<_>>());
    assert_eq!(seqs(0, u64::MAX, Keep::High, 25_000), (351..=600).collect::<Vec<_>>());
    assert!(seqs(601, 700, Keep::Low, 1000).is_empty() && seqs(5, 4, Keep::Low, 1000).is_empty());
    assert!(store.messages(999, 1, 9, Keep::Low, 1000).unwrap().is_empty());
    database.raw().query_drop("DELETE FROM messages WHERE seq = 130").unwrap();
    for keep in [Keep::Low, Keep::High] {
        let damaged = store.messages(no, 100, 200, keep, usize::MAX);
        assert!(matches!(damaged, Err(StoreError::Corrupt(_))), "{damaged:?}");
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn refresh_tokens_are_spent_once() {
    let database = Database::new();
    let store = database.open();
    let user = store.ensure_users(&["a"], 1).unwrap()[0];
    let token = |byte: &'static [u8; 32]| RefreshToken { hash: byte, expires_at_ms: 1000 };
    let (one, two, three, four) = (&[1; 32], &[2; 32], &[3; 32], &[4; 32]);
    store.begin_session(user, token(one), 1).unwrap();
    store.begin_session(user, token(four), 1).unwrap();
    assert_eq!(store.refresh_session(&[9; 32], token(two), 5).unwrap(), Refreshed::Unknown);
    assert_eq!(store.refresh_session(one, token(two), 5).unwrap(), Refreshed::Good(user));
    assert_eq!(store.refresh_session(two, token(three), 1000).unwrap(), Refreshed::Unknown);
    assert_eq!(store.refresh_session(one, token(three), 5).unwrap(), Refreshed::Reused);
    assert_eq!(store.refresh_session(two, token(three), 5).unwrap(), Refreshed::Unknown, "void");
    assert_eq!(store.refresh_session(four, token(three), 5).unwrap(), Refreshed::Good(user));
    store.end_sessions(user).unwrap();
    assert_eq!(store.refresh_session(three, token(two), 5).unwrap(), Refreshed::Unknown);
    assert_eq!(store.user(user).unwrap().unwrap().token_epoch, 1);
    assert!(store.can_write());
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn the_first_signing_key_wins() {
    let database = Database::new();
    database.open();
    let database = &database;
    let keys: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let offer = |n: u8| move || database.open().signing_key(|| vec![n; 80]).unwrap();
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(offer(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0] && key.len() == 80));
    let stored = database.open().signing_key(|| unreachable!("there is one")).unwrap();
    assert_eq!(stored, keys[0]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn dead_letters_are_kept_listed_and_marked() {
    let database = Database::new();
    let store = database.open();
    let long = "ä".repeat(3000);
    let letter = |offset, reason| NewDeadLetter {
        topic: "im-upstream",
        partition: 3,
        offset,
        reason,
        attempts: 3,
        payload: &[0xff, 0, 1],
    };
    for one in [letter(1, "panic"), letter(2, &long), letter(3, "x"), letter(3, "again")] {
        store.keep(&one).unwrap();
    }
    let all = store.page(0, 10).unwrap();
    assert_eq!(all.iter().map(|one| one.offset).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!((all[0].reason.as_str(), all[0].attempts), ("again", 6));
    assert_eq!(all[1].reason.chars().count(), 1024);
    assert!(all[0].payload.is_empty());
    assert_eq!(store.page(all[0].id, 1).unwrap(), [all[1].clone()]);
    store.replayed(all[2].id).unwrap();
    store.replayed(999).unwrap();
    let one = store.get(all[2].id).unwrap().unwrap();
    assert_eq!((&one.payload[..], one.partition), (&[0xff, 0, 1][..], 3));
    assert!(one.replayed_at_ms > 0 && all[2].replayed_at_ms == 0);
    assert_eq!(store.get(999).unwrap(), None);
    assert!(store.keep(&letter(u64::MAX, "x")).is_err(), "no such place");
}
