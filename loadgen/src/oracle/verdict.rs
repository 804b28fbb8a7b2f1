//! The oracle's last word.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::conversation::Conversation;
use super::fault::{Fault, Faults};
use super::{Seat, Tally};

/// What was sent, what became of it, and every broken promise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Conversations in the books.
    pub conversations: u64,
    /// Conversations whose history was read to its end and compared.
    pub audited: u64,
    /// Conversations with something open whose history could not be read, or not once more after messages
    /// came up that nobody knew of when it was asked for.
    pub unaudited: u64,
    /// Messages sent at least once.
    pub sent: u64,
    /// Messages acknowledged as stored.
    pub acked: u64,
    /// Messages refused for good.
    pub refused: u64,
    /// Messages without a final answer.
    pub unanswered: u64,
    /// Those of them that turned out to be stored.
    pub unanswered_stored: u64,
    /// Messages known to be stored.
    pub stored: u64,
    /// Deliveries owed: stored messages times the other members.
    pub expected_deliveries: u64,
    /// First arrivals at a member, pushed or pulled.
    pub delivered: u64,
    /// Of those: pulled after being away.
    pub recovered_reconnect: u64,
    /// Of those: pulled after the server said that it left pushes out.
    pub recovered_lagged: u64,
    /// Pushes of messages that the member had from another session or a pull; harmless.
    pub overlaps: u64,
    /// Messages pushed to the user who sent them (legitimate after a reconnect).
    pub own_echoes: u64,
    /// Further acknowledgements of an acknowledged message, with the same sequence number.
    pub repeated_acks: u64,
    /// Holes that stayed open long enough to be pulled for.
    pub gaps_seen: u64,
    /// Those that the pull closed.
    pub gaps_filled: u64,
    /// Broken promises by name.
    pub faults: BTreeMap<String, u64>,
    /// The first few in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// How often a promise was broken.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.faults.get(fault.name()).copied().unwrap_or(0)
    }

    /// No broken promise and nothing that could not be checked. Unanswered messages are no fault by
    /// themselves.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unaudited == 0 && self.faults.values().all(|&count| count == 0)
    }

    /// Adds the verdict of another worker.
    pub fn merge(&mut self, other: &Self) {
        let pairs = [
            (&mut self.conversations, other.conversations),
            (&mut self.audited, other.audited),
            (&mut self.unaudited, other.unaudited),
            (&mut self.sent, other.sent),
            (&mut self.acked, other.acked),
            (&mut self.refused, other.refused),
            (&mut self.unanswered, other.unanswered),
            (&mut self.unanswered_stored, other.unanswered_stored),
            (&mut self.stored, other.stored),
            (&mut self.expected_deliveries, other.expected_deliveries),
            (&mut self.delivered, other.delivered),
            (&mut self.recovered_reconnect, other.recovered_reconnect),
            (&mut self.recovered_lagged, other.recovered_lagged),
            (&mut self.overlaps, other.overlaps),
            (&mut self.own_echoes, other.own_echoes),
            (&mut self.repeated_acks, other.repeated_acks),
            (&mut self.gaps_seen, other.gaps_seen),
            (&mut self.gaps_filled, other.gaps_filled),
        ];
        for (mine, theirs) in pairs {
            *mine += theirs;
        }
        for (name, count) in &other.faults {
            *self.faults.entry(name.clone()).or_default() += count;
        }
        self.examples.extend(other.examples.iter().cloned());
        self.examples.truncate(40);
    }
}

pub(super) fn judge(conversations: Vec<Conversation>, mut faults: Faults, tally: Tally) -> Verdict {
    let mut verdict = Verdict {
        delivered: tally.delivered,
        recovered_reconnect: tally.recovered_reconnect,
        recovered_lagged: tally.recovered_lagged,
        overlaps: tally.overlaps,
        own_echoes: tally.own_echoes,
        repeated_acks: tally.repeated_acks,
        gaps_seen: tally.gaps_seen,
        gaps_filled: tally.gaps_filled,
        ..Verdict::default()
    };
    for (index, conversation) in conversations.iter().enumerate() {
        count(&mut verdict, conversation);
        compare(&mut verdict, &mut faults, index, conversation);
    }
    verdict.faults = faults.by_name();
    verdict.examples = faults.examples().to_vec();
    verdict
}

fn count(verdict: &mut Verdict, conversation: &Conversation) {
    let stored = conversation.count_known();
    if conversation.observed {
        // Counted where the sender is.
        verdict.expected_deliveries += stored * conversation.receivers.len() as u64;
        return;
    }
    verdict.conversations += 1;
    let others = (conversation.receivers.len() as u64).saturating_sub(1);
    let (unanswered, unanswered_stored) = conversation.count_unanswered();
    verdict.sent += conversation.sent();
    verdict.acked += conversation.count_acked();
    verdict.refused += conversation.count_refused();
    verdict.unanswered += unanswered;
    verdict.unanswered_stored += unanswered_stored;
    verdict.stored += stored;
    verdict.expected_deliveries += stored * others;
}

fn compare(verdict: &mut Verdict, faults: &mut Faults, index: usize, conversation: &Conversation) {
    if conversation.audit.is_some() {
        let gaps = conversation.history_gaps();
        // What came after the last reading was not checked.
        let whole = if gaps.unread == 0 { &mut verdict.audited } else { &mut verdict.unaudited };
        *whole += 1;
        let tell = |what: &str, count| format!("conversation {index}: {count} {what}");
        faults.add(Fault::Lost, gaps.acked, || {
            tell("acknowledged messages are not in the history", gaps.acked)
        });
        faults.add(Fault::Ghost, gaps.shown, || {
            tell("messages were shown but are not stored", gaps.shown)
        });
        faults.add(Fault::NotDense, gaps.void, || tell("sequence numbers are skipped", gaps.void));
    } else if !conversation.observed && !conversation.is_settled() {
        verdict.unaudited += 1;
        let lost = conversation.acked_and_lacking();
        faults.add(Fault::Lost, lost, || {
            format!("conversation {index}: {lost} acknowledged messages did not arrive")
        });
    }
    let max = conversation.max_seq();
    for (member, receiver) in (0..).zip(&conversation.receivers) {
        if let Some(owed) = receiver.owed.all() {
            let conversation = u32::try_from(index).unwrap_or(u32::MAX);
            missed(faults, Seat { conversation, member }, owed);
        }
        if receiver.offline {
            continue;
        }
        let missing = u64::from(receiver.have.missing(max));
        faults.add(Fault::Missed, missing, || {
            let first = receiver.have.first_missing(max).unwrap_or(0);
            format!("conversation {index}: {missing} messages were not pushed to member {member}, seq {first} first")
        });
    }
}

/// So many messages, from this one on, came to a member only because it asked.
pub(super) fn missed(faults: &mut Faults, seat: Seat, (count, first): (u64, u32)) {
    let Seat { conversation, member } = seat;
    faults.add(Fault::Missed, count, || {
        format!("conversation {conversation}: {count} messages were not pushed to member {member}, seq {first} first; a pull found them")
    });
}
