//! Echo: every message must come back as it was, in order, once.

use std::collections::VecDeque;

use codec::binary::{Kind, PREFACE};
use codec::ws::Opcode;

use crate::client::{Incoming, Protocol};
use crate::clock;
use crate::message::{Contents, Stamp};
use crate::net::{Down, Handler, Net};
use crate::oracle::Verdict;
use crate::pace::Pace;
use crate::parts::Part;
use crate::plan::{Plan, Share};
use crate::scenario::Scenario;

/// Messages of one connection.
#[derive(Default)]
struct Flow {
    /// Number of the next message to send.
    next: u32,
    /// Number of the next message to come back.
    expected: u32,
    /// Due times of messages that wait for room in the window.
    backlog: VecDeque<u64>,
    /// Raw TCP: the beginning of a message.
    partial: Vec<u8>,
    /// Raw TCP: the stream may still begin with the preface, echoed.
    at_start: bool,
}

/// The scenario.
pub(crate) struct Echo {
    contents: Contents,
    pace: Pace,
    flows: Vec<Flow>,
    window: u32,
    /// Raw TCP: everything of a message before its content.
    prefix: Vec<u8>,
    content: Vec<u8>,
    draining: bool,
}

impl Echo {
    pub(crate) fn new(plan: &Plan, share: &Share) -> Self {
        let contents = Contents::new(plan.options.payload_bytes as usize);
        Self {
            prefix: frame_prefix(contents.len()),
            pace: Pace::new(plan, share),
            flows: std::iter::repeat_with(Flow::default)
                .take(share.connections() as usize)
                .collect(),
            window: plan.options.window(),
            content: Vec::new(),
            draining: false,
            contents,
        }
    }

    /// Sends what waits, as far as the window allows.
    fn pump(&mut self, net: &mut Net, conn: u32) {
        if !net.is_active(conn) || net.is_blocked(conn) {
            return;
        }
        let now_ns = net.now_ns;
        while self.flows[conn as usize].in_flight() < self.window {
            let flow = &mut self.flows[conn as usize];
            let waiting = flow.backlog.pop_front();
            let due_ns = match waiting {
                Some(due_ns) => due_ns,
                None if self.pace.saturates(now_ns) => {
                    net.stats.counters.due += 1;
                    now_ns
                }
                None => return,
            };
            self.send(net, conn, due_ns);
        }
    }

    fn send(&mut self, net: &mut Net, conn: u32, due_ns: u64) {
        let flow = &mut self.flows[conn as usize];
        let stamp = Stamp { due_ns, sender: net.share.global(conn), number: flow.next };
        flow.next += 1;
        self.content.clear();
        match net.plan.options.protocol {
            Protocol::Json => {
                self.contents.write(&mut self.content, stamp);
                net.send_frame(conn, Opcode::Text, &self.content);
            }
            Protocol::Binary => {
                self.contents.write(&mut self.content, stamp);
                net.send_frame(conn, Opcode::Binary, &self.content);
            }
            Protocol::Tcp => {
                self.content.extend_from_slice(&self.prefix);
                self.contents.write(&mut self.content, stamp);
                net.send_raw(conn, &self.content);
            }
        }
        net.stats.counters.sent += 1;
        if let Some((latencies, age_ns)) = net.measured(due_ns) {
            latencies.send_lag.record_ns(age_ns);
        }
    }

    /// One message is back.
    fn came_back(&mut self, net: &mut Net, conn: u32, content: &[u8]) {
        let flow = &mut self.flows[conn as usize];
        let counters = &mut net.stats.counters;
        let Some(stamp) =
            self.contents.read(content).filter(|s| s.sender == net.share.global(conn))
        else {
            counters.echo_corrupt += 1;
            return;
        };
        if stamp.number != flow.expected {
            counters.echo_disordered += 1;
        }
        if stamp.number < flow.expected || stamp.number >= flow.next {
            return;
        }
        flow.expected = stamp.number + 1;
        counters.acked += 1;
        if let Some((latencies, age_ns)) = net.measured(stamp.due_ns) {
            latencies.ack.record_ns(age_ns);
        }
    }

