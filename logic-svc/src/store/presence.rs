//! Who is connected where, in memory: about 45 bytes a user with one connection.
//!
//! Entries sit in blocks of a slab; a table of 4-byte indices finds a user's first entry, a list by shard and slot
//! finds a connection's. Further devices of a user are chained from the first.

use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::ports::{Login, Presence, PresenceView, SessionChange, Sessions, StoreError};

/// Highest shard number plus one: what a gateway may have.
const SHARDS_MAX: u32 = 4096;
/// Highest slot number plus one.
const SLOTS_MAX: u32 = 1 << 24;
/// No entry.
const NONE: u32 = u32::MAX;
const BLOCK: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Entry {
    user: UserId,
    /// Hash of the device id; 0: none given, never taken over.
    device: u64,
    slot: u32,
    generation: u32,
    /// Next entry of the same user, or of the list of free ones.
    next: u32,
    shard: u16,
}

impl Entry {
    fn connection(&self) -> ConnectionId {
        ConnectionId {
            gateway: 0,
            shard: u32::from(self.shard),
            slot: self.slot,
            generation: self.generation,
        }
    }
}

/// All connections.
#[derive(Debug, Default)]
pub struct LocalPresence(RwLock<Table>);

/// The table itself, under the lock.
#[derive(Debug)]
pub struct Table {
    blocks: Vec<Box<[Entry]>>,
    used: u32,
    free: u32,
    count: usize,
    by_user: HashTable<u32>,
    by_slot: Vec<Vec<u32>>,
    hasher: DefaultHashBuilder,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            used: 0,
            free: NONE,
            count: 0,
            by_user: HashTable::new(),
            by_slot: Vec::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl LocalPresence {
    /// The table for changing it. Whoever answers a login does so before letting go, so that no delivery
    /// overtakes the answer.
    pub fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table for looking things up.
    pub fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions for LocalPresence {
    fn change(
        &self,
        most: usize,
        plan: &mut dyn FnMut() -> Vec<SessionChange>,
        done: &mut dyn FnMut(Vec<Login>),
    ) -> Result<(), StoreError> {
        let mut table = self.write();
        let mut outcomes = Vec::new();
        for change in plan() {
            match change {
                SessionChange::Login { user, connection, device_id, .. } => {
                    outcomes.push(table.login(user, &device_id, connection, most));
                }
                SessionChange::Closed { connection, .. } => drop(table.closed(connection)),
            }
        }
        done(outcomes);
        Ok(())
    }

    fn of(&self, users: &[UserId]) -> Result<Vec<ConnectionId>, StoreError> {
        let table = self.read();
        Ok(users.iter().flat_map(|&user| table.of(user)).collect())
    }
}

impl Presence for LocalPresence {
    type View<'a> = RwLockReadGuard<'a, Table>;

    fn view(&self) -> Self::View<'_> {
        self.read()
    }
}

impl PresenceView for RwLockReadGuard<'_, Table> {
    fn connections(&self, user: UserId, mut found: impl FnMut(ConnectionId)) {
        let mut at = self.first_of(user);
        while at != NONE {
            let entry = self.entry(at);
            found(entry.connection());
            at = entry.next;
        }
    }

    fn len(&self) -> usize {
        self.count
    }

    fn all(&self, mut found: impl FnMut(UserId, ConnectionId)) {
        for &first in &self.by_user {
            let mut at = first;
            while at != NONE {
                let entry = self.entry(at);
                found(entry.user, entry.connection());
                at = entry.next;
            }
        }
    }
}

impl Table {
    /// Registers a connection, if the user has fewer than `most` or it takes the place of another one. An empty
    /// `device_id` never replaces anything.
    pub fn login(
        &mut self,
        user: UserId,
        device_id: &str,
        connection: ConnectionId,
        most: usize,
    ) -> Login {
        if connection.shard >= SHARDS_MAX || connection.slot >= SLOTS_MAX {
            return Login::OutOfRange;
        }
        self.forget_slot(connection);
        let device = self.device(device_id);
        let old = (device != 0).then(|| self.find_device(user, device)).flatten();
        match old {
            Some(old) => drop(self.remove(old)),
            None if self.has_at_least(user, most) => return Login::TooMany,
            None => {}
        }
        let first = self.first_of(user);
        let entry = Entry {
            user,
            device,
            slot: connection.slot,
            generation: connection.generation,
            next: first,
            shard: connection.shard as u16,
        };
        let at = self.allocate(entry);
        self.set_first(user, first, at);
        *self.slot_mut(connection) = at;
        self.count += 1;
        old.map_or(Login::Added, Login::Replaced)
    }

    /// Takes out exactly this connection; gives its user, or `None` if it is not (or no longer) in.
    pub fn closed(&mut self, connection: ConnectionId) -> Option<UserId> {
        self.remove(connection)
    }

    /// All connections of a user.
    #[must_use]
    pub fn of(&self, user: UserId) -> Vec<ConnectionId> {
        let mut found = Vec::new();
        let mut at = self.first_of(user);
        while at != NONE {
            found.push(self.entry(at).connection());
            at = self.entry(at).next;
        }
        found
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
        let mut at = self.first_of(user);
        for _ in 0..most {
            if at == NONE {
                return false;
            }
            at = self.entry(at).next;
        }
        true
    }

