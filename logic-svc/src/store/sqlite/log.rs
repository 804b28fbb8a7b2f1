//! The message log as the pipeline sees it.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{
    Fault, Result, Store, body, in_transaction, int, is_unique_violation, store_error, uint,
};
use crate::ports::{Append, AppendError, Found, MessageLog, Run, SendKey, Sent, StoreError};

use super::heads::Heads;

/// The one writer of the log.
pub(crate) struct Log {
    store: Arc<Store>,
    /// Body of the chunk under way; kept to keep its memory.
    body: Vec<u8>,
}

impl Log {
    /// The log of this store. There must be one only; [`Store::open`] keeps other processes out.
    #[must_use]
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, body: Vec::new() }
    }
}

impl MessageLog for Log {
    fn place(&mut self, runs: &mut [Run]) -> Result<()> {
        let heads = self.store.heads();
        for run in runs {
            run.first_seq = heads.get(run.conversation).seq + 1;
        }
        Ok(())
    }

    fn append(&mut self, append: Append<'_>) -> Result<(), AppendError> {
        let Self { store, body } = self;
        let mut writer = store.writer();
        let first_chunk = store.heads().last_chunk() + 1;
        let mut refused = None;
        let done = in_transaction(&mut writer, |tx| {
            write(tx, &append, first_chunk, store, body)
                .inspect_err(|fault| refused = fault.refused())?;
            Ok(())
        });
        store.note(&done);
        match (done, refused) {
            (Ok(()), _) => {
                store.heads_mut().committed(&append, first_chunk);
                Ok(())
            }
            (Err(_), Some(Refused::Sends)) => Err(AppendError::Duplicate),
            (Err(_), Some(Refused::Chunks)) => {
                let heads = Heads::load(&writer)?;
                *store.heads_mut() = heads;
                Err(AppendError::Fenced)
            }
            (Err(fault), None) => Err(fault.into_store_error().into()),
        }
    }

    fn find(&mut self, keys: &[SendKey<'_>]) -> Result<Vec<Option<Found>>> {
        let writer = self.store.writer();
        let found = |sent| Found { sent, body: None };
        keys.iter().map(|key| Ok(find(&writer, key).map_err(store_error)?.map(found))).collect()
    }
}

/// A part of a transaction that failed, with the table it failed on if that was a matter of unique keys.
struct WriteFault {
    fault: Fault,
    table: Refused,
}

#[derive(Clone, Copy)]
enum Refused {
    Sends,
    Chunks,
}

impl WriteFault {
    fn refused(&self) -> Option<Refused> {
        match &self.fault {
            Fault::Sqlite(error) if is_unique_violation(error) => Some(self.table),
            _ => None,
        }
    }
}

impl From<WriteFault> for Fault {
    fn from(fault: WriteFault) -> Self {
        fault.fault
    }
}

fn write(
    tx: &Transaction<'_>,
    append: &Append<'_>,
    first_chunk: u64,
    store: &Store,
    body: &mut Vec<u8>,
) -> Result<(), WriteFault> {
    let in_table = |table| move |fault| WriteFault { fault, table };
    write_chunks(tx, append, first_chunk, store, body).map_err(in_table(Refused::Chunks))?;
    if store.unique_sends {
        write_sends(tx, append.keys).map_err(|error| in_table(Refused::Sends)(error.into()))?;
    }
    Ok(())
}

fn write_chunks(
    tx: &Transaction<'_>,
    append: &Append<'_>,
    first_chunk: u64,
    store: &Store,
    body: &mut Vec<u8>,
) -> Result<(), Fault> {
    let heads = store.heads();
    let sql = "INSERT INTO chunks(id, conversation, first_seq, count, prev, body) VALUES(?, ?, ?, ?, ?, ?)";
    let mut insert = tx.prepare_cached(sql)?;
    for (id, run) in (first_chunk..).zip(append.runs) {
        let head = heads.get(run.conversation);
        if run.first_seq != head.seq + 1 {
            let (no, last) = (run.conversation, head.seq);
            let text = format!("conversation {no}: seq {} would follow {last}", run.first_seq);
            return Err(StoreError::Internal(text).into());
        }
        body::begin(body);
        for message in &append.messages[run.start as usize..][..run.count as usize] {
            body::push(body, message);
        }
        insert.raw_bind_parameter(1, int(id))?;
        insert.raw_bind_parameter(2, int(run.conversation))?;
        insert.raw_bind_parameter(3, int(run.first_seq))?;
        insert.raw_bind_parameter(4, run.count)?;
        insert.raw_bind_parameter(5, int(head.chunk))?;
        insert.raw_bind_parameter(6, body.as_slice())?;
        insert.raw_execute()?;
    }
    Ok(())
}

fn write_sends(tx: &Transaction<'_>, keys: &[SendKey<'_>]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO dedupe(client_msg_id, conversation, sender, seq, message_id) VALUES(?, ?, ?, ?, ?)";
    let mut insert = tx.prepare_cached(sql)?;
    for key in keys {
        insert.raw_bind_parameter(1, key.key.as_bytes())?;
        insert.raw_bind_parameter(2, int(key.conversation))?;
        insert.raw_bind_parameter(3, int(key.sender))?;
        insert.raw_bind_parameter(4, int(key.sent.seq))?;
        insert.raw_bind_parameter(5, int(key.sent.message_id))?;
        insert.raw_execute()?;
    }
    Ok(())
}

fn find(connection: &Connection, key: &SendKey<'_>) -> rusqlite::Result<Option<Sent>> {
    let sql = "SELECT seq, message_id FROM dedupe WHERE client_msg_id = ? AND conversation = ? AND sender = ?";
    connection
        .prepare_cached(sql)?
        .query_row((key.key.as_bytes(), int(key.conversation), int(key.sender)), |row| {
            Ok(Sent { seq: uint(row.get(0)?), message_id: uint(row.get(1)?) })
        })
        .optional()
}
