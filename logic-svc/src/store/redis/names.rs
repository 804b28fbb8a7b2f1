//! Names of users: at hand, else in Redis, else in the store.
//!
//! A name never changes, so a name that is known is right. What is not in here: hashes of passwords, and token epochs,
//! which a logout everywhere has to raise at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;

use super::client::Client;
use super::value;
use crate::domain::UserId;
use crate::ports::{StoreError, User};

/// Most names at hand.
const AT_HAND: usize = 65_536;
/// Users whose names are looked up at once; others with the same place wait for each other.
const STRIPES: usize = 64;
/// Lifetime of a name in Redis; up to a fifth more, so that not all end at once.
const LIFETIME_MS: u64 = 3_600_000;
/// Lifetime of the note that there is no such user.
const MISSING_MS: u64 = 2_000;
/// Longest time for which one process looks a name up for all.
const LOOKING_MS: u64 = 500;
/// How often, and how far apart, others look whether it did.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Names of users.
pub(super) struct Names {
    client: Client,
    at_hand: Mutex<AtHand>,
    stripes: [Mutex<()>; STRIPES],
}

#[derive(Default)]
struct AtHand {
    names: HashMap<UserId, Arc<str>>,
    order: VecDeque<UserId>,
}

/// What Redis knows about a user.
enum Noted {
    Name(String),
    /// There is no such user.
    Missing,
    /// Nothing, and whether this process is the one to look it up.
    Unknown {
        ours: bool,
    },
}

impl Names {
    pub(super) fn new(client: Client) -> Self {
        let stripes = std::array::from_fn(|_| Mutex::default());
        Self { client, at_hand: Mutex::default(), stripes }
    }

    /// The user's name; `load` gives the user out of the store.
    pub(super) fn name(
        &self,
        user: UserId,
        load: impl Fn() -> Result<Option<User>, StoreError>,
    ) -> Result<Option<String>, StoreError> {
        if let Some(name) = self.at_hand(user) {
            return Ok(Some(name));
        }
        let stripe = &self.stripes[(user % STRIPES as u64) as usize];
        let _one_at_a_time = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = self.at_hand(user) {
            return Ok(Some(name));
        }
        let ours = match self.noted(user) {
            Noted::Name(name) => {
                self.keep(user, &name);
                return Ok(Some(name));
            }
            Noted::Missing => return Ok(None),
            Noted::Unknown { ours } => ours,
        };
        let found = load()?;
        if ours {
            self.note(user, found.as_ref());
        }
        let name = found.map(|user| user.username);
        if let Some(name) = &name {
            self.keep(user, name);
        }
        Ok(name)
    }

    /// These users were made just now: whoever noted that they are missing was right until then.
    pub(super) fn made(&self, users: &[UserId]) {
        let mut batch = self.client.batch();
        for &user in users {
            batch.command("HDEL", 2).key("user_info:", user).argument(b"missing");
        }
        let _ = self.client.run(&batch);
    }

    fn noted(&self, user: UserId) -> Noted {
        for look in 0..LOOKS {
            let mut batch = self.client.batch();
            if look == 1 {
                // Before looking again, so that whoever gets it also sees what its last owner noted.
                batch
                    .command("SET", 5)
                    .key_text("lock:", &lock_of(user))
                    .argument(b"1")
                    .argument(b"NX")
                    .argument(b"PX")
                    .number(LOOKING_MS);
            }
            batch
                .command("HMGET", 3)
                .key("user_info:", user)
                .argument(b"username")
                .argument(b"missing");
            let Ok(answers) = self.client.run(&batch) else { break };
            let Some([name, missing]) = answers.last().map(value::list) else { break };
            match std::str::from_utf8(value::bytes(name)) {
                Ok(name) if !name.is_empty() => return Noted::Name(name.to_owned()),
                _ if !value::bytes(missing).is_empty() => return Noted::Missing,
                _ if answers[0] == redis::Value::Okay => return Noted::Unknown { ours: true },
                _ if look == 0 => {}
                _ => std::thread::sleep(LOOK_EVERY),
            }
        }
        Noted::Unknown { ours: false }
    }

    fn note(&self, user: UserId, found: Option<&User>) {
        let mut batch = self.client.batch();
        let lifetime_ms = match found {
            Some(User { username, nickname, .. }) => {
                batch
                    .command("HSET", 5)
                    .key("user_info:", user)
                    .argument(b"username")
                    .argument(username.as_bytes())
                    .argument(b"nickname")
                    .argument(nickname.as_bytes());
                LIFETIME_MS + u64::from(getrandom::u32().unwrap_or(0)) % (LIFETIME_MS / 5)
            }
            None => {
                batch
                    .command("HSET", 3)
                    .key("user_info:", user)
                    .argument(b"missing")
                    .argument(b"1");
                MISSING_MS
            }
        };
        batch.command("PEXPIRE", 2).key("user_info:", user).number(lifetime_ms);
        batch.command("DEL", 1).key_text("lock:", &lock_of(user));
        let _ = self.client.run(&batch);
    }

    fn at_hand(&self, user: UserId) -> Option<String> {
        let at_hand = self.at_hand.lock().unwrap_or_else(PoisonError::into_inner);
        at_hand.names.get(&user).map(|name| name.to_string())
    }

    fn keep(&self, user: UserId, name: &str) {
        let mut at_hand = self.at_hand.lock().unwrap_or_else(PoisonError::into_inner);
        if at_hand.names.insert(user, name.into()).is_none() {
            at_hand.order.push_back(user);
        }
        while at_hand.order.len() > AT_HAND {
            if let Some(oldest) = at_hand.order.pop_front() {
                at_hand.names.remove(&oldest);
            }
        }
    }
}

fn lock_of(user: UserId) -> String {
    format!("{{user_info:{user}}}")
}
