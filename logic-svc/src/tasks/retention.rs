//! Rounds through all conversations, whose old messages are deleted. One service does them: the one that has the first
//! partition of the tasks. Should two think so for a moment, the second finds nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::ConversationNo;
use crate::ports::{Clock, Keeping, Retention, StoreError};

/// How long is worked at a time; tasks have their turn in between.
const SLICE: Duration = Duration::from_millis(100);

/// What is kept, and how often it is looked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rule {
    /// Messages older than this go; zero: none for its age.
    pub(crate) age: Duration,
    /// So many messages of a conversation are kept; 0: all.
    pub(crate) messages: u64,
    /// From the beginning of one round to that of the next.
    pub(crate) every: Duration,
}

/// Goes its rounds.
pub(crate) struct Keeper {
    rule: Rule,
    store: Arc<dyn Retention>,
    clock: Arc<dyn Clock>,
    /// When the next round begins.
    next: Instant,
    /// The round at hand: what it keeps, and after which conversation it goes on.
    round: Option<(Keeping, ConversationNo)>,
    deleted: u64,
}

impl Keeper {
    /// Begins its first round at once.
    pub(crate) fn new(rule: Rule, store: Arc<dyn Retention>, clock: Arc<dyn Clock>) -> Self {
        Self { rule, store, clock, next: Instant::now(), round: None, deleted: 0 }
    }

    /// Works for a moment, if a round is due or under way. A round that meets an error is given up; the next one begins
    /// in its time.
    pub(super) fn step(&mut self) {
        if self.rule.age.is_zero() && self.rule.messages == 0 {
            return;
        }
        if self.round.is_none() && Instant::now() < self.next {
            return;
        }
        let until = Instant::now() + SLICE;
        if let Err(error) = self.go_on(until) {
            tracing::warn!(%error, "old messages are deleted in the next round");
        }
    }

    fn go_on(&mut self, until: Instant) -> Result<(), StoreError> {
        let (keeping, mut after) = match self.round.take() {
            Some(round) => round,
            None => {
                self.next = Instant::now() + self.rule.every;
                self.deleted = 0;
                (self.keeping(), 0)
            }
        };
        loop {
            let expired = self.store.expire(keeping, after)?;
            self.deleted += expired.messages;
            metrics::counter!("corelane_logic_messages_expired_total").increment(expired.messages);
            let Some(next) = expired.next else {
                tracing::info!(
                    messages = self.deleted,
                    "all conversations were looked through for old messages"
                );
                return Ok(());
            };
            after = next;
            if Instant::now() >= until {
                self.round = Some((keeping, after));
                return Ok(());
            }
        }
    }

    fn keeping(&self) -> Keeping {
        let age_ms = u64::try_from(self.rule.age.as_millis()).unwrap_or(u64::MAX);
        let since_ms = match age_ms {
            0 => 0,
            _ => self.clock.now_ms().saturating_sub(age_ms),
        };
        Keeping { since_ms, messages: self.rule.messages }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ports::Expired;

    /// Answers in turn, and writes down what it is asked.
    #[derive(Default)]
    struct Script {
        answers: Mutex<Vec<Result<Expired, StoreError>>>,
        asked: Mutex<Vec<(Keeping, u64)>>,
    }

    impl Retention for Script {
        fn expire(&self, keeping: Keeping, after: u64) -> Result<Expired, StoreError> {
            self.asked.lock().unwrap().push((keeping, after));
            let mut answers = self.answers.lock().unwrap();
            if answers.is_empty() { Ok(Expired::default()) } else { answers.remove(0) }
        }
    }

    struct Noon;

    impl Clock for Noon {
        fn now_ms(&self) -> u64 {
            1_000_000
        }
    }

    fn keeper(age_ms: u64, messages: u64, every: Duration) -> (Keeper, Arc<Script>) {
        let script = Arc::<Script>::default();
        let rule = Rule { age: Duration::from_millis(age_ms), messages, every };
        (Keeper::new(rule, Arc::clone(&script) as Arc<dyn Retention>, Arc::new(Noon)), script)
    }

    fn asked(script: &Script) -> Vec<(u64, u64, u64)> {
        let asked = std::mem::take(&mut *script.asked.lock().unwrap());
        asked.into_iter().map(|(kept, after)| (kept.since_ms, kept.messages, after)).collect()
    }

    fn more(next: u64) -> Result<Expired, StoreError> {
        Ok(Expired { messages: 1, conversations: vec![next], next: Some(next) })
    }

    #[test]
    fn without_a_rule_nothing_is_asked() {
        let (mut keeper, script) = keeper(0, 0, Duration::ZERO);
        keeper.step();
        assert!(asked(&script).is_empty());
    }

    #[test]
    fn a_round_goes_through_all_and_the_next_one_waits() {
        let (mut keeper, script) = keeper(600_000, 7, Duration::from_secs(3600));
        script.answers.lock().unwrap().extend([more(5), more(9)]);
        keeper.step();
        assert_eq!(asked(&script), [(400_000, 7, 0), (400_000, 7, 5), (400_000, 7, 9)]);
        keeper.step();
        assert!(asked(&script).is_empty(), "the hour is not over");
        keeper.next = Instant::now();
        keeper.step();
        assert_eq!(asked(&script), [(400_000, 7, 0)]);
    }

    #[test]
    fn a_count_alone_keeps_any_age_and_an_age_beyond_all_time_everything() {
        let (mut by_count, script) = keeper(0, 3, Duration::ZERO);
        by_count.step();
        assert_eq!(asked(&script), [(0, 3, 0)]);
        let (mut by_age, script) = keeper(2_000_000, 0, Duration::ZERO);
        by_age.step();
        assert_eq!(asked(&script), [(0, 0, 0)]);
    }

    #[test]
    fn an_error_ends_the_round_and_not_the_keeper() {
        let (mut keeper, script) = keeper(1, 0, Duration::ZERO);
        let away = StoreError::Unavailable("away".into());
        script.answers.lock().unwrap().extend([more(5), Err(away)]);
        keeper.step();
        assert_eq!(asked(&script).len(), 2);
        keeper.step();
        assert_eq!(asked(&script), [(999_999, 0, 0)], "from the beginning");
    }
}
