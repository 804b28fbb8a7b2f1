//! The tables, and how an older database is brought up to date.

use rusqlite::Connection;

use super::{Result, store_error};
use crate::ports::StoreError;

/// Each entry brings the schema one version further; `user_version` counts how many were applied.
const MIGRATIONS: &[&str] = &["
CREATE TABLE meta(key TEXT PRIMARY KEY NOT NULL, value) WITHOUT ROWID;

CREATE TABLE users(
  id INTEGER PRIMARY KEY,
  username TEXT NOT NULL UNIQUE,
  password_hash TEXT,                      -- null: made by dev login, no password
  nickname TEXT NOT NULL,
  avatar_url TEXT,
  token_epoch INTEGER NOT NULL DEFAULT 0,  -- access tokens of older epochs are refused
  created_at_ms INTEGER NOT NULL
);

CREATE TABLE refresh_tokens(
  hash BLOB PRIMARY KEY NOT NULL,          -- SHA-256; the token itself is nowhere
  user INTEGER NOT NULL,
  family INTEGER NOT NULL,                 -- all tokens that descend from one login
  expires_at_ms INTEGER NOT NULL,
  spent INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_user ON refresh_tokens(user, family);

CREATE TABLE conversations(
  id INTEGER PRIMARY KEY,
  conversation_id TEXT NOT NULL UNIQUE,
  type INTEGER NOT NULL,                   -- 1 direct, 2 group
  name TEXT NOT NULL,
  owner INTEGER,
  member_count INTEGER NOT NULL,
  dev_made INTEGER NOT NULL DEFAULT 0,
  created_at_ms INTEGER NOT NULL
);

CREATE TABLE members(
  conversation INTEGER NOT NULL,
  user INTEGER NOT NULL,
  role INTEGER NOT NULL,                   -- 1 owner, 2 admin, 3 member
  joined_seq INTEGER NOT NULL,
  joined_at_ms INTEGER NOT NULL,
  read_seq INTEGER NOT NULL,
  PRIMARY KEY(conversation, user)
) WITHOUT ROWID;
CREATE INDEX members_by_user ON members(user, conversation);

-- The message log. A tick appends one row for each conversation that spoke; ids only grow, so every insert
-- goes to the right edge. prev leads to the conversation's chunk before (0: none, or merged already).
CREATE TABLE chunks(
  id INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  prev INTEGER NOT NULL,
  body BLOB NOT NULL
);

-- Chunks merged in the background, sorted for reading from any cursor.
CREATE TABLE history(
  conversation INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY(conversation, first_seq)
) WITHOUT ROWID;

-- Where each conversation stood when it was last merged; the chunks tell the rest.
CREATE TABLE heads(
  conversation INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  active INTEGER NOT NULL                  -- id of the last message, or one taken at the making
);

-- The arbiter of repeated sends. With UUIDv7 as client ids it grows at its right edge.
CREATE TABLE dedupe(
  client_msg_id BLOB NOT NULL,
  conversation INTEGER NOT NULL,
  sender INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  message_id INTEGER NOT NULL,
  PRIMARY KEY(client_msg_id, conversation, sender)
) WITHOUT ROWID;
"];

/// Brings the database to the newest version; refuses one that a newer program wrote.
pub(super) fn migrate(connection: &Connection) -> Result<()> {
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(store_error)?;
    let applied = usize::try_from(version).unwrap_or(usize::MAX);
    if applied > MIGRATIONS.len() {
        return Err(StoreError::Internal(format!(
            "the database has version {version}, this program knows up to {}",
            MIGRATIONS.len()
        )));
    }
    for (done, step) in MIGRATIONS.iter().enumerate().skip(applied) {
        let sql = format!("BEGIN IMMEDIATE; {step} PRAGMA user_version = {}; COMMIT;", done + 1);
        connection.execute_batch(&sql).map_err(store_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrating_twice_changes_nothing_and_a_newer_database_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection).unwrap();
        migrate(&connection).unwrap();
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(tables, 9);
        connection.execute_batch("PRAGMA user_version = 999").unwrap();
        assert!(matches!(migrate(&connection), Err(StoreError::Internal(_))));
    }
}
