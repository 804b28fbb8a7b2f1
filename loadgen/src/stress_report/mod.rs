//! What the straining scenarios come to, as data, in words, and as reasons to fail.

mod judge;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::args::{Options, Scenario};
use crate::parts::{ChurnPart, EstablishPart, FanoutPart, HostileKind, HostilePart, Part};
use crate::procfs::Usage;
use crate::stats::Percentiles;

pub(crate) use judge::failures;

/// A look at the server when a gate opened, and the most memory it had until the next one did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) usage: Usage,
    pub(crate) peak_bytes: u64,
    pub(crate) tcp_bytes: u64,
}

/// What was seen of the server beside the common readings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    /// Once set up.
    pub(crate) connected: Option<Usage>,
    /// When the load was over.
    pub(crate) after: Option<Usage>,
    /// By gate, beginning with gate 1.
    pub(crate) gates: Vec<Option<Mark>>,
}

impl Marks {
    fn gate(&self, gate: u32) -> Option<Mark> {
        self.gates.get((gate as usize).checked_sub(1)?).copied().flatten()
    }
}

/// The result of the scenario itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StressReport {
    /// Of a fan-out.
    Fanout(Box<FanoutReport>),
    /// Of a churn run.
    Churn(ChurnReport),
    /// Of a hostile run.
    Hostile(Box<HostileReport>),
    /// Of a run that establishes.
    Establish(EstablishReport),
}

/// One phase of a fan-out: members that read all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// From due to pushed.
    pub delivery: Percentiles,
    /// Deliveries a second.
    pub deliveries_per_s: f64,
}

/// Of a fan-out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FanoutReport {
    /// The only phase, or the one before the slow readers stop reading.
    pub first: PhaseReport,
    /// The phase in which they do not read.
    pub second: Option<PhaseReport>,
    /// p99 of the second phase over that of the first.
    pub p99_ratio: Option<f64>,
    /// CPU of the server for each delivery of the load, in microseconds.
    pub server_cpu_us_per_delivery: Option<f64>,
    /// The same in the first phase alone.
    pub first_server_cpu_us_per_delivery: Option<f64>,
    /// Whether all workers saw the same message under each number.
    pub agreed: bool,
    /// Notices to lag that members got who read all the time.
    pub others_lagged: u64,
    /// The slow readers.
    pub slow: Option<SlowReport>,
}

/// Of the slow readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlowReport {
    /// How many.
    pub readers: u64,
    /// Those that had every message once at the end.
    pub complete: u64,
    /// Notices to lag that they got.
    pub lagged: u64,
    /// Messages that waited for them and were pushed.
    pub pushed: u64,
    /// Messages that they pulled.
    pub pulled: u64,
    /// Private memory of the server for each of them, from before they stopped reading to the end of the
    /// phase.
    pub server_bytes_each: Option<f64>,
    /// The kernel's TCP memory for each of them, both ends, over the same time.
    pub kernel_bytes_each: Option<f64>,
    /// Resident memory of the server at that moment.
    pub server_rss_bytes: Option<u64>,
    /// From waking up to having everything.
    pub recovery: Percentiles,
}

/// Of a churn run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChurnReport {
    /// Connections that came and went as meant, by kind.
    pub done: BTreeMap<String, u64>,
    /// All of them, a second.
    pub per_s: f64,
    /// Refused by a server that was full.
    pub refused: u64,
    /// Went otherwise.
    pub failed: u64,
    /// From connecting to gone.
    pub life: Percentiles,
    /// Open descriptors of the server after the warm-up and at the end.
    pub descriptors: Option<(u64, u64)>,
    /// Private memory of the server after the warm-up and at the end, in bytes.
    pub private_bytes: Option<(u64, u64)>,
    /// CPU of the server for each connection, in microseconds.
    pub server_cpu_us_each: Option<f64>,
}

