//! A lock over all processes, for work that should be done once. Correctness rests on the database, not on it.
//!
//! Each owner gets a fencing token: a number above every token given before, so that whoever keeps the highest one seen
//! can refuse an owner whose lock ran out unnoticed. It is one more than the last one, and at least the server's time
//! in microseconds: so it rises also when Redis forgot the last one, as long as the server's clock does not go back.

use std::time::{Duration, Instant};

use super::client::Client;
use super::{scripts, value};
use crate::ports::StoreError;

/// A lock that is held; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    client: Client,
    name: String,
    owner: String,
    token: u64,
    until: Instant,
}

impl Lock {
    /// Takes the lock for `lifetime`; `None`: somebody else has it.
    ///
    /// # Errors
    /// Redis is away.
    pub fn take(
        client: &Client,
        name: &str,
        lifetime: Duration,
    ) -> Result<Option<Self>, StoreError> {
        let owner = uuid::Uuid::new_v4().simple().to_string();
        // Counted from before the server does, so that it ends here first.
        let until = Instant::now() + lifetime;
        // Both keys have the name as their tag: a script may use them together in a cluster, too.
        let tag = format!("{{{name}}}");
        let mut batch = client.batch();
        batch
            .command("EVALSHA", 6)
            .argument(scripts::LOCK.sha().as_bytes())
            .argument(b"2")
            .key_text("lock:", &tag)
            .key_text("lock_token:", &tag)
            .argument(owner.as_bytes())
            .number(millis(lifetime));
        let answers = client.run(&batch)?;
        let token = value::unsigned(&answers[0]);
        let held = Self { client: client.clone(), name: tag, owner, token, until };
        if token == 0 {
            held.forget();
            return Ok(None);
        }
        Ok(Some(held))
    }

    /// The fencing token.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether its time is not over. A process that was stopped meanwhile finds out only by asking again.
    #[must_use]
    pub fn is_held(&self) -> bool {
        Instant::now() < self.until
    }

    /// Keeps it for `lifetime` from now on; false: it was lost.
    ///
    /// # Errors
    /// Redis is away; the lock may be lost.
    pub fn keep(&mut self, lifetime: Duration) -> Result<bool, StoreError> {
        let until = Instant::now() + lifetime;
        let kept = self.set(millis(lifetime))?;
        self.until = if kept { until } else { Instant::now() };
        Ok(kept)
    }

    fn set(&self, lifetime_ms: u64) -> Result<bool, StoreError> {
        let mut batch = self.client.batch();
        batch
            .script(scripts::UNLOCK.sha(), 2)
            .key_text("lock:", &self.name)
            .argument(self.owner.as_bytes())
            .number(lifetime_ms);
        Ok(value::int(&self.client.run(&batch)?[0]) == 1)
    }

    /// Drops it without a word to the server.
    fn forget(mut self) {
        self.token = 0;
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.token != 0 && self.is_held() {
            // If this fails, its time ends it.
            let _ = self.set(0);
        }
    }
}

fn millis(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1)
}
