//! Frames without a purpose (pings, pongs, heartbeats, empty messages, refused requests), against the
//! promise of PROTOCOL.md section 8: so many a second in the long run, so many at once; more ends the
//! connection, and nothing else does.
//!
//! What the session owes is not looked at. Two shadows are kept of it: one counts only what was answered,
//! and never gets more than was owed; the other counts all that was sent, and never gets less.

use gateway::limits::Limits;

/// Milliseconds until all is forgiven.
struct Debt {
    ms: u64,
    /// Forgiven until then.
    at_ms: u64,
}

impl Debt {
    fn forgive(&mut self, now_ms: u64) {
        self.ms = self.ms.saturating_sub(now_ms - self.at_ms);
        self.at_ms = now_ms;
    }
}

/// Both shadows.
pub(super) struct Flood {
    frame_ms: u64,
    max_ms: u64,
    answered: Debt,
    sent: Debt,
}

impl Flood {
    pub(super) fn new(limits: &Limits, now_ms: u64) -> Self {
        let frame_ms = u64::from(1000 / limits.idle_frames_per_second);
        let debt = || Debt { ms: 0, at_ms: now_ms };
        Self {
            frame_ms,
            max_ms: frame_ms * u64::from(limits.idle_frame_burst),
            answered: debt(),
            sent: debt(),
        }
    }

    /// So many frames came, whatever they are. Before login nothing is forgiven: there is little time.
    pub(super) fn arrive(&mut self, frames: u64, open: bool, now_ms: u64) {
        if open {
            self.sent.forgive(now_ms);
        }
        self.sent.ms += frames * self.frame_ms;
    }

    /// The user is logged in: forgiving begins.
    pub(super) fn open(&mut self, now_ms: u64) {
        self.sent.at_ms = now_ms;
    }

    /// So many frames were answered, and the connection stays, or ended meanwhile.
    pub(super) fn answer(&mut self, frames: u64, ended: bool, now_ms: u64) {
        self.answered.forgive(now_ms);
        self.answered.ms += frames * self.frame_ms;
        // The frame that was one too many is answered, and then the end is told.
        let most_ms = self.max_ms + if ended { self.frame_ms } else { 0 };
        let Debt { ms, .. } = self.answered;
        assert!(ms <= most_ms, "a flood is answered: {ms} of {most_ms} ms");
    }

    /// The connection was ended for a flood.
    pub(super) fn end(&self) {
        let (ms, max_ms) = (self.sent.ms, self.max_ms);
        assert!(ms > max_ms, "ended for a flood that was none: {ms} of {max_ms} ms");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten_a_second_and_three_at_once() -> Flood {
        let limits =
            Limits { idle_frames_per_second: 10, idle_frame_burst: 3, ..Limits::default() };
        Flood::new(&limits, 0)
    }

    #[test]
    fn bursts_and_what_flows_in_are_answered() {
        let mut flood = ten_a_second_and_three_at_once();
        flood.answer(3, false, 0);
        flood.answer(2, false, 200);
        flood.answer(2, true, 300);
    }

    #[test]
    #[should_panic(expected = "a flood is answered")]
    fn one_answer_too_many_is_seen() {
        let mut flood = ten_a_second_and_three_at_once();
        flood.answer(3, false, 0);
        flood.answer(1, false, 99);
    }

    #[test]
    #[should_panic(expected = "a flood is answered")]
    fn answers_behind_the_last_one_are_seen() {
        ten_a_second_and_three_at_once().answer(5, true, 0);
    }

    #[test]
    fn a_flood_is_one_when_it_is_more_than_was_forgiven() {
        let mut flood = ten_a_second_and_three_at_once();
        flood.arrive(3, false, 0);
        flood.open(1000);
        flood.arrive(1, true, 1099);
        flood.end();
    }

    #[test]
    #[should_panic(expected = "a flood that was none")]
    fn an_end_without_a_flood_is_seen() {
        let mut flood = ten_a_second_and_three_at_once();
        flood.arrive(3, false, 0);
        flood.open(1000);
        flood.arrive(1, true, 1100);
        flood.end();
    }
}
