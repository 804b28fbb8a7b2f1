//! The stages of a chat run.

use std::sync::Arc;

use super::{Chat, Member, QUIET_NS};
use crate::clock;
use crate::net::Net;
use crate::oracle::Verdict;
use crate::parts::Part;
use crate::scenario::Scenario;

impl Chat {
    /// Whether all messages are answered and have arrived, or nothing more arrives.
    pub(super) fn nothing_open(&self, net: &Net) -> bool {
        let waits = |conn: u32, member: &Member| {
            let open = !member.outstanding.is_empty()
                || !member.backlog.is_empty()
                || member.pull.is_some();
            open && !net.is_gone(conn)
        };
        if (0..).zip(&self.members).any(|(conn, member)| waits(conn, member)) {
            return false;
        }
        self.nothing_arrives(net)
    }

    /// Whether everything known has arrived everywhere, or nothing more does.
    pub(super) fn nothing_arrives(&self, net: &Net) -> bool {
        let quiet = net.now_ns.saturating_sub(self.last_progress_ns) > QUIET_NS;
        let over = |room| self.oracle.is_settled(room) && !self.oracle.is_owed(room);
        quiet || (0..self.oracle.conversations()).all(over)
    }
}

impl Scenario for Chat {
    fn is_set_up(&self) -> bool {
        self.setup.is_done()
    }

    fn begin_load(&mut self, net: &mut Net, start_ns: u64) {
        let (plan, share) = (Arc::clone(&net.plan), net.share);
        self.pace.begin(&plan, &share, start_ns);
        for conn in self.pace.order().to_vec() {
            self.pump(net, conn);
        }
    }

    fn begin_drain(&mut self, net: &mut Net) {
        self.pace.cut(clock::now_ns());
        self.draining = true;
        self.last_progress_ns = net.now_ns;
    }

    fn is_drained(&self, _net: &Net) -> bool {
        self.drained
    }

    fn begin_audit(&mut self, net: &mut Net) {
        self.plan_audit(net);
    }

    fn is_audited(&self, net: &Net) -> bool {
        self.is_audit_done(net)
    }

    fn finish(mut self, net: &mut Net) -> (Option<Verdict>, Option<Part>) {
        net.stats.counters.unsent =
            self.members.iter().map(|member| member.backlog.len() as u64).sum();
        for conn in 0..self.share.active {
            // Whoever has not read what it missed while away cannot say what it was not pushed.
            if self.members[conn as usize].pull.is_some() || !net.is_active(conn) {
                self.oracle.excuse_rest(self.seat(conn));
            }
        }
        (Some(self.oracle.finish()), None)
    }
}
