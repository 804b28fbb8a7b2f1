//! The output of one turn: who gets which bytes of the arena. Bytes may be shared by many receivers.

use std::ops::Range;

use crate::net::poll_set::Token;

/// Where a connection's output of this turn is noted; 4 bytes in its table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadIndex(u32);

impl HeadIndex {
    /// No output yet.
    pub(super) const NONE: Self = Self(u32::MAX);
}

struct Head {
    token: Token,
    first: u32,
    last: u32,
    len: usize,
}

struct Piece {
    start: usize,
    end: usize,
    next: u32,
}

const END: u32 = u32::MAX;

/// The output of one turn.
#[derive(Default)]
pub(super) struct Outgoing {
    heads: Vec<Head>,
    pieces: Vec<Piece>,
    gathered: Vec<u8>,
}

/// Where the bytes of one connection lie: in the arena, or, if they came in pieces, gathered.
pub(super) enum Place {
    Arena(Range<usize>),
    Gathered(Range<usize>),
}

impl Outgoing {
    /// Adds bytes of the arena to a connection's output.
    pub(super) fn add(&mut self, head: &mut HeadIndex, token: Token, range: Range<usize>) {
        if *head == HeadIndex::NONE {
            *head = HeadIndex(index(self.heads.len()));
            let piece = self.push(&range);
            self.heads.push(Head { token, first: piece, last: piece, len: range.len() });
            return;
        }
        let at = head.0 as usize;
        self.heads[at].len += range.len();
        let last = &mut self.pieces[self.heads[at].last as usize];
        if last.end == range.start {
            last.end = range.end;
            return;
        }
        let piece = self.push(&range);
        self.pieces[self.heads[at].last as usize].next = piece;
        self.heads[at].last = piece;
    }

    fn push(&mut self, range: &Range<usize>) -> u32 {
        self.pieces.push(Piece { start: range.start, end: range.end, next: END });
        index(self.pieces.len() - 1)
    }

    /// Bytes a connection has in this turn so far.
    pub(super) fn len_of(&self, head: HeadIndex) -> usize {
        if head == HeadIndex::NONE { 0 } else { self.heads[head.0 as usize].len }
    }

    pub(super) fn receivers(&self) -> usize {
        self.heads.len()
    }

    /// Lays every connection's bytes in one piece; from here on nothing moves until `clear`.
    pub(super) fn gather(&mut self, arena: &[u8], places: &mut Vec<(Token, Place)>) {
        for head in &self.heads {
            let first = &self.pieces[head.first as usize];
            if first.next == END {
                places.push((head.token, Place::Arena(first.start..first.end)));
                continue;
            }
            let start = self.gathered.len();
            let mut at = head.first;
            while at != END {
                let piece = &self.pieces[at as usize];
                self.gathered.extend_from_slice(&arena[piece.start..piece.end]);
                at = piece.next;
            }
            places.push((head.token, Place::Gathered(start..self.gathered.len())));
        }
    }

    /// The bytes of a place.
    pub(super) fn bytes<'a>(&'a self, arena: &'a [u8], place: &Place) -> &'a [u8] {
        match place {
            Place::Arena(range) => &arena[range.clone()],
            Place::Gathered(range) => &self.gathered[range.clone()],
        }
    }

    /// Ready for the next turn.
    pub(super) fn clear(&mut self) {
        self.heads.clear();
        self.pieces.clear();
        self.gathered.clear();
    }
}

fn index(len: usize) -> u32 {
    // A turn flushes long before it has that many pieces.
    u32::try_from(len).unwrap_or(END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_connection_come_out_in_order_shared_or_not() {
        let arena = b"AAAbbbSHAREDccc";
        let mut outgoing = Outgoing::default();
        let (one, two) = (Token { slot: 1, generation: 0 }, Token { slot: 2, generation: 0 });
        let (mut head_one, mut head_two) = (HeadIndex::NONE, HeadIndex::NONE);
        outgoing.add(&mut head_one, one, 0..3);
        outgoing.add(&mut head_two, two, 6..12);
        outgoing.add(&mut head_one, one, 6..12);
        outgoing.add(&mut head_one, one, 3..6);
        outgoing.add(&mut head_two, two, 12..15);
        assert_eq!(
            (outgoing.len_of(head_one), outgoing.len_of(head_two), outgoing.receivers()),
            (12, 9, 2)
        );
        let mut places = Vec::new();
        outgoing.gather(arena, &mut places);
        let bytes: Vec<_> =
            places.iter().map(|(token, place)| (*token, outgoing.bytes(arena, place))).collect();
        assert_eq!(bytes, [(one, &b"AAASHAREDbbb"[..]), (two, &b"SHAREDccc"[..])]);
        assert!(matches!(places[1].1, Place::Arena(_)), "adjoining pieces are one");
    }
}