/// One way to misbehave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostileKindReport {
    /// Connections that did.
    pub count: u64,
    /// How the server ended them.
    pub ends: BTreeMap<String, u64>,
    /// Turned away at the door.
    pub refused: u64,
    /// Closed before the deadline less the tolerance.
    pub early: u64,
    /// Not closed by the end of the run.
    pub open: u64,
    /// From connecting to closed in milliseconds: first, median, last; without those refused.
    pub closed_after_ms: Option<(u64, u64, u64)>,
    /// Bytes that the server's side took of each.
    pub sent_bytes_each: f64,
}

/// Of a hostile run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostileReport {
    /// Heartbeats of the healthy, from due to answered, without the hostile.
    pub alone: Percentiles,
    /// The same with them.
    pub together: Percentiles,
    /// p99 with over without.
    pub p99_ratio: Option<f64>,
    /// By kind.
    pub kinds: BTreeMap<String, HostileKindReport>,
    /// Growth of the server's private memory at its highest, for each flooder, or for each hostile
    /// connection when there are no flooders.
    pub server_bytes_each: Option<f64>,
}

/// Of a run that establishes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EstablishReport {
    /// Logged in.
    pub logins: u64,
    /// Not logged in.
    pub failed: u64,
    /// Over all rounds.
    pub logins_per_s: f64,
    /// Of each round.
    pub rounds_per_s: Vec<f64>,
    /// CPU of the server for each login, in microseconds; with several rounds closing is in it.
    pub server_cpu_us_each: Option<f64>,
    /// The same of the generator.
    pub generator_cpu_us_each: f64,
}

/// Puts the parts of all workers together. `load_s` and `cpu_s` are the run's and the generator's.
pub(crate) fn report(
    options: &Options,
    part: &Part,
    marks: &Marks,
    load_s: f64,
    cpu_s: f64,
) -> StressReport {
    match part {
        Part::Fanout(part) => StressReport::Fanout(Box::new(fanout(part, marks))),
        Part::Churn(part) => StressReport::Churn(churn(part, marks, load_s)),
        Part::Hostile(part) => StressReport::Hostile(Box::new(hostile(options, part, marks))),
        Part::Establish(part) => StressReport::Establish(establish(options, part, marks, cpu_s)),
    }
}

fn per(value: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { value / divisor } else { 0.0 }
}

fn ratio(first: Percentiles, second: Percentiles) -> Option<f64> {
    let both = first.count > 0 && second.count > 0;
    both.then(|| per(second.p99_us as f64, first.p99_us.max(1) as f64))
}

fn cpu_us(from: Option<Usage>, to: Option<Usage>, count: u64) -> Option<f64> {
    Some(per((to?.cpu_s - from?.cpu_s).max(0.0) * 1e6, count as f64))
}

fn grown(from: u64, to: u64, count: u64) -> f64 {
    per(to as f64 - from as f64, count as f64)
}

