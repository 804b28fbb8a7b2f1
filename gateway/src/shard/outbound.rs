//! What waits for a connection that reads slowly: bytes that could not be sent, and the conversations
//! whose pushes were left out meanwhile.

/// The tail queue of one connection.
#[derive(Default)]
pub(super) struct Outbound {
    queue: Vec<u8>,
    /// Bytes at the front of `queue` that are sent.
    sent: usize,
    lagged: Vec<Lag>,
}

/// One conversation whose pushes were left out.
#[derive(Debug, PartialEq)]
pub(super) struct Lag {
    pub(super) conversation_id: Box<str>,
    pub(super) from_seq: u64,
}

/// Conversations one connection may lag in before it is closed: with that many a new sync is cheaper.
const LAGGED_MAX: usize = 256;

impl Outbound {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// What waits, to be sent from the front.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.queue[self.sent..]
    }

    /// `count` bytes from the front are sent.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
        }
    }

    /// More bytes wait.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        // The sent part is given up once it is the larger one: each byte moves at most once more.
        if self.sent > self.len() {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        // By a quarter at a time: doubling would take twice what a slow reader is allowed.
        let missing = bytes.len().saturating_sub(self.queue.capacity() - self.queue.len());
        if missing > 0 {
            let room = self.queue.capacity() - self.queue.len();
            self.queue.reserve_exact(room + missing.max(self.queue.len() / 4));
        }
        self.queue.extend_from_slice(bytes);
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

    #[test]
    fn bytes_leave_in_order_and_the_queue_does_not_grow_for_ever() {
        let mut outbound = Outbound::default();
        let (mut put, mut got) = (0_u64, 0_u64);
        let mut pending = Vec::new();
        for round in 0..10_000 {
            outbound.append(&put.to_be_bytes());
            put += 1;
            let take = outbound.len().min(1 + round % 13);
            pending.extend_from_slice(&outbound.waiting()[..take]);
            outbound.advance(take);
            while pending.len() >= 8 {
                let word: Vec<_> = pending.drain(..8).collect();
                assert_eq!(u64::from_be_bytes(word.try_into().unwrap()), got);
                got += 1;
            }
        }
        assert!(outbound.queue.capacity() < 1 << 17, "{}", outbound.queue.capacity());
        assert!(got > 5_000);
    }

    #[test]
    fn a_queue_takes_little_more_than_it_holds() {
        let mut outbound = Outbound::default();
        for _ in 0..1000 {
            outbound.append(&[0; 300]);
            assert!(outbound.queue.capacity() <= outbound.len() + outbound.len() / 4 + 300);
        }
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
