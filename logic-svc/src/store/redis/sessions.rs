//! Who is connected where, over all gateways: logins and ends of connections.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use redis::Value;

use super::batch::Batch;
use super::client::Client;
use super::entry::{Entry, Lives, class_of, field_of, name_of, value_of};
use super::news::News;
use super::{scripts, value};
use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::domain::device::{ClassPolicy, DevicePolicies};
use crate::gateways::Gateways;
use crate::ports::{Clock, Login, SessionChange, Sessions, StoreError};

/// Highest shard number plus one: what a gateway may have.
const SHARDS_MAX: u32 = 4096;
/// Highest slot number plus one.
const SLOTS_MAX: u32 = 1 << 24;
/// Logins remembered for ends that come without their user.
const RECENT_MAX: usize = 65_536;
/// Most commands in one pipeline.
pub(super) const PIPELINE_MAX: usize = 4096;

/// How connections are kept.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// An entry that its gateway does not tell of for this long is gone.
    pub lifetime: Duration,
    /// How often gateways are asked to tell of all their connections.
    pub refresh: Duration,
    /// How long it is kept when a user was there last.
    pub last_seen: Duration,
    /// How many devices of a class a user may have.
    pub classes: DevicePolicies,
}

impl Default for RouteSettings {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(15 * 60),
            refresh: Duration::from_secs(5 * 60),
            last_seen: Duration::from_secs(30 * 24 * 3600),
            classes: DevicePolicies::default(),
        }
    }
}

/// All connections of all gateways, in Redis.
pub struct SessionTable {
    pub(super) client: Client,
    pub(super) gateways: Arc<Gateways>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: RouteSettings,
    recent: Mutex<Recent>,
    pub(super) news: Mutex<News>,
}

/// The last logins.
#[derive(Default)]
struct Recent {
    users: HashMap<ConnectionId, UserId>,
    order: VecDeque<ConnectionId>,
}

impl Recent {
    fn note(&mut self, connection: ConnectionId, user: UserId) {
        if self.users.insert(connection, user).is_none() {
            self.order.push_back(connection);
        }
        while self.order.len() > RECENT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.users.remove(&oldest);
            }
        }
    }
}

/// One change on its way to Redis.
enum Step {
    Login {
        user: UserId,
        connection: ConnectionId,
        field: String,
        value: String,
        class: String,
    },
    Closed {
        user: UserId,
        connection: ConnectionId,
        name: String,
    },
    /// Not to be asked for.
    OutOfRange,
}

impl SessionTable {
    /// A table in the Redis of `client`. Entries of lives that `gateways` does not know are void.
    #[must_use]
    pub fn new(
        client: Client,
        gateways: Arc<Gateways>,
        clock: Arc<dyn Clock>,
        settings: RouteSettings,
    ) -> Self {
        let (recent, news) = (Mutex::default(), Mutex::default());
        Self { client, gateways, clock, settings, recent, news }
    }

    /// Who lives now.
    pub(super) fn lives(&self) -> Lives {
        Lives::of(&self.gateways)
    }

    /// Entries seen last before this time, in seconds since 1970, are gone. `time`: what the server answered to `TIME`.
    pub(super) fn oldest_s(&self, time: Option<&Value>) -> u64 {
        let now_ms = time.map_or(0, value::time_ms);
        (now_ms / 1000).saturating_sub(self.settings.lifetime.as_secs())
    }

