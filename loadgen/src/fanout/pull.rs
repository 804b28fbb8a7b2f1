//! Pulls: of members who were told that they lag, and at the end of the whole history.

use std::cmp::Reverse;

use super::Fanout;
use crate::client::{Page, Request};
use crate::net::Net;
use crate::oracle::{Fault, PullReason};

/// Messages asked for at a time.
const LIMIT: u32 = proto::limits::PULL_LIMIT_MAX;
/// Messages without answer may be stored while the history is read, or afterwards: it is read so often.
const READ_MAX: u32 = 20;

/// A pull under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    cursor: u64,
    request_id: u32,
    /// Told to lag again meanwhile, from here on.
    next: Option<u64>,
}

/// The history being read at the end, by one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    conn: u32,
    cursor: u64,
    request_id: u32,
    pub(super) last_page_ns: u64,
}

impl Fanout {
    /// Pushes were left out from `from_seq` on; everything before it must have come.
    pub(super) fn on_lagged(&mut self, net: &mut Net, conn: u32, from_seq: u64) {
        net.stats.counters.lagged += 1;
        if self.slow.is_slow(conn) {
            self.part.slow_lagged += 1;
        } else {
            self.part.others_lagged += 1;
        }
        self.last_progress_ns = net.now_ns;
        self.slow.progressed(conn, net.now_ns);
        let cursor = from_seq.saturating_sub(1);
        if let Some(pull) = self.pulls.get_mut(&conn) {
            pull.next = Some(pull.next.map_or(cursor, |next| next.min(cursor)));
            return;
        }
        self.start_pull(net, conn, cursor);
    }

    fn start_pull(&mut self, net: &mut Net, conn: u32, cursor: u64) {
        let request_id = self.ask(net, conn, cursor);
        self.pulls.insert(conn, Pull { cursor, request_id, next: None });
    }

    fn ask(&mut self, net: &mut Net, conn: u32, cursor_seq: u64) -> u32 {
        net.stats.counters.pulls += 1;
        self.next_request = self.next_request.wrapping_add(1).max(1);
        let (request_id, conversation_id) = (self.next_request, &self.group);
        net.request(conn, &Request::Pull { request_id, conversation_id, cursor_seq, limit: LIMIT });
        request_id
    }

    pub(super) fn on_page(&mut self, net: &mut Net, conn: u32, page: &Page<'_>) {
        self.last_progress_ns = net.now_ns;
        if self.reading.is_some_and(|r| r.conn == conn && r.request_id == page.request_id) {
            return self.on_history(net, page);
        }
        let Some(&pull) = self.pulls.get(&conn).filter(|pull| pull.request_id == page.request_id)
        else {
            return;
        };
        let delivered = self.oracle.delivered();
        for item in &page.items {
            if let Some((seen, _)) = self.identify(net, item) {
                self.oracle.pulled(Self::seat(conn), seen, PullReason::Lagged);
            }
        }
        let pulled = self.oracle.delivered() - delivered;
        net.stats.counters.delivered += pulled;
        if self.slow.is_slow(conn) {
            self.part.slow_pulled += pulled;
            self.slow.progressed(conn, net.now_ns);
        }
        if page.has_more && self.advances(conn, pull.cursor, page.next_cursor_seq) {
            let request_id = self.ask(net, conn, page.next_cursor_seq);
            let pull = Pull { cursor: page.next_cursor_seq, request_id, ..pull };
            self.pulls.insert(conn, pull);
            return;
        }
        self.pulls.remove(&conn);
        if let Some(cursor) = pull.next {
            self.start_pull(net, conn, cursor);
        }
    }

    /// Whether a page that promises more also moves on; if not, it is a fault and the end.
    fn advances(&mut self, conn: u32, cursor: u64, next: u64) -> bool {
        if next <= cursor {
            self.oracle.fault(Fault::HistoryOrder, || {
                format!("a page of connection {conn} after seq {cursor} goes on at {next}")
            });
        }
        next > cursor
    }

    pub(super) fn on_pull_failed(&mut self, conn: u32, again_ns: Option<u64>) {
        match again_ns {
            Some(at_ns) => self.again.push(Reverse((at_ns, conn, None))),
            None => _ = self.pulls.remove(&conn),
        }
    }

    pub(super) fn pull_again(&mut self, net: &mut Net, conn: u32) {
        if let Some(reading) = self.reading.filter(|reading| reading.conn == conn) {
            return self.read_history(net, conn, reading.cursor);
        }
        if let Some(&pull) = self.pulls.get(&conn).filter(|_| net.is_active(conn)) {
            let request_id = self.ask(net, conn, pull.cursor);
            self.pulls.insert(conn, Pull { request_id, ..pull });
        }
    }

    /// Whether messages came up that the history lacks because they are younger.
    pub(super) fn must_read_again(&self) -> bool {
        self.times_read < READ_MAX && self.oracle.is_audit_outdated(0)
    }

    /// Somebody who is there reads the history from its start.
    pub(super) fn read_whole_history(&mut self, net: &mut Net) {
        self.times_read += 1;
        if let Some(conn) = (0..self.share.active).find(|&conn| net.is_active(conn)) {
            self.read_history(net, conn, 0);
        }
    }

    /// Reads the history on from a cursor; from 0 it is a new reading.
    fn read_history(&mut self, net: &mut Net, conn: u32, cursor: u64) {
        if cursor == 0 {
            self.oracle.audit_begin(0);
        }
        let request_id = self.ask(net, conn, cursor);
        self.reading = Some(Reading { conn, cursor, request_id, last_page_ns: net.now_ns });
    }

    fn on_history(&mut self, net: &mut Net, page: &Page<'_>) {
        let Some(reading) = self.reading.take() else { return };
        for item in &page.items {
            if let Some((seen, _)) = self.identify(net, item) {
                self.oracle.audit_item(0, seen);
            }
        }
        if page.has_more && self.advances(reading.conn, reading.cursor, page.next_cursor_seq) {
            return self.read_history(net, reading.conn, page.next_cursor_seq);
        }
        self.oracle.audit_end(0);
    }
}
