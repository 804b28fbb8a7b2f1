use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{CreateConversation, InterestChange, Membership, PushRecord};

use crate::world::World;

fn interests(mail: &[PushRecord]) -> Vec<InterestChange> {
    mail.iter().flat_map(|record| record.interests.clone()).collect()
}

fn in_group(mail: &[PushRecord], id: &str) -> bool {
    mail.iter().any(|record| {
        let sent = record.groups.iter().flat_map(|group| &group.messages);
        sent.clone().any(|sent| record.messages[sent.message as usize].client_msg_id == id)
    })
}

fn membership(id: &str) -> Membership {
    Membership { conversation_id: id.to_owned(), ..Membership::default() }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_group_becomes_large_and_small_again_and_no_message_falls_between() {
    let (mut world, a, users) = small_crowd(&["ann", "ben", "cid", "dan"]);
    // The fourth makes it large; gateways hear of it before the one who joins is answered.
    let joined = world.ask(a, users[3], 4, Request::Join(membership("crowd")));
    assert!(matches!(joined, Reply::Conversation(_)), "{joined:?}");
    world.wait_for("everybody is told", |mail| {
        let told = interests(mail);
        users.iter().all(|user| told.iter().any(|one| one.joined.contains(user))).then_some(())
    });
    until_large(&mut world, (users[0], 1), &[2, 3, 4]);
    // Whoever logs in is told of it.
    let (_, replies) = world.login(a, "ben", 9);
    assert_eq!(replies.interests.len(), 1);
    assert_eq!(replies.interests[0].conversation_ids, ["crowd"]);
    // 80 % of 4 rounds up to 4: one who leaves makes it small.
    let left = world.ask(a, users[3], 4, Request::Leave(membership("crowd")));
    assert!(matches!(left, Reply::Conversation(_)), "{left:?}");
    world.wait_for("the leave is told", |mail| {
        interests(mail).iter().any(|one| one.left == [users[3]]).then_some(())
    });
    until_small(&mut world, (users[0], 1), &[2, 3, 9]);
}

/// A service for which four are a crowd, these users with a session each, numbered from 1, and a group of the first
/// three of them, to which the first has spoken.
fn small_crowd(names: &[&str]) -> (World, usize, Vec<u64>) {
    let mut world = World::new();
    let a = world.start("a", &["--fanout-switch-members", "4"], &[]);
    let sessions: Vec<(u64, u32)> =
        (1..).zip(names).map(|(n, name)| (world.login(a, name, n).0, n)).collect();
    world.report(a, &sessions);
    let users: Vec<u64> = sessions.into_iter().map(|(user, _)| user).collect();
    let create = CreateConversation {
        r#type: "group".to_owned(),
        conversation_id: "crowd".to_owned(),
        members: vec!["ben".to_owned(), "cid".to_owned()],
        ..CreateConversation::default()
    };
    let made = world.ask(a, users[0], 1, Request::Create(create));
    assert!(matches!(made, Reply::Conversation(_)), "{made:?}");
    let id = world.send((users[0], 1), "crowd", "small");
    world.acked(&id);
    assert_eq!(world.targets(&id), [2, 3]);
    (world, a, users)
}

/// Sends until messages go to the gateway as a whole. Until then they go to each of these sessions.
fn until_large(world: &mut World, sender: (u64, u32), others: &[u32]) {
    for n in 0..200 {
        let id = world.send(sender, "crowd", &format!("{n}"));
        world.acked(&id);
        let (group, targets) = (in_group(&world.mail, &id), world.targets(&id));
        assert!(group != (targets == others), "either way, once: {group} {targets:?}");
        if group {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it never became large");
}

/// Sends until messages go to each of these sessions. Until then they go to the gateway as a whole.
fn until_small(world: &mut World, sender: (u64, u32), others: &[u32]) {
    for n in 0..200 {
        let id = world.send(sender, "crowd", &format!("again {n}"));
        world.acked(&id);
        let (group, targets) = (in_group(&world.mail, &id), world.targets(&id));
        assert!(group != (targets == others), "either way, once: {group} {targets:?}");
        if !group {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it never became small");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn another_threshold_switches_a_group_that_nobody_joins_or_leaves() {
    let (mut world, _, users) = small_crowd(&["ann", "ben", "cid"]);
    for _ in 0..2 {
        let set = |world: &World, members: &str| {
            let put = world.etcd.put_config("fanout_switch_members", members);
            world.runtime.block_on(put).unwrap();
        };
        set(&world, "3");
        until_large(&mut world, (users[0], 1), &[2, 3]);
        set(&world, "10");
        until_small(&mut world, (users[0], 1), &[2, 3]);
    }
}
