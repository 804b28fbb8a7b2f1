//! One trial: a load, a script beside it, a verdict.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::cache_file;
use super::load::{Load, Plan, Report, Verdict};
use super::random::Random;
use super::rows::{Act, Method, Row, Victim};
use super::twins;
use super::valve::Valve;
use super::{panics, poison};
use crate::cluster::{Cluster, Node};
use crate::interrupt::Interrupt;
use crate::servers::Kind;

const TICK: Duration = Duration::from_millis(20);
/// What the fault left behind shows in a load that goes on for so long after the script.
const AFTER: Duration = Duration::from_secs(2);
/// Joining the group takes up to the session timeout of a dead member, and a start its time on a busy machine.
const CRASH_LIMIT: Duration = Duration::from_secs(90);

/// What a trial came to.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    /// No promise was broken, and everything could be checked.
    pub(super) clean: bool,
    pub(super) acked: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    /// One message with two numbers: it took effect twice.
    pub(super) two_effects: u64,
    /// Pushed again on one connection; clients drop it by its seq.
    pub(super) pushed_twice: u64,
    pub(super) order_breaks: u64,
    /// Neither pushed nor told of.
    pub(super) missed: u64,
    /// Promises of any other kind.
    pub(super) other: u64,
    /// Longest wait of a message for its acknowledgement, from the moment it was due, in seconds.
    pub(super) recovery_s: f64,
    /// How long the trial took, in seconds.
    pub(super) took_s: f64,
    /// Why it is not clean.
    pub(super) reasons: Vec<String>,
}

impl Outcome {
    /// Whether a promise was broken, as a control run has to show.
    pub(super) fn shows_damage(&self) -> bool {
        self.lost + self.two_effects + self.order_breaks + self.missed + self.other > 0
    }

    fn of(seed: u64, report: &Report) -> Self {
        let verdict = report.oracle.clone().unwrap_or_default();
        let (lost, two_effects) = (verdict.count(&["lost"]), verdict.count(&["two_seqs"]));
        let order_breaks = verdict.count(&["order_break", "seq_reused", "regressed"]);
        let missed = verdict.count(&["missed"]);
        let known = lost + two_effects + order_breaks + missed;
        Self {
            seed,
            clean: report.passed && verdict.anomalies() == 0 && verdict.unaudited == 0,
            acked: verdict.acked,
            delivered: verdict.delivered,
            lost,
            two_effects,
            pushed_twice: verdict.count(&["duplicate"]),
            order_breaks,
            missed,
            other: verdict.anomalies().saturating_sub(known),
            recovery_s: Duration::from_micros(report.latency.ack.max_us).as_secs_f64(),
            took_s: 0.0,
            reasons: reasons(report, &verdict),
        }
    }
}

fn reasons(report: &Report, verdict: &Verdict) -> Vec<String> {
    let examples = if verdict.anomalies() > 0 { &verdict.examples[..] } else { &[] };
    report.failures.iter().chain(examples.iter().take(3)).cloned().collect()
}

/// What trials of a row work with.
pub(super) struct Bench<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) valve: Option<&'a Valve>,
    pub(super) loadgen: &'a Path,
    /// What the load generator is to do without.
    pub(super) load_without: Option<&'static str>,
    /// Where files of the load go.
    pub(super) folder: &'a Path,
    pub(super) interrupt: &'a Interrupt,
    /// Why partitions stood still, in the trial at hand.
    pub(super) halted: Vec<String>,
}

