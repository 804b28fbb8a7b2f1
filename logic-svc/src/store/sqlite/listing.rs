//! A user's conversations by recent activity.

use rusqlite::Connection;

use super::conversations::{by_no, membership};
use super::{Fault, Result, Store, int, store_error, uint};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{Activity, View};

impl Store {
    /// Every conversation the user is in, in no order.
    pub(super) fn list_activities(&self, user: UserId) -> Result<Vec<Activity>> {
        let numbers = {
            let reader = self.readers.get();
            member_of(&reader, user).map_err(store_error)?
        };
        let heads = self.heads();
        Ok(numbers.into_iter().map(|no| Activity { no, active: heads.get(no).active }).collect())
    }

    /// A conversation as `user` sees it; `None` if not a member.
    pub(super) fn view_of(&self, no: ConversationNo, user: UserId) -> Result<Option<View>> {
        // Memory before the database: an own message missing from the one is in the other.
        let (head, own) = {
            let heads = self.heads();
            (heads.get(no), heads.own(no, user))
        };
        let reader = self.readers.get();
        let Some(membership) = membership(&reader, no, user).map_err(store_error)? else {
            return Ok(None);
        };
        let info = by_no(&reader, no).map_err(Fault::into_store_error)?;
        Ok(info.map(|info| View {
            info,
            role: membership.role,
            max_seq: head.seq,
            read_seq: membership.read_seq.max(own).min(head.seq),
            active: head.active,
        }))
    }
}

fn member_of(connection: &Connection, user: UserId) -> rusqlite::Result<Vec<ConversationNo>> {
    let mut select =
        connection.prepare_cached("SELECT conversation FROM members WHERE user = ?")?;
    let rows = select.query_map([int(user)], |row| row.get::<_, i64>(0).map(uint))?;
    rows.collect()
}
