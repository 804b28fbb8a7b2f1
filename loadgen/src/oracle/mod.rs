//! Checks every message of a run against the promises of the server: no acknowledged message lost, one
//! effect per client message id, order and agreement, no unfilled gap, no ghost, dense sequence numbers.
//!
//! Pure: it is told what was sent and seen, and does no input or output. A conversation is expected to be
//! fresh (nobody but the run writes into it), so its sequence numbers run from 1 without a hole.

mod conversation;
mod fault;
mod owed;
mod ranges;
mod verdict;
#[cfg(test)]
mod world_test;

pub use fault::{Fault, Faults};
pub use verdict::Verdict;

use conversation::{Conversation, Learned};

/// A member of a conversation: which conversation, and which place in it (both from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Index of the conversation, as [`Oracle::add_conversation`] returned it.
    pub conversation: u32,
    /// Place of the member in the conversation.
    pub member: u32,
}

/// A message somebody saw: who sent it (place in the conversation), its number, its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Place of the sender in the conversation.
    pub sender: u32,
    /// Number of the message in the conversation, as [`Oracle::sent`] returned it.
    pub number: u32,
    /// The server's sequence number.
    pub seq: u64,
}

/// Why a member pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullReason {
    /// It had been away.
    Reconnect,
    /// The server said that it left pushes out.
    Lagged,
    /// A hole stayed open; messages found this way are owed as pushes, until one comes after all or the
    /// server says that it left them out.
    Gap,
}

/// What a push was for its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The receiver did not have it.
    New,
    /// The receiver had it already, or it is a fault.
    Other,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) overlaps: u64,
    pub(crate) own_echoes: u64,
    pub(crate) repeated_acks: u64,
    pub(crate) recovered_reconnect: u64,
    pub(crate) recovered_lagged: u64,
    pub(crate) gaps_seen: u64,
    pub(crate) gaps_filled: u64,
}

/// The books of all conversations of one worker.
#[derive(Debug, Default)]
pub struct Oracle {
    conversations: Vec<Conversation>,
    faults: Faults,
    tally: Tally,
}

impl Oracle {
    /// An oracle without conversations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fresh conversation of so many members and returns its index.
    pub fn add_conversation(&mut self, members: u32) -> u32 {
        self.conversations.push(Conversation::new(members));
        u32::try_from(self.conversations.len() - 1).unwrap_or(u32::MAX)
    }

    /// As [`Oracle::add_conversation`], for a part of a conversation whose senders are in another worker's
    /// books: what was sent is learnt by its arrival. That all books say the same is for the caller to
    /// compare, see [`Oracle::agreement`]. No member here is the sender of anything: [`Seen::sender`] must
    /// be `u32::MAX`.
    pub fn add_observed(&mut self, members: u32) -> u32 {
        let index = self.add_conversation(members);
        self.conversations[index as usize].observed = true;
        index
    }

    /// A digest of which message has which sequence number, and the highest sequence number.
    #[must_use]
    pub fn agreement(&self, conversation: u32) -> (u64, u32) {
        self.conversations.get(conversation as usize).map_or((0, 0), Conversation::agreement)
    }

    /// Whether so many members, from this one on, have everything that anybody here has.
    #[must_use]
    pub fn have_all(&self, conversation: u32, members: std::ops::Range<u32>) -> bool {
        let Some(books) = self.conversations.get(conversation as usize) else { return false };
        let range = members.start as usize..members.end as usize;
        let max = books.max_seq();
        books.receivers.get(range).is_some_and(|all| all.iter().all(|one| one.have.upto() == max))
    }

    /// A member sends a message for the first time; returns the message's number in the conversation.
    pub fn sent(&mut self, seat: Seat) -> u32 {
        self.conversations.get_mut(seat.conversation as usize).map_or(0, Conversation::send)
    }

    /// The sender was told that its message is stored as `seq`.
    pub fn acked(&mut self, seat: Seat, number: u32, seq: u64) {
        let seen = Seen { sender: seat.member, number, seq };
        let Some(seq) = self.learn(seat.conversation, seen, "acknowledged") else { return };
        self.shown(seat, seq);
        let conversation = &mut self.conversations[seat.conversation as usize];
        if !conversation.acked(number, seq) {
            self.tally.repeated_acks += 1;
        }
    }

    /// The sender was told for good that its message was not taken, and no earlier try of it is in doubt.
    pub fn refused(&mut self, seat: Seat, number: u32) {
        let Some(conversation) = self.conversations.get_mut(seat.conversation as usize) else {
            return;
        };
        if let Err(fault) = conversation.refuse(number) {
            self.note(fault, seat.conversation, || {
                format!("message {number} refused although stored")
            });
        }
    }