impl Bench<'_> {
    /// Runs one trial; everything drawn follows from the seed. Whatever the script left down is
    /// up again afterwards.
    ///
    /// # Errors
    /// When something does not start, or the load gives no report: then nothing was shown.
    pub(super) fn run(&mut self, row: &Row, seed: u64) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let outcome = match row.method {
            Method::DoubleLogin => self.double_login(seed),
            Method::Oracle => self.load_and_script(row, seed),
            Method::DeadLetters => self.dead_letters(row, seed),
        };
        let restored = self.restore();
        let outcome = outcome?;
        restored?;
        Ok(Outcome { took_s: begun.elapsed().as_secs_f64(), ..outcome })
    }

    fn load_and_script(&mut self, row: &Row, seed: u64) -> anyhow::Result<Outcome> {
        let mut random = Random::new(seed);
        let victims = Victims::draw(&mut random, row);
        let urls: Vec<String> = self.addresses().iter().map(|at| format!("ws://{at}/ws")).collect();
        let plan = Plan {
            loadgen: self.loadgen,
            urls: &urls,
            seed,
            // Pairs and small groups by turns. Where every partition is needed to bring its service to a point, pairs
            // only: ten groups leave one without in 6 of 100 trials.
            group_size: if random.between(0, 1) == 0 || row.needs_faults() { 2 } else { 6 },
            without: self.load_without,
            folder: self.folder,
        };
        let load = Load::start(&plan, self.interrupt)?;
        self.act(row.script, &victims, &mut random)?;
        self.pause(AFTER);
        let report = load.finish(self.interrupt)?;
        Ok(Outcome::of(seed, &report))
    }

    fn dead_letters(&mut self, row: &Row, seed: u64) -> anyhow::Result<Outcome> {
        self.halted.clear();
        let before = poison::dead_letters(self.cluster)?;
        let mut outcome = self.load_and_script(row, seed)?;
        let (found, wanted) = (poison::dead_letters(self.cluster)? - before, poison::sent(row));
        if found < wanted {
            outcome.clean = false;
            outcome.other += wanted - found;
            let reason =
                format!("{found} of {wanted} records that cannot be worked are dead letters");
            outcome.reasons.push(reason);
        }
        if !self.halted.is_empty() {
            outcome.clean = false;
            outcome.other += self.halted.len() as u64;
            outcome.reasons.append(&mut self.halted);
        }
        Ok(outcome)
    }

    fn double_login(&mut self, seed: u64) -> anyhow::Result<Outcome> {
        let tally = twins::run(&self.addresses(), seed, self.interrupt)?;
        Ok(Outcome {
            seed,
            clean: tally.both_alive + tally.none_alive + tally.not_told == 0,
            acked: tally.pairs,
            other: tally.both_alive + tally.none_alive + tally.not_told,
            recovery_s: tally.longest.as_secs_f64(),
            reasons: tally.reasons(),
            ..Outcome::default()
        })
    }

    fn act(&mut self, acts: &[Act], victims: &Victims, random: &mut Random) -> anyhow::Result<()> {
        for act in acts {
            if self.interrupt.raised() {
                bail!("interrupted");
            }
            self.perform(*act, victims, random).with_context(|| format!("{act:?}"))?;
        }
        Ok(())
    }

    fn perform(&mut self, act: Act, victims: &Victims, random: &mut Random) -> anyhow::Result<()> {
        match act {
            Act::Pause(from, to) => {
                self.pause(Duration::from_millis(random.between(from, to)));
                Ok(())
            }
            Act::Times(times, acts) => (0..times).try_for_each(|_| self.act(acts, victims, random)),
            Act::Kill(victim) => match victims.name(victim) {
                Named::Node(node) => self.cluster.kill(node),
                Named::Server(kind) => self.cluster.servers().kill(kind),
            },
            Act::Stop(victim) => match victims.name(victim) {
                Named::Node(node) => self.cluster.stop(node),
                Named::Server(kind) => self.cluster.servers().down(&[kind]),
            },
            Act::Start(victim) => self.start(victims.name(victim)),
            Act::CrashAt(victim, point) => match victims.name(victim) {
                Named::Node(node) => self.crash_at(node, point, random.between(1, 50)),
                Named::Server(kind) => bail!("{} has no points to crash at", kind.name()),
            },
            Act::Freeze(victim) => self.signal(victims.name(victim), Signal::STOP),
            Act::Thaw(victim) => self.signal(victims.name(victim), Signal::CONT),
            Act::Flush => cache_file::flush(self.cluster.servers()),
            Act::KeepOldFile => cache_file::keep(self.cluster.servers()),
            Act::OldFile => cache_file::bring_back(self.cluster.servers()),
            Act::Poison => poison::send(self.cluster, self.interrupt),
            Act::Panic => {
                let user = format!("panic-{:x}", random.next());
                let halted = panics::send(&self.addresses(), &user, self.interrupt)?;
                self.halted.extend(halted);
                Ok(())
            }
            Act::Valve(open) => {
                self.valve.context("there is no valve")?.set(open);
                Ok(())
            }
        }
    }

    fn start(&mut self, named: Named) -> anyhow::Result<()> {
        match named {
            Named::Node(node) => self.cluster.start(node, self.interrupt),
            Named::Server(kind) => self.cluster.servers().start(kind, self.interrupt, &mut |_| {}),
        }
    }

    /// The load has to bring it to the point.
    fn crash_at(&mut self, node: Node, point: &str, times: u64) -> anyhow::Result<()> {
        let variables =
            [("CORELANE_CRASH_AT", point.to_owned()), ("CORELANE_CRASH_AFTER", times.to_string())];
        for (name, value) in &variables {
            self.cluster.set_environment(node, name, Some(value.into()));
        }
        self.cluster.kill(node)?;
        let started = self.cluster.launch_only(node);
        for (name, _) in &variables {
            self.cluster.set_environment(node, name, None);
        }
        let daemon = started?;
        let deadline = Instant::now() + CRASH_LIMIT;
        while daemon.runs() {
            if Instant::now() > deadline || self.interrupt.raised() {
                bail!("{node} never came to {point} for the {times}th time");
            }
            thread::sleep(TICK);
        }
        self.cluster.start(node, self.interrupt)
    }

    fn signal(&mut self, named: Named, signal: Signal) -> anyhow::Result<()> {
        match named {
            Named::Node(node) => self.cluster.signal(node, signal),
            Named::Server(kind) => self.cluster.servers().signal(kind, signal),
        }
    }

    fn pause(&self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time && !self.interrupt.raised() {
            thread::sleep(TICK.min(time));
        }
    }

    /// Everything runs again, for the next trial.
    fn restore(&mut self) -> anyhow::Result<()> {
        if let Some(valve) = self.valve {
            valve.set(true);
        }
        for node in self.cluster.nodes() {
            // One left standing would count as running.
            let _ = self.cluster.signal(node, Signal::CONT);
        }
        for kind in Kind::ALL {
            let _ = self.cluster.servers().signal(kind, Signal::CONT);
        }
        self.cluster.servers().up(self.interrupt, &mut |_| {})?;
        self.cluster.up(self.interrupt)
    }

    /// `HOST:PORT` of the gateways.
    fn addresses(&self) -> Vec<String> {
        let nodes = self.cluster.nodes().into_iter();
        let urls = nodes.filter_map(|node| self.cluster.gateway(node));
        urls.map(|url| url.trim_start_matches("http://").to_owned()).collect()
    }
}

