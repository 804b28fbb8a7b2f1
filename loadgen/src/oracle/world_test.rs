//! A little world: a server that keeps its promises, one fault at a time, and the oracle that must tell
//! the two apart.

mod owed;

use super::{Fault, Oracle, PullReason, Seat, Seen, Verdict};
use crate::rng::Rng;
use proptest::prelude::*;

/// The one promise the server breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Break {
    Nothing,
    /// Acknowledges and forgets.
    Loss,
    /// Stores, but does not push to one member.
    Push,
    Duplicate,
    Reorder,
    /// Skips a sequence number.
    Gap,
    /// Pushes a message nobody sent.
    Ghost,
    /// Gives a message the number of the one before.
    Reuse,
    /// A retry gets a second number.
    SecondEffect,
    /// Refuses, and stores nevertheless.
    RefusedButStored,
    /// Pushes what is not stored and never acknowledges it.
    ShownNotStored,
    /// Numbers a message below one that was acknowledged before it was sent.
    Regress,
}

struct World {
    oracle: Oracle,
    members: u32,
    history: Vec<Seen>,
    rng: Rng,
    audit: bool,
}

impl World {
    fn new(members: u32, seed: u64, audit: bool) -> Self {
        let mut oracle = Oracle::new();
        assert_eq!(oracle.add_conversation(members), 0);
        Self { oracle, members, history: Vec::new(), rng: Rng::new(seed), audit }
    }

    fn seat(member: u32) -> Seat {
        Seat { conversation: 0, member }
    }

    fn store(&mut self, sender: u32, number: u32) -> Seen {
        let seq = self.history.last().map_or(0, |seen| seen.seq) + 1;
        let seen = Seen { sender, number, seq };
        self.history.push(seen);
        seen
    }

    fn push_to_all(&mut self, seen: Seen, but: Option<u32>) {
        for member in (0..self.members).filter(|&m| m != seen.sender && Some(m) != but) {
            self.oracle.pushed(Self::seat(member), seen);
        }
    }

    /// One message the honest way: stored, then acknowledged and pushed in any order.
    fn honest(&mut self) -> Seen {
        let sender = self.rng.below(self.members.into()) as u32;
        let number = self.oracle.sent(Self::seat(sender));
        let seen = self.store(sender, number);
        if self.rng.below(2) == 0 {
            self.oracle.acked(Self::seat(sender), number, seen.seq);
            self.push_to_all(seen, None);
        } else {
            self.push_to_all(seen, None);
            self.oracle.acked(Self::seat(sender), number, seen.seq);
        }
        seen
    }

    fn send(&mut self) -> (u32, u32) {
        let sender = self.rng.below(self.members.into()) as u32;
        (sender, self.oracle.sent(Self::seat(sender)))
    }

    fn broken(&mut self, what: Break) {
        match what {
            Break::Nothing => _ = self.honest(),
            Break::Loss => {
                let seen = self.honest();
                self.history.retain(|kept| kept != &seen);
            }
            Break::Push => {
                let (sender, number) = self.send();
                let seen = self.store(sender, number);
                self.push_to_all(seen, Some((sender + 1) % self.members));
                self.oracle.acked(Self::seat(sender), number, seen.seq);
            }
            Break::Duplicate => {
                let seen = self.honest();
                self.push_to_all(seen, None);
            }
            Break::Reorder => self.reorder(),
            Break::Gap => {
                let (sender, number) = self.send();
                let mut seen = self.store(sender, number);
                seen.seq += 1;
                *self.history.last_mut().expect("just stored") = seen;
                self.push_to_all(seen, None);
                self.oracle.acked(Self::seat(sender), number, seen.seq);
            }
            Break::Ghost => {
                let ghost = Seen { sender: 0, number: 1_000_000, seq: 1 };
                self.oracle.pushed(Self::seat(1), ghost);
            }
            Break::Reuse => {
                let first = self.honest();
                let (sender, number) = self.send();
                self.oracle.acked(Self::seat(sender), number, first.seq);
            }
            Break::SecondEffect => {
                let seen = self.honest();
                self.honest();
                self.oracle.acked(Self::seat(seen.sender), seen.number, seen.seq + 1);
            }
            Break::RefusedButStored => {
                let (sender, number) = self.send();
                self.oracle.refused(Self::seat(sender), number);
                let seen = self.store(sender, number);
                self.push_to_all(seen, None);
            }
            Break::ShownNotStored => {
                let (sender, number) = self.send();
                let seen = self.store(sender, number);
                self.history.pop();
                self.push_to_all(seen, None);
            }
            Break::Regress => self.regress(),
        }
    }

