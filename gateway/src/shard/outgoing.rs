//! The output of one turn: who gets which bytes. Bytes may be shared by many receivers, and long ones go out
//! from where they lie.

use std::io::IoSlice;
use std::ops::Range;

use crate::limits::LEFT_IN_PLACE_BYTES;
use crate::net::poll_set::Token;
use crate::net::sockets::{Bytes, PARTS_MAX};
use crate::session::{InPlace, Outputs};

/// Where a connection's output of this turn is noted; 4 bytes in its table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadIndex(u32);

impl HeadIndex {
    /// No output yet.
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// What the ranges of an output are ranges of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// What was written in this turn.
    Arena,
    /// The receive buffer, as it is until the next receive.
    Received,
}

/// The memory that an output refers to.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    pub(super) arena: &'a [u8],
    pub(super) received: &'a [u8],
}

impl<'a> Memory<'a> {
    fn bytes(&self, piece: &Piece) -> &'a [u8] {
        match piece.source {
            Source::Arena => &self.arena[piece.start..piece.end],
            Source::Received => &self.received[piece.start..piece.end],
        }
    }
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
    source: Source,
}

const END: u32 = u32::MAX;

/// The output of one turn.
#[derive(Default)]
pub(super) struct Outgoing {
    heads: Vec<Head>,
    pieces: Vec<Piece>,
    /// Some of the pieces are in the receive buffer.
    refers_to_received: bool,
    spare: Spare,
}

/// What is kept from turn to turn for its memory alone.
#[derive(Default)]
pub(super) struct Spare {
    gathered: Vec<u8>,
    parts: Vec<IoSlice<'static>>,
}

/// Where the bytes of one connection lie.
#[derive(Debug)]
pub(super) enum Place {
    /// In the arena.
    Arena(Range<usize>),
    /// Short pieces, copied together.
    Gathered(Range<usize>),
    /// Pieces of which one is long: each where it is.
    Parts(Range<usize>),
}

/// The output of one turn as it is handed over.
pub(super) struct Laid<'a> {
    arena: &'a [u8],
    gathered: Vec<u8>,
    parts: Vec<IoSlice<'a>>,
}

impl Outgoing {
    /// Adds bytes to a connection's output.
    pub(super) fn add(
        &mut self,
        head: &mut HeadIndex,
        token: Token,
        source: Source,
        range: Range<usize>,
    ) {
        self.refers_to_received |= source == Source::Received;
        if *head == HeadIndex::NONE {
            *head = HeadIndex(index(self.heads.len()));
            let piece = self.push(source, &range);
            self.heads.push(Head { token, first: piece, last: piece, len: range.len() });
            return;
        }
        let at = head.0 as usize;
        self.heads[at].len += range.len();
        let last = &mut self.pieces[self.heads[at].last as usize];
        if last.end == range.start && last.source == source {
            last.end = range.end;
            return;
        }
        let piece = self.push(source, &range);
        self.pieces[self.heads[at].last as usize].next = piece;
        self.heads[at].last = piece;
    }

    /// Adds what a session wrote: the bytes from `start` on, and between them what it left in place.
    pub(super) fn add_written(
        &mut self,
        head: &mut HeadIndex,
        token: Token,
        mut start: usize,
        outputs: &mut Outputs,
    ) {
        // Every message of every connection comes by here, hardly any with something left in place.
        if !outputs.in_place.is_empty() {
            for InPlace { before, received } in outputs.in_place.drain(..) {
                self.add(head, token, Source::Arena, start..before);
                self.add(head, token, Source::Received, received);
                start = before;
            }
        }
        let end = outputs.bytes.len();
        if start < end {
            self.add(head, token, Source::Arena, start..end);
        }
    }

    fn push(&mut self, source: Source, range: &Range<usize>) -> u32 {
        self.pieces.push(Piece { start: range.start, end: range.end, next: END, source });
        index(self.pieces.len() - 1)
    }

    /// Bytes a connection has in this turn so far.
    pub(super) fn len_of(&self, head: HeadIndex) -> usize {
        if head == HeadIndex::NONE { 0 } else { self.heads[head.0 as usize].len }
    }

