//! The newest sends, to answer a retry without asking the database. Bounded: the oldest give way.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::domain::message::ClientKey;
use crate::domain::{ConversationNo, UserId};
use crate::ports::Sent;

#[derive(Debug)]
struct Entry {
    key: ClientKey,
    conversation: ConversationNo,
    sender: UserId,
    sent: Sent,
}

/// A ring of entries, found by a table of their indices. Compares whole keys, so a chance equality of
/// hashes answers nothing wrongly.
#[derive(Debug)]
pub(super) struct Recent {
    ring: Vec<Entry>,
    next: usize,
    capacity: usize,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Recent {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.min(u32::MAX as usize);
        Self {
            ring: Vec::new(),
            next: 0,
            capacity,
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub(super) fn get(
        &self,
        key: &ClientKey,
        conversation: ConversationNo,
        sender: UserId,
    ) -> Option<Sent> {
        let hash = hash(&self.hasher, key, conversation, sender);
        let same = |&at: &u32| {
            let entry = &self.ring[at as usize];
            entry.conversation == conversation && entry.sender == sender && entry.key == *key
        };
        self.table.find(hash, same).map(|&at| self.ring[at as usize].sent)
    }

    /// Remembers a stored message. It must not be in yet.
    pub(super) fn insert(
        &mut self,
        key: ClientKey,
        conversation: ConversationNo,
        sender: UserId,
        sent: Sent,
    ) {
        if self.capacity == 0 {
            return;
        }
        let Self { ring, next, capacity, table, hasher } = self;
        let entry = Entry { key, conversation, sender, sent };
        let hash_of = |entry: &Entry| hash(hasher, &entry.key, entry.conversation, entry.sender);
        let new_hash = hash_of(&entry);
        let at = if ring.len() < *capacity {
            ring.push(entry);
            ring.len() - 1
        } else {
            let old = std::mem::replace(&mut ring[*next], entry);
            let at = *next;
            if let Ok(found) = table.find_entry(hash_of(&old), |&index| index as usize == at) {
                found.remove();
            }
            *next = (at + 1) % *capacity;
            at
        };
        table.insert_unique(new_hash, at as u32, |&index| hash_of(&ring[index as usize]));
    }
}

fn hash(
    hasher: &DefaultHashBuilder,
    key: &ClientKey,
    conversation: ConversationNo,
    sender: UserId,
) -> u64 {
    hasher.hash_one((key.as_bytes(), conversation, sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> ClientKey {
        ClientKey::parse(&format!("id-{n}")).unwrap()
    }

    #[test]
    fn the_oldest_give_way_and_all_parts_of_the_key_count() {
        let mut recent = Recent::new(8);
        for n in 0..20u32 {
            recent.insert(key(n), 1, 2, Sent { seq: n.into(), message_id: 0 });
        }
        for n in 0..20u32 {
            let want = (n >= 12).then_some(Sent { seq: n.into(), message_id: 0 });
            assert_eq!(recent.get(&key(n), 1, 2), want, "{n}");
            assert_eq!(recent.get(&key(n), 2, 2), None);
            assert_eq!(recent.get(&key(n), 1, 1), None);
        }
        assert_eq!(recent.table.len(), 8);
    }

    #[test]
    fn a_capacity_of_nothing_remembers_nothing() {
        let mut recent = Recent::new(0);
        recent.insert(key(1), 1, 1, Sent::default());
        assert_eq!(recent.get(&key(1), 1, 1), None);
    }
}
