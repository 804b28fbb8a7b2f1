//! The message log as the pipeline sees it: one transaction a tick, multi-row inserts prepared once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use mysql::prelude::Queryable;
use mysql::{Opts, OptsBuilder, Params, Statement, Value};

use super::error::{Fault, Taken};
use super::heads::Heads;
use super::pool::{DEADLOCK_RETRIES, Link, after_deadlock, roll_back};
use super::sql::{ALTERNATIVES_MAX, Work, repeat, rows_in, rows_of_each};
use super::{Result, Store};
use crate::domain::ConversationNo;
use crate::ports::{
    Append, AppendError, Body, Found, MessageLog, NewMessage, Run, SendKey, Sent, StoreError,
};

/// Most heads kept in memory: about 40 bytes each.
const HEADS_MAX: usize = 1 << 20;
/// Places that were taken longer ago are not written to: the rows whose primary keys tell that others went on meanwhile
/// may have been deleted. Far below the hour that [retention](super::retention) leaves every message.
const PLACES_HOLD: Duration = Duration::from_secs(300);
/// Row counts of the inserts that are prepared: these, and every number below the last. A tick of so few is one
/// statement and a transaction by itself; one that needs two statements takes four round trips.
const SIZES: [usize; 3] = [512, 256, 128];
/// Statements that the connection keeps: every size of an insert, and what finds messages and heads, with room to
/// spare. A statement that had to leave would be gone from the server while it is still known here.
const STATEMENTS: usize = 256;
/// Most bytes of content in one statement; servers take 4 MiB packets at the least by default.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// The log of this process. Other processes may have theirs: the primary key tells who was first.
pub(crate) struct Log {
    store: Arc<Store>,
    writer: Writer,
    heads: Heads,
    /// When places were taken last; what is in memory is of then at the latest.
    placed: Instant,
    places_hold: Duration,
}

/// A connection of its own, so that a tick never waits for one.
struct Writer {
    opts: Opts,
    open: Option<Open>,
}

struct Open {
    link: Link,
    /// Prepared inserts by their number of rows.
    inserts: HashMap<usize, Statement>,
}

/// One row to be.
struct Row<'a> {
    conversation: ConversationNo,
    seq: u64,
    message: &'a NewMessage<'a>,
}

