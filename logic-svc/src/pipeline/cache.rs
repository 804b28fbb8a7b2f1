//! Conversations and user names the pipeline has at hand. Bounded; kept right by the changes the store reports.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::domain::UserId;
use crate::ports::{Change, ConversationRecord, Known};

/// A conversation at hand.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) id: Box<str>,
    pub(super) record: ConversationRecord,
    /// As of when what is known is known to be right; `None`: others changed it since.
    pub(super) asked: Option<Instant>,
    /// Used since the hand of the eviction clock passed.
    used: bool,
    /// The run of the current tick, valid while `tick` is the current one.
    pub(super) run: u32,
    pub(super) tick: u64,
}

impl Cached {
    /// What is known of it, and as of when.
    pub(super) fn known(&self) -> Known<'_> {
        Known { no: self.record.no, id: &self.id, version: self.record.version }
    }

    /// Whether others may have changed it by `now`.
    pub(super) fn is_doubtful(&self, now: Instant, hold: Duration) -> bool {
        self.asked.is_none_or(|at| now.saturating_duration_since(at) >= hold)
    }
}

/// Index of a cached conversation; stays valid until [`Conversations::trim`].
pub(super) type CacheIndex = u32;

/// Conversations by their text id.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    entries: Vec<Option<Cached>>,
    free: Vec<CacheIndex>,
    table: HashTable<CacheIndex>,
    hasher: DefaultHashBuilder,
    members: usize,
    hand: usize,
}

impl Conversations {
    /// Finds a conversation and marks it used.
    pub(super) fn find(&mut self, id: &str) -> Option<CacheIndex> {
        let entries = &mut self.entries;
        let is =
            |&at: &CacheIndex| entries[at as usize].as_ref().is_some_and(|entry| *entry.id == *id);
        let at = *self.table.find(self.hasher.hash_one(id), is)?;
        if let Some(entry) = &mut entries[at as usize] {
            entry.used = true;
        }
        Some(at)
    }

    /// The conversation at an index that `find` or `insert` gave since the last `trim`.
    pub(super) fn get(&self, at: CacheIndex) -> Option<&Cached> {
        self.entries.get(at as usize)?.as_ref()
    }

    /// Like `get`, to change it.
    pub(super) fn get_mut(&mut self, at: CacheIndex) -> Option<&mut Cached> {
        self.entries.get_mut(at as usize)?.as_mut()
    }

    /// Takes in what the store said, instead of what was known. It was asked at `asked` or later.
    pub(super) fn insert(
        &mut self,
        id: &str,
        record: ConversationRecord,
        asked: Instant,
    ) -> CacheIndex {
        if let Some(at) = self.find(id) {
            if let Some(entry) = &mut self.entries[at as usize] {
                self.members = self.members + record.members.len() - entry.record.members.len();
                entry.record = record;
                entry.asked = Some(asked);
            }
            return at;
        }
        self.members += record.members.len();
        let entry =
            Cached { id: id.into(), record, asked: Some(asked), used: true, run: 0, tick: 0 };
        let at = if let Some(at) = self.free.pop() {
            self.entries[at as usize] = Some(entry);
            at
        } else {
            self.entries.push(Some(entry));
            (self.entries.len() - 1) as CacheIndex
        };
        let Self { entries, table, hasher, .. } = self;
        table.insert_unique(hasher.hash_one(id), at, |&at| {
            hasher.hash_one(entries[at as usize].as_ref().map_or("", |entry| &*entry.id))
        });
        at
    }

    /// Others changed this conversation: it is to be asked about before it is used again.
    pub(super) fn doubt(&mut self, id: &str) {
        let Some(at) = self.find(id) else { return };
        if let Some(entry) = self.get_mut(at) {
            entry.asked = None;
        }
    }

    /// Brings what is at hand up to date with a change.
    pub(super) fn apply(&mut self, change: &Change) {
        let (Change::Joined { id, .. } | Change::Left { id, .. } | Change::Version { id, .. }) =
            change;
        let Some(at) = self.find(id) else { return };
        let Some(entry) = &mut self.entries[at as usize] else { return };
        match change {
            Change::Joined { user, .. } => {
                self.members += usize::from(entry.record.members.insert(*user))
            }
            Change::Left { user, .. } => {
                self.members -= usize::from(entry.record.members.remove(*user))
            }
            Change::Version { version, fanout, .. } => {
                entry.record.version = *version;
                entry.record.fanout = *fanout;
            }
        }
    }

    /// Lets go of conversations not used lately until the bounds hold. Indices are void afterwards.
    pub(super) fn trim(&mut self, conversations_max: usize, members_max: usize) {
        while !self.table.is_empty()
            && (self.table.len() > conversations_max || self.members > members_max)
        {
            self.hand = (self.hand + 1) % self.entries.len();
            match &mut self.entries[self.hand] {
                Some(entry) if entry.used => entry.used = false,
                Some(_) => self.evict(self.hand),
                None => {}
            }
        }
    }