/// Processes and servers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Node(Node),
    Server(Kind),
}

/// The orders drawn for a trial.
struct Victims {
    gateways: Vec<u32>,
    logic: Vec<u32>,
}

impl Victims {
    fn draw(random: &mut Random, row: &Row) -> Self {
        Self { gateways: random.order(row.size.gateways), logic: random.order(row.size.logic) }
    }

    fn name(&self, victim: Victim) -> Named {
        let number = |order: &[u32], at: usize| order.get(at).copied().unwrap_or(1);
        match victim {
            Victim::Gateway(at) => Named::Node(Node::Gateway(number(&self.gateways, at))),
            Victim::Logic(at) => Named::Node(Node::Logic(number(&self.logic, at))),
            Victim::Server(kind) => Named::Server(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_tell_damage_from_what_clients_put_right() {
        let faults = |pairs: &[(&str, u64)]| Report {
            passed: true,
            oracle: Some(Verdict {
                faults: pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
                ..Verdict::default()
            }),
            ..Report::default()
        };
        let again = Outcome::of(1, &faults(&[("duplicate", 9), ("lost", 0)]));
        assert!(again.clean && !again.shows_damage());
        assert_eq!(again.pushed_twice, 9);
        let bad = Outcome::of(1, &faults(&[("duplicate", 9), ("two_seqs", 1), ("ghost", 2)]));
        assert!(!bad.clean && bad.shows_damage());
        assert_eq!((bad.two_effects, bad.other), (1, 2));
        // Nothing could be checked: not clean, but no damage was seen either.
        let silent = Outcome::of(1, &Report::default());
        assert!(!silent.clean && !silent.shows_damage());
    }
}
