//! Records that could not be worked on, kept to be looked at and tried again.

use mysql::prelude::FromRow;
use mysql::{FromRowError, Row, from_row_opt};

use super::sql::{ALTERNATIVES_MAX, first, rows, run_each};
use super::{Result, Store, now_ms};

/// A record to be put aside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDeadLetter<'a> {
    /// Where it came from.
    pub topic: &'a str,
    /// Its partition there.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Why nothing could be done with it; cut to 1,024 characters.
    pub reason: &'a str,
    /// How often it was tried.
    pub attempts: u32,
    /// The record itself.
    pub payload: &'a [u8],
}

/// A record that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Its number.
    pub id: u64,
    /// Where it came from.
    pub topic: String,
    /// Its partition there.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Why nothing could be done with it.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The record itself; empty in lists.
    pub payload: Vec<u8>,
    /// When it was put aside, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was last handed in again, if ever.
    pub replayed_at_ms: Option<u64>,
}

const REASON_MAX_CHARS: usize = 1024;

impl FromRow for DeadLetter {
    fn from_row_opt(row: Row) -> std::result::Result<Self, FromRowError> {
        type Columns = (u64, String, i32, i64, String, u32, Vec<u8>, u64, Option<u64>);
        let (
            id,
            topic,
            partition,
            offset,
            reason,
            attempts,
            payload,
            created_at_ms,
            replayed_at_ms,
        ): Columns = from_row_opt(row)?;
        Ok(Self {
            id,
            topic,
            partition,
            offset,
            reason,
            attempts,
            payload,
            created_at_ms,
            replayed_at_ms,
        })
    }
}

impl Store {
    /// Puts records aside. One that is put aside again (its offset was not committed) replaces its former self.
    pub(crate) fn bury(&self, letters: &[NewDeadLetter<'_>]) -> Result<()> {
        let statement = (
            "INSERT INTO dead_letters(topic, partition_no, offset_no, reason, attempts, payload, created_at_ms) VALUES",
            " ON DUPLICATE KEY UPDATE reason = VALUES(reason), attempts = attempts + VALUES(attempts), \
             payload = VALUES(payload), created_at_ms = VALUES(created_at_ms), replayed_at_ms = NULL",
        );
        let part = ("(?,?,?,?,?,?,?)", ",");
        self.write(|connection| {
            run_each(connection, statement, part, ALTERNATIVES_MAX, letters, |letter, into| {
                let reason: String = letter.reason.chars().take(REASON_MAX_CHARS).collect();
                into.push(letter.topic.into());
                into.push(letter.partition.into());
                into.push(letter.offset.into());
                into.push(reason.into());
                into.push(letter.attempts.into());
                into.push(letter.payload.into());
                into.push(now_ms().into());
            })
        })
    }

    /// Letters with numbers below `before` (`u64::MAX`: from the newest), newest first, without their payloads.
    pub(crate) fn dead_letters(&self, before: u64, limit: u32) -> Result<Vec<DeadLetter>> {
        let sql = "SELECT id, topic, partition_no, offset_no, reason, attempts, '', created_at_ms, replayed_at_ms \
                   FROM dead_letters WHERE id < ? ORDER BY id DESC LIMIT ?";
        self.read(|connection| rows(connection, sql, (before, limit)))
    }

    /// One letter with its payload.
    pub(crate) fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>> {
        let sql = "SELECT id, topic, partition_no, offset_no, reason, attempts, payload, created_at_ms, \
                   replayed_at_ms FROM dead_letters WHERE id = ?";
        self.read(|connection| first(connection, sql, (id,)))
    }

    /// Notes that a letter was handed in again; false if there is no such letter.
    pub(crate) fn mark_replayed(&self, id: u64) -> Result<bool> {
        self.write(|connection| {
            let sql = "SELECT id FROM dead_letters WHERE id = ? FOR UPDATE";
            if first::<(u64,)>(connection, sql, (id,))?.is_none() {
                return Ok(false);
            }
            let sql = "UPDATE dead_letters SET replayed_at_ms = ? WHERE id = ?";
            super::sql::run(connection, sql, (now_ms(), id))?;
            Ok(true)
        })
    }
}
