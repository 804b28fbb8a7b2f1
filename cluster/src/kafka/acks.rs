//! Offsets that may be committed: those of ticks whose records are all acknowledged, in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Names one tick. Fits the token that [`super::Producer::send`] takes.
pub type Token = u64;

/// Topic, partition, and the offset of the first record that is *not* done.
pub type NextOffset = (String, u32, i64);

/// Bits of a token that count ticks; the ones above hold the tag.
const COUNTER_BITS: u32 = 48;

/// Keeps the order of ticks: a tick reads records, sends others, and its offsets may be committed
/// once all of those are acknowledged and every tick before it is done too.
///
/// `begin` and `expect` are called by the thread that works the ticks, `acked` by the delivery
/// callback, `take_committable` by the thread that owns the consumer.
#[derive(Debug)]
pub struct Acks {
    tag: u16,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ticks: VecDeque<Tick>,
    /// Counter of the tick at the front of `ticks`.
    first: u64,
}

#[derive(Debug)]
struct Tick {
    offsets: Vec<NextOffset>,
    expected: u64,
    acked: u64,
    /// Whether `expect` has been called: before that nobody knows how many are missing.
    counted: bool,
    begun: Instant,
}

impl Tick {
    fn is_done(&self) -> bool {
        self.counted && self.acked >= self.expected
    }
}

impl Default for Acks {
    fn default() -> Acks {
        Acks::new(0)
    }
}

