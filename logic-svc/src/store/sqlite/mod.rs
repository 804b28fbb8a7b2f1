//! The embedded store: one SQLite database in WAL mode.
//!
//! One connection writes (shared by the pipeline and the rare changes of conversations and users, one transaction
//! at a time), one merges old chunks of the message log in the background, one copies the write-ahead log back,
//! and a few read.

mod body;
mod conversations;
mod heads;
mod history;
mod listing;
mod log;
mod maintenance;
mod members;
mod merge;
mod pool;
mod schema;
mod sessions;
mod users;
mod wal_ahead;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::ports::{Backend, Change, StoreError};
use heads::Heads;
use pool::Pool;

pub(crate) use log::Log;
pub(crate) use maintenance::{Maintenance, MergeLimits};
pub(crate) use members::Directory;

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// How long a connection waits for another's lock. Inside this process locks are taken in turn, so this is met
/// only when another program reads the database file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a good write vouches for the next one.
const WRITE_PROOF: Duration = Duration::from_secs(10);

/// The store; one for a process, shared by all its threads.
pub(crate) struct Store {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Pool,
    heads: RwLock<Heads>,
    changes: Mutex<Vec<Change>>,
    has_changes: AtomicBool,
    health: Health,
    unique_sends: bool,
    _lock: File,
}

/// Whether writes work.
#[derive(Default)]
struct Health {
    failing: AtomicBool,
    last_good: Mutex<Option<Instant>>,
    commits: AtomicU64,
}

/// What `Store::open` is told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The database file.
    pub path: PathBuf,
    /// Connections for reading.
    pub read_connections: usize,
    /// Bytes of the write-ahead log kept on disk after it was copied back.
    pub wal_bytes: u64,
    /// Off only in control runs: whether the index of sends refuses repeated ones.
    pub unique_sends: bool,
}

impl Store {
    /// Opens the database, brings its schema up to date and rebuilds what is kept in memory.
    pub(crate) fn open(options: &Options) -> Result<Arc<Self>> {
        let lock = lock_file(&options.path)?;
        let writer = connect(&options.path)?;
        writer.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; \
             PRAGMA cache_size = -1000; PRAGMA journal_size_limit = {};",
            options.wal_bytes
        ))
        .map_err(store_error)?;
        schema::migrate(&writer)?;
        let heads = Heads::load(&writer)?;
        let readers =
            Pool::open(options.read_connections.max(1), || connect_read_only(&options.path))?;
        Ok(Arc::new(Self {
            path: options.path.clone(),
            writer: Mutex::new(writer),
            readers,
            heads: RwLock::new(heads),
            changes: Mutex::default(),
            has_changes: AtomicBool::new(false),
            health: Health::default(),
            unique_sends: options.unique_sends,
            _lock: lock,
        }))
    }

    /// Runs one transaction on the writing connection. `work` may be given up at any point: then nothing of it stays.
    /// Changes pushed to its second argument are seen by the pipeline after the commit.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &mut Vec<Change>) -> Result<T, Fault>,
    ) -> Result<T> {
        let mut writer = self.writer();
        let mut changes = Vec::new();
        let done = in_transaction(&mut writer, |tx| work(tx, &mut changes));
        self.note(&done);
        let done = done.map_err(Fault::into_store_error)?;
        if !changes.is_empty() {
            lock(&self.changes).append(&mut changes);
            self.has_changes.store(true, Ordering::Release);
        }
        // Held until here, so that changes are queued in the order of their commits.
        drop(writer);
        Ok(done)
    }

    /// Remembers whether a write went well.
    fn note<T>(&self, done: &Result<T, Fault>) {
        match done {
            Ok(_) => {
                self.health.failing.store(false, Ordering::Relaxed);
                self.health.commits.fetch_add(1, Ordering::Relaxed);
                *lock(&self.health.last_good) = Some(Instant::now());
            }
            Err(fault) if fault.stops_writes() => {
                self.health.failing.store(true, Ordering::Relaxed)
            }
            Err(_) => {}
        }
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        lock(&self.writer)
    }

    fn heads(&self) -> RwLockReadGuard<'_, Heads> {
        self.heads.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn heads_mut(&self) -> RwLockWriteGuard<'_, Heads> {
        self.heads.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Store {
    fn can_write(&self) -> bool {
        let fresh = lock(&self.health.last_good).is_some_and(|at| at.elapsed() < WRITE_PROOF);
        if fresh && !self.health.failing.load(Ordering::Relaxed) {
            return true;
        }
        let proof = self.write(|tx, _| {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO meta(key, value) VALUES('write_proof', random())",
            )?
            .execute([])?;
            Ok(())
        });
        proof.is_ok()
    }
}

/// One transaction that writes; rolled back unless `work` and the commit succeed.
fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&tx)?;
    tx.commit()?;
    Ok(done)
}

/// What ends a transaction early.
#[derive(Debug)]
enum Fault {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    fn into_store_error(self) -> StoreError {
        match self {
            Self::Sqlite(error) => store_error(error),
            Self::Store(error) => error,
        }
    }

    /// Whether later writes will most likely fail too.
    fn stops_writes(&self) -> bool {
        use ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::Sqlite(error) => {
                let damaged =
                    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase));
                damaged || is_unavailable(error)
            }
            Self::Store(error) => !matches!(error, StoreError::Internal(_)),
        }
    }
}

fn is_unavailable(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, ReadOnly, SystemIoFailure,
    };
    let passing = [
        DiskFull,
        SystemIoFailure,
        DatabaseBusy,
        DatabaseLocked,
        OutOfMemory,
        ReadOnly,
        CannotOpen,
    ];
    error.sqlite_error_code().is_some_and(|code| passing.contains(&code))
}

// By value, so that it fits `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn store_error(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        _ if is_unavailable(&error) => StoreError::Unavailable(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(text),
        _ => StoreError::Internal(text),
    }
}

fn is_unique_violation(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    let code = error.sqlite_error().map(|error| error.extended_code);
    code == Some(SQLITE_CONSTRAINT_PRIMARYKEY) || code == Some(SQLITE_CONSTRAINT_UNIQUE)
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).map_err(store_error)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(store_error)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn connect_read_only(path: &Path) -> Result<Connection> {
    let connection = connect(path)?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -512;")
        .map_err(store_error)?;
    Ok(connection)
}

/// Keeps a second process off the database: two writers would each believe in their own heads.
fn lock_file(database: &Path) -> Result<File> {
    let path = database.with_extension("lock");
    let shown = path.display();
    let file = File::create(&path)
        .map_err(|error| StoreError::Unavailable(format!("{shown}: {error}")))?;
    file.try_lock()
        .map_err(|_| StoreError::Unavailable(format!("{shown} is held by another process")))?;
    Ok(file)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number as SQLite keeps it. Ids and sequence numbers stay far below 2^63; a cursor from outside may not.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number read back; negative ones do not occur.
fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
