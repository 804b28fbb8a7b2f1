//! Taking out what a gateway that is gone left behind.

use redis::Value;

use super::sessions::SessionTable;
use super::{scripts, value};
use crate::domain::UserId;
use crate::domain::delivery::GatewayNo;
use crate::ports::StoreError;

/// Keys looked at in one step.
const STEP: u64 = 1000;
/// Steps at most: a billion keys.
const STEPS_MAX: u32 = 1_000_000;

impl SessionTable {
    /// Takes out all connections of this life, which is over; gives how many there were. Nobody waits for it: entries of
    /// lives that are over are void for every reader, and go by themselves when their time is over. So they do in a
    /// cluster of servers, whose keys cannot be walked through in one go.
    ///
    /// # Errors
    /// Redis is away; to be done again.
    pub fn forget(&self, gateway: GatewayNo) -> Result<u64, StoreError> {
        let Some(life) = self.gateways.life(gateway).filter(|_| !self.client.is_cluster()) else {
            return Ok(0);
        };
        let beginning = format!("{}|{}|", life.id, life.epoch);
        let (mut cursor, mut out) = (0, 0);
        for _ in 0..STEPS_MAX {
            let (next, users) = self.walk(cursor)?;
            let mut batch = self.client.batch();
            for user in users {
                let script = batch.script(scripts::CLOSED.sha(), 1);
                script.key("user_session:", user).argument(beginning.as_bytes());
            }
            out += self.client.run(&batch)?.iter().map(value::unsigned).sum::<u64>();
            if next == 0 {
                break;
            }
            cursor = next;
        }
        Ok(out)
    }

    /// Some users who have connections, and where to go on; 0: those were the last.
    fn walk(&self, cursor: u64) -> Result<(u64, Vec<UserId>), StoreError> {
        let prefix = &self.client.options().key_prefix;
        let name = format!("{prefix}user_session:");
        let mut batch = self.client.batch();
        batch
            .command("SCAN", 5)
            .number(cursor)
            .argument(b"MATCH")
            .argument(format!("{}*", literal(&name)).as_bytes())
            .argument(b"COUNT")
            .number(STEP);
        let answers = self.client.run(&batch)?;
        let [next, keys] = answers.first().map_or(&[][..], value::list) else {
            return Ok((0, Vec::new()));
        };
        let user = |key: &Value| {
            let id = value::bytes(key).strip_prefix(name.as_bytes())?;
            std::str::from_utf8(id).ok()?.parse().ok()
        };
        Ok((value::unsigned(next), value::list(keys).iter().filter_map(user).collect()))
    }
}

/// A pattern that only this text matches.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("a[1]*?\\^:"), "a\\[1\\]\\*\\?\\\\\\^:");
    }
}
