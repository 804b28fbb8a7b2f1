//! The last seq of each conversation that spoke lately, in memory. Bounded: those not used give way.

use hashbrown::HashMap;

use crate::domain::ConversationNo;

/// Heads in two generations: what is used moves to the young one; when that is full it becomes the old one, and the
/// old one is forgotten.
#[derive(Debug)]
pub(super) struct Heads {
    young: HashMap<ConversationNo, u64>,
    old: HashMap<ConversationNo, u64>,
    max: usize,
}

impl Heads {
    /// Keeps between `max` / 2 and `max`; while a tick is under way, more if it needs more.
    pub(super) fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), max }
    }

    /// To be called between ticks.
    pub(super) fn age(&mut self) {
        if self.young.len() > self.max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// The last seq of a conversation; 0: none yet, `None`: not known.
    pub(super) fn get(&mut self, no: ConversationNo) -> Option<u64> {
        if let Some(&seq) = self.young.get(&no) {
            return Some(seq);
        }
        let seq = self.old.remove(&no)?;
        self.young.insert(no, seq);
        Some(seq)
    }

    pub(super) fn set(&mut self, no: ConversationNo, seq: u64) {
        self.young.insert(no, seq);
    }

    /// What is known of this conversation is in doubt.
    pub(super) fn forget(&mut self, no: ConversationNo) {
        self.young.remove(&no);
        self.old.remove(&no);
    }

    pub(super) fn clear(&mut self) {
        self.young = HashMap::new();
        self.old = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_used_stay_the_others_go_and_the_number_is_bounded() {
        let mut heads = Heads::new(100);
        for no in 0..1000 {
            heads.age();
            heads.set(no, no + 1);
            assert_eq!(heads.get(0), Some(1), "used all the time");
            assert!(heads.young.len() + heads.old.len() <= 103);
        }
        assert_eq!((heads.get(999), heads.get(5)), (Some(1000), None));
        heads.forget(999);
        assert_eq!(heads.get(999), None);
        heads.clear();
        assert_eq!(heads.get(0), None);
    }
}
