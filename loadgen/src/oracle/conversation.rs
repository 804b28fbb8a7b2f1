//! The books of one conversation: which message has which sequence number, and who has it.

use super::fault::Fault;
use super::owed::Owed;
use super::ranges::Ranges;

/// The sequence number of the message is known.
const KNOWN: u8 = 1;
/// The sender got its acknowledgement.
const ACKED: u8 = 2;
/// The sender was told for good that it was not taken.
const REFUSED: u8 = 4;
/// Nobody knew of it before the history in the books was asked for: it may be missing there.
const UNREAD: u8 = 8;
/// The same of the history that is being read.
const UNREAD_NEXT: u8 = 16;

/// Messages that a conversation without a sender here may have.
const OBSERVED_MAX: u32 = 1 << 24;

/// 9 bytes a message, and a few ranges a receiver.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// Per message its sequence number once known; until then the highest sequence number that had been
    /// acknowledged when it was sent, which its own must exceed.
    seqs: Vec<u32>,
    flags: Vec<u8>,
    /// Per sequence number, less one, the number of its message plus one; 0: not known.
    messages: Vec<u32>,
    max_acked: u32,
    /// Messages neither acknowledged nor refused.
    open: u32,
    pub(super) receivers: Vec<Receiver>,
    /// The history as it was read last.
    pub(super) audit: Option<Audit>,
    /// The same, being read.
    pub(super) reading: Option<Audit>,
    /// Nobody here sends: messages are learnt of by their arrival only.
    pub(super) observed: bool,
}

/// One member connection.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    pub(super) have: Ranges,
    /// Highest sequence number that this member itself was shown: pushed, pulled, or acknowledged to it.
    /// It has its own messages from the moment when anybody saw them, but a client cannot know of them,
    /// nor of a hole before them, until its acknowledgement is there.
    pub(super) shown: u32,
    /// Highest sequence number pushed in this session; 0: none yet.
    pub(super) last_push: u32,
    pub(super) offline: bool,
    /// Since when there is a hole right behind `gap_after`; 0: none.
    pub(super) gap_since_ns: u64,
    pub(super) gap_after: u32,
    /// Pulls already asked for because of this hole.
    pub(super) gap_pulls: u32,
    /// What those pulls found.
    pub(super) owed: Owed,
    /// Since the last of them was asked for the server said that it left pushes out from here on.
    pub(super) told_from: Option<u32>,
}

/// The history as pulled from the start.
#[derive(Debug, Default)]
pub(super) struct Audit {
    pub(super) upto: u32,
    /// Sequence numbers the history skips, inclusive.
    pub(super) holes: Vec<(u32, u32)>,
}

/// Whether a message's sequence number is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    New,
    Old,
    /// New, and not above what had been acknowledged before the message was sent.
    Regressed,
}

/// Sequence numbers that a history skips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HistoryGaps {
    /// Of acknowledged messages.
    pub(super) acked: u64,
    /// Of messages that somebody was shown although they are not stored.
    pub(super) shown: u64,
    /// Of nothing anybody knows.
    pub(super) void: u64,
    /// Of messages that nobody knew of before the history was asked for, and of what may lie before them.
    pub(super) unread: u64,
}

impl Conversation {
    pub(super) fn new(members: u32) -> Self {
        let receivers = std::iter::repeat_with(Receiver::default).take(members as usize).collect();
        Self { receivers, ..Self::default() }
    }

    pub(super) fn send(&mut self) -> u32 {
        let number = u32::try_from(self.seqs.len()).unwrap_or(u32::MAX);
        self.seqs.push(self.max_acked);
        self.flags.push(0);
        self.open += 1;
        number
    }

    /// Takes note that a message of member `sender` has a sequence number.
    pub(super) fn learn(
        &mut self,
        sender: u32,
        number: u32,
        seq: u64,
    ) -> Result<(Learned, u32), Fault> {
        let index = number as usize;
        if self.observed && number < OBSERVED_MAX && index >= self.seqs.len() {
            self.seqs.resize(index + 1, 0);
            self.flags.resize(index + 1, 0);
        }
        let sent = if self.observed { OBSERVED_MAX as usize } else { self.seqs.len() };
        let (Some(flags), Some(slot)) = (self.flags.get_mut(index), self.seqs.get_mut(index))
        else {
            return Err(Fault::Ghost);
        };
        let Some(seq) = u32::try_from(seq).ok().filter(|&seq| seq >= 1 && seq as usize <= sent)
        else {
            return Err(Fault::NotDense);
        };
        if *flags & KNOWN != 0 {
            return if *slot == seq { Ok((Learned::Old, seq)) } else { Err(Fault::TwoSeqs) };
        }
        if *flags & REFUSED != 0 {
            return Err(Fault::Refused);
        }
        if self.messages.len() < seq as usize {
            self.messages.resize(seq as usize, 0);
        }
        let occupant = &mut self.messages[seq as usize - 1];
        if *occupant != 0 {
            return Err(Fault::SeqReused);
        }
        *occupant = number + 1;
        let floor = std::mem::replace(slot, seq);
        *flags |= KNOWN;
        if self.audit.is_some() {
            *flags |= UNREAD;
        }
        if self.reading.is_some() {
            *flags |= UNREAD_NEXT;
        }
        if let Some(receiver) = self.receivers.get_mut(sender as usize) {
            receiver.have.insert(seq);
        }
        Ok((if seq > floor { Learned::New } else { Learned::Regressed }, seq))
    }