    fn find_device(&self, user: UserId, device: u64) -> Option<ConnectionId> {
        let mut at = self.first_of(user);
        while at != NONE {
            let entry = self.entry(at);
            if entry.device == device {
                return Some(entry.connection());
            }
            at = entry.next;
        }
        None
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

    fn first_of(&self, user: UserId) -> u32 {
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

    fn entry(&self, at: u32) -> &Entry {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// No limit.
    const ANY: usize = usize::MAX;

    fn on(shard: u32, slot: u32, generation: u32) -> ConnectionId {
        ConnectionId { gateway: 0, shard, slot, generation }
    }

    #[test]
    fn the_same_device_takes_over_and_other_devices_stay() {
        let presence = LocalPresence::default();
        let mut table = presence.write();
        assert_eq!(table.login(7, "phone", on(0, 1, 1), ANY), Login::Added);
        assert_eq!(table.login(7, "web", on(1, 1, 1), ANY), Login::Added);
        assert_eq!(table.login(7, "", on(1, 2, 1), ANY), Login::Added);
        assert_eq!(table.login(7, "", on(1, 3, 1), ANY), Login::Added);
        assert_eq!(table.login(8, "phone", on(0, 9, 1), ANY), Login::Added);
        assert_eq!(table.login(7, "phone", on(2, 4, 1), ANY), Login::Replaced(on(0, 1, 1)));
        assert_eq!(table.of(7).len(), 4);
        assert_eq!(table.closed(on(0, 1, 1)), None, "already replaced");
    }

    #[test]
    fn a_user_has_so_many_connections_and_no_more() {
        let presence = LocalPresence::default();
        let mut table = presence.write();
        assert_eq!(table.login(7, "phone", on(0, 1, 1), 2), Login::Added);
        assert_eq!(table.login(7, "", on(0, 2, 1), 2), Login::Added);
        assert_eq!(table.login(7, "web", on(0, 3, 1), 2), Login::TooMany);
        assert_eq!(table.login(7, "", on(0, 3, 1), 2), Login::TooMany);
        assert_eq!(table.of(7).len(), 2);
        assert_eq!(table.login(8, "web", on(0, 3, 1), 2), Login::Added, "others are not concerned");
        assert_eq!(table.login(7, "phone", on(0, 4, 1), 2), Login::Replaced(on(0, 1, 1)));
        assert_eq!(table.closed(on(0, 2, 1)), Some(7));
        assert_eq!(table.login(7, "web", on(0, 5, 1), 2), Login::Added);
    }

    #[test]
    fn a_late_end_of_an_old_generation_changes_nothing() {
        let presence = LocalPresence::default();
        let mut table = presence.write();
        table.login(7, "a", on(0, 1, 1), ANY);
        table.login(8, "b", on(0, 1, 2), ANY);
        assert!(table.of(7).is_empty(), "the slot went to another connection");
        assert_eq!(table.closed(on(0, 1, 1)), None);
        assert_eq!(table.closed(on(0, 1, 2)), Some(8));
        assert_eq!(table.closed(on(0, 1, 2)), None);
    }

    #[test]
    fn numbers_out_of_range_take_no_memory() {
        let presence = LocalPresence::default();
        let mut table = presence.write();
        assert_eq!(table.login(1, "", on(SHARDS_MAX, 0, 0), ANY), Login::OutOfRange);
        assert_eq!(table.login(1, "", on(0, SLOTS_MAX, 0), ANY), Login::OutOfRange);
        assert_eq!(table.heap_bytes(), 0);
    }

    #[test]
    fn a_user_with_one_connection_is_small() {
        for users in [15_000u32, 60_000] {
            let presence = LocalPresence::default();
            let mut table = presence.write();
            for user in 0..users {
                table.login(u64::from(user) + 1, "web", on(user % 2, user / 2, 1), ANY);
            }
            let each = table.heap_bytes() / users as usize;
            assert!(each <= 52, "{each} bytes a user of {users}");
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((0u8..4, 1u64..5, 0u32..3, 0u32..2, 0u32..4), 1..200)) {
            let presence = LocalPresence::default();
            let mut model: BTreeMap<(u32, u32), (u64, u32, ConnectionId)> = BTreeMap::new();
            let mut generation = 0;
            for (op, user, device, shard, slot) in ops {
                if op > 0 {
                    generation += 1;
                    let connection = on(shard, slot, generation);
                    model.remove(&(shard, slot));
                    let name = if device == 0 { String::new() } else { format!("d{device}") };
                    let old = model.iter().find(|(_, v)| device != 0 && v.0 == user && v.1 == device).map(|(k, v)| (*k, v.2));
                    if let Some((key, _)) = old { model.remove(&key); }
                    model.insert((shard, slot), (user, device, connection));
                    let want = old.map_or(Login::Added, |(_, c)| Login::Replaced(c));
                    prop_assert_eq!(presence.write().login(user, &name, connection, ANY), want);
                } else if let Some(&(user, _, connection)) = model.get(&(shard, slot)) {
                    model.remove(&(shard, slot));
                    prop_assert_eq!(presence.write().closed(connection), Some(user));
                }
                let view = presence.view();
                prop_assert_eq!(view.len(), model.len());
                for user in 1..5 {
                    let mut got = view.of(user);
                    let mut want: Vec<_> = model.values().filter(|v| v.0 == user).map(|v| v.2).collect();
                    let by = |c: &ConnectionId| (c.shard, c.slot, c.generation);
                    got.sort_by_key(by);
                    want.sort_by_key(by);
                    prop_assert_eq!(got, want);
                }
                let mut all = 0;
                view.all(|_, _| all += 1);
                prop_assert_eq!(all, model.len());
            }
        }
    }
}