    /// Whoever wants to know of these users may have to be told.
    fn note_changes(&self, steps: &[Step], now_ms: u64) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        for step in steps {
            match step {
                Step::Login { user, .. } => news.turned(*user, now_ms),
                Step::Closed { user, name, .. } => {
                    news.turned(*user, now_ms);
                    news.ended(name);
                }
                Step::OutOfRange => {}
            }
        }
    }

    fn steps(&self, changes: Vec<SessionChange>) -> Vec<Step> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let step = |change| match change {
            SessionChange::Login { user, connection, device_id, device_class } => {
                recent.note(connection, user);
                self.login_step(user, connection, &device_id, &device_class)
            }
            SessionChange::Closed { user, connection } => {
                let noted = recent.users.remove(&connection);
                let user = if user == 0 { noted.unwrap_or(0) } else { user };
                let name =
                    self.gateways.life(connection.gateway).map(|life| name_of(&life, connection));
                Step::Closed { user, connection, name: name.unwrap_or_default() }
            }
        };
        changes.into_iter().map(step).collect()
    }

    fn login_step(
        &self,
        user: UserId,
        connection: ConnectionId,
        device_id: &str,
        device_class: &str,
    ) -> Step {
        let in_range = connection.shard < SHARDS_MAX && connection.slot < SLOTS_MAX;
        let life = self.gateways.life(connection.gateway).filter(|_| in_range);
        let Some(life) = life else { return Step::OutOfRange };
        let (value, name) = value_of(&life, connection, device_class);
        let field = field_of(device_id, &value[..name]);
        Step::Login { user, connection, field, value, class: class_of(device_class) }
    }

    fn add_login(&self, batch: &mut Batch, step: &Step, most: usize, dead: &[&Value]) {
        let Step::Login { user, field, value, class, .. } = step else { return };
        let policy = match self.settings.classes.of(class) {
            ClassPolicy::Allow => b"0",
            ClassPolicy::KickOld => b"1",
            ClassPolicy::RefuseNew => b"2",
        };
        batch
            .script(scripts::LOGIN.sha(), 7 + dead.len())
            .key("user_session:", *user)
            .argument(field.as_bytes())
            .argument(value.as_bytes())
            .number(most as u64)
            .number(self.lifetime_ms())
            .argument(class.as_bytes())
            .argument(policy)
            .number(self.settings.lifetime.as_secs());
        for word in dead {
            batch.argument(value::bytes(word));
        }
    }

    fn add_closed(&self, batch: &mut Batch, user: UserId, name: &str, now_ms: u64) {
        batch.script(scripts::CLOSED.sha(), 1).key("user_session:", user).argument(name.as_bytes());
        let kept_s = self.settings.last_seen.as_secs().max(1);
        batch.command("SETEX", 3).key("last_seen:", user).number(kept_s).number(now_ms);
    }

    pub(super) fn lifetime_ms(&self) -> u64 {
        u64::try_from(self.settings.lifetime.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn apply(&self, most: usize, changes: Vec<SessionChange>) -> Result<Vec<Login>, StoreError> {
        let (now_ms, lives) = (self.clock.now_ms(), self.lives());
        let steps = self.steps(changes);
        let mut work = Work::default();
        for part in steps.chunks(PIPELINE_MAX) {
            self.apply_part(most, part, (now_ms, &lives), &mut work)?;
        }
        self.note_changes(&steps, now_ms);
        Ok(work.outcomes)
    }

    fn apply_part(
        &self,
        most: usize,
        steps: &[Step],
        (now_ms, lives): (u64, &Lives),
        work: &mut Work,
    ) -> Result<(), StoreError> {
        let mut batch = self.client.batch();
        for step in steps {
            match step {
                Step::Login { .. } => self.add_login(&mut batch, step, most, &[]),
                Step::Closed { user, name, .. } if *user != 0 && !name.is_empty() => {
                    self.add_closed(&mut batch, *user, name, now_ms);
                }
                Step::Closed { .. } | Step::OutOfRange => {}
            }
        }
        if !batch.is_empty() {
            batch.time();
        }
        let answers = self.client.run(&batch)?;
        work.now_s = answers.last().map_or(0, value::time_ms) / 1000;
        let again = self.judge(steps, &answers, lives, work);
        if again.is_empty() {
            return Ok(());
        }
        self.apply_again(most, steps, again, (now_ms, lives), work)
    }

    /// Takes in the answers; gives the logins to be tried again, with the dead entries that stood in their way.
    fn judge<'a>(
        &self,
        steps: &[Step],
        answers: &'a [Value],
        lives: &Lives,
        work: &mut Work,
    ) -> Vec<(usize, Vec<&'a Value>)> {
        let mut answers = answers.iter();
        let mut again = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::OutOfRange => work.outcomes.push(Login::OutOfRange),
                Step::Closed { user, name, .. } if *user != 0 && !name.is_empty() => {
                    answers.nth(1);
                }
                Step::Closed { .. } => {}
                Step::Login { connection, .. } => {
                    let Some(answer) = answers.next() else { continue };
                    let (outcome, dead) = work.judge_login(answer, *connection, lives);
                    if !dead.is_empty() {
                        again.push((at, dead));
                    }
                    work.outcomes.push(outcome);
                    work.places.resize(work.outcomes.len(), None);
                    if let Some(place) = work.places.last_mut() {
                        *place = Some(at);
                    }
                }
            }
        }
        again
    }

    /// Second try: refused logins without the dead entries, and what followed for their connections; of logins that
    /// are in, only the dead entries beside them go.
    fn apply_again(
        &self,
        most: usize,
        steps: &[Step],
        again: Vec<(usize, Vec<&Value>)>,
        (now_ms, lives): (u64, &Lives),
        work: &mut Work,
    ) -> Result<(), StoreError> {
        let mut batch = self.client.batch();
        let mut retried = Vec::new();
        for (at, dead) in &again {
            let Step::Login { user, connection, .. } = &steps[*at] else { continue };
            let Some(outcome) = work.places.iter().rposition(|&place| place == Some(*at)) else {
                continue;
            };
            if !matches!(work.outcomes[outcome], Login::TooMany | Login::ClassTaken) {
                let names: Vec<&[u8]> =
                    dead.chunks_exact(2).map(|pair| value::bytes(pair[1])).collect();
                batch.script(scripts::CLOSED.sha(), names.len()).key("user_session:", *user);
                for name in names {
                    batch.argument(name);
                }
                continue;
            }
            retried.push((outcome, batch.len(), *connection));
            self.add_login(&mut batch, &steps[*at], most, dead);
            for later in &steps[at + 1..] {
                if let Step::Closed { connection: ended, name, .. } = later
                    && ended == connection
                {
                    self.add_closed(&mut batch, *user, name, now_ms);
                }
            }
        }
        let answers = self.client.run(&batch)?;
        for (outcome, at, connection) in retried {
            let (judged, _) = work.judge_login(&answers[at], connection, lives);
            work.outcomes[outcome] = judged;
        }
        Ok(())
    }
}

