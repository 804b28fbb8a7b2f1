//! A user's conversations by recent activity, page by page, while activity goes on.
//!
//! The first page fixes the order of all pages: the list is kept for a while (a snapshot), so each conversation
//! comes exactly once whatever happens meanwhile; what is said about it is current. Should the snapshot be gone
//! (too old, too many, restart), the cursor itself carries enough to go on: conversations active since the first page
//! then come last, so none is left out, but one that was listed before it became active comes again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hashbrown::HashMap;
use proto::error::ErrorCode;
use proto::limits::{PULL_LIMIT_DEFAULT, PULL_LIMIT_MAX};
use proto::v1::Conversations;

use super::{Names, Operations, Result};
use crate::domain::UserId;
use crate::ports::{Activity, Notes};
use crate::store::failure;

/// How long a snapshot is kept.
const KEPT: Duration = Duration::from_secs(120);
/// Most conversations in all snapshots together.
const KEPT_MAX: usize = 500_000;

/// Most conversations of a snapshot that other processes are told of: 256 KiB.
const NOTED_MAX: usize = 16_384;

/// Where the next page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    /// The snapshot, and how many of it were listed.
    snapshot: u64,
    listed: u32,
    /// Newest id when the first page was made.
    as_of: u64,
    /// The last conversation listed, with its activity at that time.
    last: Activity,
}

