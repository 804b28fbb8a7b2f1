//! Pushes, pulls and holes.

use super::{Chat, GAP_GRACE_NS, OWED_GRACE_NS, PULL_LIMIT, Pull, request};
use crate::client::{Item, Page, Request};
use crate::message::MessageKey;
use crate::net::Net;
use crate::oracle::{Arrival, Fault, PullReason, Seen};

impl Chat {
    pub(super) fn on_push(&mut self, net: &mut Net, conn: u32, item: &Item<'_>) {
        self.last_progress_ns = net.now_ns;
        if item.conversation_id != *self.room(conn).id {
            self.oracle.fault(Fault::Misrouted, || {
                format!("connection {conn} was pushed seq {} of {}", item.seq, item.conversation_id)
            });
            return;
        }
        let Some((seen, due_ns)) = self.identify(net, conn, item) else { return };
        if self.oracle.pushed(self.seat(conn), seen) == Arrival::New {
            net.stats.counters.delivered += 1;
            if let Some((latencies, age_ns)) = net.measured(due_ns) {
                latencies.delivery.record_ns(age_ns);
            }
        }
    }

    /// Which message of the run this is, and when it was due. A message of somebody else is a fault.
    pub(super) fn identify(
        &mut self,
        net: &Net,
        conn: u32,
        item: &Item<'_>,
    ) -> Option<(Seen, u64)> {
        let key = MessageKey::from_id(item.msg_id.as_bytes()).filter(|key| key.run == net.plan.run);
        let Some(key) = key else {
            self.oracle.fault(Fault::Ghost, || {
                format!("seq {} has the unknown id {}", item.seq, item.msg_id)
            });
            return None;
        };
        let room = self.share.global(conn) / self.size;
        if key.sender / self.size != room {
            self.oracle.fault(Fault::Misrouted, || {
                format!(
                    "seq {} of conversation {room} was sent to conversation {}",
                    item.seq,
                    key.sender / self.size
                )
            });
            return None;
        }
        let stamp = self.contents.read(&item.content);
        let intact = stamp.filter(|stamp| stamp.sender == key.sender && stamp.number == key.number);
        if intact.is_none() {
            self.oracle.fault(Fault::Corrupt, || {
                let content = String::from_utf8_lossy(&item.content);
                format!(
                    "seq {} has {} bytes of content: {content:.60}",
                    item.seq,
                    item.content.len()
                )
            });
        }
        let seen = Seen { sender: key.sender % self.size, number: key.number, seq: item.seq };
        Some((seen, intact.map_or(net.now_ns, |stamp| stamp.due_ns)))
    }

    pub(super) fn start_pull(&mut self, net: &mut Net, conn: u32, reason: PullReason) {
        if let Some(pull) = &mut self.members[conn as usize].pull {
            pull.again = Some(reason);
            return;
        }
        let cursor = self.oracle.cursor(self.seat(conn));
        let request_id = self.ask_page(net, conn, request::PULL, cursor);
        let pull = Pull { reason, cursor, request_id, sent_ns: net.now_ns, again: None };
        self.members[conn as usize].pull = Some(pull);
    }

    /// Asks for messages and returns the id of the request.
    pub(super) fn ask_page(
        &mut self,
        net: &mut Net,
        conn: u32,
        purpose: u32,
        cursor_seq: u64,
    ) -> u32 {
        net.stats.counters.pulls += 1;
        self.next_request = self.next_request.wrapping_add(8);
        let request_id = self.next_request | purpose;
        let conversation_id = &self.rooms[(conn / self.size) as usize].id;
        net.request(
            conn,
            &Request::Pull { request_id, conversation_id, cursor_seq, limit: PULL_LIMIT },
        );
        request_id
    }

    pub(super) fn on_page(&mut self, net: &mut Net, conn: u32, page: &Page<'_>) {
        let Some(pull) =
            self.members[conn as usize].pull.filter(|pull| pull.request_id == page.request_id)
        else {
            return;
        };
        self.last_progress_ns = net.now_ns;
        let delivered = self.oracle.delivered();
        for item in &page.items {
            if let Some((seen, _)) = self.identify(net, conn, item) {
                self.oracle.pulled(self.seat(conn), seen, pull.reason);
            }
        }
        net.stats.counters.delivered += self.oracle.delivered() - delivered;
        if page.has_more && self.advances(conn, pull.cursor, page.next_cursor_seq) {
            let cursor = page.next_cursor_seq;
            let request_id = self.ask_page(net, conn, request::PULL, cursor);
            self.members[conn as usize].pull =
                Some(Pull { cursor, request_id, sent_ns: net.now_ns, ..pull });
            return;
        }
        self.members[conn as usize].pull = None;
        if pull.reason == PullReason::Gap
            && let Some(open_ns) = self.oracle.gap_pulled(self.seat(conn), net.now_ns)
        {
            net.stats.latencies.gap_fill.record_ns(open_ns);
        }
        if let Some(reason) = pull.again {
            self.start_pull(net, conn, reason);
        }
    }

    /// Whether a page that promises more also moves on; if not, it is a fault and the end.
    pub(super) fn advances(&mut self, conn: u32, cursor: u64, next: u64) -> bool {
        if next <= cursor {
            self.oracle.fault(Fault::HistoryOrder, || {
                format!("a page of connection {conn} after seq {cursor} goes on at {next}")
            });
        }
        next > cursor
    }

    pub(super) fn on_pull_failed(&mut self, conn: u32, retry_ns: Option<u64>) {
        let ack_timeout_ns = self.ack_timeout_ns;
        let pull = &mut self.members[conn as usize].pull;
        match (retry_ns, pull.as_mut()) {
            // The sweep repeats it when its time has come.
            (Some(at_ns), Some(pull)) => pull.sent_ns = at_ns.saturating_sub(ack_timeout_ns),
            _ => *pull = None,
        }
    }

    pub(super) fn repeat_overdue_pull(&mut self, net: &mut Net, conn: u32) {
        let Some(pull) = self.members[conn as usize].pull else { return };
        if net.now_ns.saturating_sub(pull.sent_ns) > self.ack_timeout_ns {
            let request_id = self.ask_page(net, conn, request::PULL, pull.cursor);
            self.members[conn as usize].pull =
                Some(Pull { request_id, sent_ns: net.now_ns, ..pull });
        }
    }

    pub(super) fn look_for_gap(&mut self, net: &mut Net, conn: u32) {
        self.oracle.give_up_owed(self.seat(conn), net.now_ns.saturating_sub(OWED_GRACE_NS));
        if self.members[conn as usize].pull.is_none()
            && self.oracle.overdue_gap(self.seat(conn), net.now_ns, GAP_GRACE_NS).is_some()
        {
            self.start_pull(net, conn, PullReason::Gap);
        }
    }
}
