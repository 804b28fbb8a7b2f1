//! The table of connections: entries in blocks of a slab, a table of 4-byte indices that finds a user's first entry, a
//! list by shard and slot that finds a connection's. Further devices of a user are chained from the first.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::classes::Classes;
use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::domain::device::{ClassPolicy, DevicePolicies};
use crate::ports::Login;

/// Highest shard number plus one: what a gateway may have.
const SHARDS_MAX: u32 = 4096;
/// Highest slot number plus one.
const SLOTS_MAX: u32 = 1 << 24;
/// No entry.
pub(super) const NONE: u32 = u32::MAX;
const BLOCK: usize = 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) user: UserId,
    /// Hash of the device id; 0: none given, never taken over.
    device: u64,
    slot: u32,
    generation: u32,
    /// Next entry of the same user, or of the list of free ones.
    pub(super) next: u32,
    shard: u16,
    /// Number of the device class.
    class: u16,
}

impl Entry {
    pub(super) fn connection(&self) -> ConnectionId {
        ConnectionId {
            gateway: 0,
            shard: u32::from(self.shard),
            slot: self.slot,
            generation: self.generation,
        }
    }
}

/// The table itself, under the lock.
#[derive(Debug)]
pub struct Table {
    blocks: Vec<Box<[Entry]>>,
    used: u32,
    free: u32,
    pub(super) count: usize,
    pub(super) by_user: HashTable<u32>,
    by_slot: Vec<Vec<u32>>,
    hasher: DefaultHashBuilder,
    classes: Classes,
    /// Users whose first connection came or whose last one went; emptied by whoever tells.
    pub(super) turned: Vec<UserId>,
}

impl Table {
    /// An empty table under these policies.
    pub(super) fn new(policies: &DevicePolicies) -> Self {
        Self {
            blocks: Vec::new(),
            used: 0,
            free: NONE,
            count: 0,
            by_user: HashTable::new(),
            by_slot: Vec::new(),
            hasher: DefaultHashBuilder::default(),
            classes: Classes::new(policies),
            turned: Vec::new(),
        }
    }
}

impl Table {
    /// Registers a connection, if the user has fewer than `most` or it takes the place of others, and the policy of
    /// its class allows it. An empty `device_id` never replaces anything but by policy.
    pub fn login(
        &mut self,
        user: UserId,
        device_id: &str,
        device_class: &str,
        connection: ConnectionId,
        most: usize,
    ) -> Login {
        if connection.shard >= SHARDS_MAX || connection.slot >= SLOTS_MAX {
            return Login::OutOfRange;
        }
        self.forget_slot(connection);
        let device = self.device(device_id);
        let class = self.classes.number(device_class);
        let old = (device != 0).then(|| self.find_device(user, device)).flatten();
        let same = self.others_of_class(user, device, class);
        let (refuses, kicks) = match self.classes.policy(class) {
            ClassPolicy::Allow => (false, false),
            ClassPolicy::KickOld => (false, !same.is_empty()),
            ClassPolicy::RefuseNew => (!same.is_empty(), false),
        };
        let most = if kicks { most.saturating_add(same.len()) } else { most };
        match old {
            Some(old) => {
                self.remove(old);
            }
            None if refuses => return Login::ClassTaken,
            None if self.has_at_least(user, most) => return Login::TooMany,
            None => {}
        }
        if kicks {
            for &other in &same {
                self.remove(other);
            }
        }
        self.insert(user, device, class, connection);
        match (old, kicks) {
            (None, false) => Login::Added,
            (Some(old), false) => Login::Replaced(old),
            (old, true) => Login::Kicked(old.into_iter().chain(same).collect()),
        }
    }

    fn insert(&mut self, user: UserId, device: u64, class: u16, connection: ConnectionId) {
        let first = self.first_of(user);
        if first == NONE {
            self.turned.push(user);
        }
        let ConnectionId { shard, slot, generation, .. } = connection;
        let shard = shard as u16;
        let at = self.allocate(Entry { user, device, slot, generation, next: first, shard, class });
        self.set_first(user, first, at);
        *self.slot_mut(connection) = at;
        self.count += 1;
    }

    /// Connections of the user's other devices of a class that has a policy.
    fn others_of_class(&self, user: UserId, device: u64, class: u16) -> Vec<ConnectionId> {
        if self.classes.policy(class) == ClassPolicy::Allow {
            return Vec::new();
        }
        let others = self
            .entries(user)
            .filter(|entry| entry.class == class && (device == 0 || entry.device != device));
        others.map(Entry::connection).collect()
    }

    /// Entries of a user.
    fn entries(&self, user: UserId) -> impl Iterator<Item = &Entry> {
        let mut at = self.first_of(user);
        std::iter::from_fn(move || {
            let entry = (at != NONE).then(|| self.entry(at))?;
            at = entry.next;
            Some(entry)
        })
    }