    /// A member was pushed a message.
    pub fn pushed(&mut self, seat: Seat, seen: Seen) -> Arrival {
        let Some(seq) = self.learn(seat.conversation, seen, "pushed") else {
            return Arrival::Other;
        };
        self.shown(seat, seq);
        if seen.sender == seat.member {
            self.tally.own_echoes += 1;
            return Arrival::Other;
        }
        let Some(receiver) = self.receiver(seat) else { return Arrival::Other };
        let last = receiver.last_push;
        receiver.last_push = last.max(seq);
        let new = receiver.have.insert(seq);
        if !new {
            receiver.owed.pushed(seq);
        }
        let member = seat.member;
        match (new, seq > last) {
            (true, true) => {}
            (true, false) => self.note(Fault::OrderBreak, seat.conversation, || {
                format!("seq {seq} pushed to member {member} after seq {last}")
            }),
            (false, true) => self.tally.overlaps += 1,
            (false, false) => self.note(Fault::Duplicate, seat.conversation, || {
                format!("seq {seq} pushed again to member {member}")
            }),
        }
        if !new {
            return Arrival::Other;
        }
        self.tally.delivered += 1;
        Arrival::New
    }

    /// A member got a message by pulling.
    pub fn pulled(&mut self, seat: Seat, seen: Seen, reason: PullReason) {
        let Some(seq) = self.learn(seat.conversation, seen, "pulled") else { return };
        self.shown(seat, seq);
        let Some(receiver) = self.receiver(seat) else { return };
        if !receiver.have.insert(seq) {
            return;
        }
        let told = receiver.told_from.is_some_and(|from_seq| seq >= from_seq);
        if reason == PullReason::Gap && !told {
            receiver.owed.found(seq);
        }
        self.tally.delivered += 1;
        match reason {
            PullReason::Reconnect => self.tally.recovered_reconnect += 1,
            PullReason::Lagged => self.tally.recovered_lagged += 1,
            PullReason::Gap => {}
        }
    }

    /// A member was told that pushes were left out from this sequence number on. The word comes behind what
    /// waits for the member, so a pull may have been quicker.
    pub fn told(&mut self, seat: Seat, from_seq: u64) {
        let from_seq = u32::try_from(from_seq).unwrap_or(u32::MAX);
        if let Some(receiver) = self.receiver(seat) {
            receiver.owed.told(from_seq);
            let earlier = receiver.told_from.unwrap_or(from_seq);
            receiver.told_from = Some(earlier.min(from_seq));
        }
    }

    /// What pulls found that were over before this time, and was neither pushed nor told of since, was missed.
    pub fn give_up_owed(&mut self, seat: Seat, before_ns: u64) {
        let Some(receiver) = self.receiver(seat) else { return };
        let Some(owed) = receiver.owed.take_before(before_ns) else { return };
        verdict::missed(&mut self.faults, seat, owed);
    }

    /// Whether somebody there found messages that may still be pushed or told of.
    #[must_use]
    pub fn is_owed(&self, conversation: u32) -> bool {
        let books = self.conversations.get(conversation as usize);
        books.is_some_and(|books| books.receivers.iter().any(|one| !one.owed.is_empty()))
    }

    /// A member that was not there is not owed anything that is known so far.
    pub fn excuse(&mut self, seat: Seat) {
        let Some(books) = self.conversations.get_mut(seat.conversation as usize) else { return };
        let max = books.max_seq();
        if let Some(receiver) = books.receivers.get_mut(seat.member as usize) {
            receiver.have.skip_to(max);
        }
    }

    /// A member's connection is gone: pushes may miss it until [`Oracle::reconnected`], and what was still to
    /// be said is not said.
    pub fn disconnected(&mut self, seat: Seat) {
        self.excuse_rest(seat);
        if let Some(receiver) = self.receiver(seat) {
            receiver.owed.forget();
        }
    }

    /// Nobody knows what else would have come to this member: what it lacks now is no fault.
    pub fn excuse_rest(&mut self, seat: Seat) {
        if let Some(receiver) = self.receiver(seat) {
            receiver.offline = true;
        }
    }

    /// A member is back; it pulls from the returned cursor.
    pub fn reconnected(&mut self, seat: Seat) -> u64 {
        let Some(receiver) = self.receiver(seat) else { return 0 };
        receiver.offline = false;
        receiver.last_push = 0;
        receiver.gap_since_ns = 0;
        u64::from(receiver.have.upto())
    }

    /// Everything up to the returned sequence number has reached the member.
    #[must_use]
    pub fn cursor(&self, seat: Seat) -> u64 {
        let conversation = self.conversations.get(seat.conversation as usize);
        let receiver = conversation.and_then(|c| c.receivers.get(seat.member as usize));
        receiver.map_or(0, |receiver| u64::from(receiver.have.upto()))
    }

    /// The cursor to pull from when a hole has been open for `grace_ns`; asks at most three times.
    pub fn overdue_gap(&mut self, seat: Seat, now_ns: u64, grace_ns: u64) -> Option<u64> {
        let receiver = self.receiver(seat)?;
        if !receiver.have.has_hole() || receiver.shown <= receiver.have.upto() {
            receiver.gap_since_ns = 0;
            return None;
        }
        let after = receiver.have.upto();
        if receiver.gap_since_ns == 0 || receiver.gap_after != after {
            (receiver.gap_since_ns, receiver.gap_after, receiver.gap_pulls) = (now_ns, after, 0);
            return None;
        }
        let patience = grace_ns << receiver.gap_pulls;
        if now_ns.saturating_sub(receiver.gap_since_ns) < patience || receiver.gap_pulls >= 3 {
            return None;
        }
        receiver.gap_pulls += 1;
        receiver.told_from = None;
        let first = receiver.gap_pulls == 1;
        self.tally.gaps_seen += u64::from(first);
        Some(u64::from(after))
    }

