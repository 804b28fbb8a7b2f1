//! What one worker of a straining scenario measured beside the common counters, and how the parts of
//! several workers become one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats::Latency;

/// The scenario's own part of an outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    Fanout(Box<FanoutPart>),
    Churn(ChurnPart),
    Hostile(Box<HostilePart>),
    Establish(EstablishPart),
}

/// Of a fan-out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FanoutPart {
    /// Deliveries to members that read, in the phase that is compared with and the phase of the slow.
    pub(crate) phases: [Latency; 2],
    /// How long each phase sent.
    pub(crate) phase_ns: [u64; 2],
    /// Which message has which sequence number, as a digest, and the highest sequence number. All workers
    /// must agree.
    pub(crate) agreements: Vec<(u64, u32)>,
    /// Notices to lag that slow readers got.
    pub(crate) slow_lagged: u64,
    /// Notices to lag that the others got.
    pub(crate) others_lagged: u64,
    /// Slow readers, and those that had everything at the end.
    pub(crate) slow: u64,
    pub(crate) slow_complete: u64,
    /// Messages that slow readers were pushed and that they pulled.
    pub(crate) slow_pushed: u64,
    pub(crate) slow_pulled: u64,
    /// Those pushed before they stopped reading.
    pub(crate) first_slow_pushed: u64,
    /// From a slow reader's waking to its having everything.
    pub(crate) recovery: Latency,
}

impl FanoutPart {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.phases.iter_mut().zip(&other.phases) {
            mine.merge(theirs);
        }
        for (mine, theirs) in self.phase_ns.iter_mut().zip(other.phase_ns) {
            *mine = (*mine).max(theirs);
        }
        self.agreements.extend_from_slice(&other.agreements);
        self.slow_lagged += other.slow_lagged;
        self.others_lagged += other.others_lagged;
        self.slow += other.slow;
        self.slow_complete += other.slow_complete;
        self.slow_pushed += other.slow_pushed;
        self.slow_pulled += other.slow_pulled;
        self.first_slow_pushed += other.first_slow_pushed;
        self.recovery.merge(&other.recovery);
    }
}

/// Of a churn run; the warm-up is not in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ChurnPart {
    /// Connections that came and went as meant, by kind.
    pub(crate) done: BTreeMap<String, u64>,
    /// Connections that the server refused to take, as it may when it is full.
    pub(crate) refused: u64,
    /// Connections that went otherwise.
    pub(crate) failed: u64,
    /// From connecting to gone.
    pub(crate) life: Latency,
}

impl ChurnPart {
    fn merge(&mut self, other: &Self) {
        add_all(&mut self.done, &other.done);
        self.refused += other.refused;
        self.failed += other.failed;
        self.life.merge(&other.life);
    }
}

/// One way to misbehave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HostileKind {
    /// Connections that did.
    pub(crate) count: u64,
    /// Closed by the server, and how.
    pub(crate) ends: BTreeMap<String, u64>,
    /// Refused at the door, as a server may when there are too many of them.
    pub(crate) refused: u64,
    /// Closed before the deadline less the tolerance, though not refused.
    pub(crate) early: u64,
    /// Still open when the run ended.
    pub(crate) open: u64,
    /// From connecting to closed, without those refused.
    pub(crate) life: Latency,
    /// Shortest such time in milliseconds; `None` without any.
    pub(crate) first_ms: Option<u64>,
    /// Bytes that the kernel took of them.
    pub(crate) sent_bytes: u64,
}

impl HostileKind {
    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        add_all(&mut self.ends, &other.ends);
        self.refused += other.refused;
        self.early += other.early;
        self.open += other.open;
        self.life.merge(&other.life);
        self.first_ms = match (self.first_ms, other.first_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.sent_bytes += other.sent_bytes;
    }
}

/// Of a hostile run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HostilePart {
    /// Answers to the healthy without and with the hostile.
    pub(crate) phases: [Latency; 2],
    /// By name of the kind.
    pub(crate) kinds: BTreeMap<String, HostileKind>,
}

impl HostilePart {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.phases.iter_mut().zip(&other.phases) {
            mine.merge(theirs);
        }
        for (name, kind) in &other.kinds {
            self.kinds.entry(name.clone()).or_default().merge(kind);
        }
    }
}

/// Of a run that establishes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct EstablishPart {
    /// Logged in.
    pub(crate) logins: u64,
    /// Not logged in.
    pub(crate) failed: u64,
    /// Duration of each round, from its first connect to its last login.
    pub(crate) rounds_ns: Vec<u64>,
}

impl EstablishPart {
    fn merge(&mut self, other: &Self) {
        self.logins += other.logins;
        self.failed += other.failed;
        self.rounds_ns.resize(self.rounds_ns.len().max(other.rounds_ns.len()), 0);
        for (mine, theirs) in self.rounds_ns.iter_mut().zip(&other.rounds_ns) {
            *mine = (*mine).max(*theirs);
        }
    }
}

impl Part {
    /// Adds the part of another worker of the same scenario.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Fanout(mine), Self::Fanout(theirs)) => mine.merge(theirs),
            (Self::Churn(mine), Self::Churn(theirs)) => mine.merge(theirs),
            (Self::Hostile(mine), Self::Hostile(theirs)) => mine.merge(theirs),
            (Self::Establish(mine), Self::Establish(theirs)) => mine.merge(theirs),
            // All workers of a run have the same scenario.
            _ => {}
        }
    }
}

fn add_all(mine: &mut BTreeMap<String, u64>, theirs: &BTreeMap<String, u64>) {
    for (name, count) in theirs {
        *mine.entry(name.clone()).or_default() += count;
    }
}
