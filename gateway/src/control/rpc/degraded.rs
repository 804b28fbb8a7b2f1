//! What waiting clients are told when the logic service does not answer.

use std::collections::HashMap;

use proto::error::ErrorCode;
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{Call, CallReply, Failure};

use crate::ids::ConnId;
use crate::session::answer::request_id_of;

/// The number of a login in `CallReply::command`.
const LOGIN: u32 = 5;

/// A call that waits for its answer, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) connection: ConnId,
    pub(super) request_id: u32,
    pub(super) command: u32,
}

impl Waiting {
    /// `None` for what has no answer.
    pub(super) fn of(call: &Call) -> Option<Self> {
        let command = match call.request.as_ref()? {
            Request::Login(_) => LOGIN,
            Request::Pull(_) => 6,
            Request::Sync(_) => 7,
            Request::Create(_) => 8,
            Request::Join(_) => 9,
            Request::Leave(_) => 10,
            Request::Members(_) => 11,
            Request::Read(_) => 12,
            Request::Presence(_) => 14,
            Request::Closed(_) => return None,
        };
        Some(Self { connection: connection(call), request_id: request_id_of(call), command })
    }

    fn answered_by(reply: &CallReply) -> Self {
        let CallReply { shard, slot, generation, request_id, command, .. } = *reply;
        Self { connection: ConnId { shard, slot, generation }, request_id, command }
    }

    /// The answer of a service that is not there.
    pub(super) fn refused(self, failure: &Failure) -> CallReply {
        let ConnId { shard, slot, generation } = self.connection;
        CallReply {
            shard,
            slot,
            generation,
            request_id: self.request_id,
            command: self.command,
            reply: Some(Reply::Failure(failure.clone())),
        }
    }
}

pub(super) fn connection(call: &Call) -> ConnId {
    ConnId { shard: call.shard, slot: call.slot, generation: call.generation }
}

/// Why somebody who waits has to ask again later. Delays differ, so that they do not come back all at
/// once.
pub(super) fn unavailable(why: &str) -> Failure {
    let detail = format!("the logic service does not answer: {why}");
    ErrorCode::Busy.retry_after(1_000 + spread(2_000), detail)
}

/// Somewhere from 0 to below `most`; other values for calls that follow each other.
fn spread(most: u32) -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Steps of the golden ratio cover the range evenly.
    let step = NEXT.fetch_add(0x9e37_79b9, Ordering::Relaxed);
    u32::try_from((u64::from(step) * u64::from(most)) >> 32).unwrap_or(0)
}

/// Those of `waiting` that `replies` leave without an answer. What follows a login is not its answer.
pub(super) fn unanswered(waiting: &[Waiting], replies: &[CallReply]) -> Vec<Waiting> {
    let settles = |reply: &&CallReply| {
        reply.command != LOGIN || matches!(reply.reply, Some(Reply::Welcome(_) | Reply::Failure(_)))
    };
    let mut answers: HashMap<Waiting, usize> = HashMap::new();
    for reply in replies.iter().filter(settles) {
        *answers.entry(Waiting::answered_by(reply)).or_default() += 1;
    }
    let mut missing = Vec::new();
    for waiting in waiting {
        match answers.get_mut(waiting) {
            Some(left) if *left > 0 => *left -= 1,
            _ => missing.push(*waiting),
        }
    }
    missing
}
