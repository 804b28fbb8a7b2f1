//! How a conversation's messages reach its members.

use super::sql::{first, rows, rows_in, run};
use super::{Result, Store};
use crate::domain::{ConversationNo, UserId};
use crate::ports::Fanout;

const WRITE: u64 = 0;
const READ: u64 = 1;

pub(super) fn fanout_of(mode: u64) -> Fanout {
    if mode == READ { Fanout::Read } else { Fanout::Write }
}

fn mode_of(fanout: Fanout) -> u64 {
    match fanout {
        Fanout::Write => WRITE,
        Fanout::Read => READ,
    }
}

impl Store {
    /// Switches how a conversation's messages reach its members, from the message after `since_seq` on. False if it
    /// was so already.
    pub(crate) fn set_fanout(
        &self,
        no: ConversationNo,
        fanout: Fanout,
        since_seq: u64,
    ) -> Result<bool> {
        let mode = mode_of(fanout);
        self.write(|connection| {
            let sql = "SELECT fanout_mode FROM conversations WHERE id = ? FOR UPDATE";
            match first::<(u64,)>(connection, sql, (no,))? {
                Some((now,)) if now != mode => {}
                _ => return Ok(false),
            }
            let sql = "UPDATE conversations SET fanout_mode = ?, mode_since_seq = ?, version = version + 1 WHERE id = ?";
            run(connection, sql, (mode, since_seq, no))?;
            Ok(true)
        })
    }

    /// The conversations with read fan-out that these users are in.
    pub(crate) fn large_conversations_of(
        &self,
        users: &[UserId],
    ) -> Result<Vec<(UserId, String, ConversationNo)>> {
        let select = (
            "SELECT m.user_id, c.conversation_id, c.id FROM conversations c \
             JOIN conversation_members m ON m.conversation = c.id WHERE c.fanout_mode = 1 \
             AND m.left_at_ms IS NULL AND m.user_id IN (",
            ")",
        );
        self.read(|connection| rows_in(connection, select, users, |user| *user))
    }

    /// Conversations of this mode with numbers above `after`, ascending: number, text id, members, mode since.
    pub(crate) fn list_by_mode(
        &self,
        fanout: Fanout,
        after: ConversationNo,
        limit: u32,
    ) -> Result<Vec<(ConversationNo, String, u32, u64)>> {
        let sql = "SELECT id, conversation_id, member_count, mode_since_seq FROM conversations \
                   WHERE fanout_mode = ? AND id > ? ORDER BY id LIMIT ?";
        self.read(|connection| rows(connection, sql, (mode_of(fanout), after, limit)))
    }
}