    /// Class of each connection of a user.
    pub(super) fn classes_of(&self, user: UserId) -> impl Iterator<Item = &str> {
        self.entries(user).map(|entry| self.classes.name(entry.class))
    }

    /// Takes out exactly this connection; gives its user, or `None` if it is not (or no longer) in.
    pub fn closed(&mut self, connection: ConnectionId) -> Option<UserId> {
        self.remove(connection)
    }

    /// All connections of a user.
    #[must_use]
    pub fn of(&self, user: UserId) -> Vec<ConnectionId> {
        self.entries(user).map(Entry::connection).collect()
    }

    /// Heap bytes held, for the check of the budget.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let slots: usize =
            self.by_slot.iter().map(|slots| slots.capacity() * size_of::<u32>()).sum();
        self.blocks.len() * BLOCK * size_of::<Entry>() + self.by_user.allocation_size() + slots
    }

    /// A slot used anew without its end having been told: the old entry is stale.
    fn forget_slot(&mut self, connection: ConnectionId) {
        let at = self.at_slot(connection);
        if at != NONE {
            let stale = self.entry(at).connection();
            self.remove(stale);
        }
    }

    fn device(&self, device_id: &str) -> u64 {
        if device_id.is_empty() { 0 } else { self.hasher.hash_one(device_id).max(1) }
    }

    fn has_at_least(&self, user: UserId, most: usize) -> bool {
        self.entries(user).take(most).count() == most
    }

    fn find_device(&self, user: UserId, device: u64) -> Option<ConnectionId> {
        self.entries(user).find(|entry| entry.device == device).map(Entry::connection)
    }

    fn remove(&mut self, connection: ConnectionId) -> Option<UserId> {
        let at = self.at_slot(connection);
        if at == NONE || self.entry(at).connection() != connection {
            return None;
        }
        let Entry { user, next, .. } = *self.entry(at);
        let first = self.first_of(user);
        if first == at {
            self.set_first(user, first, next);
            if next == NONE {
                self.turned.push(user);
            }
        } else {
            let mut before = first;
            while self.entry(before).next != at {
                before = self.entry(before).next;
            }
            self.entry_mut(before).next = next;
        }
        *self.slot_mut(connection) = NONE;
        self.entry_mut(at).next = self.free;
        self.free = at;
        self.count -= 1;
        Some(user)
    }

    pub(super) fn first_of(&self, user: UserId) -> u32 {
        let found =
            self.by_user.find(self.hasher.hash_one(user), |&at| self.entry(at).user == user);
        found.copied().unwrap_or(NONE)
    }

    /// Makes `new` the first entry of `user` where `old` was (either may be none).
    fn set_first(&mut self, user: UserId, old: u32, new: u32) {
        let Self { blocks, by_user, hasher, .. } = self;
        let hash = hasher.hash_one(user);
        match by_user.find_entry(hash, |&at| at == old) {
            Ok(mut found) if new != NONE => *found.get_mut() = new,
            Ok(found) => drop(found.remove()),
            Err(_) if new != NONE => {
                by_user.insert_unique(hash, new, |&at| hasher.hash_one(entry_of(blocks, at).user));
            }
            Err(_) => {}
        }
    }

    fn allocate(&mut self, entry: Entry) -> u32 {
        if self.free != NONE {
            let at = self.free;
            self.free = self.entry(at).next;
            *self.entry_mut(at) = entry;
            return at;
        }
        if self.used as usize == self.blocks.len() * BLOCK {
            self.blocks.push(vec![entry; BLOCK].into_boxed_slice());
        }
        let at = self.used;
        self.used += 1;
        *self.entry_mut(at) = entry;
        at
    }

    pub(super) fn entry(&self, at: u32) -> &Entry {
        entry_of(&self.blocks, at)
    }

    fn entry_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK]
    }

    fn at_slot(&self, connection: ConnectionId) -> u32 {
        let slots = self.by_slot.get(connection.shard as usize);
        slots.and_then(|slots| slots.get(connection.slot as usize)).copied().unwrap_or(NONE)
    }

    /// The place of a slot, made if need be; callers checked the range.
    fn slot_mut(&mut self, connection: ConnectionId) -> &mut u32 {
        let (shard, slot) = (connection.shard as usize, connection.slot as usize);
        if self.by_slot.len() <= shard {
            self.by_slot.resize_with(shard + 1, Vec::new);
        }
        let slots = &mut self.by_slot[shard];
        if slots.len() <= slot {
            slots.resize(slot + 1, NONE);
        }
        &mut slots[slot]
    }
}

fn entry_of(blocks: &[Box<[Entry]>], at: u32) -> &Entry {
    &blocks[at as usize / BLOCK][at as usize % BLOCK]
}
