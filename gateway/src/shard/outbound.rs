//! What waits for a connection that reads slowly: bytes that could not be sent, and the conversations
//! whose pushes were left out meanwhile. Long bytes that wait for many are there once.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use crate::limits::LEFT_IN_PLACE_BYTES;
use crate::net::sockets::Bytes;

/// The tail queue of one connection.
#[derive(Default)]
pub(super) struct Outbound {
    segments: VecDeque<Segment>,
    /// Bytes of all segments that are not sent.
    len: usize,
    /// Bytes at the front of the first segment that are sent.
    sent: usize,
    lagged: Vec<Lag>,
}

/// Bytes in one piece.
enum Segment {
    /// This connection's alone.
    Own(Vec<u8>),
    /// Others wait for them, too.
    Shared(Arc<[u8]>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// One conversation whose pushes were left out.
#[derive(Debug, PartialEq)]
pub(super) struct Lag {
    pub(super) conversation_id: Box<str>,
    pub(super) from_seq: u64,
}

/// Conversations one connection may lag in before it is closed: with that many a new sync is cheaper.
const LAGGED_MAX: usize = 256;

/// Short bytes go into one segment until it has that many: what is sent of a segment is given up with its last byte.
const SEGMENT_BYTES: usize = 16 * 1024;

/// Most segments handed to one send.
const SEGMENTS_PER_SEND: usize = 64;

/// The long pieces of one flush that have to wait, each kept once for all connections. What it is asked for must stay where
/// it is, as it is known by its place.
#[derive(Default)]
pub(super) struct Shares(HashMap<(usize, usize), Arc<[u8]>>);

impl Shares {
    fn of(&mut self, bytes: &[u8]) -> Arc<[u8]> {
        let place = (bytes.as_ptr().addr(), bytes.len());
        Arc::clone(self.0.entry(place).or_insert_with(|| Arc::from(bytes)))
    }
}

impl Outbound {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Hands what waits, or the beginning of it if there is much, to `send`, which returns how many bytes it sent.
    pub(super) fn send<E>(
        &mut self,
        send: impl FnOnce(Bytes<'_>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut parts = [IoSlice::new(&[]); SEGMENTS_PER_SEND];
        let mut count = 0;
        for (part, segment) in parts.iter_mut().zip(&self.segments) {
            let sent = if count == 0 { self.sent } else { 0 };
            *part = IoSlice::new(&segment.bytes()[sent..]);
            count += 1;
        }
        let sent = send(Bytes::Parts(&parts[..count]))?;
        self.advance(sent);
        Ok(sent)
    }

    /// `count` bytes from the front are sent.
    fn advance(&mut self, count: usize) {
        self.len -= count;
        self.sent += count;
        while let Some(first) = self.segments.front()
            && self.sent >= first.bytes().len()
        {
            self.sent -= first.bytes().len();
            self.segments.pop_front();
        }
    }

    /// More bytes wait: all but the first `skip` of `bytes`.
    pub(super) fn append(&mut self, bytes: Bytes<'_>, mut skip: usize, shares: &mut Shares) {
        bytes.each_part(|part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            let rest = &part[skipped..];
            match rest.len() {
                0 => {}
                // Only of the first segment a part may be sent.
                LEFT_IN_PLACE_BYTES.. if skipped == 0 || self.segments.is_empty() => {
                    self.len += rest.len();
                    self.sent += skipped;
                    self.segments.push_back(Segment::Shared(shares.of(part)));
                }
                _ => self.append_own(rest),
            }
        });
    }

    /// More bytes wait, which are this connection's alone.
    pub(super) fn append_own(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.segments.back_mut() {
            Some(Segment::Own(last)) if last.len() < SEGMENT_BYTES => {
                // By a quarter at a time: doubling would take twice what a slow reader is allowed.
                let room = last.capacity() - last.len();
                let missing = bytes.len().saturating_sub(room);
                if missing > 0 {
                    last.reserve_exact(room + missing.max(last.len() / 4));
                }
                last.extend_from_slice(bytes);
            }
            _ => self.segments.push_back(Segment::Own(bytes.to_vec())),
        }
    }

    /// Whether pushes of the conversation are being left out.
    pub(super) fn lags(&self, conversation_id: &str) -> bool {
        self.lagged.iter().any(|lag| &*lag.conversation_id == conversation_id)
    }

    /// Pushes of the conversation are left out from `from_seq` on. Returns false when the connection
    /// lags in too many conversations to go on.
    pub(super) fn mark_lagged(&mut self, conversation_id: &str, from_seq: u64) -> bool {
        let known = self.lagged.iter_mut().find(|lag| &*lag.conversation_id == conversation_id);
        if let Some(lag) = known {
            // What was worked again after a fault may be an older one.
            lag.from_seq = lag.from_seq.min(from_seq);
            return true;
        }
        self.lagged.push(Lag { conversation_id: conversation_id.into(), from_seq });
        self.lagged.len() <= LAGGED_MAX
    }

    /// Takes the marks: once what waited is sent, the client is told to pull.
    pub(super) fn take_lagged(&mut self) -> Vec<Lag> {
        std::mem::take(&mut self.lagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Outbound {
        /// Bytes of memory for what is this connection's alone.
        fn own_bytes(&self) -> usize {
            let own = |segment: &Segment| match segment {
                Segment::Own(bytes) => bytes.capacity(),
                Segment::Shared(_) => 0,
            };
            self.segments.iter().map(own).sum()
        }

        /// Sends at most that many.
        fn take(&mut self, at_most: usize) -> Vec<u8> {
            let mut taken = Vec::new();
            let sent = self.send(|bytes| {
                bytes.each_part(|part| taken.extend_from_slice(part));
                taken.truncate(at_most);
                Ok::<_, ()>(taken.len())
            });
            assert_eq!(sent, Ok(taken.len()));
            taken
        }
    }

    #[test]
    fn bytes_leave_in_order_and_the_queue_does_not_grow_for_ever() {
        let mut outbound = Outbound::default();
        let (mut put, mut got) = (0_u64, 0_u64);
        let mut pending = Vec::new();
        for round in 0..10_000 {
            outbound.append_own(&put.to_be_bytes());
            put += 1;
            pending.extend(outbound.take(outbound.len().min(1 + round % 13)));
            while pending.len() >= 8 {
                let word: Vec<_> = pending.drain(..8).collect();
                assert_eq!(u64::from_be_bytes(word.try_into().unwrap()), got);
                got += 1;
            }
        }
        assert!(outbound.own_bytes() < outbound.len() + 2 * SEGMENT_BYTES);
        assert!(outbound.segments.capacity() < 1_000);
        assert!(got > 5_000);
    }

    #[test]
    fn a_queue_takes_little_more_than_it_holds() {
        let mut outbound = Outbound::default();
        for _ in 0..1000 {
            outbound.append_own(&[0; 300]);
            assert!(outbound.own_bytes() <= outbound.len() + outbound.len() / 4 + 300);
        }
    }

    /// Whatever the pieces and however little is taken at a time: nothing is lost, doubled or out of order.
    #[test]
    fn shared_and_own_bytes_leave_in_order() {
        let lens = [3_000, 10, LEFT_IN_PLACE_BYTES, 0, 5_000, 1_500, LEFT_IN_PLACE_BYTES - 1];
        let pieces: Vec<Vec<u8>> = (0..lens.len() * 40)
            .map(|n| (0..lens[n % lens.len()]).map(|at| (at + 7 * n) as u8).collect())
            .collect();
        for skip in [0, 1, 2_500, 2_999, 3_000, 3_005] {
            for step in [1, 997, 8_000, 100_000] {
                let (mut outbound, mut shares) = (Outbound::default(), Shares::default());
                let (mut expected, mut got) = (Vec::new(), Vec::new());
                for (n, pair) in pieces.chunks(2).enumerate() {
                    let skip = if n % 5 == 0 { skip.min(pair.concat().len()) } else { 0 };
                    let parts: Vec<_> = pair.iter().map(|bytes| IoSlice::new(bytes)).collect();
                    outbound.append(Bytes::Parts(&parts), skip, &mut shares);
                    outbound.append_own(&[n as u8]);
                    expected.extend_from_slice(&pair.concat()[skip..]);
                    expected.push(n as u8);
                    got.extend(outbound.take(step));
                    assert_eq!(outbound.len(), expected.len() - got.len());
                }
                while outbound.len() > 0 {
                    got.extend(outbound.take(step.max(50)));
                }
                assert!(got == expected, "skip {skip}, step {step}");
                assert!(outbound.segments.is_empty());
            }
        }
    }

    #[test]
    fn what_waits_for_many_is_there_once() {
        let bytes = vec![7; 4_000];
        let mut shares = Shares::default();
        let readers: Vec<_> = (0..100)
            .map(|sent| {
                let mut outbound = Outbound::default();
                outbound.append(Bytes::Whole(&bytes), sent, &mut shares);
                assert_eq!((outbound.len(), outbound.own_bytes()), (4_000 - sent, 0));
                outbound
            })
            .collect();
        let kept = shares.of(&bytes);
        assert_eq!(Arc::strong_count(&kept), readers.len() + 2);
        drop((shares, readers));
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[test]
    fn one_mark_a_conversation_from_its_first_missing_message() {
        let mut outbound = Outbound::default();
        assert!(outbound.mark_lagged("a", 5));
        assert!(outbound.mark_lagged("a", 6));
        assert!(outbound.mark_lagged("a", 4));
        assert!(outbound.mark_lagged("b", 1));
        assert!(outbound.lags("a") && !outbound.lags("c"));
        let marks = outbound.take_lagged();
        assert_eq!(marks.len(), 2);
        assert_eq!(marks[0], Lag { conversation_id: "a".into(), from_seq: 4 });
        assert!(
            (0..=LAGGED_MAX).map(|n| outbound.mark_lagged(&n.to_string(), 1)).any(|fits| !fits)
        );
    }
}
