//! What happened while a client was away: all of it, or the word that it has to be asked for.

use proto::limits::{PULL_BYTES_MAX, RESUME_MESSAGES_MAX, RESUME_POINTS_MAX};
use proto::v1::{Message, ResumePoint, Resumed};

use super::{Names, Operations};
use crate::domain::UserId;
use crate::ports::{Keep, StoreError, Tip};

/// What one login may still bring back.
struct Room {
    messages: u64,
    bytes: usize,
}

impl Operations {
    /// What `user` misses since each of `points`, in their order. Whoever asks must be registered already, so that
    /// what is stored after this look is pushed.
    pub(crate) fn resume(&self, user: UserId, points: &[ResumePoint]) -> Vec<Resumed> {
        let points = &points[..points.len().min(RESUME_POINTS_MAX)];
        let ids: Vec<&str> = points.iter().map(|point| point.conversation_id.as_str()).collect();
        let tips = self.store.tips(&ids, user).unwrap_or_else(|error| {
            tracing::warn!(%error, "conversations were not resumed");
            vec![None; points.len()]
        });
        let mut room = Room { messages: RESUME_MESSAGES_MAX, bytes: PULL_BYTES_MAX };
        let mut names = Names::new(self);
        let one = |(point, tip): (&ResumePoint, Option<Tip>)| {
            let Some(tip) = tip else { return not_recovered(point, 0) };
            let resumed = self.resume_one(point, tip, &mut room, &mut names);
            resumed.unwrap_or_else(|error| {
                tracing::warn!(%error, "a conversation was not resumed");
                not_recovered(point, 0)
            })
        };
        points.iter().zip(tips).map(one).collect()
    }

    fn resume_one(
        &self,
        point: &ResumePoint,
        Tip { no, last_seq: max_seq }: Tip,
        room: &mut Room,
        names: &mut Names<'_>,
    ) -> Result<Resumed, StoreError> {
        // A client that knows more than the log has another history than ours.
        let missing = match max_seq.checked_sub(point.seq) {
            Some(missing) if missing <= room.messages => missing,
            _ => return Ok(not_recovered(point, max_seq)),
        };
        let mut items: Vec<Message> = Vec::new();
        if missing > 0 {
            let bytes = room.bytes;
            let stored = self.store.messages(no, point.seq + 1, max_seq, Keep::Low, bytes)?;
            let size: usize = stored.iter().map(|one| one.content.len()).sum();
            if stored.len() as u64 != missing || size > bytes {
                return Ok(not_recovered(point, max_seq));
            }
            for one in stored {
                items.push(names.message(&point.conversation_id, one)?);
            }
            room.messages -= missing;
            room.bytes -= size;
        }
        let conversation_id = point.conversation_id.clone();
        Ok(Resumed { conversation_id, recovered: true, max_seq, items })
    }
}

fn not_recovered(point: &ResumePoint, max_seq: u64) -> Resumed {
    let conversation_id = point.conversation_id.clone();
    Resumed { conversation_id, recovered: false, max_seq, items: Vec::new() }
}