/// What came of a batch so far.
#[derive(Default)]
struct Work {
    outcomes: Vec<Login>,
    /// For each outcome the step of its part.
    places: Vec<Option<usize>>,
    /// The server's time, in seconds since 1970.
    now_s: u64,
}

impl Work {
    /// What became of a login; and fields and values of dead entries.
    fn judge_login<'a>(
        &mut self,
        answer: &'a Value,
        connection: ConnectionId,
        lives: &Lives,
    ) -> (Login, Vec<&'a Value>) {
        let [status, gone, others] = value::list(answer) else { return (Login::TooMany, vec![]) };
        let is_dead = |value: &Value| {
            let entry = Entry::parse(value::bytes(value));
            entry.is_none_or(|entry| lives.is_dead(&entry, self.now_s))
        };
        let pairs = value::list(others).chunks_exact(2);
        let dead = pairs.filter(|pair| is_dead(&pair[1])).flatten().collect();
        let kicks = match value::int(status) {
            0 => false,
            3 => true,
            2 => return (Login::ClassTaken, dead),
            _ => return (Login::TooMany, dead),
        };
        let old = value::list(gone).iter().filter_map(|value| {
            let entry = Entry::parse(value::bytes(value))?;
            lives.connection(&entry).filter(|&old| old != connection)
        });
        let old: Vec<ConnectionId> = old.collect();
        let outcome = match old[..] {
            [] => Login::Added,
            [old] if !kicks => Login::Replaced(old),
            _ => Login::Kicked(old),
        };
        (outcome, dead)
    }
}

impl Sessions for SessionTable {
    fn change(
        &self,
        most: usize,
        plan: &mut dyn FnMut() -> Vec<SessionChange>,
        done: &mut dyn FnMut(Vec<Login>),
    ) -> Result<(), StoreError> {
        let outcomes = self.apply(most, plan())?;
        done(outcomes);
        Ok(())
    }

    fn of(&self, users: &[UserId]) -> Result<Vec<ConnectionId>, StoreError> {
        let lives = self.lives();
        let mut found = Vec::new();
        for users in users.chunks(PIPELINE_MAX) {
            let mut batch = self.client.batch();
            for &user in users {
                batch.command("HVALS", 1).key("user_session:", user);
            }
            batch.time();
            let answers = self.client.run(&batch)?;
            let oldest_s = self.oldest_s(answers.last());
            for answer in &answers[..users.len()] {
                found.extend(live_of(answer, &lives, oldest_s).map(|(connection, _)| connection));
            }
        }
        Ok(found)
    }
}

/// The live connections among the values of a `user_session` key.
pub(super) fn live_of<'a>(
    values: &'a Value,
    lives: &Lives,
    oldest_s: u64,
) -> impl Iterator<Item = (ConnectionId, Entry<'a>)> {
    value::list(values).iter().filter_map(move |value| {
        let entry = Entry::parse(value::bytes(value))?;
        let connection = lives.connection(&entry)?;
        (entry.seen_s >= oldest_s).then_some((connection, entry))
    })
}
