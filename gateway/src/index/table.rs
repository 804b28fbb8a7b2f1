//! The tables behind the index.
//!
//! An entry sits where its shard has the connection: in pages by shard and slot. A table finds the first
//! connection of a user, further ones are chained from it. Only sessions whose users are in large
//! conversations pay for that. `tests::what_a_session_costs` holds the figures.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};
use proto::v1::{Connection, InterestChange, Session};

use crate::ids::ConnId;

/// Highest slot number plus one; bounds what a mistaken answer can make us allocate.
const SLOTS_MAX: u32 = 1 << 24;
/// Entries are allocated a page at a time: growing never copies and never doubles.
const PAGE: usize = 1024;

/// A connection that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrant {
    /// Which.
    pub connection: ConnId,
    /// Its user.
    pub user_id: u64,
    /// What the device calls itself.
    pub device_id: String,
    /// What kind it is.
    pub device_class: String,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    slot: u32,
    shard: u16,
}

/// Nowhere.
const NONE: Place = Place { slot: u32::MAX, shard: u16::MAX };

#[derive(Debug)]
struct Entry {
    /// 0: nobody is here.
    user_id: u64,
    /// Id and class of the device, one behind the other.
    device: Box<str>,
    generation: u32,
    /// The next connection of the same user.
    next_slot: u32,
    next_shard: u16,
    device_id_bytes: u8,
}

impl Entry {
    fn nobody() -> Self {
        Self {
            user_id: 0,
            device: Box::default(),
            generation: 0,
            next_slot: NONE.slot,
            next_shard: NONE.shard,
            device_id_bytes: 0,
        }
    }

    fn next(&self) -> Place {
        Place { slot: self.next_slot, shard: self.next_shard }
    }

    fn set_next(&mut self, next: Place) {
        (self.next_slot, self.next_shard) = (next.slot, next.shard);
    }

    fn session(&self, at: Place) -> Session {
        let (id, class) = self.device.split_at(usize::from(self.device_id_bytes));
        Session {
            user_id: self.user_id,
            device_id: id.to_owned(),
            device_class: class.to_owned(),
            connection: Some(Connection {
                shard: u32::from(at.shard),
                slot: at.slot,
                generation: self.generation,
            }),
        }
    }
}