fn fanout(part: &FanoutPart, marks: &Marks) -> FanoutReport {
    use crate::fanout::gate;
    let phase = |which: usize| {
        let delivery = part.phases[which].percentiles();
        let seconds = part.phase_ns[which] as f64 / 1e9;
        PhaseReport { delivery, deliveries_per_s: per(delivery.count as f64, seconds) }
    };
    let (first, second) = (phase(0), phase(1));
    let first_over = marks.gate(gate::FIRST_OVER).map(|mark| mark.usage).or(marks.after);
    let has_slow = part.slow > 0;
    // In the first phase slow readers read too, unless they were not there.
    let all = first.delivery.count + second.delivery.count + part.slow_pushed + part.slow_pulled;
    let before = marks.gate(gate::SLOW_READY);
    let full = marks.gate(gate::SECOND_OVER);
    FanoutReport {
        first,
        second: has_slow.then_some(second),
        p99_ratio: ratio(first.delivery, second.delivery).filter(|_| has_slow),
        server_cpu_us_per_delivery: cpu_us(marks.connected, marks.after, all),
        first_server_cpu_us_per_delivery: cpu_us(
            marks.connected,
            first_over,
            first.delivery.count + part.first_slow_pushed,
        ),
        agreed: part.agreements.windows(2).all(|pair| pair[0] == pair[1]),
        others_lagged: part.others_lagged,
        slow: has_slow.then(|| SlowReport {
            readers: part.slow,
            complete: part.slow_complete,
            lagged: part.slow_lagged,
            pushed: part.slow_pushed,
            pulled: part.slow_pulled,
            server_bytes_each: before.zip(full).map(|(before, full)| {
                grown(before.usage.anonymous_bytes, full.usage.anonymous_bytes, part.slow)
            }),
            kernel_bytes_each: before
                .zip(full)
                .map(|(before, full)| grown(before.tcp_bytes, full.tcp_bytes, part.slow)),
            server_rss_bytes: full.map(|full| full.usage.rss_bytes),
            recovery: part.recovery.percentiles(),
        }),
    }
}

fn churn(part: &ChurnPart, marks: &Marks, load_s: f64) -> ChurnReport {
    let both = marks.connected.zip(marks.after);
    let all: u64 = part.done.values().sum();
    ChurnReport {
        per_s: per(all as f64, load_s),
        done: part.done.clone(),
        refused: part.refused,
        failed: part.failed,
        life: part.life.percentiles(),
        descriptors: both.map(|(before, after)| (before.descriptors, after.descriptors)),
        private_bytes: both.map(|(before, after)| (before.anonymous_bytes, after.anonymous_bytes)),
        server_cpu_us_each: cpu_us(marks.connected, marks.after, all),
    }
}

fn hostile(options: &Options, part: &HostilePart, marks: &Marks) -> HostileReport {
    let (alone, together) = (part.phases[0].percentiles(), part.phases[1].percentiles());
    let stress = &options.stress;
    let count = u64::from(if stress.flooders > 0 { stress.flooders } else { stress.hostile });
    let bytes = marks.gate(1).map(|mark| grown(mark.usage.anonymous_bytes, mark.peak_bytes, count));
    HostileReport {
        alone,
        together,
        p99_ratio: ratio(alone, together),
        kinds: part.kinds.iter().map(|(name, kind)| (name.clone(), kind_report(kind))).collect(),
        server_bytes_each: bytes,
    }
}

fn kind_report(kind: &HostileKind) -> HostileKindReport {
    let life = kind.life.percentiles();
    HostileKindReport {
        count: kind.count,
        ends: kind.ends.clone(),
        refused: kind.refused,
        early: kind.early,
        open: kind.open,
        closed_after_ms: kind
            .first_ms
            .map(|first_ms| (first_ms, life.p50_us / 1000, life.max_us / 1000)),
        sent_bytes_each: per(kind.sent_bytes as f64, kind.count as f64),
    }
}

fn establish(
    options: &Options,
    part: &EstablishPart,
    marks: &Marks,
    cpu_s: f64,
) -> EstablishReport {
    let seconds: Vec<f64> = part.rounds_ns.iter().map(|&ns| ns as f64 / 1e9).collect();
    EstablishReport {
        logins: part.logins,
        failed: part.failed,
        logins_per_s: per(part.logins as f64, seconds.iter().sum()),
        rounds_per_s: seconds.iter().map(|&s| per(f64::from(options.connections), s)).collect(),
        server_cpu_us_each: cpu_us(marks.connected, marks.after, part.logins),
        generator_cpu_us_each: per(cpu_s * 1e6, part.logins as f64),
    }
}

/// Whether the scenario has a part of its own, without which there is no result.
pub(crate) fn is_expected(scenario: Scenario) -> bool {
    use Scenario::{Churn, Establish, Fanout, Hostile};
    matches!(scenario, Fanout | Churn | Hostile | Establish)
}
