//! Connections: how they are made, lent, looked after and thrown away.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder};

use super::Options;
use super::error::Fault;
use super::sql::Work;
use crate::ports::StoreError;

/// A connection that rested this long is asked whether it still works before it is relied on.
const RESTED: Duration = Duration::from_secs(5);
/// How often what lost a deadlock is repeated: about a second, with the pauses of [`after_deadlock`].
pub(super) const DEADLOCK_RETRIES: u32 = 10;
/// Prepared statements kept by each connection.
const STATEMENTS: usize = 128;

/// What every connection is told, from the options.
pub(super) fn connect_options(options: &Options) -> Result<Opts, StoreError> {
    let refused = |text: String| StoreError::Internal(text);
    let opts = Opts::from_url(&options.url)
        .map_err(|error| refused(format!("the URL of the database: {error}")))?;
    if opts.get_ssl_opts().is_some() {
        return Err(refused("TLS to the database is not built in".to_owned()));
    }
    let statement_s = options.statement_timeout.as_secs().max(1);
    let init = vec![
        "SET NAMES utf8mb4".to_owned(),
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
        // A lock is given up before the whole conversation is.
        format!(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
             SESSION innodb_lock_wait_timeout = {}, SESSION lc_messages = 'en_US', SESSION autocommit = 1",
            statement_s.saturating_sub(1).max(1)
        ),
    ];
    let timeout = Some(options.statement_timeout);
    let unacknowledged_ms = u32::try_from(options.statement_timeout.as_millis()).ok();
    Ok(OptsBuilder::from_opts(opts)
        .db_name(Some(options.database.as_str()))
        .init(init)
        .read_timeout(timeout)
        .write_timeout(timeout)
        .tcp_connect_timeout(Some(options.connect_timeout))
        .tcp_user_timeout_ms(unacknowledged_ms)
        .prefer_socket(false)
        .stmt_cache_size(STATEMENTS)
        .into())
}

/// Opens a connection.
pub(super) fn connect(opts: &Opts) -> Work<Conn> {
    Ok(Conn::new(opts.clone())?)
}

/// A connection and when it last worked.
pub(super) struct Link {
    pub(super) connection: Conn,
    used: Instant,
    fresh: bool,
}

impl Link {
    pub(super) fn open(opts: &Opts) -> Work<Self> {
        Ok(Self { connection: connect(opts)?, used: Instant::now(), fresh: true })
    }

    /// Whether it can be relied on: the server may have closed it while it rested.
    pub(super) fn works(&mut self) -> bool {
        self.used.elapsed() < RESTED || self.connection.ping().is_ok()
    }

    /// Notes that it just worked.
    pub(super) fn worked(&mut self) {
        self.used = Instant::now();
        self.fresh = false;
    }
}

/// Connections lent one at a time.
pub(super) struct Pool {
    opts: Opts,
    max: usize,
    wait: Duration,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Link>,
    /// Idle ones and lent ones.
    open: usize,
}

/// A connection on loan; goes back when dropped, unless it is discarded.
struct Lent<'a> {
    pool: &'a Pool,
    link: Option<Link>,
}

