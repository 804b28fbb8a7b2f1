//! Calls of gateways: login, presence, pull, sync, conversations, read positions.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeSet;

use common::{Harness, batch, call, frame, seq};
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{
    Conversation, Conversations, CreateConversation, Failure, ListMembers, Members, Membership,
    Page, Pull, Read, Sync,
};

fn failed(reply: Reply) -> Failure {
    match reply {
        Reply::Failure(failure) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

fn pull(h: &Harness, user: u64, id: &str, cursor_seq: u64, limit: u32, backward: bool) -> Page {
    let request = Pull { request_id: 5, conversation_id: id.into(), cursor_seq, limit, backward };
    match h.call(user, Request::Pull(request)) {
        Reply::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

fn seqs(page: &Page) -> Vec<u64> {
    page.items.iter().map(|item| item.seq).collect()
}

fn sync(h: &Harness, user: u64, cursor: &str, limit: u32) -> Conversations {
    match h.call(user, Request::Sync(Sync { request_id: 6, cursor: cursor.into(), limit })) {
        Reply::Conversations(page) => page,
        other => panic!("{other:?}"),
    }
}

fn create(h: &Harness, user: u64, kind: &str, id: &str, members: &[&str]) -> Reply {
    h.call(
        user,
        Request::Create(CreateConversation {
            request_id: 7,
            r#type: kind.into(),
            conversation_id: id.into(),
            name: String::new(),
            members: members.iter().map(|&name| name.to_owned()).collect(),
        }),
    )
}

fn conversation(reply: Reply) -> Conversation {
    match reply {
        Reply::Conversation(reply) => reply.conversation.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn membership(id: &str) -> Membership {
    Membership { request_id: 8, conversation_id: id.into() }
}

fn members(h: &Harness, user: u64, id: &str, cursor: u64, limit: u32) -> Members {
    match h.call(
        user,
        Request::Members(ListMembers { request_id: 9, conversation_id: id.into(), cursor, limit }),
    ) {
        Reply::Members(members) => members,
        other => panic!("{other:?}"),
    }
}

fn read(h: &Harness, user: u64, id: &str, read_seq: u64) -> Reply {
    h.call(user, Request::Read(Read { request_id: 10, conversation_id: id.into(), read_seq }))
}

#[test]
fn answers_name_their_request_and_connection() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    let ask = |request| call(3, 4, alice, request);
    let replies = h.calls(vec![
        ask(Request::Pull(Pull {
            request_id: 11,
            conversation_id: "g".into(),
            ..Default::default()
        })),
        ask(Request::Sync(Sync { request_id: 12, ..Default::default() })),
        ask(Request::Create(CreateConversation { request_id: 13, ..Default::default() })),
        ask(Request::Join(Membership { request_id: 14, conversation_id: "g".into() })),
        ask(Request::Leave(Membership { request_id: 15, conversation_id: "none".into() })),
        ask(Request::Members(ListMembers {
            request_id: 16,
            conversation_id: "g".into(),
            ..Default::default()
        })),
        ask(Request::Read(Read {
            request_id: 17,
            conversation_id: "g".into(),
            ..Default::default()
        })),
        ask(Request::Read(Read {
            request_id: 18,
            conversation_id: "none".into(),
            ..Default::default()
        })),
    ]);
    let ids: Vec<_> =
        replies.iter().map(|r| (r.shard, r.slot, r.generation, r.command, r.request_id)).collect();
    let want = [(6, 11), (7, 12), (8, 13), (9, 14), (10, 15), (11, 16), (12, 17), (12, 18)];
    assert_eq!(ids, want.map(|(command, id)| (3, 4, 1, command, id)));
    let Some(Reply::Page(page)) = &replies[0].reply else { panic!() };
    assert_eq!(page.request_id, 11);
    let Some(Reply::Read(answer)) = &replies[6].reply else { panic!() };
    assert_eq!((answer.request_id, answer.conversation_id.as_str()), (17, "g"));
    assert!(
        matches!(&replies[7].reply, Some(Reply::Failure(failure)) if failure.name == "CONVERSATION_NOT_FOUND")
    );
}

#[test]
fn pulling_goes_page_by_page_in_both_directions() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    let empty = pull(&h, alice, "g", 0, 10, false);
    assert_eq!((seqs(&empty), empty.next_cursor_seq, empty.has_more), (vec![], 0, false));
    for n in 0..25 {
        h.send(alice, "g", &format!("m{n}"), &format!("text {n}"));
    }
    let page = pull(&h, alice, "g", 0, 10, false);
    assert_eq!((seqs(&page), page.next_cursor_seq, page.has_more), ((1..=10).collect(), 10, true));
    assert_eq!(
        (page.items[3].client_msg_id.as_str(), &page.items[3].content[..]),
        ("m3", &b"text 3"[..])
    );
    let page = pull(&h, alice, "g", 20, 10, false);
    assert_eq!(
        (seqs(&page), page.next_cursor_seq, page.has_more),
        ((21..=25).collect(), 25, false)
    );
    let page = pull(&h, alice, "g", 25, 10, false);
    assert_eq!((seqs(&page), page.next_cursor_seq, page.has_more), (vec![], 25, false));
    let page = pull(&h, alice, "g", 0, 10, true);
    assert_eq!((seqs(&page), page.next_cursor_seq, page.has_more), ((16..=25).collect(), 16, true));
    let page = pull(&h, alice, "g", 6, 10, true);
    assert_eq!((seqs(&page), page.next_cursor_seq, page.has_more), ((1..=5).collect(), 1, false));
    let page = pull(&h, alice, "g", 1, 10, true);
    assert_eq!((seqs(&page), page.next_cursor_seq, page.has_more), (vec![], 1, false));
    assert_eq!(pull(&h, alice, "g", 0, 0, false).items.len(), 25);
}

#[test]
fn a_page_of_large_messages_is_cut_and_says_so() {
    let h = Harness::with(|config| {
        config.dev_login = true;
        config.content_max_bytes = 100_000;
    });
    let alice = h.login("alice", "", 0, 1).user_id;
    let large = "x".repeat(100_000);
    for n in 0..8 {
        h.send(alice, "g", &format!("m{n}"), &large);
    }
    let page = pull(&h, alice, "g", 0, 500, false);
    assert_eq!((seqs(&page), page.next_cursor_seq, page.has_more), ((1..=5).collect(), 5, true));
    let page = pull(&h, alice, "g", 0, 500, true);
    assert_eq!((seqs(&page), page.next_cursor_seq, page.has_more), ((4..=8).collect(), 4, true));
}

#[test]
fn only_members_read() {
    let h = Harness::new();
    h.users(&["alice", "bob", "eve"]);
    h.send(1, "dm_1_2", "m", "secret");
    let ask = |user, id: &str| {
        failed(
            h.call(user, Request::Pull(Pull { conversation_id: id.into(), ..Default::default() })),
        )
        .name
    };
    assert_eq!(ask(3, "dm_1_2"), "NOT_A_MEMBER");
    assert_eq!(ask(3, "dm_1_3"), "CONVERSATION_NOT_FOUND");
    assert_eq!(ask(3, "group_101"), "CONVERSATION_NOT_FOUND");
    assert_eq!(ask(3, ""), "CONVERSATION_NOT_FOUND");
    assert_eq!(failed(read(&h, 3, "dm_1_2", 1)).name, "NOT_A_MEMBER");
    let list = ListMembers { conversation_id: "dm_1_2".into(), ..Default::default() };
    assert_eq!(failed(h.call(3, Request::Members(list))).name, "NOT_A_MEMBER");
}

#[test]
fn groups_are_made_joined_left_and_passed_on() {
    let h = Harness::new();
    let users = h.users(&["alice", "bob", "eve", "dan"]);
    let (alice, bob, eve) = (users[0], users[1], users[2]);
    for (slot, &user) in users.iter().enumerate() {
        h.login_as(user, 0, slot as u32);
    }
    let made = conversation(create(&h, alice, "group", "team", &["bob", "alice", "bob"]));
    assert_eq!(
        (
            made.conversation_id.as_str(),
            made.r#type.as_str(),
            made.member_count,
            made.role.as_str()
        ),
        ("team", "group", 2, "owner")
    );
    let told = |name: &str| -> Vec<u32> {
        let events = std::mem::take(&mut *h.sink.events.lock().unwrap());
        assert!(events.iter().all(|(_, event)| event.event.as_ref().unwrap().event == name));
        let mut slots: Vec<u32> =
            events.iter().flat_map(|(_, event)| event.peers.iter().map(|peer| peer.slot)).collect();
        slots.sort_unstable();
        slots
    };
    assert_eq!(told("created"), [0, 1]);
    assert_eq!(failed(create(&h, bob, "group", "team", &[])).name, "ALREADY_EXISTS");
    assert_eq!(failed(create(&h, bob, "group", "x", &["nobody"])).name, "USER_NOT_FOUND");
    assert!(conversation(create(&h, bob, "group", "", &[])).conversation_id.starts_with("g_"));
    h.sink.events.lock().unwrap().clear();

    assert_eq!(conversation(h.call(eve, Request::Join(membership("team")))).member_count, 3);
    assert_eq!(told("joined"), [0, 1, 2]);
    assert_eq!(
        conversation(h.call(eve, Request::Join(membership("team")))).member_count,
        3,
        "joining again changes nothing"
    );
    assert_eq!(told("joined"), [0u32; 0]);
    assert_eq!(
        failed(h.call(eve, Request::Join(membership("none")))).name,
        "CONVERSATION_NOT_FOUND"
    );

    let left = conversation(h.call(alice, Request::Leave(membership("team"))));
    assert_eq!((left.member_count, left.role.as_str()), (2, ""));
    assert_eq!(told("left"), [0, 1, 2]);
    assert_eq!(failed(h.call(alice, Request::Leave(membership("team")))).name, "NOT_A_MEMBER");
    let roles: Vec<_> =
        members(&h, bob, "team", 0, 0).items.into_iter().map(|m| (m.user_id, m.role)).collect();
    assert_eq!(roles, [(bob, "owner".to_owned()), (eve, "member".to_owned())]);
    h.call(bob, Request::Leave(membership("team")));
    h.call(eve, Request::Leave(membership("team")));
    assert_eq!(h.count("SELECT member_count FROM conversations WHERE conversation_id = 'team'"), 0);
    let back = conversation(h.call(eve, Request::Join(membership("team"))));
    assert_eq!(
        (back.member_count, back.role.as_str()),
        (1, "owner"),
        "whoever comes into an empty group owns it"
    );
}

#[test]
fn a_direct_conversation_is_one_for_both_and_nobody_else_gets_in() {
    let h = Harness::new();
    h.users(&["alice", "bob", "eve"]);
    let made = conversation(create(&h, 1, "direct", "", &["bob"]));
    assert_eq!(
        (made.conversation_id.as_str(), made.name.as_str(), made.member_count),
        ("dm_1_2", "bob", 2)
    );
    let same = conversation(create(&h, 2, "direct", "dm_1_2", &["alice", "bob"]));
    assert_eq!((same.conversation_id.as_str(), same.name.as_str()), ("dm_1_2", "alice"));
    assert_eq!(failed(create(&h, 2, "direct", "dm_2_3", &["alice"])).name, "BAD_REQUEST");
    assert_eq!(
        conversation(create(&h, 3, "direct", "", &["eve"])).member_count,
        1,
        "notes to oneself"
    );
    assert_eq!(seq(&h.send(3, "dm_3_3", "note", "x")), 1);
    for user in [1, 3] {
        assert_eq!(failed(h.call(user, Request::Join(membership("dm_1_2")))).name, "FORBIDDEN");
        assert_eq!(failed(h.call(user, Request::Leave(membership("dm_1_2")))).name, "FORBIDDEN");
    }
}

#[test]
fn member_lists_are_paged() {
    let h = Harness::new();
    let names: Vec<String> = (0..250).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let users = h.users(&names);
    create(&h, users[0], "group", "big", &names);
    let (mut cursor, mut listed) = (0, Vec::new());
    loop {
        let page = members(&h, users[7], "big", cursor, 0);
        assert!(page.items.len() <= 100);
        listed.extend(page.items.iter().map(|member| member.user_id));
        cursor = page.next_cursor;
        if !page.has_more {
            break;
        }
    }
    assert_eq!(listed, users);
    let end = members(&h, users[7], "big", u64::MAX, 10);
    assert!(end.items.is_empty() && !end.has_more);
}

#[test]
fn unread_counts_what_others_wrote_since_the_last_read_or_own_message() {
    let mut h = Harness::new();
    h.users(&["alice", "bob"]);
    let state = |h: &Harness, user: u64| {
        let one = sync(h, user, "", 0).items.remove(0);
        assert_eq!(one.unread, one.max_seq - one.read_seq);
        (one.max_seq, one.read_seq)
    };
    for n in 0..5 {
        h.send(1, "dm_1_2", &format!("a{n}"), "x");
    }
    assert_eq!((state(&h, 1), state(&h, 2)), ((5, 5), (5, 0)));
    let Reply::Read(answer) = read(&h, 2, "dm_1_2", 3) else { panic!() };
    assert_eq!(answer.read_seq, 3);
    let Reply::Read(answer) = read(&h, 2, "dm_1_2", 1) else { panic!() };
    assert_eq!(answer.read_seq, 3, "never back");
    let Reply::Read(answer) = read(&h, 2, "dm_1_2", 999) else { panic!() };
    assert_eq!(answer.read_seq, 5, "never beyond the last message");
    h.send(2, "dm_1_2", "b", "x");
    assert_eq!((state(&h, 1), state(&h, 2)), ((6, 5), (6, 6)));
    h.send(1, "dm_1_2", "c", "x");
    h.restart();
    assert_eq!((state(&h, 1), state(&h, 2)), ((7, 7), (7, 6)));
    let Reply::Read(answer) = read(&h, 1, "dm_1_2", 2) else { panic!() };
    assert_eq!(answer.read_seq, 7, "own messages count as read");
}

#[test]
fn a_newcomer_sees_the_past_but_it_is_not_unread() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    for n in 0..5 {
        h.send(alice, "g", &format!("m{n}"), "x");
    }
    let bob = h.login("bob", "", 0, 2).user_id;
    assert_eq!(pull(&h, bob, "g", 0, 0, false).items.len(), 5);
    let one = sync(&h, bob, "", 0).items.remove(0);
    assert_eq!((one.max_seq, one.unread), (5, 0));
}

#[test]
fn sync_gives_the_newest_first_with_the_last_message() {
    let h = Harness::dev();
    let alice = h.login("alice", "", 0, 1).user_id;
    let bob = h.login("bob", "", 0, 2).user_id;
    for id in ["a", "b", "c"] {
        h.send(alice, id, id, &format!("in {id}"));
    }
    conversation(create(&h, alice, "group", "empty", &[]));
    h.send(bob, &format!("dm_{alice}_{bob}"), "d", "hello");
    h.send(alice, "a", "again", "newer");
    let page = sync(&h, alice, "", 0);
    let shown: Vec<_> = page
        .items
        .iter()
        .map(|one| {
            let last =
                one.last_message.as_ref().map_or("", |m| std::str::from_utf8(&m.content).unwrap());
            (one.conversation_id.as_str(), one.name.as_str(), last)
        })
        .collect();
    let dm = format!("dm_{alice}_{bob}");
    assert_eq!(
        shown,
        [
            ("a", "a", "newer"),
            (&dm, "bob", "hello"),
            ("empty", "empty", ""),
            ("c", "c", "in c"),
            ("b", "b", "in b")
        ]
    );
    assert!(!page.has_more && page.next_cursor.is_empty());
    assert_eq!(page.items[1].last_message.as_ref().unwrap().sender, "bob");
    assert!(page.items.windows(2).all(|two| two[0].last_active_at_ms >= two[1].last_active_at_ms));
    assert_eq!(
        failed(
            h.call(alice, Request::Sync(Sync { cursor: "nonsense".into(), ..Default::default() }))
        )
        .name,
        "BAD_REQUEST"
    );
}

/// Ten thousand conversations, one message each, for user 1.
fn ten_thousand(h: &Harness) -> u64 {
    let alice = h.login("alice", "", 0, 1).user_id;
    for part in 0..10 {
        let frames = (0..1000).map(|n| {
            frame(1, alice, &format!("g{}", part * 1000 + n), &format!("m{part}-{n}"), "x")
        });
        assert!(h.tick(vec![batch(0, frames.collect())]).iter().all(|reply| seq(reply) == 1));
    }
    alice
}

/// All pages; after each of the first ones `meanwhile` may act.
fn all_pages(
    h: &mut Harness,
    user: u64,
    limit: u32,
    mut meanwhile: impl FnMut(&mut Harness, usize),
) -> Vec<String> {
    let (mut cursor, mut listed) = (String::new(), Vec::new());
    for page_no in 0.. {
        let page = sync(h, user, &cursor, limit);
        assert!(page.items.len() <= limit as usize);
        listed.extend(page.items.into_iter().map(|one| one.conversation_id));
        if !page.has_more {
            break;
        }
        cursor = page.next_cursor;
        meanwhile(h, page_no);
    }
    listed
}

#[test]
fn ten_thousand_conversations_come_once_each_while_activity_goes_on() {
    let mut h = Harness::dev();
    let alice = ten_thousand(&h);
    let mut newer = 0;
    let listed = all_pages(&mut h, alice, 500, |h, page| {
        // One that was listed already, one that was not, and a new one.
        for id in [format!("g{}", 9_999 - page), format!("g{page}"), format!("late{page}")] {
            newer += 1;
            assert!(h.send(alice, &id, &format!("n{newer}"), "y").failure.is_none());
        }
    });
    assert_eq!(listed.len(), 10_000);
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), 10_000);
    assert_eq!((listed[0].as_str(), listed[9_999].as_str()), ("g9999", "g0"));
}

#[test]
fn a_lost_snapshot_leaves_no_conversation_out() {
    let mut h = Harness::dev();
    let alice = ten_thousand(&h);
    let mut active = Vec::new();
    let listed = all_pages(&mut h, alice, 500, |h, page| {
        for id in [format!("g{}", 9_999 - page), format!("g{page}")] {
            h.send(alice, &id, &format!("n{}", active.len()), "y");
            active.push(id);
        }
        if page == 3 {
            h.restart();
        }
    });
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), 10_000);
    let mut seen = BTreeSet::new();
    for id in &listed {
        assert!(
            seen.insert(id) || active.contains(id),
            "{id} came twice without having become active"
        );
    }
}
