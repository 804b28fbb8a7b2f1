//! Who waits for which record, until Kafka has it or does not take it.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::error::ErrorCode;
use proto::v1::{Ack, DeliveryBatch, Failure, SendReply};

use super::regroup::Origin;
use crate::mailbox::Mailboxes;

/// After how long a client may send again what Kafka did not take.
const RETRY_AFTER_MS: u32 = 1_000;

/// Records under way and those that failed.
#[derive(Debug, Default)]
pub struct Pending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    under_way: HashMap<u64, Record>,
    next: u64,
    frames: usize,
    failed: Vec<Origin>,
    /// Partitions of records that failed since this was looked at.
    failing: Vec<usize>,
}

#[derive(Debug)]
struct Record {
    partition: usize,
    origins: Vec<Origin>,
}

impl Pending {
    /// Remembers who waits for a record; the number is the record's until [`Self::settled`].
    pub(super) fn remember(&self, partition: usize, origins: Vec<Origin>) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.frames += origins.len();
        state.under_way.insert(number, Record { partition, origins });
        number
    }

    /// Kafka has the record, or will not have it. The answer of those whose record failed is due.
    pub(super) fn settled(&self, number: u64, stored: bool) {
        let mut state = self.lock();
        let Some(Record { partition, origins }) = state.under_way.remove(&number) else { return };
        state.frames -= origins.len();
        if !stored {
            state.failed.extend(origins);
            state.failing.push(partition);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The answer of those who waited for a record that was not sent is due.
    pub(super) fn refuse(&self, origins: Vec<Origin>) {
        self.lock().failed.extend(origins);
    }

    /// Partitions that did not take a record, since the last time this was asked.
    pub(super) fn take_failing(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().failing)
    }

    /// Waits until a record is settled, at most so long, and perhaps for nothing: whoever waits looks again.
    pub(super) fn wait(&self, limit: Duration) {
        drop(self.changed.wait_timeout(self.lock(), limit));
    }

    /// Nothing more will be heard of records under way: they count as failed.
    pub(super) fn give_up(&self) {
        let mut state = self.lock();
        let rest = std::mem::take(&mut state.under_way);
        state.frames = 0;
        state.failed.extend(rest.into_values().flat_map(|record| record.origins));
    }

    /// Frames whose record is under way.
    pub(super) fn frames(&self) -> usize {
        self.lock().frames
    }

    /// Whether a partition has fewer than `most` records under way, and did not fail to take one since
    /// [`Self::take_failing`] was asked. Counted each time: there are few at once.
    pub(super) fn takes_more(&self, partition: usize, most: usize) -> bool {
        let state = self.lock();
        let under_way = state.under_way.values().filter(|record| record.partition == partition);
        under_way.count() < most && !state.failing.contains(&partition)
    }

    /// Tells those whose records failed to send again later, each shard in one batch. Gives how many.
    pub(super) fn answer_failed(&self, mailboxes: &Mailboxes) -> usize {
        let failed = std::mem::take(&mut self.lock().failed);
        let count = failed.len();
        if count == 0 {
            return 0;
        }
        let failure = ErrorCode::Busy
            .retry_after(RETRY_AFTER_MS, "the message log (Kafka) does not take messages now");
        let mut shards: Vec<Vec<SendReply>> = mailboxes.0.iter().map(|_| Vec::new()).collect();
        for origin in failed {
            if let Some(replies) = shards.get_mut(origin.shard as usize) {
                replies.push(refusal(origin, &failure));
            }
        }
        for (shard, replies) in (0_u32..).zip(shards) {
            if !replies.is_empty() {
                mailboxes.deliver(DeliveryBatch { shard, replies, ..DeliveryBatch::default() });
            }
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(origin: Origin, failure: &Failure) -> SendReply {
    let Origin { slot, generation, request_id, client_msg_id, .. } = origin;
    SendReply {
        slot,
        generation,
        ack: Some(Ack { request_id, client_msg_id, ..Ack::default() }),
        failure: Some(failure.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What waits behind the record that failed would be told only after as long again.
    #[test]
    fn a_partition_that_failed_takes_no_more_until_that_was_looked_at() {
        let pending = Pending::default();
        let first = pending.remember(1, Vec::new());
        pending.remember(1, Vec::new());
        assert!(!pending.takes_more(1, 2) && pending.takes_more(0, 2));
        pending.settled(first, false);
        assert!(!pending.takes_more(1, 2) && pending.takes_more(0, 2));
        assert_eq!(pending.take_failing(), [1]);
        assert!(pending.takes_more(1, 2));
    }
}