impl Log {
    /// A log on this store.
    #[must_use]
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let opts = OptsBuilder::from_opts(store.opts.clone()).stmt_cache_size(STATEMENTS).into();
        let writer = Writer { opts, open: None };
        let (heads, placed) = (Heads::new(HEADS_MAX), Instant::now());
        Self { store, writer, heads, placed, places_hold: PLACES_HOLD }
    }

    /// The same, with places that hold for so long.
    #[cfg(test)]
    pub(crate) fn holding(self, places_hold: Duration) -> Self {
        Self { places_hold, ..self }
    }

    /// Whether this process stood still, so that what it remembers is not to be relied on.
    fn stood_still(&self) -> bool {
        self.placed.elapsed() > self.places_hold
    }

    fn load_heads(&mut self, conversations: &[ConversationNo]) -> Work<()> {
        let select = (
            "SELECT c.id, COALESCE((SELECT m.seq FROM messages m WHERE m.conversation = c.id \
             ORDER BY m.seq DESC LIMIT 1), 0) FROM conversations c WHERE c.id IN (",
            ")",
        );
        let found: Vec<(ConversationNo, u64)> = self
            .writer
            .repeat(|open| rows_in(&mut open.link.connection, select, conversations, |no| *no))?;
        for no in conversations {
            self.heads.set(*no, 0);
        }
        for (no, seq) in found {
            self.heads.set(no, seq);
        }
        Ok(())
    }

    /// Whether every run follows on what is known here.
    fn check(&mut self, append: &Append<'_>) -> Result<(), AppendError> {
        for run in append.runs {
            let no = run.conversation;
            match self.heads.get(no) {
                None => return Err(AppendError::Fenced),
                Some(last) if run.first_seq != last + 1 => {
                    let text =
                        format!("conversation {no}: seq {} would follow {last}", run.first_seq);
                    return Err(StoreError::Internal(text).into());
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn forget_heads(&mut self, runs: &[Run]) {
        runs.iter().for_each(|run| self.heads.forget(run.conversation));
    }
}

impl MessageLog for Log {
    fn place(&mut self, runs: &mut [Run]) -> Result<()> {
        if self.stood_still() {
            self.heads.clear();
        }
        self.placed = Instant::now();
        self.heads.age();
        let unknown: Vec<ConversationNo> = runs
            .iter()
            .map(|run| run.conversation)
            .filter(|no| self.heads.get(*no).is_none())
            .collect();
        if !unknown.is_empty() {
            self.load_heads(&unknown).map_err(Fault::into_store_error)?;
        }
        for run in runs {
            run.first_seq = self.heads.get(run.conversation).unwrap_or(0) + 1;
        }
        Ok(())
    }

    fn append(&mut self, append: Append<'_>) -> Result<(), AppendError> {
        if self.stood_still() {
            // Taking places again asks where conversations end.
            return Err(AppendError::Fenced);
        }
        self.check(&append)?;
        let rows = lay_out(&append);
        let mut done = self.writer.insert(&rows);
        for lost in 0..DEADLOCK_RETRIES {
            if !done.as_ref().is_err_and(Fault::is_deadlock) {
                break;
            }
            after_deadlock(lost);
            done = self.writer.insert(&rows);
        }
        self.store.note(&done);
        let Err(fault) = done else {
            for run in append.runs {
                self.heads.set(run.conversation, run.first_seq + u64::from(run.count) - 1);
            }
            return Ok(());
        };
        match fault.taken() {
            Some(Taken::Other) => Err(AppendError::Duplicate),
            Some(Taken::Primary) => {
                self.forget_heads(append.runs);
                Err(AppendError::Fenced)
            }
            // The connection may have been lost while the commit was under way: what became of it is looked up
            // when the tick is repeated.
            None => {
                self.forget_heads(append.runs);
                Err(fault.into_store_error().into())
            }
        }
    }

    fn find(&mut self, keys: &[SendKey<'_>]) -> Result<Vec<Option<Found>>> {
        let select = (
            "SELECT client_msg_id, conversation, sender_id, seq, message_id, kind, content FROM messages WHERE ",
            "",
        );
        let part = ("(client_msg_id = ? AND conversation = ? AND sender_id = ?)", " OR ");
        type Stored = (Vec<u8>, u64, u64, u64, u64, u32, Vec<u8>);
        let stored: Vec<Stored> = self
            .writer
            .repeat(|open| {
                let connection = &mut open.link.connection;
                rows_of_each(connection, select, part, ALTERNATIVES_MAX, keys, |key, into| {
                    into.push(key.key.as_bytes().into());
                    into.push(key.conversation.into());
                    into.push(key.sender.into());
                })
            })
            .map_err(Fault::into_store_error)?;
        let mut found = HashMap::with_capacity(stored.len());
        for (key, conversation, sender, seq, message_id, msg_type, content) in stored {
            let body = Some(Body { msg_type, content: content.into() });
            let sent = Sent { seq, message_id };
            found.insert((key, conversation, sender), Found { sent, body });
        }
        let find = |key: &SendKey<'_>| {
            found.get(&(key.key.as_bytes().to_vec(), key.conversation, key.sender)).cloned()
        };
        Ok(keys.iter().map(find).collect())
    }

    fn forget(&mut self) {
        self.heads.clear();
    }
}

impl Writer {
    fn open(&mut self) -> Work<()> {
        if self.open.as_mut().is_some_and(|open| !open.link.works()) {
            self.open = None;
        }
        if self.open.is_none() {
            let link = Link::open(&self.opts)?;
            self.open = Some(Open { link, inserts: HashMap::new() });
        }
        Ok(())
    }

    /// Does `work` on the connection, which is thrown away if it breaks.
    fn once<T>(&mut self, mut work: impl FnMut(&mut Open) -> Work<T>) -> Work<T> {
        self.open()?;
        // Out while it works: after a panic nobody knows what is under way on it, perhaps a transaction that would
        // swallow what comes next.
        let Some(mut open) = self.open.take() else {
            return Err(StoreError::Internal("no connection".to_owned()).into());
        };
        let done = work(&mut open);
        if !done.as_ref().is_err_and(Fault::ends_connection) {
            open.link.worked();
            self.open = Some(open);
        }
        done
    }

    /// Does what changes nothing; once more on a new connection if the old one is gone.
    fn repeat<T>(&mut self, mut work: impl FnMut(&mut Open) -> Work<T>) -> Work<T> {
        match self.once(&mut work) {
            Err(fault) if fault.ends_connection() && !fault.is_timeout() => self.once(work),
            done => done,
        }
    }

    /// Stores all rows or none.
    fn insert(&mut self, rows: &[Row<'_>]) -> Work<()> {
        let pieces = pieces(rows);
        self.once(|open| match pieces.as_slice() {
            [] => Ok(()),
            // One statement is a transaction by itself.
            [rows] => open.insert(rows),
            _ => open.insert_together(&pieces),
        })
    }
}

impl Open {
    fn insert_together(&mut self, pieces: &[&[Row<'_>]]) -> Work<()> {
        self.link.connection.query_drop("START TRANSACTION")?;
        for rows in pieces {
            if let Err(fault) = self.insert(rows) {
                return Err(roll_back(&mut self.link.connection, fault));
            }
        }
        match self.link.connection.query_drop("COMMIT") {
            Ok(()) => Ok(()),
            // Not to be left open: the next statements would be part of it.
            Err(error) => Err(roll_back(&mut self.link.connection, error.into())),
        }
    }

    fn insert(&mut self, rows: &[Row<'_>]) -> Work<()> {
        let connection = &mut self.link.connection;
        let insert = match self.inserts.get(&rows.len()) {
            Some(insert) => insert,
            None => {
                let prepared = connection.prep(insert_sql(rows.len()))?;
                self.inserts.entry(rows.len()).or_insert(prepared)
            }
        };
        let mut values = Vec::with_capacity(rows.len() * COLUMNS);
        for Row { conversation, seq, message } in rows {
            values.push(Value::UInt(*conversation));
            values.push(Value::UInt(*seq));
            values.push(Value::UInt(message.message_id));
            values.push(Value::UInt(message.sender));
            values.push(Value::Bytes(message.key.as_bytes().to_vec()));
            values.push(Value::UInt(message.msg_type.into()));
            values.push(Value::Bytes(message.content.to_vec()));
        }
        Ok(connection.exec_drop(insert, Params::Positional(values))?)
    }
}

const COLUMNS: usize = 7;

fn insert_sql(rows: usize) -> String {
    let values = repeat("(?,?,?,?,?,?,?)", ",", rows);
    format!(
        "INSERT INTO messages(conversation, seq, message_id, sender_id, client_msg_id, kind, content) VALUES{values}"
    )
}

fn lay_out<'a>(append: &Append<'a>) -> Vec<Row<'a>> {
    let mut rows = Vec::with_capacity(append.messages.len());
    for run in append.runs {
        let messages = &append.messages[run.start as usize..][..run.count as usize];
        rows.extend((run.first_seq..).zip(messages).map(|(seq, message)| Row {
            conversation: run.conversation,
            seq,
            message,
        }));
    }
    rows
}

/// Cuts rows into pieces of the sizes that are prepared.
fn pieces<'r, 'a>(mut rows: &'r [Row<'a>]) -> Vec<&'r [Row<'a>]> {
    let mut pieces = Vec::new();
    while !rows.is_empty() {
        let mut size = piece_size(rows.len());
        while size > 1 && bytes(&rows[..size]) > STATEMENT_BYTES_MAX {
            size = piece_size(size / 2);
        }
        let (piece, rest) = rows.split_at(size);
        pieces.push(piece);
        rows = rest;
    }
    pieces
}

fn piece_size(rows: usize) -> usize {
    SIZES.into_iter().find(|&size| size <= rows).unwrap_or(rows)
}

fn bytes(rows: &[Row<'_>]) -> usize {
    rows.iter().map(|row| row.message.content.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::sql::LIST_MAX;
    use super::*;
    use crate::domain::message::ClientKey;

    /// The sizes of the statements that store so many messages with so much content each.
    fn sizes(count: usize, content: &[u8]) -> Vec<usize> {
        let key = ClientKey::parse("m").unwrap();
        let message = NewMessage { message_id: 1, sender: 1, msg_type: 1, key: &key, content };
        let rows: Vec<Row<'_>> =
            (1..=count as u64).map(|seq| Row { conversation: 1, seq, message: &message }).collect();
        pieces(&rows).into_iter().map(<[_]>::len).collect()
    }

    #[test]
    fn a_tick_of_up_to_128_messages_is_one_statement() {
        for count in 1..=128 {
            assert_eq!(sizes(count, b"x"), [count]);
        }
        assert_eq!(sizes(0, b"x"), [0; 0]);
        assert_eq!(sizes(129, b"x"), [128, 1]);
        assert_eq!(sizes(1000, b"x"), [512, 256, 128, 104]);
    }

    #[test]
    fn a_statement_is_no_larger_than_servers_take() {
        let large = vec![0; STATEMENT_BYTES_MAX / 4];
        assert_eq!(sizes(10, &large), [2, 4, 4]);
    }

    #[test]
    fn statements_that_are_prepared_stay() {
        let inserts = SIZES.len() + SIZES[SIZES.len() - 1] - 1;
        // Those that find messages and heads are of powers of two.
        let others = (ALTERNATIVES_MAX.ilog2() + 1 + LIST_MAX.ilog2() + 1) as usize;
        assert!(inserts + others < STATEMENTS, "{inserts} and {others}");
    }
}