    /// A pull because of a hole came to its end; returns how long the hole was open if it is closed now.
    pub fn gap_pulled(&mut self, seat: Seat, now_ns: u64) -> Option<u64> {
        let receiver = self.receiver(seat)?;
        receiver.owed.found_all(now_ns);
        if receiver.gap_since_ns == 0 || receiver.have.upto() <= receiver.gap_after {
            return None;
        }
        let open_ns = now_ns.saturating_sub(receiver.gap_since_ns);
        receiver.gap_since_ns = 0;
        self.tally.gaps_filled += 1;
        Some(open_ns)
    }

    /// Counts a fault that shows outside the oracle's own books (a changed content, a wrong address).
    pub fn fault(&mut self, fault: Fault, detail: impl FnOnce() -> String) {
        self.faults.add(fault, 1, detail);
    }

    /// Whether every message so far is acknowledged or refused and has reached every member.
    #[must_use]
    pub fn is_settled(&self, conversation: u32) -> bool {
        self.conversations.get(conversation as usize).is_some_and(Conversation::is_settled)
    }

    /// First arrivals so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.tally.delivered
    }

    /// Number of conversations.
    #[must_use]
    pub fn conversations(&self) -> u32 {
        u32::try_from(self.conversations.len()).unwrap_or(u32::MAX)
    }

    /// Starts (or starts again) reading a conversation's history from its first message. What was read
    /// before counts until the new one was read to its end.
    pub fn audit_begin(&mut self, conversation: u32) {
        if let Some(conversation) = self.conversations.get_mut(conversation as usize) {
            conversation.begin_reading();
        }
    }

    /// The next message of the history.
    pub fn audit_item(&mut self, conversation: u32, seen: Seen) {
        let right = self.learn(conversation, seen, "in the history").is_some();
        let Some(books) = self.conversations.get_mut(conversation as usize) else { return };
        let Ok(seq) = u32::try_from(seen.seq) else { return };
        // Another message in its place: the one that was known by this number is not there.
        let replaced = !right && books.is_known_seq(seq);
        let Some(reading) = &mut books.reading else { return };
        let upto = reading.upto;
        if seq <= upto {
            self.note(Fault::HistoryOrder, conversation, || format!("seq {seq} after seq {upto}"));
            return;
        }
        if seq > upto + 1 {
            reading.holes.push((upto + 1, seq - 1));
        }
        if replaced {
            reading.holes.push((seq, seq));
        }
        reading.upto = seq;
    }

    /// The history was read to its end.
    pub fn audit_end(&mut self, conversation: u32) {
        if let Some(conversation) = self.conversations.get_mut(conversation as usize) {
            conversation.end_reading();
        }
    }

    /// Whether messages came up that nobody knew of when the history was asked for, and that are not in it: it
    /// must be read again.
    #[must_use]
    pub fn is_audit_outdated(&self, conversation: u32) -> bool {
        let books = self.conversations.get(conversation as usize);
        books.is_some_and(|books| books.reading.is_none() && books.history_gaps().unread > 0)
    }

    /// Closes the books.
    #[must_use]
    pub fn finish(self) -> Verdict {
        verdict::judge(self.conversations, self.faults, self.tally)
    }

    fn learn(&mut self, conversation: u32, seen: Seen, how: &str) -> Option<u32> {
        let Seen { sender, number, seq } = seen;
        let books = self.conversations.get_mut(conversation as usize)?;
        match books.learn(sender, number, seq) {
            Ok((Learned::Regressed, seq)) => {
                self.note(Fault::Regressed, conversation, || {
                    format!(
                        "message {number} got seq {seq}, below one acknowledged before it was sent"
                    )
                });
                Some(seq)
            }
            Ok((_, seq)) => Some(seq),
            Err(fault) => {
                self.note(fault, conversation, || {
                    format!("message {number} of member {sender} {how} with seq {seq}")
                });
                None
            }
        }
    }

    fn shown(&mut self, seat: Seat, seq: u32) {
        if let Some(receiver) = self.receiver(seat) {
            receiver.shown = receiver.shown.max(seq);
        }
    }

    fn receiver(&mut self, seat: Seat) -> Option<&mut conversation::Receiver> {
        let conversation = self.conversations.get_mut(seat.conversation as usize)?;
        conversation.receivers.get_mut(seat.member as usize)
    }

    fn note(&mut self, fault: Fault, conversation: u32, detail: impl FnOnce() -> String) {
        self.faults.add(fault, 1, || format!("conversation {conversation}: {}", detail()));
    }
}
