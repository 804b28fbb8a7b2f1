//! Large groups, as the cluster form asks for them.

use hashbrown::HashMap;

use super::fanout::fanout_of;
use super::sql::{first, rows, rows_in};
use super::{Result, Store};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{Crowd, Crowds, Fanout, HistoryStore, Large};

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

    fn misfits(
        &self,
        up: u32,
        down: u32,
        after: ConversationNo,
        limit: u32,
    ) -> Result<Vec<(Large, Fanout)>> {
        let sql = "SELECT id, conversation_id, fanout_mode FROM conversations WHERE id > ? \
                   AND (fanout_mode = 0 AND member_count >= ? OR fanout_mode = 1 AND member_count < ?) \
                   ORDER BY id LIMIT ?";
        let found: Vec<(ConversationNo, String, u64)> =
            self.read(|connection| rows(connection, sql, (after, up, down, limit)))?;
        let misfit = |(no, id, mode)| match fanout_of(mode) {
            Fanout::Write => (Large { no, id }, Fanout::Read),
            Fanout::Read => (Large { no, id }, Fanout::Write),
        };
        Ok(found.into_iter().map(misfit).collect())
    }
}
