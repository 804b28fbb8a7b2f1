//! Reading messages by seq: a range of the primary key.

use bytes::Bytes;
use hashbrown::HashMap;
use mysql::Conn;

use super::error::Fault;
use super::sql::{Work, first, rows, rows_in};
use super::{Result, Store, now_ms};
use crate::domain::message::ClientKey;
use crate::domain::{ConversationNo, UserId};
use crate::ports::{HistoryStore, Keep, StoredMessage, Tip};
use crate::snowflake;

/// Messages read by one statement: a page that is cut by its bytes does not read much in vain.
const PAGE: u64 = 128;
/// How far clocks may differ and a commit may take before an id is taken for newer than it is.
const SKEW_MS: u64 = 2000;

impl HistoryStore for Store {
    fn last_seq(&self, no: ConversationNo) -> Result<u64> {
        let sql = "SELECT seq FROM messages WHERE conversation = ? ORDER BY seq DESC LIMIT 1";
        let found: Option<(u64,)> = self.read(|connection| first(connection, sql, (no,)))?;
        Ok(found.map_or(0, |(seq,)| seq))
    }

    /// Nobody counts ids here, and asking all tables would take long: the clock stands in for them. Two seconds back,
    /// so that what happens later has a higher id in spite of clocks that differ.
    fn newest_id(&self) -> Result<u64> {
        Ok(snowflake::first_at(now_ms().saturating_sub(SKEW_MS)))
    }

    fn messages(
        &self,
        no: ConversationNo,
        low: u64,
        high: u64,
        keep: Keep,
        max_bytes: usize,
    ) -> Result<Vec<StoredMessage>> {
        let mut page = Page { messages: Vec::new(), bytes: 0, max_bytes, full: false };
        let (mut low, mut high) = (low.max(1), high);
        let order = if keep == Keep::Low { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT seq, message_id, sender_id, kind, client_msg_id, content FROM messages \
             WHERE conversation = ? AND seq BETWEEN ? AND ? ORDER BY seq {order} LIMIT ?"
        );
        while low <= high && !page.full {
            let found: Vec<Row> =
                self.read(|connection| rows(connection, &sql, (no, low, high, PAGE)))?;
            let more = found.len() as u64 == PAGE;
            for row in found {
                page.take(no, row).map_err(Fault::into_store_error)?;
            }
            let Some(last) = page.messages.last().filter(|_| more) else { break };
            match keep {
                Keep::Low => low = last.seq + 1,
                Keep::High => high = last.seq - 1,
            }
        }
        if keep == Keep::High {
            page.messages.reverse();
        }
        Ok(page.messages)
    }
}

/// Where conversations stand that `user` is in: one statement for all of them, the last seqs at the right end of the
/// primary key each.
pub(super) fn tips(connection: &mut Conn, ids: &[&str], user: UserId) -> Work<Vec<Option<Tip>>> {
    let before = format!(
        "SELECT c.conversation_id, c.id, COALESCE((SELECT x.seq FROM messages x WHERE x.conversation = c.id \
         ORDER BY x.seq DESC LIMIT 1), 0) FROM conversations c \
         JOIN conversation_members m ON m.conversation = c.id AND m.user_id = {user} \
         WHERE m.left_at_ms IS NULL AND c.conversation_id IN ("
    );
    let found: Vec<(Vec<u8>, ConversationNo, u64)> =
        rows_in(connection, (&before, ")"), ids, |id| id.as_bytes())?;
    let tips: HashMap<Vec<u8>, Tip> =
        found.into_iter().map(|(id, no, last_seq)| (id, Tip { no, last_seq })).collect();
    Ok(ids.iter().map(|id| tips.get(id.as_bytes()).copied()).collect())
}

type Row = (u64, u64, u64, u32, Vec<u8>, Vec<u8>);

struct Page {
    messages: Vec<StoredMessage>,
    bytes: usize,
    max_bytes: usize,
    full: bool,
}

impl Page {
    /// Takes a message if it fits; the first always does. They follow on each other, up or down.
    fn take(&mut self, no: ConversationNo, row: Row) -> Work<()> {
        let (seq, message_id, sender, msg_type, key, content) = row;
        self.bytes += content.len();
        self.full |= self.bytes > self.max_bytes && !self.messages.is_empty();
        if self.full {
            return Ok(());
        }
        if let Some(last) = self.messages.last().filter(|last| last.seq.abs_diff(seq) != 1) {
            let text = format!("conversation {no}: seq {seq} beside {}", last.seq);
            return Err(Fault::corrupt(text));
        }
        let client_msg_id =
            ClientKey::text(&key).ok_or_else(|| Fault::corrupt("a client id cannot be read"))?;
        let content = Bytes::from(content);
        self.messages.push(StoredMessage {
            seq,
            message_id,
            sender,
            msg_type,
            client_msg_id,
            content,
        });
        Ok(())
    }
}
