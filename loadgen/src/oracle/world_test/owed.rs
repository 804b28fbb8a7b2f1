//! What a member finds by asking although nobody had told it to.

use super::*;

/// Member 1 has seq 1 and its own acknowledgement for seq 4, asks for what lies between, and gets it.
fn found_by_asking(told_meanwhile: Option<u64>) -> World {
    let mut world = unpushed(3, true);
    let seat = World::seat(1);
    world.oracle.pushed(seat, world.history[0]);
    let number = world.oracle.sent(seat);
    let own = world.store(1, number);
    world.oracle.acked(seat, number, own.seq);
    world.oracle.pushed(World::seat(0), own);
    assert_eq!(world.oracle.overdue_gap(seat, 1000, 50), None);
    assert_eq!(world.oracle.overdue_gap(seat, 1050, 50), Some(1));
    if let Some(from_seq) = told_meanwhile {
        world.oracle.told(seat, from_seq);
    }
    for seen in world.history[1..3].iter().copied() {
        world.oracle.pulled(seat, seen, PullReason::Gap);
    }
    assert!(world.oracle.gap_pulled(seat, 1060).is_some() && world.oracle.is_settled(0));
    world
}

#[test]
fn what_a_pull_found_was_missed_only_if_it_is_neither_pushed_nor_told_of() {
    let missed = |world: World| world.finish().count(Fault::Missed);
    assert_eq!(missed(found_by_asking(None)), 2);
    // Word of it comes behind what waits for the member, while the pull is under way or afterwards.
    for (from_seq, left) in [(1, 0), (2, 0), (3, 1), (4, 2)] {
        assert_eq!(missed(found_by_asking(Some(from_seq))), left);
        let mut world = found_by_asking(None);
        world.oracle.told(World::seat(1), from_seq);
        assert_eq!(missed(world), left);
    }
    let mut world = found_by_asking(None);
    world.oracle.pushed(World::seat(1), world.history[1]);
    assert_eq!(missed(world), 1);
    // Not for ever.
    let mut world = found_by_asking(None);
    world.oracle.give_up_owed(World::seat(1), 1060);
    assert!(world.oracle.is_owed(0));
    world.oracle.give_up_owed(World::seat(1), 1061);
    assert!(!world.oracle.is_owed(0));
    world.oracle.told(World::seat(1), 1);
    assert_eq!(missed(world), 2);
    // The connection broke before anything could be said.
    let mut world = found_by_asking(None);
    world.oracle.disconnected(World::seat(1));
    assert_eq!(missed(world), 0);
    // It did not, and the member merely has a pull under way.
    let mut world = found_by_asking(None);
    world.oracle.excuse_rest(World::seat(1));
    assert_eq!(missed(world), 2);
}

/// A mark counts for the pull it comes into, not for what is left out without one later.
#[test]
fn an_old_mark_excuses_nothing() {
    let mut world = unpushed(3, true);
    let (seat, history) = (World::seat(1), world.history.clone());
    world.oracle.told(seat, 1);
    world.oracle.pulled(seat, history[0], PullReason::Lagged);
    world.oracle.pushed(seat, history[2]);
    assert_eq!(world.oracle.overdue_gap(seat, 1000, 50), None);
    assert_eq!(world.oracle.overdue_gap(seat, 1050, 50), Some(1));
    world.oracle.pulled(seat, history[1], PullReason::Gap);
    assert_eq!(world.finish().count(Fault::Missed), 1);
}