impl Cursor {
    fn encode(self) -> String {
        let Self { snapshot, listed, as_of, last } = self;
        let mut bytes = Vec::with_capacity(36);
        bytes.extend(snapshot.to_le_bytes());
        bytes.extend(listed.to_le_bytes());
        [as_of, last.active, last.no].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode(text: &str) -> Option<Self> {
        let bytes: [u8; 36] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let number = |at: usize| bytes[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let listed = u32::from_le_bytes(*bytes[8..].first_chunk()?);
        let last = Activity { active: number(20)?, no: number(28)? };
        Some(Self { snapshot: number(0)?, listed, as_of: number(12)?, last })
    }
}

/// The order of pages begun lately: of this process, and, where there are others, in notes that all of them read.
#[derive(Default)]
pub(super) struct Snapshots {
    kept: Mutex<Kept>,
    notes: Option<Arc<dyn Notes>>,
}

#[derive(Default)]
struct Kept {
    by_id: HashMap<u64, Snapshot>,
    /// Oldest first.
    ages: VecDeque<(Instant, u64)>,
    conversations: usize,
}

struct Snapshot {
    user: UserId,
    order: Box<[Activity]>,
}

/// The name of a snapshot among the notes.
fn note_name(id: u64) -> String {
    format!("sync:{id}")
}

impl Snapshots {
    /// Snapshots that other processes find too.
    #[cfg(any(feature = "cluster", test))]
    pub(super) fn share(&mut self, notes: Arc<dyn Notes>) {
        self.notes = Some(notes);
    }

    fn keep(&self, id: u64, user: UserId, order: &[Activity]) {
        if order.len() > KEPT_MAX / 4 {
            return;
        }
        if let Some(notes) = self.notes.as_ref().filter(|_| order.len() <= NOTED_MAX) {
            notes.keep(&note_name(id), &Snapshot { user, order: order.into() }.encode(), KEPT);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_id.insert(id, Snapshot { user, order: order.into() });
        kept.ages.push_back((Instant::now(), id));
        kept.conversations += order.len();
        while let Some(&(since, oldest)) = kept.ages.front() {
            if kept.conversations <= KEPT_MAX && since.elapsed() < KEPT {
                break;
            }
            kept.ages.pop_front();
            let dropped = kept.by_id.remove(&oldest).map_or(0, |snapshot| snapshot.order.len());
            kept.conversations -= dropped;
        }
    }

    /// Up to `limit` conversations behind the first `listed`, and whether there are more.
    fn page(&self, cursor: &Cursor, user: UserId, limit: usize) -> Option<(Vec<Activity>, bool)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = kept.by_id.get(&cursor.snapshot) {
            return snapshot.page(cursor, user, limit);
        }
        drop(kept);
        let note = self.notes.as_ref()?.find(&note_name(cursor.snapshot))?;
        Snapshot::decode(&note)?.page(cursor, user, limit)
    }
}

impl Snapshot {
    fn page(&self, cursor: &Cursor, user: UserId, limit: usize) -> Option<(Vec<Activity>, bool)> {
        let rest = self.order.get(cursor.listed as usize..).filter(|_| self.user == user)?;
        Some((rest[..rest.len().min(limit)].to_vec(), rest.len() > limit))
    }

    fn encode(&self) -> Vec<u8> {
        let pairs = self.order.iter().flat_map(|one| [one.active, one.no]);
        [self.user].into_iter().chain(pairs).flat_map(u64::to_le_bytes).collect()
    }

    fn decode(note: &[u8]) -> Option<Self> {
        let (numbers, []) = note.as_chunks::<8>() else { return None };
        let mut numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let user = numbers.next()?;
        let mut order = Vec::new();
        while let Some(active) = numbers.next() {
            order.push(Activity { active, no: numbers.next()? });
        }
        Some(Self { user, order: order.into() })
    }
}

/// One page before it is filled in.
struct PageOrder {
    page: Vec<Activity>,
    more: bool,
    cursor: Cursor,
}

impl Operations {
    /// One page of the user's conversations. `limit` 0: the default; an empty cursor: the first page.
    pub(crate) fn sync(&self, user: UserId, cursor: &str, limit: u32) -> Result<Conversations> {
        let limit = match limit {
            0 => PULL_LIMIT_DEFAULT,
            limit => limit.min(PULL_LIMIT_MAX),
        } as usize;
        let PageOrder { page, more, mut cursor } = if cursor.is_empty() {
            self.first_page(user, limit)?
        } else {
            let cursor = Cursor::decode(cursor)
                .ok_or_else(|| ErrorCode::BadRequest.failure("cursor is none of this service's"))?;
            self.next_page(user, cursor, limit)?
        };
        let mut names = Names::new(self);
        let mut items = Vec::with_capacity(page.len());
        for at in &page {
            // A conversation left since the first page is left out.
            if let Some(view) = self.store.view(at.no, user).map_err(|error| failure(&error))? {
                items.push(self.describe(view, user, &mut names).map_err(|error| failure(&error))?);
            }
        }
        cursor.listed = cursor.listed.saturating_add(page.len() as u32);
        cursor.last = page.last().copied().unwrap_or(cursor.last);
        let next_cursor = if more { cursor.encode() } else { String::new() };
        Ok(Conversations { request_id: 0, items, next_cursor, has_more: more })
    }

    fn first_page(&self, user: UserId, limit: usize) -> Result<PageOrder> {
        // Taken first: whatever the list shows beyond it counts as active since.
        let as_of = self.store.newest_id().map_err(|error| failure(&error))?;
        let mut all = self.store.activities(user).map_err(|error| failure(&error))?;
        all.sort_unstable_by(|a, b| b.cmp(a));
        let more = all.len() > limit;
        let mut snapshot = 0;
        if more {
            snapshot = self.next_id()?;
            self.snapshots.keep(snapshot, user, &all);
        }
        all.truncate(limit);
        let cursor = Cursor {
            snapshot,
            listed: 0,
            as_of,
            last: Activity { active: u64::MAX, no: u64::MAX },
        };
        Ok(PageOrder { page: all, more, cursor })
    }

    fn next_page(&self, user: UserId, cursor: Cursor, limit: usize) -> Result<PageOrder> {
        if let Some((page, more)) = self.snapshots.page(&cursor, user, limit) {
            return Ok(PageOrder { page, more, cursor });
        }
        let mut rest = self.store.activities(user).map_err(|error| failure(&error))?;
        rest.iter_mut().for_each(|one| *one = settled(*one, cursor.as_of));
        rest.retain(|one| *one < settled(cursor.last, cursor.as_of));
        rest.sort_unstable_by(|a, b| b.cmp(a));
        let more = rest.len() > limit;
        rest.truncate(limit);
        Ok(PageOrder { page: rest, more, cursor })
    }
}

/// Puts what became active since the first page behind everything else.
fn settled(one: Activity, as_of: u64) -> Activity {
    if one.active > as_of { Activity { active: 0, no: one.no } } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_foreign_text_does_not() {
        let cursor =
            Cursor { snapshot: 1, listed: 2, as_of: 3, last: Activity { active: u64::MAX, no: 5 } };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for text in ["x", "", "AAAA", "!!!!", &"A".repeat(49), &"ä".repeat(24)] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }

    #[derive(Default)]
    struct Board(Mutex<HashMap<String, Vec<u8>>>);

    impl Notes for Board {
        fn keep(&self, name: &str, note: &[u8], _: Duration) {
            self.0.lock().unwrap().insert(name.to_owned(), note.to_vec());
        }
        fn find(&self, name: &str) -> Option<Vec<u8>> {
            self.0.lock().unwrap().get(name).cloned()
        }
    }

    #[test]
    fn another_process_goes_on_where_the_first_page_was_made() {
        let board = Arc::new(Board::default());
        let (mut one, mut other) = (Snapshots::default(), Snapshots::default());
        one.share(board.clone());
        other.share(board.clone());
        let order: Vec<Activity> = (0..5).map(|no| Activity { active: 9 - no, no }).collect();
        one.keep(77, 7, &order);
        let cursor = |snapshot| Cursor { snapshot, listed: 2, as_of: 0, last: order[1] };
        assert_eq!(other.page(&cursor(77), 7, 2), Some((order[2..4].to_vec(), true)));
        assert_eq!(other.page(&cursor(77), 8, 2), None, "not this user's");
        assert_eq!(other.page(&cursor(78), 7, 2), None);
        for note in [&b""[..], &[1; 7], &[1; 16], &[1; 23]] {
            board.keep("sync:79", note, KEPT);
            assert_eq!(other.page(&cursor(79), 7, 2), None, "{note:?}");
        }
    }

    #[test]
    fn snapshots_are_bounded_and_belong_to_their_user() {
        let snapshots = Snapshots::default();
        let order: Vec<Activity> = (0..100_000).map(|no| Activity { active: no, no }).collect();
        for id in 1..=10 {
            snapshots.keep(id, 7, &order);
        }
        let cursor = |snapshot| Cursor { snapshot, listed: 99_999, as_of: 0, last: order[0] };
        assert!(snapshots.page(&cursor(1), 7, 5).is_none(), "the oldest gave way");
        assert_eq!(snapshots.page(&cursor(10), 7, 5), Some((vec![order[99_999]], false)));
        assert!(snapshots.page(&cursor(10), 8, 5).is_none(), "not this user's");
        assert!(snapshots.kept.lock().unwrap().conversations <= KEPT_MAX);
        assert_eq!(snapshots.page(&Cursor { listed: 200_000, ..cursor(10) }, 7, 5), None);
    }
}
