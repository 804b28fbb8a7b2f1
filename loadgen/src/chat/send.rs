//! Sending, answers, and sending again.

use std::cmp::Reverse;

use super::{Chat, Pending};
use crate::client::Request;
use crate::clock::MILLISECOND_NS;
use crate::message::{MessageKey, Stamp};
use crate::net::Net;
use crate::oracle::Fault;

impl Chat {
    /// Sends what waits, as far as the window allows.
    pub(super) fn pump(&mut self, net: &mut Net, conn: u32) {
        if !net.is_active(conn) || net.is_blocked(conn) || !self.room(conn).is_open() {
            return;
        }
        while self.members[conn as usize].outstanding.len() < self.window {
            let waiting = self.members[conn as usize].backlog.pop_front();
            let due_ns = match waiting {
                Some(due_ns) => due_ns,
                None if self.pace.saturates(net.now_ns) => {
                    net.stats.counters.due += 1;
                    net.now_ns
                }
                None => return,
            };
            self.send_new(net, conn, due_ns);
        }
    }

    fn send_new(&mut self, net: &mut Net, conn: u32, due_ns: u64) {
        let number = self.oracle.sent(self.seat(conn));
        let pending = Pending { number, tries: 1, due_ns, sent_ns: net.now_ns };
        self.members[conn as usize].outstanding.push_back(pending);
        net.stats.counters.sent += 1;
        if let Some((latencies, age_ns)) = net.measured(due_ns) {
            latencies.send_lag.record_ns(age_ns);
        }
        self.transmit(net, conn, pending);
    }

    /// The same bytes each time: id and content follow from number and due time.
    fn transmit(&mut self, net: &mut Net, conn: u32, pending: Pending) {
        let Pending { number, due_ns, .. } = pending;
        let sender = self.share.global(conn);
        let id = MessageKey { run: net.plan.run, sender, number }
            .id(due_ns / MILLISECOND_NS + self.unix_offset_ms);
        self.content.clear();
        self.contents.write(&mut self.content, Stamp { due_ns, sender, number });
        let conversation_id = &self.rooms[(conn / self.size) as usize].id;
        net.request(conn, &Request::Send { id: &id, conversation_id, content: &self.content });
    }

    fn send_again(&mut self, net: &mut Net, conn: u32, at: usize) {
        let Some(pending) = self.members[conn as usize].outstanding.get_mut(at) else { return };
        pending.tries += 1;
        pending.sent_ns = net.now_ns;
        let pending = *pending;
        net.stats.counters.retries += 1;
        self.transmit(net, conn, pending);
    }

    /// The connection is back: everything without answer goes out again, in order.
    pub(super) fn resend_all(&mut self, net: &mut Net, conn: u32) {
        for at in 0..self.members[conn as usize].outstanding.len() {
            self.send_again(net, conn, at);
        }
    }

    /// Answers that did not come in time.
    pub(super) fn resend_overdue(&mut self, net: &mut Net, conn: u32) {
        for at in 0..self.members[conn as usize].outstanding.len() {
            let sent_ns = self.members[conn as usize].outstanding[at].sent_ns;
            let waits = sent_ns == Pending::WAITS;
            if !waits && net.now_ns.saturating_sub(sent_ns) > self.ack_timeout_ns {
                net.stats.error("ACK_TIMEOUT");
                self.send_again(net, conn, at);
            }
        }
    }

    /// Messages whose time to be sent again has come.
    pub(super) fn resend_due(&mut self, net: &mut Net) {
        while let Some(&Reverse((at_ns, conn, number))) = self.resend.peek() {
            if at_ns > net.now_ns {
                return;
            }
            self.resend.pop();
            let waits =
                |pending: &Pending| pending.number == number && pending.sent_ns == Pending::WAITS;
            let at = self.members[conn as usize].outstanding.iter().position(waits);
            // While the connection is down the message waits for `resend_all`.
            if let Some(at) = at.filter(|_| net.is_active(conn)) {
                self.send_again(net, conn, at);
            }
        }
    }

    pub(super) fn on_ack(&mut self, net: &mut Net, conn: u32, msg_id: &[u8], seq: u64) {
        let Some(number) = self.own_number(net, conn, msg_id) else { return };
        self.last_progress_ns = net.now_ns;
        let outstanding = &mut self.members[conn as usize].outstanding;
        let at = outstanding.iter().position(|pending| pending.number == number);
        if let Some(pending) = at.and_then(|at| outstanding.remove(at)) {
            net.stats.counters.acked += 1;
            if let Some((latencies, age_ns)) = net.measured(pending.due_ns) {
                latencies.ack.record_ns(age_ns);
            }
        }
        self.oracle.acked(self.seat(conn), number, seq);
        self.pump(net, conn);
    }

    pub(super) fn on_send_failed(
        &mut self,
        net: &mut Net,
        conn: u32,
        msg_id: &[u8],
        retry_ns: Option<u64>,
    ) {
        let Some(number) = self.own_number(net, conn, msg_id) else { return };
        let outstanding = &mut self.members[conn as usize].outstanding;
        let Some(at) = outstanding.iter().position(|pending| pending.number == number) else {
            return;
        };
        if let Some(at_ns) = retry_ns {
            outstanding[at].sent_ns = Pending::WAITS;
            let spread_ns = net.rng.below(at_ns.saturating_sub(net.now_ns) / 2 + 1);
            self.resend.push(Reverse((at_ns + spread_ns, conn, number)));
            return;
        }
        let tries = outstanding.remove(at).map_or(1, |pending| pending.tries);
        net.stats.counters.refused += 1;
        // An earlier try whose answer never came may have had its effect.
        if tries == 1 {
            self.oracle.refused(self.seat(conn), number);
        }
        self.pump(net, conn);
    }

    /// The number of a message that this connection sent; anything else is a fault.
    fn own_number(&mut self, net: &Net, conn: u32, msg_id: &[u8]) -> Option<u32> {
        let key = MessageKey::from_id(msg_id);
        let own =
            key.filter(|key| key.run == net.plan.run && key.sender == self.share.global(conn));
        if own.is_none() {
            self.oracle.fault(Fault::Misrouted, || {
                format!("connection {conn} got the answer to {}", String::from_utf8_lossy(msg_id))
            });
        }
        own.map(|key| key.number)
    }
}
