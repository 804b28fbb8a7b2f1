//! Reading messages by seq: merged rows first, then the chain of chunks not merged yet.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store, body, int, store_error, uint};
use crate::domain::ConversationNo;
use crate::ports::{HistoryStore, Keep, StoreError, StoredMessage};

/// Bodies of rows, each with the seq of its first message, ascending.
type Rows = Vec<(u64, Vec<u8>)>;

impl HistoryStore for Store {
    fn last_seq(&self, no: ConversationNo) -> Result<u64> {
        Ok(self.heads().get(no).seq)
    }

    fn newest_id(&self) -> Result<u64> {
        Ok(self.heads().newest_id())
    }

    fn messages(
        &self,
        no: ConversationNo,
        low: u64,
        high: u64,
        keep: Keep,
        max_bytes: usize,
    ) -> Result<Vec<StoredMessage>> {
        // Memory is read before the database: what it names is in there, as a chunk or merged by now.
        let (high, entry) = {
            let heads = self.heads();
            let high = high.min(heads.get(no).seq);
            (high, heads.entry(no, high))
        };
        let low = low.max(1);
        if low > high {
            return Ok(Vec::new());
        }
        let reader = self.readers.get();
        let snapshot = reader.unchecked_transaction().map_err(store_error)?;
        let rows = read_rows(&snapshot, no, low, high, entry)?;
        drop(snapshot);
        drop(reader);
        let mut messages = decode(&rows, low, high)?;
        let count = u64::try_from(messages.len()).unwrap_or(u64::MAX);
        if count != high - low + 1 {
            return Err(StoreError::Corrupt(format!(
                "conversation {no}: {count} messages in {low}..={high}"
            )));
        }
        cut(&mut messages, keep, max_bytes);
        Ok(messages)
    }
}

fn read_rows(
    snapshot: &Connection,
    no: ConversationNo,
    low: u64,
    high: u64,
    entry: u64,
) -> Result<Rows> {
    let merged = merged_to(snapshot, no).map_err(store_error)?;
    let mut rows = Rows::new();
    if low <= merged {
        rows = read_merged(snapshot, no, low, high.min(merged)).map_err(store_error)?;
    }
    if high > merged {
        let mut chunks = walk_chunks(snapshot, no, low.max(merged + 1), high, entry)?;
        chunks.reverse();
        rows.append(&mut chunks);
    }
    Ok(rows)
}

/// The last merged seq of a conversation; 0 if nothing is merged.
pub(super) fn merged_to(connection: &Connection, no: ConversationNo) -> rusqlite::Result<u64> {
    let sql = "SELECT first_seq + count - 1 FROM history WHERE conversation = ? ORDER BY first_seq DESC LIMIT 1";
    let last = connection
        .prepare_cached(sql)?
        .query_row([int(no)], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(last.map_or(0, uint))
}

fn read_merged(
    snapshot: &Connection,
    no: ConversationNo,
    low: u64,
    high: u64,
) -> rusqlite::Result<Rows> {
    let sql = "SELECT first_seq, body FROM history WHERE conversation = ?1 AND first_seq <= ?3 AND first_seq >= \
               (SELECT max(first_seq) FROM history WHERE conversation = ?1 AND first_seq <= ?2) ORDER BY first_seq";
    let mut select = snapshot.prepare_cached(sql)?;
    let rows = select.query_map(params![int(no), int(low), int(high)], |row| {
        Ok((uint(row.get(0)?), row.get(1)?))
    })?;
    rows.collect()
}

/// Follows the chain down from `entry` and keeps the chunks that overlap `low..=high`, newest first.
fn walk_chunks(
    snapshot: &Connection,
    no: ConversationNo,
    low: u64,
    high: u64,
    entry: u64,
) -> Result<Rows> {
    let sql = "SELECT conversation, first_seq, count, prev, body FROM chunks WHERE id = ?";
    let mut select = snapshot.prepare_cached(sql).map_err(store_error)?;
    let mut rows = Rows::new();
    let mut at = entry;
    while at != 0 {
        let mut found = select.query([int(at)]).map_err(store_error)?;
        // A chunk that is gone was merged, and with it everything below.
        let Some(row) = found.next().map_err(store_error)? else { break };
        let number = |column| row.get::<_, i64>(column).map(uint).map_err(store_error);
        let (owner, first_seq, count, prev) = (number(0)?, number(1)?, number(2)?, number(3)?);
        if owner != no {
            return Err(StoreError::Corrupt(format!(
                "chunk {at} of conversation {owner} is chained to {no}"
            )));
        }
        if first_seq <= high && first_seq + count > low {
            rows.push((first_seq, row.get(4).map_err(store_error)?));
        }
        if first_seq <= low {
            break;
        }
        at = prev;
    }
    Ok(rows)
}

fn decode(rows: &Rows, low: u64, high: u64) -> Result<Vec<StoredMessage>> {
    let mut messages = Vec::new();
    for (first_seq, bytes) in rows {
        for (seq, record) in (*first_seq..).zip(body::records(bytes)?) {
            let record = record?;
            if seq > high {
                break;
            }
            if seq >= low {
                messages.push(StoredMessage {
                    seq,
                    message_id: record.message_id,
                    sender: record.sender,
                    msg_type: record.msg_type,
                    client_msg_id: record.client_msg_id()?,
                    content: Bytes::copy_from_slice(record.content),
                });
            }
        }
    }
    Ok(messages)
}

/// Drops messages from the end that is not to be kept until the content fits.
fn cut(messages: &mut Vec<StoredMessage>, keep: Keep, max_bytes: usize) {
    let fits = |lengths: &mut dyn Iterator<Item = usize>| {
        let mut bytes = 0;
        lengths
            .take_while(|length| {
                bytes += length;
                bytes <= max_bytes
            })
            .count()
            .max(1)
    };
    match keep {
        Keep::Low => {
            let kept = fits(&mut messages.iter().map(|message| message.content.len()));
            messages.truncate(kept);
        }
        Keep::High => {
            let kept = fits(&mut messages.iter().rev().map(|message| message.content.len()));
            messages.drain(..messages.len().saturating_sub(kept));
        }
    }
}