    fn reorder(&mut self) {
        // One sender: with two members each would otherwise receive only one of the two.
        let a = self.send();
        let b = (a.0, self.oracle.sent(Self::seat(a.0)));
        let (first, second) = (self.store(a.0, a.1), self.store(b.0, b.1));
        self.push_to_all(second, None);
        self.push_to_all(first, None);
        for seen in [first, second] {
            self.oracle.acked(Self::seat(seen.sender), seen.number, seen.seq);
        }
    }

    fn regress(&mut self) {
        let (early, later) = (self.send(), self.send());
        let low = self.store(early.0, early.1);
        let high = self.store(later.0, later.1);
        self.oracle.acked(Self::seat(high.sender), high.number, high.seq);
        // Sent only now, yet it gets the lower number; `early` is never heard of again.
        let late = self.send();
        self.oracle.acked(Self::seat(late.0), late.1, low.seq);
    }

    fn finish(mut self) -> Verdict {
        if self.audit || !self.oracle.is_settled(0) {
            self.oracle.audit_begin(0);
            for seen in self.history.clone() {
                self.oracle.audit_item(0, seen);
            }
            self.oracle.audit_end(0);
        }
        self.oracle.finish()
    }
}

fn run(what: Break, members: u32, seed: u64, before: u32, after: u32, audit: bool) -> Verdict {
    let mut world = World::new(members, seed, audit);
    for _ in 0..before {
        world.honest();
    }
    world.broken(what);
    for _ in 0..after {
        world.honest();
    }
    world.finish()
}

fn expected(what: Break) -> Option<Fault> {
    Some(match what {
        Break::Nothing => return None,
        Break::Loss => Fault::Lost,
        Break::Push => Fault::Missed,
        Break::Duplicate => Fault::Duplicate,
        Break::Reorder => Fault::OrderBreak,
        Break::Gap => Fault::NotDense,
        Break::Ghost | Break::ShownNotStored => Fault::Ghost,
        Break::Reuse => Fault::SeqReused,
        Break::SecondEffect => Fault::TwoSeqs,
        Break::RefusedButStored => Fault::Refused,
        Break::Regress => Fault::Regressed,
    })
}

const BREAKS: [Break; 11] = [
    Break::Loss,
    Break::Push,
    Break::Duplicate,
    Break::Reorder,
    Break::Gap,
    Break::Ghost,
    Break::Reuse,
    Break::SecondEffect,
    Break::RefusedButStored,
    Break::ShownNotStored,
    Break::Regress,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_honest_server_is_clean(members in 2_u32..6, seed: u64, messages in 0_u32..60, audit: bool) {
        let verdict = run(Break::Nothing, members, seed, messages, 0, audit);
        prop_assert!(verdict.is_clean(), "{:?}", verdict);
        prop_assert_eq!(verdict.sent, u64::from(messages) + 1);
        prop_assert_eq!(verdict.acked, verdict.sent);
        prop_assert_eq!(verdict.delivered, verdict.expected_deliveries);
        prop_assert_eq!(verdict.audited, u64::from(audit));
    }

    #[test]
    fn every_single_fault_is_found(which in 0..BREAKS.len(), members in 2_u32..6, seed: u64, before in 0_u32..20, after in 0_u32..20) {
        let what = BREAKS[which];
        // A lost message is invisible to receivers: only reading the history finds it.
        let audit = what == Break::Loss;
        let verdict = run(what, members, seed, before, after, audit);
        let fault = expected(what).expect("a fault");
        prop_assert!(verdict.count(fault) > 0, "{:?} not found in {:?}", fault, verdict);
        prop_assert!(!verdict.is_clean());
        prop_assert!(!verdict.examples.is_empty());
    }
}

