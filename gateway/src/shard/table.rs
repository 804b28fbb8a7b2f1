//! The connection table: slots with generations.

use crate::net::poll_set::Token;

/// Slots are allocated a page at a time: growing never copies and never doubles.
const PAGE: usize = 1024;

struct Slot<T> {
    /// Counts the entries that have lived here; a token of an earlier one finds nothing.
    generation: u32,
    entry: Option<T>,
}

/// Entries found by token.
pub(super) struct Table<T> {
    pages: Vec<Box<[Slot<T>]>>,
    free: Vec<u32>,
    used: usize,
    len: usize,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), used: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry; the token names it until it is removed.
    pub(super) fn insert(&mut self, entry: T) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| self.unused_slot());
        let place = &mut self.pages[slot as usize / PAGE][slot as usize % PAGE];
        place.entry = Some(entry);
        self.len += 1;
        Token { slot, generation: place.generation }
    }

    fn unused_slot(&mut self) -> u32 {
        if self.used == self.pages.len() * PAGE {
            self.pages.push((0..PAGE).map(|_| Slot { generation: 0, entry: None }).collect());
        }
        self.used += 1;
        u32::try_from(self.used - 1).unwrap_or(u32::MAX)
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot<T>> {
        let page = self.pages.get_mut(token.slot as usize / PAGE)?;
        let slot = &mut page[token.slot as usize % PAGE];
        (slot.generation == token.generation).then_some(slot)
    }

    /// The entry, unless it was removed.
    pub(super) fn get(&self, token: Token) -> Option<&T> {
        let slot = &self.pages.get(token.slot as usize / PAGE)?[token.slot as usize % PAGE];
        if slot.generation == token.generation { slot.entry.as_ref() } else { None }
    }

    /// The entry, unless it was removed.
    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.slot(token)?.entry.as_mut()
    }

    /// How many of the tokens have their entry still. To ask for all of a turn's before the first is used
    /// fetches them side by side: an entry that was idle lies in cold memory, and one look at it after the
    /// other waits for each (0.15 us a message of an echo among 15,000 connections).
    pub(super) fn count_live(&self, tokens: impl Iterator<Item = Token>) -> usize {
        tokens.filter(|token| self.get(*token).is_some()).count()
    }

    /// Takes the entry out; its token is worthless from here on.
    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slot(token)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(token.slot);
        self.len -= 1;
        Some(entry)
    }

    /// The tokens of all entries.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let slots = self.pages.iter().flat_map(|page| page.iter());
        let named = (0..).zip(slots).filter(|(_, slot)| slot.entry.is_some());
        named.map(|(slot, place)| Token { slot, generation: place.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_does_not_answer_to_its_old_token() {
        let mut table = Table::new();
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_eq!(second.slot, first.slot);
        assert_eq!(table.get(first), None);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&"second"));
        assert_eq!(table.tokens(), [second]);
        assert_eq!(table.count_live([first, second].into_iter()), 1);
    }

    #[test]
    fn it_grows_by_pages_and_reuses() {
        let mut table = Table::new();
        let tokens: Vec<_> = (0..3000).map(|n| table.insert(n)).collect();
        assert_eq!(table.len(), 3000);
        assert_eq!(table.pages.len(), 3);
        for token in &tokens {
            table.remove(*token);
        }
        for n in 0..3000 {
            table.insert(n);
        }
        assert_eq!((table.len(), table.pages.len()), (3000, 3));
        assert_eq!(table.get(Token { slot: 1 << 30, generation: 0 }), None);
    }
}
