use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{CreateConversation, Membership};

use crate::world::{World, counter, kept_address};

/// Who joined is a member for every message behind the answer, and who left is none, whichever service was asked and
/// whichever has the conversation.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_change_holds_for_every_message_behind_its_answer() {
    let mut world = World::new();
    let (_keeper, metrics) = kept_address();
    let a = world.start("a", &["--metrics-listen", &metrics.to_string()], &[]);
    let b = world.start("b", &[], &[]);
    let names = ["ann", "ben", "eve"];
    let users: Vec<u64> =
        (1..).zip(names).map(|(slot, name)| world.login(a, name, slot).0).collect();
    let sessions: Vec<(u64, u32)> = users.iter().copied().zip(1..).collect();
    world.report(a, &sessions);
    let (ann, eve) = (sessions[0], sessions[2]);
    let groups: Vec<String> = (0..4).map(|n| format!("group-{n}")).collect();
    for id in &groups {
        let create = CreateConversation {
            r#type: "group".to_owned(),
            conversation_id: id.clone(),
            members: vec!["ben".to_owned()],
            ..CreateConversation::default()
        };
        let made = world.ask(a, ann.0, ann.1, Request::Create(create));
        assert!(matches!(made, Reply::Conversation(_)), "{made:?}");
        world.sent(ann, id, "at hand from here on");
    }
    for (round, id) in groups.iter().cycle().take(16).enumerate() {
        let asked = [a, b][round % 2];
        let membership = Membership { conversation_id: id.clone(), ..Membership::default() };
        let joined = world.ask(asked, eve.0, eve.1, Request::Join(membership.clone()));
        assert!(matches!(joined, Reply::Conversation(_)), "{joined:?}");
        let said = world.send(ann, id, "welcome");
        world.acked(&said);
        assert_eq!(world.targets(&said), [2, 3], "round {round}");
        world.sent(eve, id, "hello");
        let left = world.ask(asked, eve.0, eve.1, Request::Leave(membership));
        assert!(matches!(left, Reply::Conversation(_)), "{left:?}");
        let late = world.send(eve, id, "one more thing");
        let refused = world.answered(&late).failure.expect("a refusal");
        assert_eq!(refused.name, "NOT_A_MEMBER", "round {round}");
        let said = world.send(ann, id, "gone");
        world.acked(&said);
        assert_eq!(world.targets(&said), [2], "round {round}");
    }
    let announced = counter(metrics, "corelane_logic_changes_announced_total");
    assert_eq!(announced, 16, "one for each change that was asked for here, none for a new group");
}

/// What a tick needs of conversations and users that are not at hand is asked for at once.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_is_not_at_hand_is_fetched_together() {
    let mut world = World::new();
    let (_keeper, metrics) = kept_address();
    let a = world.start("a", &["--metrics-listen", &metrics.to_string()], &[]);
    let (ann, ben) = (world.login(a, "ann", 1).0, world.login(a, "ben", 2).0);
    world.report(a, &[(ann, 1), (ben, 2)]);
    let fetches = || counter(metrics, "corelane_logic_step_seconds_count{step=\"fetch\"}");
    let id = proto::ids::direct_conversation_id(ann.min(ben), ann.max(ben));
    world.sent((ann, 1), &id, "nothing is at hand");
    assert_eq!(fetches(), 1);
    world.sent((ann, 1), &id, "everything is");
    assert_eq!(fetches(), 1);
    world.sent((ben, 2), &id, "his name is not");
    assert_eq!(fetches(), 2);
}
