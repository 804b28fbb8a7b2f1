//! Of whom something may have to be told: what waits to be looked at, in memory.

use hashbrown::{HashMap, HashSet};

use crate::domain::UserId;
use crate::domain::delivery::{ConnectionId, GatewayNo};

/// Users looked at in one step.
const STEP: usize = 1024;
/// Users and connections that wait to be looked at; beyond, all watched users are.
pub(super) const WAITING_MAX: usize = 262_144;

/// What may have to be told.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Users who may have come or gone, and when to look at them.
    pub(super) users: HashMap<UserId, u64>,
    /// Connections that ended, by name.
    pub(super) ended: HashSet<String>,
    /// What new watchers were answered, to be compared once more: news may have overtaken the answer.
    pub(super) answered: Vec<Answered>,
    /// All watched users are to be looked at.
    pub(super) all: bool,
    /// Gateways that lived at the last look.
    pub(super) live: Vec<GatewayNo>,
    pub(super) next_round_ms: u64,
}

/// What a new watcher was answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) at_ms: u64,
    pub(super) connection: ConnectionId,
    pub(super) users: Vec<(UserId, bool)>,
}

impl News {
    /// The user may have come or gone.
    pub(super) fn turned(&mut self, user: UserId, at_ms: u64) {
        if self.users.len() >= WAITING_MAX {
            self.all = true;
        } else if user != 0 {
            let due = self.users.entry(user).or_insert(at_ms);
            *due = at_ms.min(*due);
        }
    }

    /// The connection ended.
    pub(super) fn ended(&mut self, name: &str) {
        if !name.is_empty() && self.ended.len() < WAITING_MAX {
            self.ended.insert(name.to_owned());
        }
    }

    /// What is to be looked at by now, some of each: users, connections that ended, answers.
    pub(super) fn due(&mut self, now_ms: u64) -> (Vec<UserId>, Vec<String>, Vec<Answered>) {
        let due = self.users.iter().filter(|&(_, &at)| at <= now_ms);
        let users: Vec<UserId> = due.map(|(&user, _)| user).take(STEP).collect();
        for user in &users {
            self.users.remove(user);
        }
        let ended: Vec<String> = self.ended.iter().take(STEP).cloned().collect();
        for name in &ended {
            self.ended.remove(name);
        }
        let answered = self.answered.extract_if(.., |one| one.at_ms <= now_ms).collect();
        (users, ended, answered)
    }
}
