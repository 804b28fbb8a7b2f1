//! Who is connected where, in memory: about 45 bytes a user with one connection; and who wants to know of whom.

mod classes;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::{Duration, Instant};

use proto::v1::Device;

use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::domain::device::DevicePolicies;
use crate::ports::{
    Clock, Login, Presence, PresenceView, SessionChange, Sessions, StoreError, Turned, UserState,
    Watches,
};
use crate::snowflake::SystemClock;
use table::NONE;
pub use table::Table;
use watch::Watchlist;

/// Bounds how late its end is seen by whoever waits for news.
const WAIT: Duration = Duration::from_secs(60);

/// All connections. Of the two locks nobody holds both.
pub struct LocalPresence {
    table: RwLock<Table>,
    watch: Mutex<Watchlist>,
    news: Condvar,
    clock: Arc<dyn Clock>,
}

impl Default for LocalPresence {
    fn default() -> Self {
        Self::new(&DevicePolicies::default(), Arc::new(SystemClock))
    }
}

impl std::fmt::Debug for LocalPresence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPresence").finish_non_exhaustive()
    }
}

impl LocalPresence {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(policies: &DevicePolicies, clock: Arc<dyn Clock>) -> Self {
        let table = RwLock::new(Table::new(policies));
        Self { table, watch: Mutex::default(), news: Condvar::new(), clock }
    }

    /// The table for changing it. Whoever answers a login does so before letting go, so that no delivery
    /// overtakes the answer.
    pub fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table for looking things up.
    pub fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn watchlist(&self) -> MutexGuard<'_, Watchlist> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for users who came or went and of whom somebody wants to know; `None` once it has ended.
    pub fn turned(&self) -> Option<Vec<Turned>> {
        loop {
            let due = self.due()?;
            let online: Vec<bool> = {
                let table = self.read();
                due.iter().map(|&user| table.first_of(user) != NONE).collect()
            };
            let now = Instant::now();
            let mut watch = self.watchlist();
            let turned = due.into_iter().zip(online).map(|(user, online)| {
                let watchers = watch.tell(user, online, now);
                let last_seen_ms = if online { 0 } else { watch.last_seen(user) };
                Turned { user, online, last_seen_ms, watchers }
            });
            let turned: Vec<Turned> = turned.filter(|one| !one.watchers.is_empty()).collect();
            if !turned.is_empty() {
                return Some(turned);
            }
        }
    }

    fn due(&self) -> Option<Vec<UserId>> {
        let mut watch = self.watchlist();
        loop {
            if watch.ended {
                return None;
            }
            let (due, wait) = watch.due(Instant::now());
            if !due.is_empty() {
                return Some(due);
            }
            let waited = self.news.wait_timeout(watch, wait.unwrap_or(WAIT));
            watch = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nobody is told anything any more.
    pub fn end(&self) {
        self.watchlist().ended = true;
        self.news.notify_all();
    }

    /// Takes in what a batch of changes did.
    fn note(&self, turned: Vec<UserId>, closed: &[ConnectionId]) {
        if turned.is_empty() && closed.is_empty() {
            return;
        }
        let gone: Vec<UserId> = {
            let table = self.read();
            turned.iter().copied().filter(|&user| table.first_of(user) == NONE).collect()
        };
        let now_ms = self.clock.now_ms();
        let mut watch = self.watchlist();
        closed.iter().for_each(|&connection| watch.unwatch(connection));
        gone.into_iter().for_each(|user| watch.gone(user, now_ms));
        let mut news = false;
        for user in turned {
            news |= watch.turned(user);
        }
        drop(watch);
        if news {
            self.news.notify_one();
        }
    }
}

impl Sessions for LocalPresence {
    fn change(
        &self,
        most: usize,
        plan: &mut dyn FnMut() -> Vec<SessionChange>,
        done: &mut dyn FnMut(Vec<Login>),
    ) -> Result<(), StoreError> {
        let mut table = self.write();
        let (mut outcomes, mut ended) = (Vec::new(), Vec::new());
        for change in plan() {
            match change {
                SessionChange::Login { user, connection, device_id, device_class } => {
                    outcomes.push(table.login(user, &device_id, &device_class, connection, most));
                }
                SessionChange::Closed { connection, .. } => {
                    table.closed(connection);
                    ended.push(connection);
                }
            }
        }
        done(outcomes);
        let turned = std::mem::take(&mut table.turned);
        drop(table);
        self.note(turned, &ended);
        Ok(())
    }

    fn of(&self, users: &[UserId]) -> Result<Vec<ConnectionId>, StoreError> {
        let table = self.read();
        Ok(users.iter().flat_map(|&user| table.of(user)).collect())
    }
}

impl Watches for LocalPresence {
    fn states(&self, users: &[UserId]) -> Result<Vec<UserState>, StoreError> {
        let table = self.read();
        let device = |class: &str| Device { device_class: class.to_owned(), ..Device::default() };
        let there: Vec<Vec<Device>> =
            users.iter().map(|&user| table.classes_of(user).map(device).collect()).collect();
        drop(table);
        let watch = self.watchlist();
        let state = |(&user, devices)| UserState { devices, last_seen_ms: watch.last_seen(user) };
        Ok(users.iter().zip(there).map(state).collect())
    }

    fn watch(
        &self,
        connection: ConnectionId,
        users: &[UserId],
    ) -> Result<Vec<UserState>, StoreError> {
        self.watchlist().watch(connection, users)?;
        let states = self.states(users)?;
        let mut watch = self.watchlist();
        for (&user, state) in users.iter().zip(&states) {
            watch.answered(user, state.is_online());
        }
        drop(watch);
        self.news.notify_one();
        Ok(states)
    }
}

impl Presence for LocalPresence {
    type View<'a> = RwLockReadGuard<'a, Table>;

    fn view(&self) -> Self::View<'_> {
        self.read()
    }
}

impl PresenceView for RwLockReadGuard<'_, Table> {
    fn connections(&self, user: UserId, mut found: impl FnMut(ConnectionId)) {
        let mut at = self.first_of(user);
        while at != NONE {
            let entry = self.entry(at);
            found(entry.connection());
            at = entry.next;
        }
    }

    fn len(&self) -> usize {
        self.count
    }

    fn all(&self, mut found: impl FnMut(UserId, ConnectionId)) {
        for &first in &self.by_user {
            let mut at = first;
            while at != NONE {
                let entry = self.entry(at);
                found(entry.user, entry.connection());
                at = entry.next;
            }
        }
    }
}
