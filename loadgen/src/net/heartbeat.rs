//! Heartbeats without a timer per connection: a cursor goes round the table once an interval.

use codec::ws::Opcode;

use super::Net;
use super::conn::Phase;
use crate::args::Login;
use crate::client::Request;

/// Where the cursor is.
pub(super) struct Heartbeat {
    start_ns: u64,
    interval_ns: u64,
    visits: u64,
    stopped: bool,
}

impl Heartbeat {
    pub(super) fn new(start_ns: u64, interval_ns: u64) -> Self {
        Self { start_ns, interval_ns: interval_ns.max(1), visits: 0, stopped: false }
    }

    /// How many visits should have been made at `now_ns`.
    fn due(&self, now_ns: u64, connections: u64) -> u64 {
        let elapsed = u128::from(now_ns.saturating_sub(self.start_ns));
        u64::try_from(elapsed * u128::from(connections) / u128::from(self.interval_ns))
            .unwrap_or(u64::MAX)
    }
}

impl Net {
    /// Visits every connection whose heartbeat is due, at most each one once.
    pub(super) fn beat(&mut self) {
        if self.heartbeat.stopped {
            return;
        }
        let connections = u64::from(self.share.connections());
        let due = self.heartbeat.due(self.now_ns, connections);
        let first = self.heartbeat.visits.max(due.saturating_sub(connections));
        for visit in first..due {
            self.visit((visit % connections) as u32);
        }
        self.heartbeat.visits = due;
    }

    /// No more heartbeats are sent.
    pub(crate) fn stop_heartbeats(&mut self) {
        self.heartbeat.stopped = true;
    }

    /// Heartbeats neither answered nor counted as missed.
    pub(crate) fn heartbeats_outstanding(&self) -> u64 {
        let counters = &self.stats.counters;
        counters
            .heartbeats
            .saturating_sub(counters.heartbeats_answered + counters.heartbeats_missed)
    }

    fn visit(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        if conn.phase != Phase::Active {
            return;
        }
        let spoke = std::mem::take(&mut conn.spoke);
        if conn.since_ns != 0 {
            self.stats.counters.heartbeats_missed += 1;
        }
        if spoke || self.raw {
            conn.since_ns = 0;
            return;
        }
        conn.since_ns = self.now_ns;
        if self.login == Login::None {
            self.send_frame(index, Opcode::Ping, b"");
        } else {
            self.request(index, &Request::Heartbeat);
            self.conns[index as usize].spoke = false;
        }
        self.stats.counters.heartbeats += 1;
    }

    /// The answer to a heartbeat came.
    pub(super) fn on_heartbeat(&mut self, index: u32) {
        let sent_ns = std::mem::take(&mut self.conns[index as usize].since_ns);
        if sent_ns != 0 {
            self.stats.counters.heartbeats_answered += 1;
            self.stats.latencies.heartbeat.record_ns(self.now_ns.saturating_sub(sent_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_goes_round_once_an_interval() {
        let heartbeat = Heartbeat::new(1000, 30_000);
        assert_eq!(heartbeat.due(1000, 300), 0);
        assert_eq!(heartbeat.due(1100, 300), 1);
        assert_eq!(heartbeat.due(31_000, 300), 300);
        assert_eq!(heartbeat.due(0, 300), 0);
    }
}
