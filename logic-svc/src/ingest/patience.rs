//! A store that is away for a moment is waited for, so that a restart of the database costs time and no refusals.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::faults;
use crate::domain::UserId;
use crate::ports::{
    Append, AppendError, Change, ConversationRecord, Ensure, Found, Known, Members, MessageLog,
    Run, SendKey, StoreError,
};

/// Waits between two attempts: each twice as long as the one before, up to a bound.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(400);

/// How much longer the store is waited for. Shared by everything that asks it, so that a tick which asks often
/// does not wait often.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    limit: Duration,
    /// When it began to fail; `None` while all is well.
    failing: Arc<Mutex<Option<Instant>>>,
}

impl Patience {
    /// Waits for so long from the first failure on; once that is over, not again before a request went well.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, failing: Arc::default() }
    }

    fn ask<T, E: Temporary>(&self, mut request: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let mut wait = FIRST_WAIT;
        loop {
            let result = request();
            let temporary = result.as_ref().err().is_some_and(Temporary::is_temporary);
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            if !temporary {
                *failing = None;
                return result;
            }
            let since = *failing.get_or_insert_with(Instant::now);
            drop(failing);
            if since.elapsed() + wait > self.limit {
                return result;
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// Errors that time may cure.
trait Temporary {
    fn is_temporary(&self) -> bool;
}

impl Temporary for StoreError {
    fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Temporary for AppendError {
    fn is_temporary(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_temporary())
    }
}

/// A log or the members, asked with patience.
pub(crate) struct Patient<T> {
    inner: T,
    patience: Patience,
}

impl<T> Patient<T> {
    /// Asks `inner`.
    pub(crate) fn new(inner: T, patience: Patience) -> Self {
        Self { inner, patience }
    }
}

/// Records how long a step took.
fn timed<T>(step: &'static str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    metrics::histogram!("corelane_logic_step_seconds", "step" => step)
        .record(began.elapsed().as_secs_f64());
    result
}

impl<L: MessageLog> MessageLog for Patient<L> {
    fn place(&mut self, runs: &mut [Run]) -> Result<(), StoreError> {
        let Self { inner, patience } = self;
        timed("place", || patience.ask(|| inner.place(runs)))
    }

    /// A commit whose answer was lost is found by the next attempt as a duplicate of itself.
    fn append(&mut self, append: Append<'_>) -> Result<(), AppendError> {
        faults::reached("before_commit");
        let Self { inner, patience } = self;
        let result = timed("append", || patience.ask(|| inner.append(append)));
        match &result {
            Ok(()) => {
                metrics::counter!("corelane_logic_messages_total")
                    .increment(append.messages.len() as u64);
                metrics::histogram!("corelane_logic_append_records")
                    .record(append.messages.len() as f64);
            }
            Err(AppendError::Duplicate) => {
                metrics::counter!("corelane_logic_duplicate_batches_total").increment(1);
            }
            Err(AppendError::Fenced) => {
                metrics::counter!("corelane_logic_fenced_total").increment(1);
            }
            Err(AppendError::Store(_)) => {
                metrics::counter!("corelane_logic_append_failures_total").increment(1);
            }
        }
        faults::reached("after_commit");
        result
    }

    fn find(&mut self, keys: &[SendKey<'_>]) -> Result<Vec<Option<Found>>, StoreError> {
        let Self { inner, patience } = self;
        let found = timed("find", || patience.ask(|| inner.find(keys)));
        if let Ok(found) = &found {
            metrics::counter!("corelane_logic_duplicates_total")
                .increment(found.iter().flatten().count() as u64);
        }
        found
    }

    fn forget(&mut self) {
        self.inner.forget();
    }
}

impl<M: Members> Members for Patient<M> {
    fn conversation(&mut self, id: &str) -> Result<Option<ConversationRecord>, StoreError> {
        let Self { inner, patience } = self;
        patience.ask(|| inner.conversation(id))
    }

    fn username(&mut self, user: UserId) -> Result<Option<String>, StoreError> {
        let Self { inner, patience } = self;
        patience.ask(|| inner.username(user))
    }

    fn fetch(&mut self, ids: &[&str], users: &[UserId]) -> Result<(), StoreError> {
        let Self { inner, patience } = self;
        timed("fetch", || patience.ask(|| inner.fetch(ids, users)))
    }

    fn ensure(
        &mut self,
        wanted: &[Ensure],
        made_id: u64,
    ) -> Result<Vec<Option<ConversationRecord>>, StoreError> {
        let Self { inner, patience } = self;
        patience.ask(|| inner.ensure(wanted, made_id))
    }

    fn asks_versions(&self) -> bool {
        self.inner.asks_versions()
    }

    fn changes(&mut self, known: &[Known<'_>], into: &mut Vec<Change>) -> Result<(), StoreError> {
        let before = into.len();
        let Self { inner, patience } = self;
        timed("changes", || {
            patience.ask(|| {
                into.truncate(before);
                inner.changes(known, into)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> StoreError {
        StoreError::Unavailable("away".to_owned())
    }

    #[test]
    fn a_store_that_comes_back_in_time_is_waited_for() {
        let patience = Patience::new(Duration::from_secs(3600));
        let mut attempts = 0;
        let result = patience.ask(|| {
            attempts += 1;
            if attempts < 3 { Err(away()) } else { Ok(attempts) }
        });
        assert_eq!(result.ok(), Some(3));
        assert!(patience.failing.lock().unwrap().is_none());
    }

    #[test]
    fn patience_ends_and_is_not_begun_anew_by_the_next_request() {
        let patience = Patience::new(FIRST_WAIT * 3);
        assert!(patience.ask(|| Err::<(), _>(away())).is_err());
        std::thread::sleep(FIRST_WAIT * 3);
        let mut attempts = 0;
        let result = patience.ask(|| {
            attempts += 1;
            Err::<(), _>(away())
        });
        assert!(result.is_err() && attempts == 1);
        assert!(patience.ask(|| Ok::<_, StoreError>(())).is_ok());
        assert!(patience.failing.lock().unwrap().is_none(), "all is well again");
    }

    #[test]
    fn what_time_does_not_cure_is_not_tried_again() {
        let patience = Patience::new(Duration::from_secs(3600));
        let mut attempts = 0;
        let result = patience.ask(|| {
            attempts += 1;
            Err::<(), _>(AppendError::Duplicate)
        });
        assert!(matches!(result, Err(AppendError::Duplicate)) && attempts == 1);
    }
}
