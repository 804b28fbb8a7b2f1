//! A few connections for reading, lent one at a time.

use std::ops::Deref;
use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::Connection;

use super::{Result, lock};

/// The connections not in use.
pub(super) struct Pool {
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
}

/// A connection on loan; goes back when dropped.
pub(super) struct Reader<'a> {
    pool: &'a Pool,
    /// Some until dropped.
    connection: Option<Connection>,
}

impl Pool {
    pub(super) fn open(count: usize, mut open: impl FnMut() -> Result<Connection>) -> Result<Self> {
        let idle = (0..count).map(|_| open()).collect::<Result<_>>()?;
        Ok(Self { idle: Mutex::new(idle), returned: Condvar::new() })
    }

    /// A connection; waits while all are in use.
    pub(super) fn get(&self) -> Reader<'_> {
        let idle = lock(&self.idle);
        let mut idle = self
            .returned
            .wait_while(idle, |idle| idle.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        Reader { pool: self, connection: idle.pop() }
    }
}

impl Deref for Reader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("a reader has its connection until it is dropped"),
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            lock(&self.pool.idle).push(connection);
            self.pool.returned.notify_one();
        }
    }
}
