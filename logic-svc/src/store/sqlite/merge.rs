//! Merging old chunks into sorted history rows, in slices too small to be felt.
//!
//! A window of the oldest chunks is read and sorted by conversation. Then slice by slice, each a short
//! transaction, the window's messages go into `history`, the heads and read positions move up, and at last the
//! chunks are deleted. Wherever this stops, the next run begins the same window again and skips what is merged:
//! readers take a seq from `history` as soon as it is there and from the chunks before.

use std::ops::Range;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{Fault, Result, Store, body, in_transaction, int, store_error, uint};
use crate::domain::{ConversationNo, UserId};
use crate::ports::StoreError;

/// A history row smaller than this is continued by the next merge; larger ones are left alone.
const ROW_CONTINUE_BYTES: usize = 2 * 1024;
/// A history row is ended once it holds this much.
const ROW_END_BYTES: usize = 16 * 1024;
/// Chunks deleted in one transaction.
const DELETE_ROWS: u64 = 2_000;

/// How the merging goes about its work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Most bytes of messages held in memory at a time.
    pub(super) window_bytes: usize,
    /// How long one transaction may keep the writer waiting.
    pub(super) slice: Duration,
    /// Rest between slices, in hundredths of the slice's length.
    pub(super) rest_percent: u32,
}

/// One chunk of the window.
struct Chunk {
    conversation: ConversationNo,
    first_seq: u64,
    count: u64,
    /// Where its body is in the window's bytes.
    body: Range<usize>,
}

/// What is read at a time. All bodies are in one piece of memory, which goes back to the system as one.
#[derive(Default)]
struct Window {
    chunks: Vec<Chunk>,
    bytes: Vec<u8>,
    last_id: u64,
}

/// The chunks of one conversation in a window.
#[derive(Clone, Copy)]
struct Group<'a> {
    no: ConversationNo,
    chunks: &'a [Chunk],
    bytes: &'a [u8],
}

impl<'a> Group<'a> {
    fn body(&self, chunk: &Chunk) -> &'a [u8] {
        &self.bytes[chunk.body.clone()]
    }
}

/// Last own message of each sender, of the conversations merged so far.
type Own = HashMap<(ConversationNo, UserId), u64>;

impl Store {
    /// Merges one window; gives the number of chunks merged. `stop` is asked between slices.
    pub(super) fn merge_window(
        &self,
        merger: &mut Connection,
        pace: Pace,
        stop: &dyn Fn() -> bool,
    ) -> Result<u64> {
        let mut window = read_window(merger, pace.window_bytes).map_err(store_error)?;
        let rows = window.chunks.len() as u64;
        if rows == 0 {
            return Ok(0);
        }
        window.chunks.sort_unstable_by_key(|chunk| (chunk.conversation, chunk.first_seq));
        let mut own = Own::new();
        let mut groups = window.chunks.chunk_by(|a, b| a.conversation == b.conversation).peekable();
        while groups.peek().is_some() {
            self.slice(merger, pace, |tx, until| {
                for chunks in groups.by_ref() {
                    let group = Group { no: chunks[0].conversation, chunks, bytes: &window.bytes };
                    merge_group(tx, group, &mut own)?;
                    if Instant::now() >= until {
                        break;
                    }
                }
                Ok(())
            })?;
            if stop() {
                return Ok(0);
            }
        }
        self.delete_chunks(merger, window.last_id, pace, stop)?;
        let own = own.iter().map(|(&(no, user), &seq)| (no, user, seq));
        self.heads_mut().merged(window.last_id, rows, own);
        Ok(rows)
    }

    fn delete_chunks(
        &self,
        merger: &mut Connection,
        last_id: u64,
        pace: Pace,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        loop {
            let first = merger
                .query_row("SELECT min(id) FROM chunks", [], |row| row.get::<_, Option<i64>>(0));
            let first = first.map_err(store_error)?.map_or(u64::MAX, uint);
            if first > last_id || stop() {
                return Ok(());
            }
            self.slice(merger, pace, |tx, _| {
                // One bound only: with two, SQLite would walk to the farther one.
                let end = last_id.min(first + DELETE_ROWS - 1);
                tx.prepare_cached("DELETE FROM chunks WHERE id <= ?")?.execute([int(end)])?;
                let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES('last_chunk', ?)";
                tx.prepare_cached(sql)?.execute([int(last_id)])?;
                Ok(())
            })?;
        }
    }

