//! The store of the cluster form: MySQL 8 or MariaDB, shared by any number of services.
//!
//! Nothing is believed without being told or asking: heads of conversations are fenced by the primary key of
//! `messages`; who changes members tells the reader of the partition before anybody is answered, and a version that each
//! conversation counts says what changed. All statements are of many rows.

mod conversations;
mod crowds;
mod error;
mod fanout;
mod heads;
mod history;
mod letters;
mod log;
mod making;
mod members;
mod pool;
mod retention;
mod schema;
mod sessions;
mod sql;
mod users;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mysql::{Conn, Opts};

use crate::domain::UserId;
use crate::ports::{Backend, StoreError, Tip};
use error::Fault;
use pool::Pool;
use sql::Work;

pub(crate) use log::Log;
pub(crate) use members::Directory;

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// How long a good write vouches for the next one.
const WRITE_PROOF: Duration = Duration::from_secs(10);

/// What [`Store::open`] is told.
#[derive(Clone)]
pub(crate) struct Options {
    /// `mysql://user:password@host:port`; a database named there is not looked at.
    pub url: String,
    /// The database; made if it is missing and the user may.
    pub database: String,
    /// Most connections for reading.
    pub read_connections: usize,
    /// Most connections for the rare changes; the log of messages has one of its own besides.
    pub write_connections: usize,
    /// How long one statement may take, and how long a free connection is waited for.
    pub statement_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Control run: whether the unique key of sends is there. Off only to show what happens without it.
    #[cfg(feature = "fault-injection")]
    pub unique_sends: bool,
}

impl Options {
    /// The usual settings for a database.
    pub(crate) fn new(url: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            database: database.into(),
            read_connections: 4,
            write_connections: 2,
            statement_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            #[cfg(feature = "fault-injection")]
            unique_sends: true,
        }
    }
}

// The URL holds a password.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("database", &self.database).finish_non_exhaustive()
    }
}

/// The store; one for a process, shared by all its threads.
pub(crate) struct Store {
    opts: Opts,
    wait: Duration,
    readers: Pool,
    writers: Pool,
    health: Health,
}

/// Whether writes work.
#[derive(Default)]
struct Health {
    failing: AtomicBool,
    last_good: Mutex<Option<Instant>>,
}

impl Store {
    /// Connects, makes what is missing and brings the schema up to date; several services may do so at once.
    pub(crate) fn open(options: &Options) -> Result<Arc<Self>> {
        let opts = pool::connect_options(options)?;
        let mut connection = schema::open_database(&opts, &options.database)?;
        schema::migrate(&mut connection, &opts).map_err(Fault::into_store_error)?;
        #[cfg(feature = "fault-injection")]
        if !options.unique_sends {
            schema::allow_repeated_sends(&mut connection).map_err(Fault::into_store_error)?;
        }
        drop(connection);
        let wait = options.statement_timeout;
        Ok(Arc::new(Self {
            readers: Pool::new(opts.clone(), options.read_connections, wait),
            writers: Pool::new(opts.clone(), options.write_connections, wait),
            opts,
            wait,
            health: Health::default(),
        }))
    }

    fn read<T>(&self, work: impl FnMut(&mut Conn) -> Work<T>) -> Result<T> {
        self.readers.run(work).map_err(Fault::into_store_error)
    }

    /// Does `work` in one transaction; it may be done more than once, so it must begin anew each time.
    fn write<T>(&self, work: impl FnMut(&mut Conn) -> Work<T>) -> Result<T> {
        let done = self.writers.transaction(work);
        self.note(&done);
        done.map_err(Fault::into_store_error)
    }

    /// Remembers whether a write went well.
    fn note<T>(&self, done: &Work<T>) {
        match done {
            Ok(_) => {
                self.health.failing.store(false, Ordering::Relaxed);
                let mut last = self.health.last_good.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some(Instant::now());
            }
            Err(fault) if fault.stops_writes() => {
                self.health.failing.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }
}

impl Backend for Store {
    fn can_write(&self) -> bool {
        let last = *self.health.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = last.is_some_and(|at| at.elapsed() < WRITE_PROOF);
        if fresh && !self.health.failing.load(Ordering::Relaxed) {
            return true;
        }
        let proof = "INSERT INTO meta(name, value) VALUES('write_proof', ?) \
                     ON DUPLICATE KEY UPDATE value = VALUES(value)";
        self.write(|connection| sql::run(connection, proof, (now_ms(),))).is_ok()
    }

    fn tips(&self, ids: &[&str], user: UserId) -> Result<Vec<Option<Tip>>> {
        self.read(|connection| history::tips(connection, ids, user))
    }
}

/// The time of day in milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
