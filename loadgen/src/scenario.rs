//! What a worker drives, and the plainest scenario: connections that only stay.

use crate::client::Incoming;
use crate::net::{Handler, Net};
use crate::oracle::Verdict;
use crate::parts::Part;

/// The stages of a run. Each begins once the one before has ended in all workers (load) or in this one.
pub(crate) trait Scenario: Handler {
    /// Before the first connection is opened.
    fn begin_setup(&mut self, _net: &mut Net) {}
    /// Whether everything that comes before the load is done, beside connecting.
    fn is_set_up(&self) -> bool;
    /// The load runs from `start_ns`.
    fn begin_load(&mut self, net: &mut Net, start_ns: u64);
    /// Whether the load has come to its end by itself; `None` when it ends with its duration.
    fn is_over(&self, _net: &Net) -> Option<bool> {
        None
    }
    /// Nothing new is sent from now on.
    fn begin_drain(&mut self, net: &mut Net);
    /// Whether nothing is outstanding.
    fn is_drained(&self, net: &Net) -> bool;
    /// Reads back what the server has stored.
    fn begin_audit(&mut self, net: &mut Net);
    /// Whether that is done.
    fn is_audited(&self, net: &Net) -> bool;
    /// Closes the books.
    fn finish(self, net: &mut Net) -> (Option<Verdict>, Option<Part>);
}

/// Connections that only send heartbeats.
pub(crate) struct Idle;

impl Handler for Idle {
    fn on_login(&mut self, _net: &mut Net, _conn: u32, _again: bool) {}

    fn on_incoming(&mut self, net: &mut Net, _conn: u32, incoming: Incoming<'_>) {
        if let Incoming::Failed(failure) = incoming {
            net.stats.error(&failure.name);
        }
    }

    fn on_down(&mut self, _net: &mut Net, _conn: u32) {}

    fn on_turn(&mut self, _net: &mut Net) {}

    fn wake_ns(&self) -> u64 {
        u64::MAX
    }
}

impl Scenario for Idle {
    fn is_set_up(&self) -> bool {
        true
    }

    fn begin_load(&mut self, _net: &mut Net, _start_ns: u64) {}

    fn begin_drain(&mut self, net: &mut Net) {
        net.stop_heartbeats();
    }

    fn is_drained(&self, net: &Net) -> bool {
        net.heartbeats_outstanding() == 0
    }

    fn begin_audit(&mut self, _net: &mut Net) {}

    fn is_audited(&self, _net: &Net) -> bool {
        true
    }

    fn finish(self, net: &mut Net) -> (Option<Verdict>, Option<Part>) {
        net.stats.counters.heartbeats_missed += net.heartbeats_outstanding();
        (None, None)
    }
}