type Pages = Vec<Box<[Entry]>>;

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    shards: Vec<Pages>,
    len: usize,
    by_user: HashTable<Place>,
    conversations: HashMap<Arc<str>, HashSet<Place>>,
    /// The large conversations of a connection, for those that have any.
    interests: HashMap<Place, Vec<Arc<str>>>,
    hasher: DefaultHashBuilder,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes a connection in. One whose end was not told gives its slot up.
    pub(super) fn insert(&mut self, entrant: Entrant) {
        let Entrant { connection, user_id, device_id, device_class } = entrant;
        let (Some(place), Ok(device_id_bytes)) =
            (place_of(connection), u8::try_from(device_id.len()))
        else {
            return;
        };
        if user_id == 0 {
            return;
        }
        if let Some(stale) = self.connection_at(place) {
            self.remove(stale);
        }
        let first = self.first_of(user_id);
        *self.make(place) = Entry {
            user_id,
            device: (device_id + &device_class).into_boxed_str(),
            generation: connection.generation,
            next_slot: first.slot,
            next_shard: first.shard,
            device_id_bytes,
        };
        self.set_first(user_id, first, place);
        self.len += 1;
    }

    /// Takes exactly this connection out, if it is in.
    pub(super) fn remove(&mut self, connection: ConnId) {
        let Some(place) = self.place_if_in(connection) else { return };
        let Some(entry) = self.entry(place) else { return };
        let (user_id, next) = (entry.user_id, entry.next());
        let first = self.first_of(user_id);
        if first == place {
            self.set_first(user_id, first, next);
        } else {
            self.unchain(first, place, next);
        }
        *self.make(place) = Entry::nobody();
        self.len -= 1;
        for id in self.interests.remove(&place).unwrap_or_default() {
            self.leave_conversation(&id, place);
        }
    }

    fn unchain(&mut self, first: Place, place: Place, next: Place) {
        let mut before = first;
        while let Some(entry) = self.entry_mut(before) {
            if entry.next() == place {
                return entry.set_next(next);
            }
            before = entry.next();
        }
    }

    /// The user of this connection is in these large conversations too.
    pub(super) fn add_interests(&mut self, connection: ConnId, user_id: u64, ids: &[String]) {
        let Some(place) = self.place_if_in(connection) else { return };
        if self.entry(place).is_none_or(|entry| entry.user_id != user_id) {
            return;
        }
        for id in ids {
            self.join(id, place);
        }
    }

    /// Users came into or left a large conversation, or it is no longer one.
    pub(super) fn apply(&mut self, change: &InterestChange) {
        let id = change.conversation_id.as_str();
        if change.forget {
            return self.forget(id);
        }
        for &user_id in &change.left {
            for place in self.places_of(user_id) {
                self.leave(id, place);
            }
        }
        for &user_id in &change.joined {
            for place in self.places_of(user_id) {
                self.join(id, place);
            }
        }
    }

    fn join(&mut self, id: &str, place: Place) {
        let known = self.conversations.get_key_value(id).map(|(id, _)| Arc::clone(id));
        let id = known.unwrap_or_else(|| Arc::from(id));
        if self.conversations.entry(Arc::clone(&id)).or_default().insert(place) {
            self.interests.entry(place).or_default().push(id);
        }
    }

    fn leave(&mut self, id: &str, place: Place) {
        self.leave_conversation(id, place);
        self.drop_interest(id, place);
    }

    fn leave_conversation(&mut self, id: &str, place: Place) {
        let Some(members) = self.conversations.get_mut(id) else { return };
        members.remove(&place);
        if members.is_empty() {
            self.conversations.remove(id);
        }
    }

    fn drop_interest(&mut self, id: &str, place: Place) {
        let Some(ids) = self.interests.get_mut(&place) else { return };
        ids.retain(|known| &**known != id);
        if ids.is_empty() {
            self.interests.remove(&place);
        }
    }

    fn forget(&mut self, id: &str) {
        for place in self.conversations.remove(id).unwrap_or_default() {
            self.drop_interest(id, place);
        }
    }

    pub(super) fn of_user(&self, user_id: u64, mut found: impl FnMut(ConnId)) {
        let mut at = self.first_of(user_id);
        while let Some(entry) = self.entry(at) {
            found(connection(at, entry.generation));
            at = entry.next();
        }
    }

    pub(super) fn of_conversation(&self, id: &str, mut found: impl FnMut(ConnId)) {
        for &place in self.conversations.get(id).into_iter().flatten() {
            if let Some(entry) = self.entry(place) {
                found(connection(place, entry.generation));
            }
        }
    }

    /// Sessions from a cursor on, which counts the places of all shards one behind the other.
    pub(super) fn sessions(&self, cursor: u32, most: usize) -> (Vec<Session>, Option<u32>) {
        let mut sessions = Vec::new();
        let pages = (0_u16..).zip(&self.shards).flat_map(|(shard, pages)| {
            let slots = (0_u32..).zip(pages.iter().flat_map(|page| page.iter()));
            slots.map(move |(slot, entry)| (Place { slot, shard }, entry))
        });
        for (count, (place, entry)) in (0_u32..).zip(pages).skip(cursor as usize) {
            if sessions.len() == most {
                return (sessions, Some(count));
            }
            if entry.user_id != 0 {
                sessions.push(entry.session(place));
            }
        }
        (sessions, None)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let entries = self.shards.iter().flatten().flat_map(|page| page.iter());
        let devices: usize = entries.map(|entry| entry.device.len()).sum();
        let pages: usize = self.shards.iter().map(Vec::len).sum();
        let members: usize = self.conversations.values().map(HashSet::allocation_size).sum();
        let interests: usize = self.interests.values().map(|ids| ids.capacity()).sum();
        pages * PAGE * size_of::<Entry>()
            + devices
            + self.by_user.allocation_size()
            + self.conversations.allocation_size()
            + members
            + self.interests.allocation_size()
            + interests * size_of::<Arc<str>>()
    }

    fn places_of(&self, user_id: u64) -> Vec<Place> {
        let mut places = Vec::new();
        let mut at = self.first_of(user_id);
        while let Some(entry) = self.entry(at) {
            places.push(at);
            at = entry.next();
        }
        places
    }

    fn first_of(&self, user_id: u64) -> Place {
        let is_theirs = |at: &Place| self.entry(*at).is_some_and(|entry| entry.user_id == user_id);
        self.by_user.find(self.hasher.hash_one(user_id), is_theirs).copied().unwrap_or(NONE)
    }

    /// Makes `new` the first entry of a user where `old` was; either may be none.
    fn set_first(&mut self, user_id: u64, old: Place, new: Place) {
        let Self { shards, by_user, hasher, .. } = self;
        let hash = hasher.hash_one(user_id);
        match by_user.find_entry(hash, |at| *at == old) {
            Ok(mut found) if new != NONE => *found.get_mut() = new,
            Ok(found) => drop(found.remove()),
            Err(_) if new != NONE => {
                let hash_of = |at: &Place| {
                    hasher.hash_one(entry_of(shards, *at).map_or(0, |entry| entry.user_id))
                };
                by_user.insert_unique(hash, new, hash_of);
            }
            Err(_) => {}
        }
    }

    fn connection_at(&self, place: Place) -> Option<ConnId> {
        self.entry(place).map(|entry| connection(place, entry.generation))
    }

    fn place_if_in(&self, wanted: ConnId) -> Option<Place> {
        let place = place_of(wanted)?;
        (self.entry(place)?.generation == wanted.generation).then_some(place)
    }

    fn entry(&self, at: Place) -> Option<&Entry> {
        entry_of(&self.shards, at)
    }

    fn entry_mut(&mut self, at: Place) -> Option<&mut Entry> {
        let page = self.shards.get_mut(usize::from(at.shard))?.get_mut(at.slot as usize / PAGE)?;
        Some(&mut page[at.slot as usize % PAGE]).filter(|entry| entry.user_id != 0)
    }

    /// The place of an entry, made if need be; places are in range.
    fn make(&mut self, at: Place) -> &mut Entry {
        let (shard, page) = (usize::from(at.shard), at.slot as usize / PAGE);
        if self.shards.len() <= shard {
            self.shards.resize_with(shard + 1, Vec::new);
        }
        let pages = &mut self.shards[shard];
        while pages.len() <= page {
            pages.push((0..PAGE).map(|_| Entry::nobody()).collect());
        }
        &mut pages[page][at.slot as usize % PAGE]
    }
}

fn entry_of(shards: &[Pages], at: Place) -> Option<&Entry> {
    let page = shards.get(usize::from(at.shard))?.get(at.slot as usize / PAGE)?;
    Some(&page[at.slot as usize % PAGE]).filter(|entry| entry.user_id != 0)
}

fn connection(at: Place, generation: u32) -> ConnId {
    ConnId { shard: u32::from(at.shard), slot: at.slot, generation }
}

/// Where a connection's entry belongs; `None`: no shard of ours has such numbers.
fn place_of(connection: ConnId) -> Option<Place> {
    let shard = u16::try_from(connection.shard).ok().filter(|shard| *shard != NONE.shard)?;
    (connection.slot < SLOTS_MAX).then_some(Place { slot: connection.slot, shard })
}
