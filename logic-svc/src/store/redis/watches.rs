//! Who wants to know of whom, over all gateways; and of whom something is to be told.
//!
//! `watch:{user}` holds the connections that want to know, each with the time until which; `watching:{connection}` the
//! users of its list; `watched` all users somebody wants to know of; `presence_told:{user}` what was told last. All of
//! it ends by itself after [`HOLDS_MS`], so that nothing is left behind by processes that die.
//!
//! The service that changes a user's connections looks whether that is news, a moment later; and all services look at
//! all watched users when gateways come or go, so that the users of a dead one are told of by whoever notices first. One
//! of them does so every [`ROUND_MS`] besides, for what a service that died did not tell any more.

use redis::Value;

use super::entry::{Entry, Lives, name_of};
use super::news::{Answered, News, WAITING_MAX};
use super::reports::Wholeness;
use super::sessions::{PIPELINE_MAX, SessionTable};
use super::{scripts, value};
use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::ports::{StoreError, Turned, UserState, Watches};

/// How long a subscription holds.
const HOLDS_MS: u64 = 3_600_000;
/// Watchers are told of a user this far apart at least.
const APART_MS: u64 = 1000;
/// What could not be told, or was, is looked at again after this time.
const AGAIN_MS: u64 = 1000;
/// All watched users are looked at this often.
const ROUND_MS: u64 = 30_000;
/// Most watchers of one user.
const WATCHERS_MAX: u64 = 10_000;

impl Watches for SessionTable {
    fn states(&self, users: &[UserId]) -> Result<Vec<UserState>, StoreError> {
        let (states, whole) = self.look(users)?;
        if !whole && states.iter().any(|state| !state.is_online()) {
            let why = "not all gateways have told who is connected";
            return Err(StoreError::Unavailable(why.to_owned()));
        }
        Ok(states)
    }

    fn watch(
        &self,
        connection: ConnectionId,
        users: &[UserId],
    ) -> Result<Vec<UserState>, StoreError> {
        let name = name_of(&self.life(connection.gateway)?, connection);
        let now_ms = self.clock.now_ms();
        self.replace_list(&name, users)?;
        let states = self.states(users)?;
        let mut batch = self.client.batch();
        for (&user, state) in users.iter().zip(&states) {
            let told = if state.is_online() { b"1|0" } else { b"0|0" };
            batch.command("SET", 5).key("presence_told:", user).argument(told);
            batch.argument(b"NX").argument(b"PX").number(2 * HOLDS_MS);
        }
        self.client.run(&batch)?;
        let mut news = self.news.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        users.iter().for_each(|&user| news.turned(user, now_ms));
        news.answered.retain(|one| one.connection != connection);
        if news.answered.len() < WAITING_MAX && !users.is_empty() {
            let users = users.iter().copied().zip(states.iter().map(UserState::is_online));
            let at_ms = now_ms + AGAIN_MS;
            news.answered.push(Answered { at_ms, connection, users: users.collect() });
        }
        Ok(states)
    }
}

impl SessionTable {
    /// What is to be told now; to be asked some times a second.
    ///
    /// # Errors
    /// Redis is away; nothing is lost by that.
    pub fn turned(&self) -> Result<Vec<Turned>, StoreError> {
        let now_ms = self.clock.now_ms();
        self.begin_round(now_ms)?;
        let (users, ended, answered) = self.news().due(now_ms);
        let mut told = Vec::new();
        let mut looked = self.end_lists(&ended);
        if looked.is_ok() {
            looked = self.compare(&answered, &mut told);
        }
        if looked.is_ok() {
            looked = self.tell(&users, now_ms, &mut told);
        }
        if let Err(error) = looked {
            let mut news = self.news();
            users.iter().for_each(|&user| news.turned(user, now_ms + AGAIN_MS));
            ended.iter().for_each(|name| news.ended(name));
            news.answered.extend(answered);
            return Err(error);
        }
        Ok(told)
    }

