//! Users.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Fault, Result, Store, int, store_error, uint};
use crate::domain::UserId;
use crate::ports::{NewUser, User, UserStore};

impl UserStore for Store {
    fn create_user(&self, new: &NewUser<'_>, now_ms: u64) -> Result<Option<UserId>> {
        self.write(|tx, _| {
            if by_name(tx, new.username)?.is_some() {
                return Ok(None);
            }
            insert(tx, new.username, new.nickname, Some(new.password_hash), now_ms)
                .map_err(Fault::from)
                .map(Some)
        })
    }

    fn ensure_users(&self, names: &[&str], now_ms: u64) -> Result<Vec<UserId>> {
        let find = |reader: &Connection| names.iter().map(|name| id_of(reader, name)).collect();
        let known: Vec<Option<UserId>> = self.read(names.len(), find)?;
        // Mostly everybody is known, and nobody has to wait for the writer.
        if let Some(known) = known.iter().copied().collect() {
            return Ok(known);
        }
        self.write(|tx, _| {
            let both = names.iter().zip(known);
            both.map(|(name, known)| Ok(known.map_or_else(|| ensure(tx, name, now_ms), Ok)?))
                .collect()
        })
    }

    fn user_by_name(&self, name: &str) -> Result<Option<User>> {
        by_name(&self.readers.get(), name).map_err(store_error)
    }

    fn ids_of(&self, names: &[&str]) -> Result<Vec<Option<UserId>>> {
        self.read(names.len(), |reader| names.iter().map(|name| id_of(reader, name)).collect())
    }

    fn user(&self, id: UserId) -> Result<Option<User>> {
        let sql =
            "SELECT id, username, nickname, password_hash, token_epoch FROM users WHERE id = ?";
        let find = |connection: &Connection| {
            connection.prepare_cached(sql)?.query_row([int(id)], user).optional()
        };
        find(&self.readers.get()).map_err(store_error)
    }

    fn names_and_epochs(&self, ids: &[UserId]) -> Result<Vec<Option<(String, u64)>>> {
        let sql = "SELECT username, token_epoch FROM users WHERE id = ?";
        self.read(ids.len(), |reader| {
            let mut statement = reader.prepare_cached(sql)?;
            let row = |row: &Row<'_>| Ok((row.get(0)?, uint(row.get(1)?)));
            ids.iter().map(|id| statement.query_row([int(*id)], row).optional()).collect()
        })
    }

    fn username(&self, user: UserId) -> Result<Option<String>> {
        let reader = self.readers.get();
        let sql = "SELECT username FROM users WHERE id = ?";
        let mut select = reader.prepare_cached(sql).map_err(store_error)?;
        select.query_row([int(user)], |row| row.get(0)).optional().map_err(store_error)
    }
}

impl Store {
    /// Makes `lookups` look-ups on a connection for reading: several of them in one transaction, or each would
    /// lock and unlock the file for itself.
    pub(super) fn read<T>(
        &self,
        lookups: usize,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let reader = self.readers.get();
        let transaction = (lookups > 1).then(|| reader.unchecked_transaction()).transpose();
        let _transaction = transaction.map_err(store_error)?;
        work(&reader).map_err(store_error)
    }
}

/// What the index of names alone can tell.
fn id_of(connection: &Connection, name: &str) -> rusqlite::Result<Option<UserId>> {
    let mut statement = connection.prepare_cached("SELECT id FROM users WHERE username = ?")?;
    statement.query_row([name], |row| row.get(0).map(uint)).optional()
}

fn by_name(connection: &Connection, name: &str) -> rusqlite::Result<Option<User>> {
    let sql =
        "SELECT id, username, nickname, password_hash, token_epoch FROM users WHERE username = ?";
    connection.prepare_cached(sql)?.query_row([name], user).optional()
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: uint(row.get(0)?),
        username: row.get(1)?,
        nickname: row.get(2)?,
        password_hash: row.get(3)?,
        token_epoch: uint(row.get(4)?),
    })
}

fn ensure(tx: &Transaction<'_>, name: &str, now_ms: u64) -> rusqlite::Result<UserId> {
    match id_of(tx, name)? {
        Some(user) => Ok(user),
        None => insert(tx, name, name, None, now_ms),
    }
}

fn insert(
    tx: &Transaction<'_>,
    username: &str,
    nickname: &str,
    password_hash: Option<&str>,
    now_ms: u64,
) -> rusqlite::Result<UserId> {
    let sql =
        "INSERT INTO users(username, nickname, password_hash, created_at_ms) VALUES(?, ?, ?, ?)";
    tx.prepare_cached(sql)?.execute(params![username, nickname, password_hash, int(now_ms)])?;
    Ok(uint(tx.last_insert_rowid()))
}
