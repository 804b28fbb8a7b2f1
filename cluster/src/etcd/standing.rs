//! What a lease is known to be worth at a moment, shared between its task and whoever relies on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::clock::boottime_ns;

/// Bits of the shared word that hold the worker id.
const ID_BITS: u64 = 0x3ff;

/// How things stand with something held under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Ours.
    Held,
    /// No answer from etcd for so long that the lease may have run out.
    InDoubt,
    /// Not ours any more, for sure; it is being taken anew.
    Lost,
}

/// How things stand, and since which revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How.
    pub state: State,
    /// The revision of etcd at which it was taken; higher each time it is taken anew.
    pub epoch: u64,
    /// The worker id, where that is what is held.
    pub worker: Option<u16>,
}

/// Deadline and worker id in one word, so that nobody reads the deadline of one and the id of another.
#[derive(Debug, Default)]
pub(super) struct Word(AtomicU64);

impl Word {
    /// The deadline in nanoseconds of [`boottime_ns`], rounded down by at most 1023.
    pub(super) fn good_until(&self) -> u64 {
        self.0.load(Ordering::Acquire) & !ID_BITS
    }

    /// The id, good or not.
    pub(super) fn id(&self) -> u16 {
        (self.0.load(Ordering::Acquire) & ID_BITS) as u16
    }

    /// The id if its deadline lies after `now_ns`.
    pub(super) fn id_at(&self, now_ns: u64) -> Option<u16> {
        let word = self.0.load(Ordering::Acquire);
        ((word & !ID_BITS) > now_ns).then_some((word & ID_BITS) as u16)
    }

    fn set(&self, good_until_ns: u64, id: u16) {
        self.0.store((good_until_ns & !ID_BITS) | (u64::from(id) & ID_BITS), Ordering::Release);
    }
}

/// The task's side of it.
#[derive(Clone, Debug)]
pub(super) struct Board {
    word: Arc<Word>,
    standing: watch::Sender<Standing>,
}

impl Board {
    pub(super) fn new(epoch: u64, worker: Option<u16>, good_until_ns: u64) -> Self {
        let word = Arc::new(Word::default());
        word.set(good_until_ns, worker.unwrap_or(0));
        let standing = Standing { state: State::Held, epoch, worker };
        Self { word, standing: watch::Sender::new(standing) }
    }

    pub(super) fn word(&self) -> &Arc<Word> {
        &self.word
    }

    /// How things stand by the clock: once the deadline has passed, what was held is in doubt, whether or not the
    /// task has come to say so.
    pub(super) fn standing(&self) -> Standing {
        let shown = *self.standing.borrow();
        let doubtful = shown.state == State::Held && self.word.good_until() <= boottime_ns();
        if doubtful { Standing { state: State::InDoubt, ..shown } } else { shown }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Ours until then, as before or taken anew.
    pub(super) fn held(&self, epoch: u64, worker: Option<u16>, good_until_ns: u64) {
        self.word.set(good_until_ns, worker.unwrap_or(0));
        self.show(Standing { state: State::Held, epoch, worker });
    }

    /// No answer; says so once the deadline has passed. Whether that is news.
    pub(super) fn unanswered(&self) -> bool {
        self.word.good_until() <= boottime_ns()
            && self.show(Standing { state: State::InDoubt, ..self.standing() })
    }

    pub(super) fn lost(&self) {
        // The id stays readable for logs; its deadline does not.
        self.word.set(0, self.word.id());
        self.show(Standing { state: State::Lost, ..self.standing() });
    }

    fn show(&self, new: Standing) -> bool {
        self.standing.send_if_modified(|shown| {
            let changed = *shown != new;
            *shown = new;
            changed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_holds_both_and_never_rounds_up() {
        let word = Word::default();
        assert_eq!(word.id_at(0), None);
        for (until, id) in [(1_000_000_007, 1023), (5_000_000_000, 0), (1 << 62, 512)] {
            word.set(until, id);
            assert_eq!(word.id(), id);
            assert!(word.good_until() <= until && word.good_until() + 1024 > until);
            assert_eq!(word.id_at(word.good_until() - 1), Some(id));
            assert_eq!(word.id_at(word.good_until()), None);
        }
    }

    #[test]
    fn doubt_begins_at_the_deadline_and_loss_ends_it_at_once() {
        let board = Board::new(7, Some(3), boottime_ns() + 60_000_000_000);
        board.unanswered();
        assert_eq!(board.standing().state, State::Held);
        board.held(7, Some(3), boottime_ns());
        let in_doubt = Standing { state: State::InDoubt, epoch: 7, worker: Some(3) };
        assert_eq!(board.standing(), in_doubt, "the task has not been there yet");
        assert!(board.unanswered(), "and then says so to those who wait for news");
        assert_eq!((board.standing(), board.unanswered()), (in_doubt, false));
        board.held(7, Some(3), boottime_ns() + 60_000_000_000);
        assert_eq!(board.standing().state, State::Held);
        board.lost();
        assert_eq!((board.word().good_until(), board.word().id()), (0, 3));
        assert_eq!(board.standing().state, State::Lost);
    }
}
