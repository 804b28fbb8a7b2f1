//! After the load: conversations are read from their first message and compared with what was said.

use std::collections::{HashMap, VecDeque};

use super::{Chat, request};
use crate::args::Audit;
use crate::client::Page;
use crate::clock;
use crate::net::Net;
use crate::rng::Rng;

/// Conversations read at a time.
const IN_FLIGHT_MAX: usize = 32;
/// Conversations with nothing open that are read all the same, under [`Audit::Sample`].
const SAMPLE: usize = 100;
/// Messages without answer may be stored while their conversation is read, or afterwards: it is read again,
/// so often.
const AGAIN_MAX: u8 = 20;

/// A conversation being read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    conn: u32,
    cursor: u64,
    request_id: u32,
    sent_ns: u64,
}

/// What is to be read.
#[derive(Debug, Default)]
pub(super) struct AuditRun {
    queue: VecDeque<u32>,
    readings: Vec<Reading>,
    /// Conversations read to their end, and how often.
    read: HashMap<u32, u8>,
    last_page_ns: u64,
    patience_ns: u64,
}

impl AuditRun {
    /// Whether everything planned was read.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.readings.is_empty()
    }

    /// Whether no answer has come for so long that none will.
    fn has_given_up(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_page_ns) > self.patience_ns
    }

    fn position(&self, conn: u32) -> Option<usize> {
        self.readings.iter().position(|reading| reading.conn == conn)
    }
}

impl Chat {
    pub(super) fn plan_audit(&mut self, net: &mut Net) {
        let mode = net.plan.options.audit;
        self.audit.last_page_ns = net.now_ns;
        self.audit.patience_ns = clock::duration_ns(net.plan.options.drain);
        let (mut settled, mut open) = (Vec::new(), Vec::new());
        for room in 0..self.oracle.conversations() {
            let list = if self.oracle.is_settled(room) { &mut settled } else { &mut open };
            list.push(room);
        }
        Rng::fork(net.plan.seed, u64::from(self.share.worker) << 16 | 7).shuffle(&mut settled);
        match mode {
            Audit::None => return,
            Audit::Sample => settled.truncate(SAMPLE),
            Audit::All => {}
        }
        self.audit.queue = open
            .into_iter()
            .chain(settled)
            .filter(|&room| self.rooms[room as usize].is_open())
            .collect();
        self.start_readings(net);
    }

    fn start_readings(&mut self, net: &mut Net) {
        for _ in 0..self.audit.queue.len() {
            if self.audit.readings.len() >= IN_FLIGHT_MAX {
                return;
            }
            let Some(room) = self.audit.queue.pop_front() else { return };
            let Some(conn) = self.connections(room).find(|&conn| net.is_active(conn)) else {
                // Perhaps somebody comes back.
                if !self.connections(room).all(|conn| net.is_gone(conn)) {
                    self.audit.queue.push_back(room);
                }
                continue;
            };
            self.oracle.audit_begin(room);
            self.read_on(net, conn, 0);
        }
    }

    fn read_on(&mut self, net: &mut Net, conn: u32, cursor: u64) {
        let request_id = self.ask_page(net, conn, request::AUDIT, cursor);
        self.audit.readings.push(Reading { conn, cursor, request_id, sent_ns: net.now_ns });
    }

    pub(super) fn on_audit_page(&mut self, net: &mut Net, conn: u32, page: &Page<'_>) {
        let Some(at) = self.audit.position(conn) else { return };
        let reading = self.audit.readings[at];
        if reading.request_id != page.request_id {
            return;
        }
        self.audit.readings.swap_remove(at);
        self.audit.last_page_ns = net.now_ns;
        let room = conn / self.size;
        for item in &page.items {
            if let Some((seen, _)) = self.identify(net, conn, item) {
                self.oracle.audit_item(room, seen);
            }
        }
        if page.has_more && self.advances(conn, reading.cursor, page.next_cursor_seq) {
            return self.read_on(net, conn, page.next_cursor_seq);
        }
        self.oracle.audit_end(room);
        *self.audit.read.entry(room).or_default() += 1;
        self.start_readings(net);
    }

    /// Conversations that must be read again.
    fn outdated(&self) -> impl Iterator<Item = u32> {
        let read = self.audit.read.iter().filter(|&(_, &times)| times <= AGAIN_MAX);
        read.map(|(&room, _)| room).filter(move |&room| self.oracle.is_audit_outdated(room))
    }

    /// Whether the audit is over, and with it the run.
    pub(super) fn is_audit_done(&self, net: &Net) -> bool {
        let read = self.audit.is_idle() && self.outdated().next().is_none();
        self.audit.has_given_up(net.now_ns) || read && self.nothing_arrives(net)
    }

    pub(super) fn on_audit_failed(&mut self, conn: u32, retry_ns: Option<u64>) {
        let Some(at) = self.audit.position(conn) else { return };
        match retry_ns {
            Some(at_ns) => {
                self.audit.readings[at].sent_ns = at_ns.saturating_sub(self.ack_timeout_ns)
            }
            None => _ = self.audit.readings.swap_remove(at),
        }
    }

    /// Somebody who reads is gone: the conversation is read again from the start by whoever is there.
    pub(super) fn on_auditor_gone(&mut self, conn: u32) {
        if let Some(at) = self.audit.position(conn) {
            self.audit.readings.swap_remove(at);
            self.audit.queue.push_back(conn / self.size);
        }
    }

    pub(super) fn sweep_audit(&mut self, net: &mut Net) {
        let overdue =
            |reading: &Reading| net.now_ns.saturating_sub(reading.sent_ns) > self.ack_timeout_ns;
        let (late, kept) = std::mem::take(&mut self.audit.readings).into_iter().partition(overdue);
        self.audit.readings = kept;
        for reading in Vec::<Reading>::into_iter(late) {
            self.read_on(net, reading.conn, reading.cursor);
        }
        if self.audit.is_idle() {
            self.audit.queue = self.outdated().collect();
        }
        self.start_readings(net);
    }
}