    /// Cuts a stream into messages, all of the same length.
    fn on_stream(&mut self, net: &mut Net, conn: u32, bytes: &[u8]) -> bool {
        let mut partial = std::mem::take(&mut self.flows[conn as usize].partial);
        partial.extend_from_slice(bytes);
        let mut rest = partial.as_slice();
        if std::mem::take(&mut self.flows[conn as usize].at_start) {
            if rest.len() < PREFACE.len() && PREFACE.starts_with(rest) {
                self.flows[conn as usize].at_start = true;
                self.flows[conn as usize].partial = partial;
                return true;
            }
            rest = rest.strip_prefix(&PREFACE).unwrap_or(rest);
        }
        let len = self.prefix.len() + self.contents.len();
        while let Some((message, after)) = rest.split_at_checked(len) {
            let Some(content) = message.strip_prefix(self.prefix.as_slice()) else { return false };
            self.came_back(net, conn, content);
            rest = after;
        }
        if !rest.is_empty() {
            self.flows[conn as usize].partial = rest.to_vec();
        }
        true
    }
}

impl Flow {
    fn in_flight(&self) -> u32 {
        self.next - self.expected
    }
}

/// Header of a SEND frame whose body is nothing but a content of this length.
fn frame_prefix(content_len: usize) -> Vec<u8> {
    use prost::Message as _;
    let body = proto::v1::Send { content: vec![0; content_len].into(), ..Default::default() }
        .encode_to_vec();
    let mut frame = Vec::new();
    codec::binary::encode(&mut frame, Kind::Send, &body);
    frame.truncate(frame.len() - content_len);
    frame
}

impl Handler for Echo {
    fn on_login(&mut self, net: &mut Net, conn: u32, _again: bool) {
        let flow = &mut self.flows[conn as usize];
        // What the broken connection had in flight never comes back.
        flow.expected = flow.next;
        flow.partial = Vec::new();
        flow.at_start = net.plan.options.protocol == Protocol::Tcp;
        self.pump(net, conn);
    }

    fn on_incoming(&mut self, _net: &mut Net, _conn: u32, _incoming: Incoming<'_>) {}

    fn on_data(&mut self, net: &mut Net, conn: u32, bytes: &[u8]) {
        if net.plan.options.protocol != Protocol::Tcp {
            self.came_back(net, conn, bytes);
        } else if !self.on_stream(net, conn, bytes) {
            net.stats.counters.echo_corrupt += 1;
            net.abort(conn, Down::new("ECHO_CORRUPT"));
        }
        self.pump(net, conn);
    }

    fn on_down(&mut self, _net: &mut Net, conn: u32) {
        let flow = &mut self.flows[conn as usize];
        flow.expected = flow.next;
    }

    fn on_turn(&mut self, net: &mut Net) {
        while let Some((conn, due_ns)) = self.pace.take_due(net.now_ns) {
            net.stats.counters.due += 1;
            self.flows[conn as usize].backlog.push_back(due_ns);
            self.pump(net, conn);
        }
    }

    fn wake_ns(&self) -> u64 {
        self.pace.wake_ns()
    }
}

impl Scenario for Echo {
    fn is_set_up(&self) -> bool {
        true
    }

    fn begin_load(&mut self, net: &mut Net, start_ns: u64) {
        let (plan, share) = (std::sync::Arc::clone(&net.plan), net.share);
        self.pace.begin(&plan, &share, start_ns);
        for conn in self.pace.order().to_vec() {
            self.pump(net, conn);
        }
    }

    fn begin_drain(&mut self, _net: &mut Net) {
        self.pace.cut(clock::now_ns());
        self.draining = true;
    }

    fn is_drained(&self, net: &Net) -> bool {
        let open = |conn: u32, flow: &Flow| {
            net.is_active(conn) && (flow.in_flight() > 0 || !flow.backlog.is_empty())
        };
        self.draining && !(0..).zip(&self.flows).any(|(conn, flow)| open(conn, flow))
    }

    fn begin_audit(&mut self, _net: &mut Net) {}

    fn is_audited(&self, _net: &Net) -> bool {
        true
    }

    fn finish(self, net: &mut Net) -> (Option<Verdict>, Option<Part>) {
        let counters = &mut net.stats.counters;
        counters.unsent = self.flows.iter().map(|flow| flow.backlog.len() as u64).sum();
        counters.echo_lost = counters.sent.saturating_sub(counters.acked);
        (None, None)
    }
}