    pub(super) fn receivers(&self) -> usize {
        self.heads.len()
    }

    /// Nothing may be received before this is sent.
    pub(super) fn refers_to_received(&self) -> bool {
        self.refers_to_received
    }

    /// Finds every connection's bytes a place to be sent from.
    pub(super) fn lay_out<'a>(
        &mut self,
        memory: &Memory<'a>,
        places: &mut Vec<(Token, Place)>,
    ) -> Laid<'a> {
        let Spare { gathered, parts } = std::mem::take(&mut self.spare);
        let mut laid = Laid { arena: memory.arena, gathered, parts: recycled(parts) };
        for head in &self.heads {
            let first = &self.pieces[head.first as usize];
            let place = if first.next == END && first.source == Source::Arena {
                Place::Arena(first.start..first.end)
            } else {
                laid.add(self.pieces_from(head.first).map(|piece| memory.bytes(piece)))
            };
            places.push((head.token, place));
        }
        laid
    }

    fn pieces_from(&self, first: u32) -> impl Iterator<Item = &Piece> + Clone {
        let piece = |at: u32| (at != END).then(|| &self.pieces[at as usize]);
        std::iter::successors(piece(first), move |last| piece(last.next))
    }

    /// Ready for the next turn.
    pub(super) fn clear(&mut self, spare: Spare) {
        self.heads.clear();
        self.pieces.clear();
        self.refers_to_received = false;
        self.spare = spare;
    }
}

impl<'a> Laid<'a> {
    fn add(&mut self, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Place {
        let long = pieces.clone().any(|bytes| bytes.len() >= LEFT_IN_PLACE_BYTES);
        if long && pieces.clone().count() <= PARTS_MAX {
            let start = self.parts.len();
            self.parts.extend(pieces.map(IoSlice::new));
            return Place::Parts(start..self.parts.len());
        }
        let start = self.gathered.len();
        pieces.for_each(|bytes| self.gathered.extend_from_slice(bytes));
        Place::Gathered(start..self.gathered.len())
    }

    /// The bytes of a place.
    pub(super) fn bytes(&self, place: &Place) -> Bytes<'_> {
        match place {
            Place::Arena(range) => Bytes::Whole(&self.arena[range.clone()]),
            Place::Gathered(range) => Bytes::Whole(&self.gathered[range.clone()]),
            Place::Parts(range) => Bytes::Parts(&self.parts[range.clone()]),
        }
    }

    /// Its memory, for the next turn.
    pub(super) fn into_spare(self) -> Spare {
        let mut gathered = self.gathered;
        gathered.clear();
        Spare { gathered, parts: recycled(self.parts) }
    }
}

/// An empty list in the memory of another, of which nothing is kept; so the two may be of things with different
/// lifetimes. That no memory is asked for is not promised by `collect`, but what it does.
pub(super) fn recycled<A, B>(mut list: Vec<A>) -> Vec<B> {
    list.clear();
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}

