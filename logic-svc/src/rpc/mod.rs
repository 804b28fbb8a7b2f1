//! Translates calls of gateways into operations and back. Nothing is decided here.

mod answer;
#[cfg(feature = "cluster")]
pub(crate) mod grpc;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proto::v1::call::Request;
use proto::v1::{Call, CallReply};

use crate::domain::delivery::GatewayNo;
use crate::ops::{ConnectionChange, Operations};
use crate::ports::{CallSource, DeliverySink, Received};
use answer::{Answers, Peer, Sorted, answer_all, sort};

/// The one gateway there is.
const HERE: GatewayNo = 0;

/// How long a look at the source waits; bounds how late its closing is seen.
const WAIT: Duration = Duration::from_millis(100);
/// Most logins and ends in one tick: bounds how long others wait for it (some milliseconds, also if every one of
/// them brings a token that was never seen).
const TICK_MAX: usize = 1024;
/// Ticks of logins and ends begin this far apart at least. One that comes alone is not kept waiting; of many
/// that come one by one each would otherwise cost a wake of this thread, a commit and a wake of its shard.
const TICK_APART: Duration = Duration::from_millis(1);
/// A tick of this many is part of a herd: the next ones gather while this thread sleeps, and whoever sends them
/// has nobody to wake.
const HERD: usize = 4;
/// Logins and ends taken in before the source is left to hold them, and to refuse more.
const WAITING_MAX: usize = 16 * TICK_MAX;

/// Answers calls until the source is closed. Logins and ends of connections wait for each other a moment and let
/// the requests of those who are in already go first.
pub(crate) fn run(operations: &Operations, sink: &dyn DeliverySink, source: &mut impl CallSource) {
    let mut calls = Vec::new();
    let mut waiting = VecDeque::new();
    let mut last_tick: Option<Instant> = None;
    loop {
        let received = receive(source, &mut calls, waiting.len());
        answer_all(operations, &mut ToSink(sink), set_apart(&mut calls, &mut waiting));
        let closed = received == Received::Closed;
        let early = last_tick.and_then(|at| TICK_APART.checked_sub(at.elapsed()));
        if let Some(early) = early.filter(|_| !closed && (1..TICK_MAX).contains(&waiting.len())) {
            std::thread::sleep(early);
            continue;
        }
        if !waiting.is_empty() {
            let begun = Instant::now();
            last_tick = Some(begun);
            let tick: Vec<_> = waiting.drain(..waiting.len().min(TICK_MAX)).collect();
            let herd = tick.len() >= HERD;
            operations.change_connections(tick, &mut |replies| sink.replies(replies));
            if herd && waiting.is_empty() && !closed {
                std::thread::sleep(TICK_APART.saturating_sub(begun.elapsed()));
            }
        }
        if closed && waiting.is_empty() {
            return;
        }
    }
}

fn receive(source: &mut impl CallSource, into: &mut Vec<Call>, waiting: usize) -> Received {
    match waiting {
        0 => source.recv(into, WAIT),
        WAITING_MAX.. => Received::Timeout,
        _ => source.recv(into, Duration::ZERO),
    }
}

/// Moves logins and ends of connections to those that wait; gives the others.
fn set_apart(
    calls: &mut Vec<Call>,
    waiting: &mut VecDeque<ConnectionChange>,
) -> impl Iterator<Item = (Peer, Request)> {
    calls.drain(..).filter_map(|call| match sort(HERE, call)? {
        Sorted::Change(change) => {
            waiting.push_back(change);
            None
        }
        Sorted::Request(peer, request) => Some((peer, request)),
    })
}

/// Answers go to the shards of this process.
struct ToSink<'a>(&'a dyn DeliverySink);

impl Answers for ToSink<'_> {
    fn one(&mut self, reply: CallReply) {
        self.0.reply(reply);
    }

    fn several(&mut self, replies: Vec<CallReply>) {
        self.0.replies(replies);
    }
}