impl Acks {
    /// Nothing outstanding. The tag comes back from [`Acks::tag_of`]: with it the delivery
    /// callback of one producer finds the `Acks` that a token belongs to.
    #[must_use]
    pub fn new(tag: u16) -> Acks {
        Acks { tag, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The tag that was given to the `Acks` which made this token.
    #[must_use]
    pub fn tag_of(token: Token) -> u16 {
        (token >> COUNTER_BITS) as u16
    }

    /// Begins a tick that has read up to `offsets`. Ticks are committed in the order of this call.
    #[must_use]
    pub fn begin(&self, offsets: Vec<NextOffset>) -> Token {
        let mut state = self.lock();
        let counter = state.first + state.ticks.len() as u64;
        state.ticks.push_back(Tick {
            offsets,
            expected: 0,
            acked: 0,
            counted: false,
            begun: Instant::now(),
        });
        (u64::from(self.tag) << COUNTER_BITS) | counter
    }

    /// Says how many acknowledgements the tick needs; 0 finishes it. It may be called after some
    /// of them have come in, once for each tick; further calls add to the number.
    pub fn expect(&self, token: Token, records: u64) {
        self.change(token, |tick| {
            tick.expected += records;
            tick.counted = true;
        });
    }

    /// One record of the tick is durable, or nobody wants it any more.
    pub fn acked(&self, token: Token) {
        self.change(token, |tick| tick.acked += 1);
    }

    /// The offsets that may be committed since the last call: one entry for each partition.
    #[must_use]
    pub fn take_committable(&self) -> Vec<NextOffset> {
        let mut state = self.lock();
        let mut highest: BTreeMap<(String, u32), i64> = BTreeMap::new();
        while state.ticks.front().is_some_and(Tick::is_done) {
            let Some(tick) = state.ticks.pop_front() else { break };
            state.first += 1;
            for (topic, partition, next) in tick.offsets {
                let seen = highest.entry((topic, partition)).or_insert(next);
                *seen = next.max(*seen);
            }
        }
        highest.into_iter().map(|((topic, partition), next)| (topic, partition, next)).collect()
    }

    /// Ticks that are begun and not yet taken.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.lock().ticks.len()
    }

    /// How long the oldest tick that is not done has been waiting.
    #[must_use]
    pub fn oldest_wait(&self) -> Option<Duration> {
        self.lock().ticks.iter().find(|tick| !tick.is_done()).map(|tick| tick.begun.elapsed())
    }

    /// Waits until every tick is done, at most for `limit`; says whether they are.
    pub fn wait(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if state.ticks.iter().all(Tick::is_done) {
                return true;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Forgets partitions that were given up: their new owner commits them.
    pub fn forget(&self, partitions: &[(String, u32)]) {
        let mut state = self.lock();
        for tick in &mut state.ticks {
            tick.offsets.retain(|(topic, partition, _)| {
                !partitions.iter().any(|(name, number)| name == topic && number == partition)
            });
        }
    }

    fn change(&self, token: Token, change: impl FnOnce(&mut Tick)) {
        let mut state = self.lock();
        let counter = token & ((1 << COUNTER_BITS) - 1);
        // A token of another tag, or of a tick that is done: nothing to count.
        let index = counter.checked_sub(state.first).filter(|_| Acks::tag_of(token) == self.tag);
        let Some(tick) = index.and_then(|index| state.ticks.get_mut(index as usize)) else {
            return;
        };
        change(tick);
        if tick.is_done() {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(partition: u32, next: i64) -> NextOffset {
        ("t".to_owned(), partition, next)
    }

    #[test]
    fn a_later_tick_waits_for_the_earlier_one() {
        let acks = Acks::new(0);
        let (first, second) = (acks.begin(vec![at(0, 10)]), acks.begin(vec![at(0, 20)]));
        acks.expect(first, 2);
        acks.expect(second, 1);
        acks.acked(second);
        acks.acked(first);
        assert!(acks.take_committable().is_empty());
        acks.acked(first);
        assert_eq!(acks.take_committable(), [at(0, 20)]);
        assert_eq!(acks.outstanding(), 0);
    }

    #[test]
    fn acknowledgements_may_come_before_their_number_is_known() {
        let acks = Acks::new(7);
        let token = acks.begin(vec![at(3, 5)]);
        acks.acked(token);
        acks.acked(token);
        assert!(acks.take_committable().is_empty(), "not counted yet");
        acks.expect(token, 2);
        assert_eq!(acks.take_committable(), [at(3, 5)]);
        assert_eq!(Acks::tag_of(token), 7);
    }

    #[test]
    fn tokens_of_others_and_of_finished_ticks_count_nothing() {
        let (acks, other) = (Acks::new(1), Acks::new(2));
        let (token, stranger) = (acks.begin(vec![at(0, 1)]), other.begin(vec![at(0, 9)]));
        acks.expect(token, 1);
        acks.acked(stranger);
        assert!(acks.take_committable().is_empty());
        acks.acked(token);
        assert_eq!(acks.take_committable(), [at(0, 1)]);
        acks.acked(token);
        assert!(acks.take_committable().is_empty());
    }

    #[test]
    fn partitions_given_up_are_not_committed() {
        let acks = Acks::default();
        let token = acks.begin(vec![at(0, 1), at(1, 2)]);
        acks.forget(&[("t".to_owned(), 0)]);
        acks.expect(token, 0);
        assert_eq!(acks.take_committable(), [at(1, 2)]);
    }

    #[test]
    fn waiting_ends_with_the_last_acknowledgement() {
        let acks = std::sync::Arc::new(Acks::default());
        assert!(acks.wait(Duration::ZERO), "nothing outstanding");
        let token = acks.begin(vec![at(0, 1)]);
        acks.expect(token, 1);
        assert!(!acks.wait(Duration::from_millis(1)));
        assert!(acks.oldest_wait().is_some());
        let other = std::sync::Arc::clone(&acks);
        let thread = std::thread::spawn(move || other.acked(token));
        assert!(acks.wait(Duration::from_secs(30)));
        thread.join().expect("it only counts");
        assert_eq!(acks.oldest_wait(), None);
    }

    proptest! {
        /// Against a model: the committable offset is the one of the longest finished beginning.
        #[test]
        fn never_ahead_of_a_missing_acknowledgement(
            sizes in prop::collection::vec(0_u64..4, 1..20),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        ) {
            let acks = Acks::new(3);
            let tokens: Vec<Token> =
                (0..sizes.len()).map(|tick| acks.begin(vec![at(0, tick as i64 + 1)])).collect();
            let mut missing = sizes.clone();
            for (token, size) in tokens.iter().zip(&sizes) {
                acks.expect(*token, *size);
            }
            let mut committed = 0;
            for choice in order {
                let tick = choice.index(sizes.len());
                if missing[tick] > 0 {
                    missing[tick] -= 1;
                    acks.acked(tokens[tick]);
                }
                if let Some((_, _, next)) = acks.take_committable().pop() {
                    committed = next;
                }
                let done = missing.iter().take_while(|left| **left == 0).count() as i64;
                prop_assert_eq!(committed, done);
            }
        }
    }
}