impl Pool {
    /// At most `max` connections, made when needed; `wait` is how long one is waited for.
    pub(super) fn new(opts: Opts, max: usize, wait: Duration) -> Self {
        let state = Mutex::default();
        Self { opts, max: max.max(1), wait, state, returned: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lend(&self) -> Work<Lent<'_>> {
        let full = |state: &mut State| state.idle.is_empty() && state.open >= self.max;
        let (mut state, _) = self
            .returned
            .wait_timeout_while(self.state(), self.wait, full)
            .unwrap_or_else(PoisonError::into_inner);
        if full(&mut state) {
            return Err(StoreError::Unavailable("all connections are in use".to_owned()).into());
        }
        let idle = state.idle.pop();
        state.open += usize::from(idle.is_none());
        drop(state);
        let mut lent = Lent { pool: self, link: idle };
        if lent.link.as_mut().is_some_and(|link| !link.works()) {
            lent.link = None;
            // Whatever ended this one most likely ended the others.
            self.forget_idle();
        }
        if lent.link.is_none() {
            lent.link = Some(Link::open(&self.opts)?);
        }
        Ok(lent)
    }

    fn forget_idle(&self) {
        let mut state = self.state();
        state.open -= state.idle.len();
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        self.returned.notify_all();
        drop(idle);
    }

    /// Does `work` on a connection; once more on a new one if the old one turns out to be dead.
    pub(super) fn run<T>(&self, work: impl FnMut(&mut Conn) -> Work<T>) -> Work<T> {
        self.run_while(&Cell::new(true), work)
    }

    /// Like [`Pool::run`]; `work` is not repeated once it has set `repeatable` to false.
    fn run_while<T>(
        &self,
        repeatable: &Cell<bool>,
        mut work: impl FnMut(&mut Conn) -> Work<T>,
    ) -> Work<T> {
        let mut lent = self.lend()?;
        let (fresh, done) = lent.attempt(&mut work)?;
        match done {
            Err(fault)
                if fault.ends_connection() && repeatable.get() && !fresh && !fault.is_timeout() =>
            {
                drop(lent);
                self.forget_idle();
                self.lend()?.attempt(&mut work)?.1
            }
            done => done,
        }
    }

    /// Does `work` in a transaction: all of it or nothing. It may be done several times, if the connection turns out
    /// to be dead or another transaction was in the way. An error of the commit itself leaves open what became of it.
    pub(super) fn transaction<T>(&self, mut work: impl FnMut(&mut Conn) -> Work<T>) -> Work<T> {
        let mut deadlocks = 0;
        loop {
            let repeatable = Cell::new(true);
            let done = self.run_while(&repeatable, |connection| {
                connection.query_drop("START TRANSACTION")?;
                let done = match work(connection) {
                    Ok(done) => done,
                    Err(fault) => return Err(roll_back(connection, fault)),
                };
                repeatable.set(false);
                match connection.query_drop("COMMIT") {
                    Ok(()) => Ok(done),
                    // Not to be left open: whoever gets the connection next would be part of it.
                    Err(error) => Err(roll_back(connection, error.into())),
                }
            });
            match done {
                Err(fault) if fault.is_deadlock() && deadlocks < DEADLOCK_RETRIES => {
                    after_deadlock(deadlocks);
                    deadlocks += 1;
                }
                done => return done,
            }
        }
    }
}

/// Waits before what lost its `lost`th deadlock, counted from 0, is tried again: at once the two would meet once more.
/// Between half and all of 1 ms, doubled each time up to 256 ms, by chance.
pub(super) fn after_deadlock(lost: u32) {
    let most_us = 1_000_u64 << lost.min(8);
    let chance = getrandom::u64().unwrap_or(0) % (most_us / 2);
    std::thread::sleep(Duration::from_micros(most_us / 2 + chance));
}

/// Gives up a transaction; the fault that counts is given back.
pub(super) fn roll_back(connection: &mut Conn, fault: Fault) -> Fault {
    if fault.ends_connection() {
        return fault;
    }
    match connection.query_drop("ROLLBACK") {
        Ok(()) => fault,
        Err(error) => error.into(),
    }
}

impl Lent<'_> {
    /// Does `work`; throws the connection away if it broke. Also says whether the connection was new.
    fn attempt<T>(&mut self, work: &mut impl FnMut(&mut Conn) -> Work<T>) -> Work<(bool, Work<T>)> {
        let Some(link) = &mut self.link else {
            return Err(
                StoreError::Internal("a connection was used after its end".to_owned()).into()
            );
        };
        let fresh = link.fresh;
        let done = work(&mut link.connection);
        match &done {
            Err(fault) if fault.ends_connection() => self.link = None,
            _ => link.worked(),
        }
        Ok((fresh, done))
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        match self.link.take() {
            Some(link) => state.idle.push(link),
            None => state.open -= 1,
        }
        drop(state);
        self.pool.returned.notify_one();
    }
}
