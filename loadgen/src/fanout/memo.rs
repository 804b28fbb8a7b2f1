//! All members get the same bytes: a push is parsed once, and every further copy of it is only compared.

use crate::oracle::Seen;

const ENTRIES: usize = 4096;

#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    seen: Seen,
    due_ns: u64,
}

/// Pushes that were parsed and found right.
#[derive(Debug)]
pub(super) struct Memo {
    entries: Vec<Option<Entry>>,
    /// Where the last one that was looked for is: mostly the next one is the same.
    last: usize,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self { entries: std::iter::repeat_with(|| None).take(ENTRIES).collect(), last: 0 }
    }

    /// What a push says that came before, byte by byte the same.
    pub(super) fn get(&mut self, text: &[u8]) -> Option<(Seen, u64)> {
        let known = |at: usize| {
            self.entries[at].as_ref().filter(|e| *e.text == *text).map(|e| (e.seen, e.due_ns))
        };
        if let Some(found) = known(self.last) {
            return Some(found);
        }
        let at = place(text);
        let found = known(at)?;
        self.last = at;
        Some(found)
    }

    pub(super) fn put(&mut self, text: &[u8], seen: Seen, due_ns: u64) {
        self.last = place(text);
        self.entries[self.last] = Some(Entry { text: text.into(), seen, due_ns });
    }
}

fn place(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let hash = words.iter().fold(0, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let hash = rest.iter().fold(hash, |hash, &byte| mix(hash, byte.into()));
    (hash >> 52) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: u32) -> Seen {
        Seen { sender: 1, number, seq: u64::from(number) + 1 }
    }

    #[test]
    fn only_the_same_bytes_are_found() {
        let mut memo = Memo::new();
        let text = |number: u32| format!("push number {number} of a group").into_bytes();
        for number in 0..100 {
            assert_eq!(memo.get(&text(number)), None);
            memo.put(&text(number), seen(number), u64::from(number));
        }
        let found = (0..100).filter(|&n| memo.get(&text(n)) == Some((seen(n), n.into()))).count();
        assert!(found > 90, "few share a place: {found}");
        let mut changed = text(99);
        changed[3] ^= 1;
        assert_eq!(memo.get(&changed), None);
        assert_eq!(memo.get(&text(99)[1..]), None);
    }
}
