//! Records that could not be worked on, kept to be looked at and tried again.

use proto::v1::DeadLetter;

use super::sql::{first, rows, run};
use super::{Result, Store, now_ms};
use crate::ports::{DeadLetters, NewDeadLetter, StoreError};

const REASON_MAX_CHARS: usize = 1024;

/// Id, topic, partition, offset, reason, attempts, payload, when it was kept and replayed.
type Columns = (u64, String, i32, i64, String, u32, Vec<u8>, u64, Option<u64>);

impl DeadLetters for Store {
    fn keep(&self, letter: &NewDeadLetter<'_>) -> Result<()> {
        let NewDeadLetter { topic, partition, offset, reason, attempts, payload } = *letter;
        let out_of_range = |what: &str| StoreError::Internal(format!("{what} is out of range"));
        let partition = i32::try_from(partition).map_err(|_| out_of_range("partition"))?;
        let offset = i64::try_from(offset).map_err(|_| out_of_range("offset"))?;
        let reason: String = reason.chars().take(REASON_MAX_CHARS).collect();
        let sql = "INSERT INTO dead_letters(topic, partition_no, offset_no, reason, attempts, payload, created_at_ms) \
                   VALUES (?,?,?,?,?,?,?) \
                   ON DUPLICATE KEY UPDATE reason = VALUES(reason), attempts = attempts + VALUES(attempts), \
                   payload = VALUES(payload), created_at_ms = VALUES(created_at_ms), replayed_at_ms = NULL";
        self.write(|connection| {
            let values = (topic, partition, offset, reason.as_str(), attempts, payload, now_ms());
            run(connection, sql, values)
        })
    }

    fn page(&self, below: u64, limit: u32) -> Result<Vec<DeadLetter>> {
        let below = if below == 0 { u64::MAX } else { below };
        let sql = "SELECT id, topic, partition_no, offset_no, reason, attempts, '', created_at_ms, replayed_at_ms \
                   FROM dead_letters WHERE id < ? ORDER BY id DESC LIMIT ?";
        let found: Vec<Columns> = self.read(|connection| rows(connection, sql, (below, limit)))?;
        Ok(found.into_iter().map(letter).collect())
    }

    fn get(&self, id: u64) -> Result<Option<DeadLetter>> {
        let sql = "SELECT id, topic, partition_no, offset_no, reason, attempts, payload, created_at_ms, \
                   replayed_at_ms FROM dead_letters WHERE id = ?";
        let found: Option<Columns> = self.read(|connection| first(connection, sql, (id,)))?;
        Ok(found.map(letter))
    }

    fn replayed(&self, id: u64) -> Result<()> {
        let sql = "UPDATE dead_letters SET replayed_at_ms = ? WHERE id = ?";
        self.write(|connection| run(connection, sql, (now_ms(), id)))
    }
}

fn letter(columns: Columns) -> DeadLetter {
    let (id, topic, partition, offset, reason, attempts, payload, created_at_ms, replayed) =
        columns;
    DeadLetter {
        id,
        topic,
        partition: u32::try_from(partition).unwrap_or(0),
        offset: u64::try_from(offset).unwrap_or(0),
        reason,
        attempts,
        created_at_ms,
        replayed_at_ms: replayed.unwrap_or(0),
        payload: payload.into(),
    }
}