fn index(len: usize) -> u32 {
    // A turn flushes long before it has that many pieces.
    u32::try_from(len).unwrap_or(END)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Token = Token { slot: 1, generation: 0 };
    const TWO: Token = Token { slot: 2, generation: 0 };

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Arena,
        Gathered,
        Parts,
    }

    /// What goes out to whom, and from what kind of place.
    fn laid_out(
        outgoing: &mut Outgoing,
        arena: &[u8],
        received: &[u8],
    ) -> Vec<(Token, Vec<u8>, Kind)> {
        let mut places = Vec::new();
        let laid = outgoing.lay_out(&Memory { arena, received }, &mut places);
        let out = places
            .iter()
            .map(|(token, place)| {
                let mut bytes = Vec::new();
                laid.bytes(place).each_part(|part| bytes.extend_from_slice(part));
                assert_eq!(bytes.len(), laid.bytes(place).len());
                let kind = match place {
                    Place::Arena(_) => Kind::Arena,
                    Place::Gathered(_) => Kind::Gathered,
                    Place::Parts(_) => Kind::Parts,
                };
                (*token, bytes, kind)
            })
            .collect();
        outgoing.clear(laid.into_spare());
        out
    }

    #[test]
    fn bytes_of_a_connection_come_out_in_order_shared_or_not() {
        let arena = b"AAAbbbSHAREDccc";
        let mut outgoing = Outgoing::default();
        for _ in 0..2 {
            let (mut head_one, mut head_two) = (HeadIndex::NONE, HeadIndex::NONE);
            outgoing.add(&mut head_one, ONE, Source::Arena, 0..3);
            outgoing.add(&mut head_two, TWO, Source::Arena, 6..12);
            outgoing.add(&mut head_one, ONE, Source::Arena, 6..12);
            outgoing.add(&mut head_one, ONE, Source::Arena, 3..6);
            outgoing.add(&mut head_two, TWO, Source::Arena, 12..15);
            assert_eq!(
                (outgoing.len_of(head_one), outgoing.len_of(head_two), outgoing.receivers()),
                (12, 9, 2)
            );
            assert!(!outgoing.refers_to_received());
            assert_eq!(
                laid_out(&mut outgoing, arena, b""),
                [
                    (ONE, b"AAASHAREDbbb".to_vec(), Kind::Gathered),
                    (TWO, b"SHAREDccc".to_vec(), Kind::Arena)
                ],
                "adjoining pieces are one"
            );
        }
    }

    #[test]
    fn long_pieces_stay_where_they_are() {
        let arena: Vec<u8> = (0..5_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let received = arena.iter().map(|byte| !byte).collect::<Vec<_>>();
        let (mut outgoing, mut head) = (Outgoing::default(), HeadIndex::NONE);
        outgoing.add(&mut head, ONE, Source::Arena, 0..10);
        outgoing.add(&mut head, ONE, Source::Received, 10..1_200);
        outgoing.add(&mut head, ONE, Source::Arena, 1_200..1_202);
        assert!(outgoing.refers_to_received());
        let expected = [&arena[..10], &received[10..1_200], &arena[1_200..1_202]].concat();
        assert_eq!(laid_out(&mut outgoing, &arena, &received), [(ONE, expected, Kind::Parts)]);
        assert!(!outgoing.refers_to_received());
    }

    /// More parts than one send takes are copied together instead.
    #[test]
    fn the_kernel_is_not_given_too_many_parts() {
        let arena = vec![7; 3_000];
        for (pieces, kind) in [(PARTS_MAX, Kind::Parts), (PARTS_MAX + 1, Kind::Gathered)] {
            let (mut outgoing, mut head) = (Outgoing::default(), HeadIndex::NONE);
            outgoing.add(&mut head, ONE, Source::Arena, 0..2_000);
            for _ in 1..pieces {
                outgoing.add(&mut head, ONE, Source::Arena, 5..6);
            }
            let expected = vec![7; 2_000 + pieces - 1];
            assert_eq!(laid_out(&mut outgoing, &arena, b""), [(ONE, expected, kind)]);
        }
    }

    #[test]
    fn memory_is_kept_from_turn_to_turn() {
        let bytes = [7; 10];
        let mut parts: Vec<IoSlice<'_>> = Vec::with_capacity(100);
        let place = parts.as_ptr().addr();
        parts.push(IoSlice::new(&bytes));
        let kept: Vec<IoSlice<'static>> = recycled(parts);
        assert_eq!((kept.len(), kept.capacity(), kept.as_ptr().addr()), (0, 100, place));
    }

    #[test]
    fn what_a_session_wrote_is_taken_in_its_order() {
        let mut outputs =
            Outputs { bytes: b"beforeHEADbetweenHEADEND".to_vec(), ..Outputs::default() };
        outputs.in_place.push(InPlace { before: 10, received: 0..3 });
        outputs.in_place.push(InPlace { before: 21, received: 3..6 });
        let (mut outgoing, mut head) = (Outgoing::default(), HeadIndex::NONE);
        outgoing.add_written(&mut head, ONE, 6, &mut outputs);
        assert!(outputs.in_place.is_empty());
        assert_eq!(
            laid_out(&mut outgoing, &outputs.bytes, b"abcdef"),
            [(ONE, b"HEADabcbetweenHEADdefEND".to_vec(), Kind::Gathered)]
        );
    }
}
