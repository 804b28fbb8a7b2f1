//! Users.

use hashbrown::HashMap;
use mysql::Conn;
use mysql::prelude::Queryable;

use super::error::Fault;
use super::sql::{LIST_MAX, Work, first, rows_in, run_each};
use super::{Result, Store};
use crate::domain::UserId;
use crate::ports::{NewUser, User, UserStore};

impl UserStore for Store {
    fn create_user(&self, new: &NewUser<'_>, now_ms: u64) -> Result<Option<UserId>> {
        self.write(|connection| {
            let sql = "INSERT INTO users(username, nickname, password_hash, created_at_ms) VALUES(?, ?, ?, ?)";
            let values = (new.username, new.nickname, new.password_hash, now_ms);
            match connection.exec_drop(sql, values).map_err(Fault::from) {
                Ok(()) => Ok(Some(connection.last_insert_id())),
                Err(fault) if fault.taken().is_some() => Ok(None),
                Err(fault) => Err(fault),
            }
        })
    }

    fn ensure_users(&self, names: &[&str], now_ms: u64) -> Result<Vec<UserId>> {
        let mut known = self.read(|connection| ids(connection, names))?;
        let mut missing: Vec<&str> =
            names.iter().copied().filter(|name| !known.contains_key(*name)).collect();
        if !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            known.extend(self.write(|connection| {
                insert_missing(connection, &missing, now_ms)?;
                ids(connection, &missing)
            })?);
        }
        let lost = || Fault::corrupt("a user is gone that was just made").into_store_error();
        names.iter().map(|name| known.get(*name).copied().ok_or_else(lost)).collect()
    }

    fn user_by_name(&self, name: &str) -> Result<Option<User>> {
        let sql = "SELECT id, username, nickname, password_hash, token_epoch FROM users WHERE username = ?";
        Ok(self.read(|connection| first(connection, sql, (name,)))?.map(user))
    }

    fn ids_of(&self, names: &[&str]) -> Result<Vec<Option<UserId>>> {
        let known = self.read(|connection| ids(connection, names))?;
        Ok(names.iter().map(|name| known.get(*name).copied()).collect())
    }

    fn user(&self, id: UserId) -> Result<Option<User>> {
        let sql =
            "SELECT id, username, nickname, password_hash, token_epoch FROM users WHERE id = ?";
        Ok(self.read(|connection| first(connection, sql, (id,)))?.map(user))
    }

    fn username(&self, user: UserId) -> Result<Option<String>> {
        let sql = "SELECT username FROM users WHERE id = ?";
        Ok(self.read(|connection| first(connection, sql, (user,)))?.map(|(name,)| name))
    }

    fn names_and_epochs(&self, users: &[UserId]) -> Result<Vec<Option<(String, u64)>>> {
        let select = ("SELECT id, username, token_epoch FROM users WHERE id IN (", ")");
        let found: Vec<(UserId, String, u64)> =
            self.read(|connection| rows_in(connection, select, users, |user| *user))?;
        let found: HashMap<UserId, (String, u64)> =
            found.into_iter().map(|(id, name, epoch)| (id, (name, epoch))).collect();
        Ok(users.iter().map(|user| found.get(user).cloned()).collect())
    }
}

type Row = (UserId, String, String, Option<String>, u64);

fn user((id, username, nickname, password_hash, token_epoch): Row) -> User {
    User { id, username, nickname, password_hash, token_epoch }
}

fn ids(connection: &mut Conn, names: &[&str]) -> Work<HashMap<String, UserId>> {
    let select = ("SELECT username, id FROM users WHERE username IN (", ")");
    let found: Vec<(String, UserId)> = rows_in(connection, select, names, |name| *name)?;
    Ok(found.into_iter().collect())
}

/// Those that others make at the same time stay theirs.
fn insert_missing(connection: &mut Conn, names: &[&str], now_ms: u64) -> Work<()> {
    let statement = (
        "INSERT INTO users(username, nickname, created_at_ms) VALUES",
        " ON DUPLICATE KEY UPDATE id = id",
    );
    run_each(connection, statement, ("(?,?,?)", ","), LIST_MAX, names, |name, into| {
        into.push((*name).into());
        into.push((*name).into());
        into.push(now_ms.into());
    })
}
