//! Large groups, and records set apart, as the cluster form asks for them.

use hashbrown::HashMap;
use proto::v1::DeadLetter as Letter;

use super::fanout::fanout_of;
use super::letters::{DeadLetter, NewDeadLetter as Buried};
use super::sql::{first, rows, rows_in};
use super::{Result, Store};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{
    Crowd, Crowds, DeadLetters, Fanout, HistoryStore, Large, NewDeadLetter, StoreError,
};

impl Crowds for Store {
    fn large_of(&self, users: &[UserId], members: u32) -> Result<Vec<Vec<Large>>> {
        let before = format!(
            "SELECT DISTINCT m.user_id, c.conversation_id, c.id FROM conversations c \
             JOIN conversation_members m ON m.conversation = c.id \
             WHERE (c.fanout_mode = 1 OR c.member_count >= {members}) \
             AND m.left_at_ms IS NULL AND m.user_id IN ("
        );
        let select = (before.as_str(), ")");
        let found: Vec<(UserId, String, ConversationNo)> =
            self.read(|connection| rows_in(connection, select, users, |user| *user))?;
        let mut by_user: HashMap<UserId, Vec<Large>> = HashMap::new();
        for (user, id, no) in found {
            by_user.entry(user).or_default().push(Large { no, id });
        }
        Ok(users.iter().map(|user| by_user.get(user).cloned().unwrap_or_default()).collect())
    }

    fn crowd(&self, conversation_id: &str) -> Result<Option<Crowd>> {
        let sql =
            "SELECT id, member_count, fanout_mode FROM conversations WHERE conversation_id = ?";
        let row: Option<(ConversationNo, u32, u64)> =
            self.read(|connection| first(connection, sql, (conversation_id,)))?;
        Ok(row.map(|(no, members, mode)| Crowd { no, members, fanout: fanout_of(mode) }))
    }

    fn set_fanout(&self, no: ConversationNo, fanout: Fanout) -> Result<()> {
        let since_seq = self.last_seq(no)?;
        Store::set_fanout(self, no, fanout, since_seq).map(drop)
    }

    fn members_after(&self, no: ConversationNo, after: UserId, limit: u32) -> Result<Vec<UserId>> {
        let sql = "SELECT user_id FROM conversation_members \
                   WHERE conversation = ? AND user_id > ? AND left_at_ms IS NULL \
                   ORDER BY user_id LIMIT ?";
        let found: Vec<(UserId,)> =
            self.read(|connection| rows(connection, sql, (no, after, limit)))?;
        Ok(found.into_iter().map(|(user,)| user).collect())
    }
}

impl DeadLetters for Store {
    fn keep(&self, letter: &NewDeadLetter<'_>) -> Result<()> {
        let NewDeadLetter { topic, partition, offset, reason, attempts, payload } = *letter;
        let out_of_range = |what: &str| StoreError::Internal(format!("{what} is out of range"));
        let partition = i32::try_from(partition).map_err(|_| out_of_range("partition"))?;
        let offset = i64::try_from(offset).map_err(|_| out_of_range("offset"))?;
        self.bury(&[Buried { topic, partition, offset, reason, attempts, payload }])
    }

    fn page(&self, below: u64, limit: u32) -> Result<Vec<Letter>> {
        let below = if below == 0 { u64::MAX } else { below };
        Ok(self.dead_letters(below, limit)?.into_iter().map(letter).collect())
    }

    fn get(&self, id: u64) -> Result<Option<Letter>> {
        Ok(self.dead_letter(id)?.map(letter))
    }

    fn replayed(&self, id: u64) -> Result<()> {
        self.mark_replayed(id).map(drop)
    }
}

fn letter(from: DeadLetter) -> Letter {
    Letter {
        id: from.id,
        topic: from.topic,
        partition: u32::try_from(from.partition).unwrap_or(0),
        offset: u64::try_from(from.offset).unwrap_or(0),
        reason: from.reason,
        attempts: from.attempts,
        created_at_ms: from.created_at_ms,
        replayed_at_ms: from.replayed_at_ms.unwrap_or(0),
        payload: from.payload.into(),
    }
}
