//! Batches to Redis from any thread, and what happens while it is away.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::Value;

use super::batch::Batch;
use super::link::{Failure, Link};
use super::options::{Options, Servers};
use crate::ports::StoreError;

/// Most connections kept while nobody needs them.
const IDLE_MAX: usize = 16;

/// Clients of one Redis. Clones share everything.
///
/// A circuit breaker: after a failure all batches fail at once, without a try, until a thread in the background has
/// connected again. So a Redis that is gone or hangs costs whoever needs it one wait, and nobody another one.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    options: Options,
    prefix: Arc<str>,
    standing: AtomicU8,
    pool: Mutex<Pool>,
    counters: [AtomicU64; 4],
}

#[derive(Default)]
struct Pool {
    idle: Vec<Link>,
    /// Counts the failures: connections opened before the last one are not kept.
    era: u64,
}

/// How Redis is reached at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// The last batch went well, or there was none yet (breaker closed).
    Up,
    /// Nothing is tried (breaker open).
    Down,
    /// A connection is tried, batches fail (breaker half-open).
    Trying,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches answered.
    pub batches: u64,
    /// Commands in them.
    pub commands: u64,
    /// Time spent waiting for them, in microseconds.
    pub wait_us: u64,
    /// Batches that failed after a try.
    pub failures: u64,
}

impl Client {
    /// A client; connects when first needed.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let prefix = Arc::from(options.key_prefix.as_str());
        Self(Arc::new(Shared {
            options,
            prefix,
            standing: AtomicU8::new(Standing::Up as u8),
            pool: Mutex::default(),
            counters: Default::default(),
        }))
    }

    /// Whether the last try went well. Costs nothing.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.standing() == Standing::Up
    }

    /// How Redis is reached at the moment.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.0.standing.load(Ordering::Acquire) {
            0 => Standing::Up,
            1 => Standing::Down,
            _ => Standing::Trying,
        }
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let [batches, commands, wait_us, failures] =
            [0, 1, 2, 3].map(|at: usize| self.0.counters[at].load(Ordering::Relaxed));
        Counters { batches, commands, wait_us, failures }
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none.
    pub fn ping(&self) -> Result<(), StoreError> {
        let mut batch = self.batch();
        batch.command("PING", 0);
        self.run(&batch).map(drop)
    }

    /// Whether keys are spread over several servers.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.0.options.servers, Servers::Cluster(_))
    }

    /// The settings.
    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    /// An empty batch.
    pub(super) fn batch(&self) -> Batch {
        Batch::new(&self.0.prefix)
    }

    /// Sends a batch and gives its answers, within the time of an operation. An error: what was applied of it is not
    /// known.
    pub(super) fn run(&self, batch: &Batch) -> Result<Vec<Value>, StoreError> {
        self.run_within(batch, self.0.options.batch_timeout)
    }

    /// Sends a batch and gives its answers, within `limit`.
    pub(super) fn run_within(
        &self,
        batch: &Batch,
        limit: Duration,
    ) -> Result<Vec<Value>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if !self.is_up() {
            return Err(StoreError::Unavailable("Redis is away".to_owned()));
        }
        let started = Instant::now();
        let (idle, era) = {
            let mut pool = self.pool();
            (pool.idle.pop(), pool.era)
        };
        let link = idle.map_or_else(|| Link::open(&self.0.options), Ok);
        let answered = link.and_then(|mut link| match link.exchange(batch, limit) {
            Err(Failure::Down(error)) => Err(Failure::Down(error)),
            other => {
                self.keep(link, era);
                other
            }
        });
        match answered {
            Ok(answers) => {
                let wait_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                for (at, more) in [1, batch.len() as u64, wait_us].into_iter().enumerate() {
                    self.0.counters[at].fetch_add(more, Ordering::Relaxed);
                }
                Ok(answers)
            }
            Err(Failure::Refused(error)) => {
                self.0.counters[3].fetch_add(1, Ordering::Relaxed);
                Err(StoreError::Unavailable(format!("Redis refused: {error}")))
            }
            Err(Failure::Down(error)) => {
                self.0.counters[3].fetch_add(1, Ordering::Relaxed);
                self.fall(&error, era);
                Err(StoreError::Unavailable(format!("Redis: {error}")))
            }
        }
    }

    fn keep(&self, link: Link, era: u64) {
        let mut pool = self.pool();
        if pool.era == era && pool.idle.len() < IDLE_MAX {
            pool.idle.push(link);
        }
    }

    /// Breaks the circuit, and has somebody mend it; unless it was broken since `era` already: whoever waits longer than
    /// others must not break what was mended meanwhile.
    fn fall(&self, error: &str, era: u64) {
        let (up, down) = (Standing::Up as u8, Standing::Down as u8);
        let mut pool = self.pool();
        if pool.era != era {
            return;
        }
        pool.era += 1;
        let gone = std::mem::take(&mut pool.idle);
        drop(pool);
        drop(gone);
        let fell = self.0.standing.compare_exchange(up, down, Ordering::AcqRel, Ordering::Acquire);
        if fell.is_err() {
            return;
        }
        tracing::warn!(error, "Redis is away");
        let shared = Arc::downgrade(&self.0);
        let thread = std::thread::Builder::new().name("redis-connect".to_owned());
        if let Err(error) = thread.spawn(move || mend(&shared)) {
            tracing::warn!(%error, "no thread to connect to Redis again; the next batch tries");
            self.0.standing.store(up, Ordering::Release);
        }
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

/// Tries to connect, ever more seldom, until it goes well or nobody needs it any more.
fn mend(shared: &Weak<Shared>) {
    let Some(mut pause) = shared.upgrade().map(|shared| shared.options.pause) else { return };
    loop {
        std::thread::sleep(jittered(pause));
        let Some(shared) = shared.upgrade() else { return };
        shared.standing.store(Standing::Trying as u8, Ordering::Release);
        match Link::open(&shared.options) {
            Ok(link) => {
                shared.pool.lock().unwrap_or_else(PoisonError::into_inner).idle.push(link);
                shared.standing.store(Standing::Up as u8, Ordering::Release);
                tracing::info!("Redis is back");
                return;
            }
            Err(error) => {
                tracing::debug!(?error, "Redis is still away");
                shared.standing.store(Standing::Down as u8, Ordering::Release);
                pause = (pause * 2).min(shared.options.pause_max);
            }
        }
    }
}

/// Up to a fifth more, so that not all processes try at once.
fn jittered(pause: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or(0) % 256;
    pause + pause * part / 1280
}
