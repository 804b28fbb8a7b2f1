//! Pushes, and what they mean to the oracle.

use super::Fanout;
use crate::client::{Incoming, Item, json};
use crate::message::MessageKey;
use crate::net::Net;
use crate::oracle::{Arrival, Fault, Seen};

impl Fanout {
    /// A text that is not known yet; true when it was a push.
    pub(super) fn on_new_text(&mut self, net: &mut Net, conn: u32, text: &str) -> bool {
        let Ok(Incoming::Push(item)) = json::read(text) else { return false };
        if let Some((seen, due_ns)) = self.identify_push(net, conn, &item) {
            // A changed content was counted as a fault and must be so for everyone who gets it.
            if due_ns > 0 {
                self.memo.put(text.as_bytes(), seen, due_ns);
            }
            self.arrived(net, conn, seen, due_ns);
        }
        true
    }

    pub(super) fn on_push(&mut self, net: &mut Net, conn: u32, item: &Item<'_>) {
        if let Some((seen, due_ns)) = self.identify_push(net, conn, item) {
            self.arrived(net, conn, seen, due_ns);
        }
    }

    fn identify_push(&mut self, net: &Net, conn: u32, item: &Item<'_>) -> Option<(Seen, u64)> {
        if item.conversation_id != *self.group {
            self.oracle.fault(Fault::Misrouted, || {
                format!("connection {conn} was pushed seq {} of {}", item.seq, item.conversation_id)
            });
            return None;
        }
        self.identify(net, item)
    }

    /// Which message this is and when it was due (0: its content is not what was sent).
    pub(super) fn identify(&mut self, net: &Net, item: &Item<'_>) -> Option<(Seen, u64)> {
        let plan = &net.plan;
        let key = MessageKey::from_id(item.msg_id.as_bytes())
            .filter(|key| key.run == plan.run && key.sender < plan.options.stress.senders);
        let Some(key) = key else {
            self.oracle.fault(Fault::Ghost, || {
                format!("seq {} has the unknown id {}", item.seq, item.msg_id)
            });
            return None;
        };
        let stamp = self.contents.read(&item.content);
        let intact = stamp.filter(|stamp| stamp.sender == key.sender && stamp.number == key.number);
        if intact.is_none() {
            self.oracle.fault(Fault::Corrupt, || {
                let content = String::from_utf8_lossy(&item.content);
                format!("seq {}: {content:.60}", item.seq)
            });
        }
        // Where the senders are, their numbers are those of the connections.
        let sender = if self.senders.is_empty() { u32::MAX } else { key.sender };
        let seen = Seen { sender, number: key.number, seq: item.seq };
        Some((seen, intact.map_or(0, |stamp| stamp.due_ns)))
    }

    /// A member was pushed a message.
    pub(super) fn arrived(&mut self, net: &mut Net, conn: u32, seen: Seen, due_ns: u64) {
        self.last_progress_ns = net.now_ns;
        if self.oracle.pushed(Self::seat(conn), seen) != Arrival::New {
            return;
        }
        net.stats.counters.delivered += 1;
        if self.slow.is_slow(conn) {
            self.part.slow_pushed += 1;
            self.part.first_slow_pushed += u64::from(due_ns < self.boundary_ns);
            self.slow.progressed(conn, net.now_ns);
            return;
        }
        let latency_ns = if due_ns == 0 { 0 } else { net.now_ns.saturating_sub(due_ns) };
        net.stats.latencies.delivery.record_ns(latency_ns);
        self.part.phases[usize::from(due_ns >= self.boundary_ns)].record_ns(latency_ns);
    }
}