    fn news(&self) -> std::sync::MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Looks at all watched users when gateways came or went, and now and then.
    fn begin_round(&self, now_ms: u64) -> Result<(), StoreError> {
        let live = self.gateways.live();
        let (all, round) = {
            let mut news = self.news();
            let changed = news.live != live;
            news.live = live;
            news.all |= changed;
            (std::mem::take(&mut news.all), news.next_round_ms <= now_ms)
        };
        let mut wanted = all;
        let found = (|| {
            if round {
                let mut batch = self.client.batch();
                batch.command("SET", 5).key_text("presence_round", "").number(now_ms);
                batch.argument(b"NX").argument(b"PX").number(ROUND_MS);
                let ours = self.client.run(&batch)?.first().is_some_and(|set| *set != Value::Nil);
                wanted |= ours;
                self.news().next_round_ms = now_ms + ROUND_MS / 2;
            }
            if wanted { self.watched() } else { Ok(Vec::new()) }
        })();
        let mut news = self.news();
        news.all |= wanted && found.is_err();
        found?.into_iter().for_each(|user| news.turned(user, now_ms));
        Ok(())
    }

    /// All users somebody wants to know of.
    fn watched(&self) -> Result<Vec<UserId>, StoreError> {
        let mut batch = self.client.batch();
        batch.time();
        let now_ms = self.client.run(&batch)?.first().map_or(0, value::time_ms);
        let mut batch = self.client.batch();
        batch.command("ZREMRANGEBYSCORE", 3).key_text("watched", "");
        batch.argument(b"-inf").number(now_ms);
        batch.command("ZRANGE", 3).key_text("watched", "").argument(b"0");
        batch.number(WAITING_MAX as u64 / 2);
        let answers = self.client.run(&batch)?;
        Ok(value::list(&answers[1]).iter().map(value::unsigned).collect())
    }

    /// How things stand, and whether all gateways have told all their connections.
    fn look(&self, users: &[UserId]) -> Result<(Vec<UserState>, bool), StoreError> {
        let lives = self.lives();
        let mut states = Vec::with_capacity(users.len());
        let mut whole = true;
        for users in users.chunks(PIPELINE_MAX / 2) {
            let mut batch = self.client.batch();
            Wholeness::ask(&mut batch);
            for &user in users {
                batch.command("HGETALL", 1).key("user_session:", user);
                batch.command("GET", 1).key("last_seen:", user);
            }
            batch.time();
            let answers = self.client.run(&batch)?;
            let oldest_s = self.oldest_s(answers.last());
            whole &= Wholeness::read(&answers[0], &lives);
            let state = |pair: &[Value]| UserState {
                devices: devices(&pair[0], &lives, oldest_s),
                last_seen_ms: value::unsigned(&pair[1]).max(left_behind_ms(&pair[0], &lives)),
            };
            states.extend(answers[1..].chunks_exact(2).map(state));
        }
        Ok((states, whole))
    }

    /// The list of a connection is this one now.
    fn replace_list(&self, name: &str, users: &[UserId]) -> Result<(), StoreError> {
        let mut batch = self.client.batch();
        batch.command("GET", 1).key_text("watching:", name);
        batch.time();
        let answers = self.client.run(&batch)?;
        let (before, now_ms) = (list_of(&answers[0]), value::time_ms(&answers[1]));
        if before.is_empty() && users.is_empty() {
            return Ok(());
        }
        let mut batch = self.client.batch();
        for &user in before.iter().filter(|user| !users.contains(user)) {
            batch.command("ZREM", 2).key("watch:", user).argument(name.as_bytes());
        }
        if users.is_empty() {
            batch.command("DEL", 1).key_text("watching:", name);
            return self.client.run(&batch).map(drop);
        }
        let until_ms = now_ms + HOLDS_MS;
        let list: Vec<String> = users.iter().map(u64::to_string).collect();
        batch.command("SET", 4).key_text("watching:", name).argument(list.join(",").as_bytes());
        batch.argument(b"PX").number(HOLDS_MS);
        for &user in users {
            batch.command("ZADD", 3).key_text("watched", "").number(until_ms).number(user);
        }
        batch.command("PEXPIRE", 2).key_text("watched", "").number(HOLDS_MS);
        let first = batch.len();
        for &user in users {
            batch.script(scripts::WATCH.sha(), 5).key("watch:", user).number(now_ms);
            batch.number(until_ms).number(WATCHERS_MAX).number(HOLDS_MS).argument(name.as_bytes());
        }
        let answers = self.client.run(&batch)?;
        if answers[first..].iter().any(|added| value::int(added) == 0) {
            let why = "as many as possible want to know of one of the users";
            return Err(StoreError::Unavailable(why.to_owned()));
        }
        Ok(())
    }

