//! A user's conversations by recent activity.

use rusqlite::Connection;

use super::conversations::{by_no, membership};
use super::{ConversationInfo, Fault, Result, Store, int, store_error, uint};
use crate::domain::conversation::Role;
use crate::domain::{ConversationNo, UserId};

/// A conversation and when it was last active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Activity {
    /// Id of the last message, or one taken at the making: newer is higher.
    pub active: u64,
    /// The conversation.
    pub no: ConversationNo,
}

/// A conversation with one user's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The conversation.
    pub info: ConversationInfo,
    /// What the user may do.
    pub role: Role,
    /// Seq of the last message.
    pub max_seq: u64,
    /// Up to where the user has read; own messages count as read.
    pub read_seq: u64,
    /// Id of the last message, or one taken at the making; carries the time.
    pub active: u64,
}

impl Store {
    /// The newest id stored: everything that happens later has a higher one.
    #[must_use]
    pub(crate) fn newest_id(&self) -> u64 {
        self.heads().newest_id()
    }

    /// Every conversation the user is in, in no order.
    pub(crate) fn activities(&self, user: UserId) -> Result<Vec<Activity>> {
        let numbers = {
            let reader = self.readers.get();
            member_of(&reader, user).map_err(store_error)?
        };
        let heads = self.heads();
        Ok(numbers.into_iter().map(|no| Activity { no, active: heads.get(no).active }).collect())
    }

    /// A conversation as `user` sees it; `None` if not a member.
    pub(crate) fn view(&self, no: ConversationNo, user: UserId) -> Result<Option<View>> {
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