/// Sends `count` messages from member 0 of two; all stored, acknowledged as `acked` says, none pushed.
fn unpushed(count: u32, acked: bool) -> World {
    let mut world = World::new(2, 1, true);
    for _ in 0..count {
        let number = world.oracle.sent(World::seat(0));
        let seen = world.store(0, number);
        if acked {
            world.oracle.acked(World::seat(0), number, seen.seq);
        }
    }
    world
}

#[test]
fn a_member_that_was_away_pulls_and_nothing_is_missed() {
    let mut world = unpushed(3, true);
    world.oracle.disconnected(World::seat(1));
    assert_eq!(world.oracle.reconnected(World::seat(1)), 0);
    for seen in world.history.clone() {
        world.oracle.pulled(World::seat(1), seen, PullReason::Reconnect);
    }
    // The session that had begun before the pull pushes the last one as well: harmless.
    world.oracle.pushed(World::seat(1), world.history[2]);
    let verdict = world.finish();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.recovered_reconnect, verdict.overlaps, verdict.delivered), (3, 1, 3));
}

#[test]
fn a_member_that_stays_away_misses_nothing_but_history_counts() {
    let mut world = unpushed(3, true);
    world.oracle.disconnected(World::seat(1));
    let verdict = world.finish();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.delivered, verdict.expected_deliveries), (0, 3));
}

#[test]
fn unanswered_messages_may_be_stored_or_not() {
    let mut world = unpushed(2, false);
    let stored = world.history.clone();
    for &seen in &stored {
        world.oracle.pushed(World::seat(1), seen);
    }
    world.oracle.sent(World::seat(0));
    let verdict = world.finish();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.unanswered, verdict.unanswered_stored, verdict.acked), (3, 2, 0));
}

#[test]
fn a_retry_that_is_acknowledged_again_is_one_effect() {
    let mut world = unpushed(1, true);
    world.oracle.pushed(World::seat(1), world.history[0]);
    world.oracle.acked(World::seat(0), 0, 1);
    let verdict = world.finish();
    assert!(verdict.is_clean());
    assert_eq!((verdict.acked, verdict.repeated_acks), (1, 1));
}

#[test]
fn a_hole_is_pulled_for_after_its_grace_and_counts_as_missed() {
    let mut world = unpushed(3, true);
    let (seat, history) = (World::seat(1), world.history.clone());
    world.oracle.pushed(seat, history[0]);
    world.oracle.pushed(seat, history[2]);
    assert_eq!(world.oracle.overdue_gap(seat, 1000, 50), None);
    assert_eq!(world.oracle.overdue_gap(seat, 1049, 50), None);
    assert_eq!(world.oracle.overdue_gap(seat, 1050, 50), Some(1));
    assert_eq!(world.oracle.overdue_gap(seat, 1051, 50), None);
    world.oracle.pulled(seat, history[1], PullReason::Gap);
    assert_eq!(world.oracle.gap_pulled(seat, 1060), Some(60));
    let verdict = world.finish();
    assert_eq!((verdict.gaps_seen, verdict.gaps_filled), (1, 1));
    assert_eq!(verdict.count(Fault::Missed), 1);
}

/// Pushes and acknowledgements of one server may wait while others are quicker.
#[test]
fn a_hole_that_only_others_could_know_of_is_not_pulled_for() {
    let mut world = World::new(3, 1, true);
    let seen: Vec<Seen> = [0, 1]
        .map(|sender| (sender, world.oracle.sent(World::seat(sender))))
        .map(|(sender, number)| world.store(sender, number))
        .into();
    // Member 2 is pushed both, one of them sent by member 1, who has heard of nothing yet.
    seen.iter().for_each(|&seen| _ = world.oracle.pushed(World::seat(2), seen));
    world.oracle.acked(World::seat(0), seen[0].number, seen[0].seq);
    let seat = World::seat(1);
    for now_ns in [1000, 1050, 2000] {
        assert_eq!(world.oracle.overdue_gap(seat, now_ns, 50), None);
    }
    // With its acknowledgement it knows that one is missing.
    world.oracle.acked(seat, seen[1].number, seen[1].seq);
    assert_eq!(world.oracle.overdue_gap(seat, 3000, 50), None);
    assert_eq!(world.oracle.overdue_gap(seat, 3050, 50), Some(0));
    world.oracle.pushed(seat, seen[0]);
    world.oracle.pushed(World::seat(0), seen[1]);
    assert_eq!(world.oracle.overdue_gap(seat, 3100, 50), None);
    let verdict = world.finish();
    assert!(verdict.is_clean(), "{verdict:?}");
}

