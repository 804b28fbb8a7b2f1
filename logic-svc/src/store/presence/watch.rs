//! Who wants to know of whom, and of whom something is to be told.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::ports::StoreError;

/// A user's coming and going is told this far apart at least.
pub(super) const APART: Duration = Duration::from_secs(1);
/// Most connections that are told of one user.
const WATCHERS_MAX: usize = 10_000;
/// Most subscriptions in all.
const PAIRS_MAX: usize = 1_000_000;
/// Users of whom it is kept when they were there last.
const SEEN_MAX: usize = 262_144;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Watchlist {
    watched: HashMap<UserId, Watched>,
    lists: HashMap<ConnectionId, Vec<UserId>>,
    pairs: usize,
    /// Watched users who may have come or gone.
    turned: HashSet<UserId>,
    seen: HashMap<UserId, u64>,
    seen_order: VecDeque<UserId>,
    /// Nothing is told any more.
    pub(super) ended: bool,
}

/// A user somebody wants to know of.
#[derive(Debug, Default)]
struct Watched {
    by: HashSet<ConnectionId>,
    /// What was told last.
    told: Option<bool>,
    told_at: Option<Instant>,
}

impl Watchlist {
    /// The list of a connection is this one now.
    pub(super) fn watch(
        &mut self,
        connection: ConnectionId,
        users: &[UserId],
    ) -> Result<(), StoreError> {
        self.unwatch(connection);
        let full =
            |user| self.watched.get(user).is_some_and(|watched| watched.by.len() >= WATCHERS_MAX);
        if self.pairs + users.len() > PAIRS_MAX || users.iter().any(full) {
            let why = "as many as possible want to know who is there";
            return Err(StoreError::Unavailable(why.to_owned()));
        }
        if users.is_empty() {
            return Ok(());
        }
        for &user in users {
            self.watched.entry(user).or_default().by.insert(connection);
        }
        self.pairs += users.len();
        self.lists.insert(connection, users.to_vec());
        Ok(())
    }

    /// The connection wants to know of nobody.
    pub(super) fn unwatch(&mut self, connection: ConnectionId) {
        let Some(users) = self.lists.remove(&connection) else { return };
        self.pairs -= users.len();
        for user in users {
            let Some(watched) = self.watched.get_mut(&user) else { continue };
            watched.by.remove(&connection);
            if watched.by.is_empty() {
                self.watched.remove(&user);
                self.turned.remove(&user);
            }
        }
    }

    /// What somebody who began to watch the user was answered.
    pub(super) fn answered(&mut self, user: UserId, online: bool) {
        let Some(watched) = self.watched.get_mut(&user) else { return };
        if *watched.told.get_or_insert(online) != online {
            self.turned.insert(user);
        }
    }

    /// The user may have come or gone; true if somebody wants to know.
    pub(super) fn turned(&mut self, user: UserId) -> bool {
        self.watched.contains_key(&user) && self.turned.insert(user)
    }

    /// The user was there last now.
    pub(super) fn gone(&mut self, user: UserId, now_ms: u64) {
        if self.seen.insert(user, now_ms).is_none() {
            self.seen_order.push_back(user);
        }
        while self.seen_order.len() > SEEN_MAX {
            if let Some(oldest) = self.seen_order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
    }

    /// When the user was there last; 0: not known.
    pub(super) fn last_seen(&self, user: UserId) -> u64 {
        self.seen.get(&user).copied().unwrap_or(0)
    }

    /// Users of whom something may be told now, and how long to wait for the next ones.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<UserId>, Option<Duration>) {
        let mut wait = None;
        let mut due = Vec::new();
        self.turned.retain(|user| {
            let last = self.watched.get(user).and_then(|watched| watched.told_at);
            let early = last.and_then(|at| APART.checked_sub(now.saturating_duration_since(at)));
            match early.filter(|early| !early.is_zero()) {
                Some(early) => {
                    wait = Some(wait.map_or(early, |wait: Duration| wait.min(early)));
                    true
                }
                None => {
                    due.push(*user);
                    false
                }
            }
        });
        (due, wait)
    }

    /// Who has to be told that this is how things stand with the user.
    pub(super) fn tell(&mut self, user: UserId, online: bool, now: Instant) -> Vec<ConnectionId> {
        let Some(watched) = self.watched.get_mut(&user) else { return Vec::new() };
        if watched.told == Some(online) {
            return Vec::new();
        }
        watched.told = Some(online);
        watched.told_at = Some(now);
        watched.by.iter().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.watched.is_empty() && self.lists.is_empty() && self.pairs == 0
    }
}
