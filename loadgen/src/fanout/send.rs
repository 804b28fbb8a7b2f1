//! Sending, by the few who do.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::{Backlog, Fanout};
use crate::client::Request;
use crate::clock::{self, MILLISECOND_NS};
use crate::message::{MessageKey, Stamp};
use crate::net::Net;
use crate::oracle::Fault;
use crate::schedule::{Part, Schedule};

/// A message without final answer.
#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u32,
    due_ns: u64,
}

/// One member that sends; connections from 0 on.
#[derive(Debug, Default)]
pub(super) struct Sender {
    outstanding: VecDeque<Pending>,
    backlog: Backlog,
}

impl Fanout {
    /// The load runs for the duration from `start_ns`.
    pub(super) fn begin_phase(&mut self, net: &mut Net, start_ns: u64) {
        if self.senders.is_empty() {
            return;
        }
        let options = &net.plan.options;
        // All messages are this worker's.
        let part = Part { active: 1, total: 1, worker: 0, workers: 1 };
        let duration_ns = clock::duration_ns(options.duration);
        self.schedule = Some(Schedule::new(start_ns, duration_ns, options.rate, part));
    }

    /// Nothing more falls due.
    pub(super) fn end_phase(&mut self, now_ns: u64) {
        if let Some(schedule) = &mut self.schedule {
            schedule.cut(now_ns);
        }
    }

    pub(super) fn take_due(&mut self, net: &mut Net) {
        while let Some((number, due_ns)) =
            self.schedule.as_mut().and_then(|schedule| schedule.take_due(net.now_ns))
        {
            self.last_due_ns = net.now_ns;
            net.stats.counters.due += 1;
            let sender = (number % self.senders.len().max(1) as u64) as u32;
            self.senders[sender as usize].backlog.push_back(due_ns);
            self.pump(net, sender);
        }
    }

    /// Sends what waits, as far as the window allows.
    pub(super) fn pump(&mut self, net: &mut Net, sender: u32) {
        if !net.is_active(sender) || net.is_blocked(sender) {
            return;
        }
        while self.senders[sender as usize].outstanding.len() < self.window {
            let waiting = self.senders[sender as usize].backlog.pop_front();
            let due_ns = match waiting {
                Some(due_ns) => due_ns,
                None if self.saturate && self.stage.sends() => {
                    net.stats.counters.due += 1;
                    net.now_ns
                }
                None => return,
            };
            let number = self.oracle.sent(Self::seat(sender));
            let pending = Pending { number, due_ns };
            self.senders[sender as usize].outstanding.push_back(pending);
            net.stats.counters.sent += 1;
            net.stats.latencies.send_lag.record_ns(net.now_ns.saturating_sub(due_ns));
            self.transmit(net, sender, pending);
        }
    }

    pub(super) fn pump_all(&mut self, net: &mut Net) {
        for sender in 0..self.senders.len() as u32 {
            self.pump(net, sender);
        }
    }

    fn transmit(&mut self, net: &mut Net, sender: u32, pending: Pending) {
        let Pending { number, due_ns } = pending;
        let global = self.share.global(sender);
        let id = MessageKey { run: net.plan.run, sender: global, number }
            .id(due_ns / MILLISECOND_NS + self.unix_offset_ms);
        self.content.clear();
        self.contents.write(&mut self.content, Stamp { due_ns, sender: global, number });
        let conversation_id = &self.group;
        net.request(sender, &Request::Send { id: &id, conversation_id, content: &self.content });
    }

    pub(super) fn send_again(&mut self, net: &mut Net, sender: u32, number: u32) {
        let Some(sender_books) = self.senders.get(sender as usize) else { return };
        let pending = sender_books.outstanding.iter().find(|pending| pending.number == number);
        if let Some(&pending) = pending.filter(|_| net.is_active(sender)) {
            net.stats.counters.retries += 1;
            self.transmit(net, sender, pending);
        }
    }

    pub(super) fn on_ack(&mut self, net: &mut Net, conn: u32, msg_id: &[u8], seq: u64) {
        let Some(number) = self.own_number(net, conn, msg_id) else { return };
        self.last_progress_ns = net.now_ns;
        if let Some(pending) = self.take_pending(conn, number) {
            net.stats.counters.acked += 1;
            net.stats.latencies.ack.record_ns(net.now_ns.saturating_sub(pending.due_ns));
        }
        self.oracle.acked(Self::seat(conn), number, seq);
        self.pump(net, conn);
    }

    pub(super) fn on_send_failed(
        &mut self,
        net: &mut Net,
        conn: u32,
        msg_id: &[u8],
        again_ns: Option<u64>,
    ) {
        let Some(number) = self.own_number(net, conn, msg_id) else { return };
        if let Some(at_ns) = again_ns {
            return self.again.push(Reverse((at_ns, conn, Some(number))));
        }
        if self.take_pending(conn, number).is_some() {
            net.stats.counters.refused += 1;
            self.oracle.refused(Self::seat(conn), number);
        }
        self.pump(net, conn);
    }

    fn take_pending(&mut self, conn: u32, number: u32) -> Option<Pending> {
        let outstanding = &mut self.senders.get_mut(conn as usize)?.outstanding;
        let at = outstanding.iter().position(|pending| pending.number == number)?;
        outstanding.remove(at)
    }

    /// The number of a message that this connection sent; anything else is a fault.
    fn own_number(&mut self, net: &Net, conn: u32, msg_id: &[u8]) -> Option<u32> {
        let own = MessageKey::from_id(msg_id)
            .filter(|key| key.run == net.plan.run && key.sender == self.share.global(conn));
        if own.is_none() {
            self.oracle.fault(Fault::Misrouted, || {
                format!("connection {conn} got the answer to {}", String::from_utf8_lossy(msg_id))
            });
        }
        own.map(|key| key.number)
    }

    /// Whether every message is answered.
    pub(super) fn all_answered(&self) -> bool {
        self.senders.iter().all(|s| s.outstanding.is_empty() && s.backlog.is_empty())
    }

    /// Messages that were due and never sent.
    pub(super) fn unsent(&self) -> u64 {
        self.senders.iter().map(|sender| sender.backlog.len() as u64).sum()
    }
}
