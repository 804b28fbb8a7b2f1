//! Who waits for which record, until Kafka has it or does not take it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::error::ErrorCode;
use proto::v1::{Ack, DeliveryBatch, Failure, SendReply};

use super::regroup::Origin;
use crate::mailbox::Mailboxes;

/// After how long a client may send again what Kafka did not take.
const RETRY_AFTER_MS: u32 = 1_000;

/// Records under way and those that failed.
#[derive(Debug, Default)]
pub struct Pending(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    under_way: HashMap<u64, Vec<Origin>>,
    next: u64,
    frames: usize,
    failed: Vec<Origin>,
}

impl Pending {
    /// Remembers who waits for a record; the number is the record's until [`Self::settled`].
    pub(super) fn remember(&self, origins: Vec<Origin>) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.frames += origins.len();
        state.under_way.insert(number, origins);
        number
    }

    /// Kafka has the record, or will not have it. The answer of those whose record failed is due.
    pub(super) fn settled(&self, number: u64, stored: bool) {
        let mut state = self.lock();
        let Some(origins) = state.under_way.remove(&number) else { return };
        state.frames -= origins.len();
        if !stored {
            state.failed.extend(origins);
        }
    }

    /// Nothing more will be heard of records under way: they count as failed.
    pub(super) fn give_up(&self) {
        let mut state = self.lock();
        let rest = std::mem::take(&mut state.under_way);
        state.frames = 0;
        state.failed.extend(rest.into_values().flatten());
    }

    /// Frames whose record is under way.
    pub(super) fn frames(&self) -> usize {
        self.lock().frames
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