    /// Connections that ended want to know of nobody.
    fn end_lists(&self, names: &[String]) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        let mut batch = self.client.batch();
        for name in names {
            batch.command("GET", 1).key_text("watching:", name);
        }
        let answers = self.client.run(&batch)?;
        let mut batch = self.client.batch();
        for (name, list) in names.iter().zip(&answers) {
            for user in list_of(list) {
                batch.command("ZREM", 2).key("watch:", user).argument(name.as_bytes());
            }
            if *list != Value::Nil {
                batch.command("DEL", 1).key_text("watching:", name);
            }
        }
        if batch.is_empty() { Ok(()) } else { self.client.run(&batch).map(drop) }
    }

    /// Tells new watchers what is other than they were answered.
    fn compare(&self, answered: &[Answered], told: &mut Vec<Turned>) -> Result<(), StoreError> {
        for Answered { connection, users, .. } in answered {
            let ids: Vec<UserId> = users.iter().map(|&(user, _)| user).collect();
            let (states, whole) = self.look(&ids)?;
            for (&(user, was_online), state) in users.iter().zip(states) {
                if state.is_online() != was_online && (whole || state.is_online()) {
                    told.push(turned(user, &state, vec![*connection]));
                }
            }
        }
        Ok(())
    }

    /// Looks at these users, and finds out who is to be told of those who came or went.
    fn tell(
        &self,
        users: &[UserId],
        now_ms: u64,
        told: &mut Vec<Turned>,
    ) -> Result<(), StoreError> {
        let users = self.of_interest(users)?;
        if users.is_empty() {
            return Ok(());
        }
        let (states, whole) = self.look(&users)?;
        let both = users.iter().copied().zip(states);
        // Who may only not have been told of yet is looked at later.
        let (known, unsure): (Vec<_>, Vec<_>) =
            both.partition(|(_, state)| whole || state.is_online());
        let mut batch = self.client.batch();
        for (user, state) in &known {
            batch.script(scripts::TELL.sha(), 3).key("presence_told:", *user);
            batch.number(state.is_online().into()).number(APART_MS).number(2 * HOLDS_MS);
        }
        let verdicts: Vec<i64> = match batch.is_empty() {
            true => Vec::new(),
            false => self.client.run(&batch)?.iter().map(value::int).collect(),
        };
        let mut news = self.news();
        unsure.iter().for_each(|&(user, _)| news.turned(user, now_ms + AGAIN_MS));
        for ((user, _), _) in known.iter().zip(&verdicts).filter(|(_, verdict)| **verdict != 0) {
            // Once more after it was told: another service may have told what it saw before.
            news.turned(*user, now_ms + AGAIN_MS);
        }
        drop(news);
        let changed = known.into_iter().zip(verdicts).filter(|(_, verdict)| *verdict == 1);
        self.watchers(changed.map(|(known, _)| known).collect(), told)
    }

    /// Those of the users whom somebody wants to know of.
    fn of_interest(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = self.client.batch();
        batch.command("EXISTS", 1).key_text("watched", "");
        if value::int(&self.client.run(&batch)?[0]) == 0 {
            return Ok(Vec::new());
        }
        let mut batch = self.client.batch();
        for &user in users {
            batch.command("EXISTS", 1).key("watch:", user);
        }
        let answers = self.client.run(&batch)?;
        let watched = users.iter().zip(&answers).filter(|(_, there)| value::int(there) == 1);
        Ok(watched.map(|(&user, _)| user).collect())
    }

    fn watchers(
        &self,
        changed: Vec<(UserId, UserState)>,
        told: &mut Vec<Turned>,
    ) -> Result<(), StoreError> {
        if changed.is_empty() {
            return Ok(());
        }
        let lives = self.lives();
        let mut batch = self.client.batch();
        for (user, _) in &changed {
            batch.command("ZRANGE", 4).key("watch:", *user).argument(b"0").argument(b"-1");
            batch.argument(b"WITHSCORES");
        }
        batch.time();
        let answers = self.client.run(&batch)?;
        let now_ms = answers.last().map_or(0, value::time_ms);
        let mut dead = self.client.batch();
        for ((user, state), names) in changed.into_iter().zip(&answers) {
            let mut watchers = Vec::new();
            let wanting = value::list(names).chunks_exact(2);
            let wanting = wanting.filter(|pair| value::unsigned(&pair[1]) > now_ms);
            for name in wanting.map(|pair| value::bytes(&pair[0])) {
                match connection(name, &lives) {
                    Watcher::Lives(connection) => watchers.push(connection),
                    Watcher::Dead => {
                        dead.command("ZREM", 2).key("watch:", user).argument(name);
                    }
                    Watcher::Unknown => {}
                }
            }
            if !watchers.is_empty() {
                told.push(turned(user, &state, watchers));
            }
        }
        if dead.is_empty() { Ok(()) } else { self.client.run(&dead).map(drop) }
    }
}

