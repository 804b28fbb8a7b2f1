//! Background work on the database: copying the write-ahead log back, merging old chunks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::merge::Pace;
use super::wal_ahead::{PAGE_BYTES, WalAhead};
use super::{Result, Store, connect, lock, store_error};
use crate::ports::StoreError;

/// How often the thread looks for work.
const PERIOD: Duration = Duration::from_millis(100);
/// After so long without a merge a small backlog is merged too.
const TIDY_AFTER: Duration = Duration::from_secs(30);
/// After an error, the rest before the next try.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// Commits a second from which the writer counts as busy.
const BUSY_COMMITS_PER_S: u64 = 20;
/// Pages of the write-ahead log below which the copying back is finished while the writer waits.
const FINISH_PAGES: i64 = 256;

/// When to merge and when to copy back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MergeLimits {
    /// Chunks that wait at which an idle moment is used for merging.
    pub backlog_rows: u64,
    /// Chunks that wait at which merging no longer gives way to traffic.
    pub hard_rows: u64,
    /// Bytes of the write-ahead log at which it is copied back.
    pub wal_bytes: u64,
}

/// The threads that do it.
pub(crate) struct Maintenance {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    lock: Mutex<()>,
    woken: Condvar,
}

impl Stop {
    fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn sleep(&self, time: Duration) {
        let guard = lock(&self.lock);
        if !self.asked() {
            drop(self.woken.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Maintenance {
    /// Starts the threads: one merges, one copies the write-ahead log back, so that neither waits for the other.
    pub(crate) fn start(store: Arc<Store>, limits: MergeLimits) -> Result<Self> {
        let mut merger = Merger::new(Arc::clone(&store), limits)?;
        let mut checkpointer = Checkpointer::new(store, limits.wal_bytes)?;
        let mut maintenance = Self { stop: Arc::default(), threads: Vec::new() };
        maintenance.spawn("store-merge", move |stop| merger.round(stop))?;
        maintenance.spawn("store-wal", move |_| checkpointer.round())?;
        Ok(maintenance)
    }

    fn spawn(
        &mut self,
        name: &str,
        mut round: impl FnMut(&Stop) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let stop = Arc::clone(&self.stop);
        let run = move || {
            while !stop.asked() {
                let done = round(&stop);
                if let Err(error) = &done {
                    tracing::warn!(%error, "upkeep of the store failed; it will be tried again");
                }
                stop.sleep(if done.is_ok() { PERIOD } else { AFTER_ERROR });
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread =
            thread.map_err(|error| StoreError::Unavailable(format!("no thread: {error}")))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends the threads after their current step.
    pub(crate) fn stop(&mut self) {
        self.stop.asked.store(true, Ordering::Relaxed);
        drop(lock(&self.stop.lock));
        self.stop.woken.notify_all();
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Merges old chunks.
struct Merger {
    store: Arc<Store>,
    limits: MergeLimits,
    connection: Connection,
    last_merge: Instant,
    last_look: Instant,
    last_commits: u64,
}

impl Merger {
    fn new(store: Arc<Store>, limits: MergeLimits) -> Result<Self> {
        let connection = store.merger()?;
        let now = Instant::now();
        Ok(Self { store, limits, connection, last_merge: now, last_look: now, last_commits: 0 })
    }

    fn round(&mut self, stop: &Stop) -> Result<()> {
        let busy = self.busy();
        if let Some(pace) = self.pace(busy) {
            self.store.merge_window(&mut self.connection, pace, &|| stop.asked())?;
            self.last_merge = Instant::now();
        }
        Ok(())
    }

    /// Whether the writer had much to do since the last look.
    fn busy(&mut self) -> bool {
        let commits = self.store.health.commits.load(Ordering::Relaxed);
        let per_s = (commits - self.last_commits) as f64
            / self.last_look.elapsed().as_secs_f64().max(0.001);
        self.last_look = Instant::now();
        self.last_commits = commits;
        per_s > BUSY_COMMITS_PER_S as f64
    }

    /// How to merge now; `None`: not at all. Larger windows cost less a message, so while there is traffic
    /// merging waits until there is much to merge.
    fn pace(&self, busy: bool) -> Option<Pace> {
        let waiting = self.store.heads().waiting();
        let window_bytes = 48 * 1024 * 1024;
        let slice = Duration::from_millis(if busy { 1 } else { 4 });
        if waiting >= self.limits.hard_rows {
            Some(Pace { window_bytes, slice, rest_percent: 50 })
        } else if waiting >= self.limits.hard_rows / 4
            || (waiting >= self.limits.backlog_rows && !busy)
        {
            Some(Pace { window_bytes, slice, rest_percent: if busy { 300 } else { 100 } })
        } else if waiting > 0 && !busy && self.last_merge.elapsed() >= TIDY_AFTER {
            Some(Pace { window_bytes, slice, rest_percent: 300 })
        } else {
            None
        }
    }
}

/// Copies the write-ahead log back.
pub(super) struct Checkpointer {
    store: Arc<Store>,
    connection: Connection,
    limit_pages: i64,
    ahead: WalAhead,
}

impl Checkpointer {
    pub(super) fn new(store: Arc<Store>, wal_bytes: u64) -> Result<Self> {
        let connection = connect(&store.path)?;
        let limit_pages = i64::try_from(wal_bytes / PAGE_BYTES).unwrap_or(i64::MAX);
        let ahead = WalAhead::new(&store.path);
        Ok(Self { store, connection, limit_pages, ahead })
    }

    /// Copies back when the log is long. Most of it while writing goes on; only the short rest while the writer
    /// waits, so that the log can begin anew.
    pub(super) fn round(&mut self) -> Result<()> {
        let pages = checkpoint(&self.connection, "NOOP")?.pages;
        let long = pages >= self.limit_pages;
        // A help to commits, no condition of theirs: without it they may wait for the disk.
        if let Err(error) = self.ahead.keep(u64::try_from(pages).unwrap_or(0), long) {
            tracing::debug!(%error, "the write-ahead log cannot be kept in memory");
        }
        if !long {
            return Ok(());
        }
        for _ in 0..4 {
            let state = checkpoint(&self.connection, "PASSIVE")?;
            if state.pages - state.copied <= FINISH_PAGES {
                break;
            }
        }
        let turn = self.store.writer();
        let done = checkpoint(&self.connection, "PASSIVE");
        drop(turn);
        done.map(drop)
    }
}

impl Store {
    /// A connection for merging. Its commits are not synced one by one: they become durable with the next
    /// commit of the writer, in order, and losing the newest of them loses no message.
    pub(super) fn merger(&self) -> Result<Connection> {
        let merger = connect(&self.path)?;
        let pragmas = "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -8000;";
        merger.execute_batch(pragmas).map_err(store_error)?;
        Ok(merger)
    }

    /// Copies the whole write-ahead log back and empties it, as far as readers let it.
    pub(crate) fn checkpoint_all(&self) -> Result<()> {
        let writer = self.writer();
        checkpoint(&writer, "TRUNCATE").map(drop)
    }
}

/// Pages in the write-ahead log, and how many of them are copied back.
#[derive(Debug)]
pub(super) struct WalState {
    pub(super) pages: i64,
    pub(super) copied: i64,
}

pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<WalState> {
    let state = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(WalState { pages: row.get(1)?, copied: row.get(2)? })
    });
    state.map_err(store_error)
}