    /// One short transaction, between those of the writer; then a rest, so that the writer gets its turn.
    fn slice(
        &self,
        merger: &mut Connection,
        pace: Pace,
        work: impl FnOnce(&Transaction<'_>, Instant) -> Result<(), Fault>,
    ) -> Result<()> {
        let turn = self.writer();
        let begun = Instant::now();
        let done = in_transaction(merger, |tx| work(tx, begun + pace.slice));
        drop(turn);
        let took = begun.elapsed();
        std::thread::sleep(took * pace.rest_percent / 100);
        done.map_err(Fault::into_store_error)
    }
}

fn read_window(connection: &Connection, max_bytes: usize) -> rusqlite::Result<Window> {
    let sql = "SELECT id, conversation, first_seq, count, body FROM chunks ORDER BY id";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query([])?;
    let mut window = Window::default();
    while let Some(row) = rows.next()? {
        let begin = window.bytes.len();
        window.bytes.extend_from_slice(row.get_ref(4)?.as_blob()?);
        window.last_id = uint(row.get(0)?);
        window.chunks.push(Chunk {
            conversation: uint(row.get(1)?),
            first_seq: uint(row.get(2)?),
            count: uint(row.get(3)?),
            body: begin..window.bytes.len(),
        });
        if window.bytes.len() + window.chunks.len() * size_of::<Chunk>() >= max_bytes {
            break;
        }
    }
    Ok(window)
}

/// The newest history row of a conversation.
struct Last {
    first_seq: u64,
    count: u64,
    bytes: usize,
}

/// Merges the window's chunks of one conversation.
fn merge_group(tx: &Transaction<'_>, group: Group<'_>, own: &mut Own) -> Result<(), Fault> {
    let no = group.no;
    let last = last_row(tx, no)?;
    let mut next_seq = last.as_ref().map_or(1, |last| last.first_seq + last.count);
    let begin = group.chunks.partition_point(|chunk| chunk.first_seq < next_seq);
    let mut row = Row::begin(tx, no, last)?;
    let mut senders: HashMap<UserId, u64> = HashMap::new();
    let mut newest = None;
    for chunk in &group.chunks[begin..] {
        if chunk.first_seq != next_seq {
            let text = format!(
                "conversation {no}: merging expects seq {next_seq}, found {}",
                chunk.first_seq
            );
            return Err(StoreError::Corrupt(text).into());
        }
        let body = group.body(chunk);
        for (seq, record) in (chunk.first_seq..).zip(body::records(body)?) {
            let record = record?;
            senders.insert(record.sender, seq);
            newest = Some(record.message_id);
        }
        row.add(tx, chunk.count, body)?;
        next_seq += chunk.count;
    }
    row.end(tx)?;
    if let Some(newest) = newest {
        let sql = "INSERT OR REPLACE INTO heads(conversation, seq, active) VALUES(?, ?, ?)";
        tx.prepare_cached(sql)?.execute([int(no), int(next_seq - 1), int(newest)])?;
        write_own(tx, no, &senders)?;
        own.extend(senders.into_iter().map(|(user, seq)| ((no, user), seq)));
    }
    Ok(())
}

/// Whoever wrote has read up to there.
fn write_own(
    tx: &Transaction<'_>,
    no: ConversationNo,
    senders: &HashMap<UserId, u64>,
) -> rusqlite::Result<()> {
    let sql =
        "UPDATE members SET read_seq = ?3 WHERE conversation = ?1 AND user = ?2 AND read_seq < ?3";
    let mut update = tx.prepare_cached(sql)?;
    senders
        .iter()
        .try_for_each(|(&user, &seq)| update.execute([int(no), int(user), int(seq)]).map(drop))
}

fn last_row(tx: &Transaction<'_>, no: ConversationNo) -> rusqlite::Result<Option<Last>> {
    let sql = "SELECT first_seq, count, length(body) FROM history WHERE conversation = ? \
               ORDER BY first_seq DESC LIMIT 1";
    tx.prepare_cached(sql)?
        .query_row([int(no)], |row| {
            Ok(Last {
                first_seq: uint(row.get(0)?),
                count: uint(row.get(1)?),
                bytes: uint(row.get(2)?) as usize,
            })
        })
        .optional()
}

/// The history row being filled.
struct Row {
    no: ConversationNo,
    first_seq: u64,
    count: u64,
    body: Vec<u8>,
    dirty: bool,
}

impl Row {
    /// Continues the last row if it is small, else begins a new one behind it.
    fn begin(tx: &Transaction<'_>, no: ConversationNo, last: Option<Last>) -> Result<Self, Fault> {
        let mut row = Self { no, first_seq: 1, count: 0, body: Vec::new(), dirty: false };
        body::begin(&mut row.body);
        if let Some(last) = last {
            row.first_seq = last.first_seq + last.count;
            if last.bytes < ROW_CONTINUE_BYTES {
                let sql = "SELECT body FROM history WHERE conversation = ? AND first_seq = ?";
                row.body = tx
                    .prepare_cached(sql)?
                    .query_row([int(no), int(last.first_seq)], |row| row.get(0))?;
                row.first_seq = last.first_seq;
                row.count = last.count;
            }
        }
        Ok(row)
    }

    fn add(&mut self, tx: &Transaction<'_>, count: u64, body: &[u8]) -> Result<(), Fault> {
        body::extend(&mut self.body, body)?;
        self.count += count;
        self.dirty = true;
        if self.body.len() >= ROW_END_BYTES {
            self.write(tx)?;
            self.first_seq += self.count;
            self.count = 0;
            body::begin(&mut self.body);
        }
        Ok(())
    }

    fn end(&mut self, tx: &Transaction<'_>) -> Result<(), Fault> {
        if self.dirty { self.write(tx) } else { Ok(()) }
    }

    fn write(&mut self, tx: &Transaction<'_>) -> Result<(), Fault> {
        self.dirty = false;
        let sql = "INSERT OR REPLACE INTO history(conversation, first_seq, count, body) VALUES(?, ?, ?, ?)";
        let mut insert = tx.prepare_cached(sql)?;
        insert.raw_bind_parameter(1, int(self.no))?;
        insert.raw_bind_parameter(2, int(self.first_seq))?;
        insert.raw_bind_parameter(3, int(self.count))?;
        insert.raw_bind_parameter(4, self.body.as_slice())?;
        insert.raw_execute()?;
        Ok(())
    }
}