fn turned(user: UserId, state: &UserState, watchers: Vec<ConnectionId>) -> Turned {
    let online = state.is_online();
    let last_seen_ms = if online { 0 } else { state.last_seen_ms };
    Turned { user, online, last_seen_ms, watchers }
}

/// The devices among the entries of a `user_session` key whose gateways live.
fn devices(entries: &Value, lives: &Lives, oldest_s: u64) -> Vec<proto::v1::Device> {
    let device = |(field, value): (&[u8], &[u8])| {
        let entry = Entry::parse(value)?;
        lives.connection(&entry).filter(|_| entry.seen_s >= oldest_s)?;
        let id = field.strip_prefix(b"d").unwrap_or_default();
        let device_id = String::from_utf8_lossy(id).into_owned();
        Some(proto::v1::Device { device_id, device_class: entry.class.to_owned() })
    };
    value::pairs(entries).filter_map(device).collect()
}

/// When a gateway that is gone last told of a connection of the user; 0: there is none.
fn left_behind_ms(entries: &Value, lives: &Lives) -> u64 {
    let entries = value::pairs(entries).filter_map(|(_, value)| Entry::parse(value));
    let dead = entries.filter(|entry| lives.connection(entry).is_none());
    dead.map(|entry| entry.seen_s * 1000).max().unwrap_or(0)
}

fn list_of(value: &Value) -> Vec<UserId> {
    let text = std::str::from_utf8(value::bytes(value)).unwrap_or_default();
    text.split(',').filter_map(|user| user.parse().ok()).collect()
}

/// Whether a watcher is there.
enum Watcher {
    Lives(ConnectionId),
    Dead,
    /// Its gateway may only not have been heard of yet.
    Unknown,
}

/// The connection of a name.
fn connection(name: &[u8], lives: &Lives) -> Watcher {
    // As an entry, it was seen long ago: what is not known to live is judged by its epoch alone.
    let entry = [name, b"|0|0"].concat();
    let Some(entry) = Entry::parse(&entry[..]) else { return Watcher::Dead };
    match lives.connection(&entry) {
        Some(connection) => Watcher::Lives(connection),
        None if entry.epoch < lives.newest() => Watcher::Dead,
        None => Watcher::Unknown,
    }
}
