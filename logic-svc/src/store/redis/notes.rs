//! Notes that another process of the service may need within minutes: `note:{name}`.

use std::time::Duration;

use redis::Value;

use super::Client;
use super::value::bytes;
use crate::ports::Notes;

impl Notes for Client {
    fn keep(&self, name: &str, note: &[u8], lifetime: Duration) {
        let mut batch = self.batch();
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        batch.command("SET", 4).key_text("note:", name).argument(note);
        batch.argument(b"PX").number(lifetime_ms);
        if let Err(error) = self.run(&batch) {
            tracing::debug!(%error, "a note was not kept");
        }
    }

    fn find(&self, name: &str) -> Option<Vec<u8>> {
        let mut batch = self.batch();
        batch.command("GET", 1).key_text("note:", name);
        let answers = self.run(&batch).ok()?;
        match answers.first()? {
            Value::Nil => None,
            value => Some(bytes(value).to_vec()),
        }
    }
}