    fn evict(&mut self, at: usize) {
        let Some(entry) = self.entries[at].take() else { return };
        let hash = self.hasher.hash_one(&*entry.id);
        if let Ok(found) = self.table.find_entry(hash, |&index| index as usize == at) {
            found.remove();
        }
        self.members -= entry.record.members.len();
        self.free.push(at as CacheIndex);
    }
}

/// Names of users who sent lately. Names never change, so nothing has to be taken back.
#[derive(Debug)]
pub(super) struct Names {
    names: HashMap<UserId, Box<str>>,
    max: usize,
}

impl Names {
    pub(super) fn new(max: usize) -> Self {
        Self { names: HashMap::new(), max }
    }

    pub(super) fn contains(&self, user: UserId) -> bool {
        self.names.contains_key(&user)
    }

    pub(super) fn get(&self, user: UserId) -> &str {
        self.names.get(&user).map_or("", |name| name)
    }

    pub(super) fn insert(&mut self, user: UserId, name: &str) {
        self.names.insert(user, name.into());
    }

    /// Starts over when there are too many; they come back with the next messages.
    pub(super) fn trim(&mut self) {
        if self.names.len() > self.max {
            self.names.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::conversation::Kind;
    use crate::domain::member::MemberSet;
    use crate::ports::Fanout;

    fn record(no: u64, members: &[u64]) -> ConversationRecord {
        ConversationRecord {
            no,
            kind: Kind::Group,
            dev_made: false,
            members: MemberSet::new(members.iter().copied()),
            version: 0,
            fanout: Fanout::Write,
        }
    }

    fn put(cache: &mut Conversations, id: &str, record: ConversationRecord) -> CacheIndex {
        cache.insert(id, record, Instant::now())
    }

    #[test]
    fn changes_reach_what_is_at_hand() {
        let mut cache = Conversations::default();
        let at = put(&mut cache, "g", record(1, &[1, 2]));
        cache.apply(&Change::Joined { id: "g".into(), user: 3 });
        cache.apply(&Change::Joined { id: "g".into(), user: 3 });
        cache.apply(&Change::Left { id: "g".into(), user: 1 });
        cache.apply(&Change::Left { id: "other".into(), user: 2 });
        assert_eq!(cache.get(at).unwrap().record.members.as_slice(), [2, 3]);
        assert_eq!(cache.members, 2);
    }

    #[test]
    fn both_bounds_hold_and_the_used_stay() {
        let mut cache = Conversations::default();
        for n in 0..100u64 {
            put(&mut cache, &format!("g{n}"), record(n, &[1, 2, 3]));
        }
        cache.trim(50, usize::MAX);
        assert_eq!(cache.table.len(), 50);
        let survivor =
            (0..100).map(|n| format!("g{n}")).find(|id| cache.find(id).is_some()).unwrap();
        cache.trim(10, usize::MAX);
        assert!(cache.find(&survivor).is_some());
        cache.trim(50, 9);
        assert!(cache.members <= 9 && cache.table.len() <= 3);
        put(&mut cache, "again", record(7, &[9]));
        let at = cache.find("again").unwrap();
        assert_eq!(cache.get(at).unwrap().record.no, 7);
        cache.trim(0, 0);
        assert_eq!((cache.table.len(), cache.members), (0, 0));
    }

    #[test]
    fn a_new_record_replaces_the_old() {
        let mut cache = Conversations::default();
        let at = put(&mut cache, "g", record(1, &[1]));
        assert_eq!(put(&mut cache, "g", record(1, &[1, 2])), at);
        assert_eq!(cache.members, 2);
    }

    /// It may have changed when it was asked about too long ago, or when somebody said so.
    #[test]
    fn doubt_comes_with_time_or_word_and_goes_with_an_answer() {
        let (mut cache, asked, hold) =
            (Conversations::default(), Instant::now(), Duration::from_secs(10));
        let g = cache.insert("g", record(1, &[1]), asked);
        let other = cache.insert("other", record(2, &[1]), asked);
        let doubtful = |cache: &Conversations, at, later: u64| {
            cache.get(at).unwrap().is_doubtful(asked + Duration::from_secs(later), hold)
        };
        assert!(!doubtful(&cache, g, 9) && doubtful(&cache, g, 10));
        cache.doubt("g");
        cache.doubt("unknown");
        assert!(doubtful(&cache, g, 0) && !doubtful(&cache, other, 0));
        cache.insert("g", record(1, &[1, 2]), asked);
        assert!(!doubtful(&cache, g, 0));
    }
}
