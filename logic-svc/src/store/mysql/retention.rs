//! Messages that are old enough, or too many, are deleted from the left end of their conversation.
//!
//! The primary key of a message is also what tells a service that stood still that others went on without it. So every
//! message stays for an hour, and a log that stood still for five minutes asks where conversations end (`Log`).

use super::sql::{rows, run};
use super::{Result, Store, now_ms};
use crate::domain::ConversationNo;
use crate::ports::{Expired, Keeping, Retention};
use crate::snowflake;

/// Every message stays for so long, in milliseconds.
const STAYS_MS: u64 = 3_600_000;
/// Conversations looked at by one statement.
const CONVERSATIONS: u64 = 256;
/// Messages deleted by one statement: a short transaction, which holds up nobody who sends.
const MESSAGES: u64 = 1_000;
/// Messages deleted before the caller has its turn.
const MESSAGES_MAX: u64 = 10_000;

/// A conversation with seq and id of its oldest message and its last seq, if it has any.
type Row = (ConversationNo, Option<u64>, Option<u64>, Option<u64>);
/// A conversation with the seqs of its oldest and its last message.
type Ends = (ConversationNo, u64, u64);

impl Retention for Store {
    fn expire(&self, keeping: Keeping, after: ConversationNo) -> Result<Expired> {
        let limits = Limits::new(keeping, now_ms());
        let end = |what: &str, order: &str| {
            format!(
                "(SELECT m.{what} FROM messages m WHERE m.conversation = c.id ORDER BY m.seq {order} LIMIT 1)"
            )
        };
        let sql = format!(
            "SELECT c.id, {}, {}, {} FROM conversations c WHERE c.id > ? ORDER BY c.id LIMIT ?",
            end("seq", "ASC"),
            end("message_id", "ASC"),
            end("seq", "DESC")
        );
        let found: Vec<Row> =
            self.read(|connection| rows(connection, &sql, (after, CONVERSATIONS)))?;
        let mut expired = Expired::default();
        if found.len() as u64 == CONVERSATIONS {
            expired.next = found.last().map(|(no, ..)| *no);
        }
        for (no, oldest, id, last) in found {
            let (Some(oldest), Some(id), Some(last)) = (oldest, id, last) else { continue };
            if !limits.end((oldest, id), last) {
                continue;
            }
            let (deleted, more) = self.delete_oldest(limits, (no, oldest, last))?;
            expired.messages += deleted;
            expired.conversations.push(no);
            if more || expired.messages >= MESSAGES_MAX {
                expired.next = Some(if more { no - 1 } else { no });
                break;
            }
        }
        Ok(expired)
    }
}

impl Store {
    /// Deletes one statement's worth; gives how many, and whether there may be more.
    fn delete_oldest(&self, limits: Limits, (no, oldest, last): Ends) -> Result<(u64, bool)> {
        let sql = "SELECT seq, message_id FROM messages \
                   WHERE conversation = ? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?";
        let found: Vec<(u64, u64)> =
            self.read(|connection| rows(connection, sql, (no, oldest, last, MESSAGES)))?;
        let old = found.iter().take_while(|&&message| limits.end(message, last)).count();
        let Some(&(up_to, _)) = old.checked_sub(1).and_then(|at| found.get(at)) else {
            return Ok((0, false));
        };
        let sql = "DELETE FROM messages WHERE conversation = ? AND seq BETWEEN ? AND ?";
        self.write(|connection| run(connection, sql, (no, oldest, up_to)))?;
        Ok((old as u64, old as u64 == MESSAGES))
    }
}

/// What goes, in terms of ids and seqs.
#[derive(Clone, Copy)]
struct Limits {
    /// Messages with ids below are old.
    old: u64,
    /// Those with ids from here on stay in any case.
    fresh: u64,
    /// So many are kept; 0: any number.
    messages: u64,
}

impl Limits {
    fn new(keeping: Keeping, now_ms: u64) -> Self {
        Self {
            old: snowflake::first_at(keeping.since_ms),
            fresh: snowflake::first_at(now_ms.saturating_sub(STAYS_MS)),
            messages: keeping.messages,
        }
    }

    /// Whether a message (seq, id) of a conversation with this last seq is to be deleted.
    fn end(self, (seq, id): (u64, u64), last: u64) -> bool {
        let beyond = self.messages > 0 && seq.saturating_add(self.messages) <= last;
        seq < last && id < self.fresh && (id < self.old || beyond)
    }
}