#[test]
fn pushes_left_out_with_a_marker_are_no_fault() {
    let mut world = unpushed(4, true);
    for seen in world.history.clone() {
        world.oracle.pulled(World::seat(1), seen, PullReason::Lagged);
    }
    let verdict = world.finish();
    assert!(verdict.is_clean());
    assert_eq!(verdict.recovered_lagged, 4);
}

#[test]
fn an_open_conversation_that_nobody_could_read_is_not_clean() {
    let verdict = unpushed(2, true).oracle.finish();
    assert_eq!(verdict.unaudited, 1);
    assert_eq!(verdict.count(Fault::Lost), 2);
    assert!(!verdict.is_clean());
}

/// Reads the world's history from its start to its end.
fn read(world: &mut World) {
    world.oracle.audit_begin(0);
    for seen in world.history.clone() {
        world.oracle.audit_item(0, seen);
    }
    world.oracle.audit_end(0);
}

#[test]
fn what_is_stored_after_the_history_was_read_is_not_lost() {
    let mut world = unpushed(1, true);
    world.oracle.pushed(World::seat(1), world.history[0]);
    read(&mut world);
    assert!(!world.oracle.is_audit_outdated(0));
    // Three were under way: two answers come, the third only by way of what follows it.
    let numbers = [0; 3].map(|_| world.oracle.sent(World::seat(0)));
    let late = numbers.map(|number| world.store(0, number));
    world.oracle.acked(World::seat(0), late[0].number, late[0].seq);
    world.oracle.pushed(World::seat(1), late[2]);
    assert!(world.oracle.is_audit_outdated(0));
    world.oracle.disconnected(World::seat(1));
    let former = std::mem::take(&mut world.oracle).finish();
    let faults = [Fault::Lost, Fault::Ghost, Fault::NotDense].map(|fault| former.count(fault));
    assert_eq!((faults, former.audited, former.unaudited), ([0; 3], 0, 1), "{former:?}");
}

#[test]
fn a_history_that_is_read_again_is_compared_anew() {
    for stored in [true, false] {
        let mut world = unpushed(1, true);
        world.oracle.audit_begin(0);
        let number = world.oracle.sent(World::seat(0));
        let late = world.store(0, number);
        world.oracle.audit_item(0, world.history[0]);
        world.oracle.acked(World::seat(0), number, late.seq);
        world.oracle.audit_end(0);
        assert!(world.oracle.is_audit_outdated(0));
        world.history.truncate(if stored { 2 } else { 1 });
        read(&mut world);
        assert!(!world.oracle.is_audit_outdated(0), "it was known before this reading");
        world.oracle.disconnected(World::seat(1));
        let verdict = std::mem::take(&mut world.oracle).finish();
        assert_eq!(verdict.count(Fault::Lost), u64::from(!stored), "{verdict:?}");
        assert_eq!((verdict.audited, verdict.unaudited), (1, 0));
    }
}

#[test]
fn a_reading_that_does_not_end_leaves_the_one_before() {
    let mut world = unpushed(2, true);
    world.oracle.disconnected(World::seat(1));
    read(&mut world);
    world.oracle.audit_begin(0);
    let verdict = world.oracle.finish();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.audited, verdict.unaudited), (1, 0));
}

#[test]
fn a_history_out_of_order_is_a_fault() {
    let mut world = unpushed(3, true);
    for &seen in &world.history.clone() {
        world.oracle.pushed(World::seat(1), seen);
    }
    world.history.swap(1, 2);
    let verdict = world.finish();
    assert_eq!(verdict.count(Fault::HistoryOrder), 1);
}

#[test]
fn verdicts_of_workers_add_up() {
    let mut sum = run(Break::Nothing, 2, 1, 4, 0, true);
    sum.merge(&run(Break::Duplicate, 2, 2, 4, 0, true));
    assert_eq!((sum.conversations, sum.sent, sum.audited), (2, 10, 2));
    assert_eq!(sum.count(Fault::Duplicate), 1);
}
