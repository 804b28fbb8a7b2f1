//! What time does to a shard: deadlines of handshakes, silence, lingering, and how stopping goes on.

use proto::error::close_code;

use super::drain::{Drain, LINGER_MS};
use super::stats;
use super::turn::Shard;
use crate::net::poll_set::Token;
use crate::session::Phase;

/// How long answers under way are waited for when the server stops.
const DRAIN_MS: u32 = 5_000;
/// When the server stops each client gets a delay of its own, so that this many a millisecond and
/// shard come back rather than all at once.
const RECONNECTS_PER_MS: u32 = 5;

impl Shard {
    /// The coarse clock: handshakes, silence, lingering, and how stopping goes on.
    pub(super) fn tick(&mut self) {
        self.look_at_the_clock();
        let mut due = Vec::new();
        self.wheel.advance(self.now_ms, &mut due);
        for token in due {
            self.look_at(token);
        }
        if self.listener.is_some() {
            self.accept();
        }
        self.door.let_go(self.now_ms);
        self.tell_refusals();
        self.go_on_draining();
        self.end_turn();
        self.go_on_if_more();
    }

    fn look_at(&mut self, token: Token) {
        let Some(connection) = self.table.get(token) else { return };
        let limits = &self.rules.limits;
        let phase = connection.session.phase();
        let allowed_ms = match phase {
            Phase::Greeting | Phase::Anonymous | Phase::LoggingIn => limits.handshake_ms,
            Phase::Open => limits.silence_ms(),
            Phase::Ended => LINGER_MS,
            // Anything goes in echo mode, once there is something to echo.
            Phase::Echo => return,
        };
        let passed_ms = self.now_ms.wrapping_sub(connection.since_ms);
        if passed_ms < allowed_ms {
            return self.wheel.insert(token, allowed_ms - passed_ms);
        }
        if phase == Phase::Ended {
            self.forget(token);
            return;
        }
        stats::add(&self.stats.timed_out, 1);
        let (code, reason) = match phase {
            Phase::Open => (close_code::HEARTBEAT_TIMEOUT, "nothing was heard for too long"),
            Phase::LoggingIn => (close_code::OVERLOADED, "the login took too long"),
            _ => (close_code::LOGIN_TIMEOUT, "no login within the deadline"),
        };
        self.with_session(token, |session, cx| session.close(cx, code, reason));
    }

    pub(super) fn start_draining(&mut self) {
        if self.drain != Drain::No {
            return;
        }
        self.listener = None;
        self.drain = Drain::Finishing { since_ms: self.now_ms };
        self.go_on_draining();
    }

    pub(super) fn go_on_draining(&mut self) {
        let passed = |since_ms: u32| self.now_ms.wrapping_sub(since_ms);
        match self.drain {
            Drain::Finishing { since_ms }
                if self.in_flight == 0 || passed(since_ms) >= DRAIN_MS =>
            {
                for (place, token) in (0_u32..).zip(self.table.tokens()) {
                    let reconnect_after_ms = place / RECONNECTS_PER_MS;
                    self.with_session(token, |session, cx| session.go_away(cx, reconnect_after_ms));
                }
                self.drain = Drain::Leaving { since_ms: self.now_ms };
            }
            Drain::Leaving { since_ms }
                if self.table.len() == 0 || passed(since_ms) >= LINGER_MS =>
            {
                self.drain = Drain::Done;
            }
            _ => {}
        }
    }
}
