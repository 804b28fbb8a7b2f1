//! A coarse timer wheel. A connection has one place in it and is looked at when the place comes round;
//! traffic does not move it. Whoever finds the deadline moved puts it in again.

use crate::net::poll_set::Token;

const BUCKETS: usize = 512;

/// Buckets of tokens, one bucket a tick.
pub(super) struct Wheel {
    buckets: Vec<Vec<Token>>,
    tick_ms: u32,
    /// The tick that was handled last.
    tick: u32,
}

impl Wheel {
    /// A wheel at time zero.
    pub(super) fn new(tick_ms: u32) -> Self {
        Self { buckets: vec![Vec::new(); BUCKETS], tick_ms, tick: 0 }
    }

    /// Looks at `token` after `delay_ms`, never earlier, at most a tick or two late. A delay beyond the
    /// wheel's horizon is looked at early: the looker puts it in again.
    pub(super) fn insert(&mut self, token: Token, delay_ms: u32) {
        let ticks = (delay_ms / self.tick_ms + 2).min(BUCKETS as u32 - 1);
        let bucket = (self.tick.wrapping_add(ticks) as usize) % BUCKETS;
        self.buckets[bucket].push(token);
    }

    /// The tokens to look at up to `now_ms`.
    pub(super) fn advance(&mut self, now_ms: u32, due: &mut Vec<Token>) {
        let target = now_ms / self.tick_ms;
        // The clock wraps after 49 days; the wheel then starts over with one look at everything.
        let steps = if target < self.tick {
            BUCKETS as u32
        } else {
            (target - self.tick).min(BUCKETS as u32)
        };
        for step in 1..=steps {
            let bucket = (self.tick.wrapping_add(step) as usize) % BUCKETS;
            due.append(&mut std::mem::take(&mut self.buckets[bucket]));
        }
        self.tick = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(slot: u32) -> Token {
        Token { slot, generation: 0 }
    }

    fn due_at(wheel: &mut Wheel, from_ms: u32, limit_ms: u32) -> Option<u32> {
        let mut due = Vec::new();
        (from_ms..=limit_ms).find(|&ms| {
            wheel.advance(ms, &mut due);
            !due.is_empty()
        })
    }

    #[test]
    fn never_early_and_at_most_two_ticks_late() {
        for delay in [0, 1, 249, 250, 251, 999, 10_000, 90_000] {
            for start in [0, 1, 100, 249, 250, 12_345] {
                let mut wheel = Wheel::new(250);
                wheel.advance(start, &mut Vec::new());
                wheel.insert(token(1), delay);
                let at = due_at(&mut wheel, start, start + delay + 1_000).expect("comes round");
                assert!(
                    at >= start + delay && at <= start + delay + 500,
                    "start {start} delay {delay}: {at}"
                );
            }
        }
    }

    #[test]
    fn beyond_the_horizon_is_looked_at_early_not_never() {
        let mut wheel = Wheel::new(250);
        wheel.insert(token(1), 1_000_000);
        assert!(due_at(&mut wheel, 0, 512 * 250).is_some());
    }

    #[test]
    fn a_late_look_and_a_wrapped_clock_miss_nothing() {
        let mut wheel = Wheel::new(250);
        (0..100).for_each(|slot| wheel.insert(token(slot), slot * 1_000));
        let mut due = Vec::new();
        wheel.advance(1_000_000, &mut due);
        assert_eq!(due.len(), 100);
        wheel.insert(token(1), 60_000);
        due.clear();
        wheel.advance(5, &mut due);
        assert_eq!(due.len(), 1);
    }
}
