//! Pulling messages from a cursor, forward or backward.

use proto::limits::{PULL_BYTES_MAX, PULL_LIMIT_DEFAULT, PULL_LIMIT_MAX};
use proto::v1::{Message, Page};

use super::{Names, Operations, Result};
use crate::domain::UserId;
use crate::ports::Keep;
use crate::store::failure;

/// What to pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PullRequest<'a> {
    /// The conversation.
    pub conversation_id: &'a str,
    /// Exclusive; 0: from the start, or backward from the newest.
    pub cursor_seq: u64,
    /// 0: the default; larger than the maximum: the maximum.
    pub limit: u32,
    /// Towards older messages.
    pub backward: bool,
}

/// The seqs to return: `low..=high`, none if `low > high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    low: u64,
    high: u64,
}

impl Operations {
    /// The messages after (or before) a cursor, ascending in both directions.
    pub(crate) fn pull(&self, user: UserId, request: PullRequest<'_>) -> Result<Page> {
        let info = self.readable(request.conversation_id, user)?;
        let last = self.store.last_seq(info.no).map_err(|error| failure(&error))?;
        let Window { low, high } = window(&request, last);
        let keep = if request.backward { Keep::High } else { Keep::Low };
        let stored = self
            .store
            .messages(info.no, low, high, keep, PULL_BYTES_MAX)
            .map_err(|error| failure(&error))?;
        let mut names = Names::new(self);
        let items: Result<Vec<Message>, _> =
            stored.into_iter().map(|one| names.message(&info.id, one)).collect();
        let items = items.map_err(|error| failure(&error))?;
        let (next_cursor_seq, has_more) = match (request.backward, items.first(), items.last()) {
            (true, Some(first), _) => (first.seq, first.seq > 1),
            (false, _, Some(newest)) => (newest.seq, newest.seq < last),
            _ => (request.cursor_seq, false),
        };
        Ok(Page { request_id: 0, conversation_id: info.id, items, next_cursor_seq, has_more })
    }
}

fn window(request: &PullRequest<'_>, last: u64) -> Window {
    let limit = u64::from(match request.limit {
        0 => PULL_LIMIT_DEFAULT,
        limit => limit.min(PULL_LIMIT_MAX),
    });
    if request.backward {
        let below = if request.cursor_seq == 0 { u64::MAX } else { request.cursor_seq };
        let high = last.min(below - 1);
        Window { low: (high + 1).saturating_sub(limit).max(1), high }
    } else {
        let low = request.cursor_seq.saturating_add(1);
        Window { low, high: last.min(request.cursor_seq.saturating_add(limit)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cursor_seq: u64, limit: u32, backward: bool, last: u64) -> Vec<u64> {
        let Window { low, high } =
            window(&PullRequest { conversation_id: "c", cursor_seq, limit, backward }, last);
        (low..=high).collect()
    }

    #[test]
    fn cursors_are_exclusive_in_both_directions() {
        let none: [u64; 0] = [];
        assert_eq!(of(0, 3, false, 10), [1, 2, 3]);
        assert_eq!(of(3, 3, false, 10), [4, 5, 6]);
        assert_eq!(of(8, 3, false, 10), [9, 10]);
        assert_eq!(of(10, 3, false, 10), none);
        assert_eq!(of(u64::MAX, 3, false, 10), none);
        assert_eq!(of(0, 3, true, 10), [8, 9, 10]);
        assert_eq!(of(8, 3, true, 10), [5, 6, 7]);
        assert_eq!(of(3, 5, true, 10), [1, 2]);
        assert_eq!(of(1, 3, true, 10), none);
        assert_eq!(of(u64::MAX, 2, true, 10), [9, 10]);
        assert_eq!(of(0, 3, true, 0), none);
        assert_eq!(of(0, 3, false, 0), none);
        assert_eq!(of(0, 0, false, 1000).len(), 50);
        assert_eq!(of(0, 9999, false, 1000).len(), 500);
    }
}
