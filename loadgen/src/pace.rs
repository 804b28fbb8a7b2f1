//! Which connection sends when: the schedule of an open loop, or windows kept full.

use crate::clock;
use crate::plan::{Plan, Share};
use crate::rng::Rng;
use crate::schedule::Schedule;

/// Messages due within so short a time of each other are sent in one turn of the loop; a turn for each
/// would cost more than the messages.
const COALESCE_NS: u64 = 200_000;

/// The load of one worker.
pub(crate) struct Pace {
    schedule: Option<Schedule>,
    /// Connections in the order in which they take turns.
    order: Vec<u32>,
    saturate: bool,
    end_ns: u64,
    /// When a message was last found due.
    last_ns: u64,
}

impl Pace {
    /// No load yet.
    pub(crate) fn new(plan: &Plan, share: &Share) -> Self {
        let mut order: Vec<u32> = (0..share.active).collect();
        Rng::fork(plan.seed, u64::from(share.worker) << 8).shuffle(&mut order);
        Self { schedule: None, order, saturate: plan.options.rate == 0, end_ns: 0, last_ns: 0 }
    }

    /// The load begins.
    pub(crate) fn begin(&mut self, plan: &Plan, share: &Share, start_ns: u64) {
        let duration_ns = clock::duration_ns(plan.options.duration);
        self.end_ns = start_ns.saturating_add(duration_ns);
        self.schedule = Some(Schedule::new(start_ns, duration_ns, plan.options.rate, share.part()));
    }

    /// The load ends early.
    pub(crate) fn cut(&mut self, now_ns: u64) {
        self.end_ns = self.end_ns.min(now_ns);
        if let Some(schedule) = &mut self.schedule {
            schedule.cut(now_ns);
        }
    }

    /// The next message that is due: its connection and due time.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        let (number, due_ns) = self.schedule.as_mut()?.take_due(now_ns)?;
        self.last_ns = now_ns;
        let turn = number % (self.order.len().max(1) as u64);
        Some((*self.order.get(turn as usize)?, due_ns))
    }

    /// Whether a connection with room in its window sends at once.
    pub(crate) fn saturates(&self, now_ns: u64) -> bool {
        self.saturate && self.schedule.is_some() && now_ns < self.end_ns
    }

    /// Connections in the order in which they take turns.
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    /// When something is due next.
    pub(crate) fn wake_ns(&self) -> u64 {
        let due = self.schedule.as_ref().and_then(Schedule::peek_ns);
        due.map_or(u64::MAX, |due_ns| due_ns.max(self.last_ns + COALESCE_NS))
    }
}