    /// Marks a message acknowledged; false when it was already.
    pub(super) fn acked(&mut self, number: u32, seq: u32) -> bool {
        self.max_acked = self.max_acked.max(seq);
        let Some(flags) = self.flags.get_mut(number as usize) else { return false };
        let first = *flags & ACKED == 0;
        *flags |= ACKED;
        self.open -= u32::from(first);
        first
    }

    /// Marks a message refused, unless it is known to be stored.
    pub(super) fn refuse(&mut self, number: u32) -> Result<(), Fault> {
        let Some(flags) = self.flags.get_mut(number as usize) else { return Err(Fault::Misrouted) };
        if *flags & KNOWN != 0 {
            return Err(Fault::Refused);
        }
        self.open -= u32::from(*flags & REFUSED == 0);
        *flags |= REFUSED;
        Ok(())
    }

    /// Which message has which sequence number, as a digest (FNV-1a), and the highest sequence number.
    pub(super) fn agreement(&self) -> (u64, u32) {
        let digest = self.messages.iter().fold(0xcbf2_9ce4_8422_2325, |digest: u64, &message| {
            (digest ^ u64::from(message)).wrapping_mul(0x0100_0000_01b3)
        });
        (digest, self.max_seq())
    }

    pub(super) fn sent(&self) -> u64 {
        self.seqs.len() as u64
    }

    /// Highest sequence number known.
    pub(super) fn max_seq(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    fn count(&self, mask: u8, value: u8) -> u64 {
        self.flags.iter().filter(|&&flags| flags & mask == value).count() as u64
    }

    pub(super) fn count_acked(&self) -> u64 {
        self.count(ACKED, ACKED)
    }

    pub(super) fn count_refused(&self) -> u64 {
        self.count(REFUSED, REFUSED)
    }

    pub(super) fn count_known(&self) -> u64 {
        self.count(KNOWN, KNOWN)
    }

    /// Messages whose sender never got a final answer, and how many of them are known to be stored.
    pub(super) fn count_unanswered(&self) -> (u64, u64) {
        (self.count(ACKED | REFUSED, 0), self.count(ACKED | REFUSED | KNOWN, KNOWN))
    }

    /// Whether every message is acknowledged or refused and everybody has everything.
    pub(super) fn is_settled(&self) -> bool {
        let max = self.max_seq();
        // What a receiver has is known, so a full receiver also means that no sequence number is unknown.
        self.open == 0 && self.receivers.iter().all(|receiver| receiver.have.upto() == max)
    }

    /// The history is asked for, from its start.
    pub(super) fn begin_reading(&mut self) {
        self.flags.iter_mut().for_each(|flags| *flags &= !UNREAD_NEXT);
        self.reading = Some(Audit::default());
    }

    /// The history was read to its end, and is what counts from now on.
    pub(super) fn end_reading(&mut self) {
        let Some(reading) = self.reading.take() else { return };
        self.audit = Some(reading);
        for flags in &mut self.flags {
            let unread = if *flags & UNREAD_NEXT == 0 { 0 } else { UNREAD };
            *flags = *flags & !(UNREAD | UNREAD_NEXT) | unread;
        }
    }

    /// What the pulled history lacks.
    pub(super) fn history_gaps(&self) -> HistoryGaps {
        let mut gaps = HistoryGaps::default();
        let Some(audit) = &self.audit else { return gaps };
        let max = self.max_seq();
        for &(low, high) in &audit.holes {
            for seq in low..=high.min(max) {
                self.count_gap(&mut gaps, seq);
            }
            gaps.void += u64::from(high.saturating_sub(low.max(max + 1) - 1));
        }
        // What is numbered below a message that came after the history may have come after it, too.
        let mut seq = max;
        while seq > audit.upto && self.flags_at(seq).is_none_or(|flags| flags & UNREAD != 0) {
            gaps.unread += 1;
            seq -= 1;
        }
        for seq in audit.upto + 1..=seq {
            self.count_gap(&mut gaps, seq);
        }
        gaps
    }

    fn count_gap(&self, gaps: &mut HistoryGaps, seq: u32) {
        let count = match self.flags_at(seq) {
            None => &mut gaps.void,
            Some(flags) if flags & UNREAD != 0 => &mut gaps.unread,
            Some(flags) if flags & ACKED != 0 => &mut gaps.acked,
            Some(_) => &mut gaps.shown,
        };
        *count += 1;
    }

    /// Whether a message is known by this number.
    pub(super) fn is_known_seq(&self, seq: u32) -> bool {
        self.flags_at(seq).is_some()
    }

    fn flags_at(&self, seq: u32) -> Option<u8> {
        let number = self.messages.get((seq as usize).checked_sub(1)?)?.checked_sub(1)?;
        self.flags.get(number as usize).copied()
    }

    /// Acknowledged messages that at least one receiver lacks; what is lost when there is no history to ask.
    pub(super) fn acked_and_lacking(&self) -> u64 {
        let worst =
            self.receivers.iter().map(|receiver| receiver.have.missing(self.max_seq())).max();
        u64::from(worst.unwrap_or(0)).min(self.count_acked())
    }
}
