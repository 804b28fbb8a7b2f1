//! How a run is cut into workers, and what everybody in it is called.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::args::{Login, Options, Scenario};
use crate::client::Protocol;
use crate::message::{RUN_BITS, SENDER_BITS, STAMP_BYTES};
use crate::rng::Rng;
use crate::schedule::Part;
use crate::stress::SlowBaseline;
use crate::target::{Target, TargetError};

/// Open files a worker needs beside its connections.
pub const RESERVED_FILES: u64 = 200;
/// Members of a group, online or not.
const MEMBERS_MAX: u32 = 1 << 30;
/// Connections from one source address to one destination before the next source address is taken.
pub const PER_SOURCE_ADDRESS: u32 = 20_000;

/// Why a run cannot start; the sentence is meant for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An address was refused.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Options that do not fit each other or this machine.
    #[error("{0}")]
    Options(String),
}

/// One worker's part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which worker, from 0.
    pub worker: u32,
    /// Of how many.
    pub workers: u32,
    /// First connection that takes part, counted over all workers.
    pub first_active: u32,
    /// How many take part here.
    pub active: u32,
    /// First connection beside those that take part: idle, slow or hostile.
    pub first_idle: u32,
    /// How many of them are here.
    pub idle: u32,
    /// How many take part in the whole run.
    pub total_active: u32,
}

impl Share {
    /// Connections of this worker.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.active + self.idle
    }

    /// Its part of the messages.
    #[must_use]
    pub fn part(&self) -> Part {
        let Self { active, total_active: total, worker, workers, .. } = *self;
        Part { active, total, worker, workers }
    }

    /// Its part of so many, as a range of them.
    #[must_use]
    pub fn slice(&self, total: u32) -> Range<u32> {
        slice(total, self.worker, self.workers)
    }

    /// Index over all workers of the worker's connection `local`.
    #[must_use]
    pub fn global(&self, local: u32) -> u32 {
        if local < self.active {
            self.first_active + local
        } else {
            self.first_idle + (local - self.active)
        }
    }
}

/// A run that can start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The options, with everything resolved that could be left open.
    pub options: Options,
    /// Addresses under load.
    pub targets: Vec<Target>,
    /// Drawn when the options had none.
    pub seed: u64,
    /// Distinguishes this run from every other on the same server; part of all names.
    pub tag: String,
    /// The same as a number below 2^21; part of all message ids.
    pub run: u32,
    /// The parts.
    pub shares: Vec<Share>,
}

impl Plan {
    /// Checks the options and cuts the run into parts, raising this process's limit of open files as far
    /// as it is allowed to.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn new(options: &Options) -> Result<Self, PlanError> {
        Self::with_file_limit(options, raise_file_limit())
    }

    /// As [`Plan::new`], for a given limit of open files a worker.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn with_file_limit(options: &Options, files: u64) -> Result<Self, PlanError> {
        check(options).map_err(PlanError::Options)?;
        let targets = options.urls.iter().map(|url| Target::parse(url, options.allow_remote));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let shares = cut(options, files).map_err(PlanError::Options)?;
        let (tag, run) = tag();
        let seed = options.seed.unwrap_or_else(|| Rng::new(u64::from(run)).next_u64() >> 32);
        Ok(Self { options: options.clone(), targets, seed, tag, run, shares })
    }

    /// Name of the user of a connection.
    #[must_use]
    pub fn user_name(&self, global: u32) -> String {
        let mut name = String::new();
        self.write_user_name(global, &mut name);
        name
    }

    /// As [`Plan::user_name`], into a string that is kept.
    pub fn write_user_name(&self, global: u32, name: &mut String) {
        use std::fmt::Write;
        name.clear();
        // Writing to a string cannot fail.
        let _ = write!(name, "lg{}-{global}", self.tag);
    }

    /// Connections that stand before the load begins.
    #[must_use]
    pub fn standing(&self) -> u64 {
        let options = &self.options;
        let slow_too = options.stress.slow_baseline == SlowBaseline::Reading;
        u64::from(match options.scenario {
            Scenario::Churn | Scenario::Establish => 0,
            Scenario::Hostile => options.connections,
            Scenario::Fanout if !slow_too => options.connections,
            _ => options.connections + options.extra_connections(),
        })
    }

    /// Which users, after those of all connections, only join.
    #[must_use]
    pub fn offline(&self, share: &Share) -> Range<u32> {
        let first = self.options.connections + self.options.extra_connections();
        let slice = share.slice(self.options.stress.offline);
        first + slice.start..first + slice.end
    }

    /// Id of a group.
    #[must_use]
    pub fn group_id(&self, conversation: u32) -> String {
        format!("lg{}-g{conversation}", self.tag)
    }
}

fn check(options: &Options) -> Result<(), String> {
    let total = u64::from(options.connections) + u64::from(options.extra_connections());
    let chat = options.scenario == Scenario::Chat;
    let members = options.members();
    let rules = [
        (options.connections == 0, "--connections must be at least 1".to_owned()),
        (total >= 1 << SENDER_BITS, format!("at most {} connections", (1_u32 << SENDER_BITS) - 1)),
        (
            (options.payload_bytes as usize) < STAMP_BYTES,
            format!("--payload-bytes must be at least {STAMP_BYTES}"),
        ),
        (options.payload_bytes > 60_000, "--payload-bytes must be at most 60000".to_owned()),
        (
            !options.warmup.is_zero() && !chat && options.scenario != Scenario::Echo,
            "--warmup belongs to chat and echo".to_owned(),
        ),
        (
            !options.warmup.is_zero() && options.warmup >= options.duration,
            "--warmup must be shorter than --duration".to_owned(),
        ),
        (
            options.deflate && !options.protocol.is_websocket(),
            "--deflate belongs to WebSocket, not to --protocol tcp".to_owned(),
        ),
        (options.window() == 0, "--window must be at least 1".to_owned()),
        (options.connect_in_flight == 0, "--connect-in-flight must be at least 1".to_owned()),
        (options.heartbeat.as_millis() < 10, "--heartbeat must be at least 10ms".to_owned()),
        (options.duration.as_millis() == 0, "--duration must be at least 1ms".to_owned()),
        (!chat && options.idle_connections > 0, "--idle-connections belongs to chat".to_owned()),
        (!chat && options.group_size.is_some(), "--group-size belongs to chat".to_owned()),
        (chat && options.login() == Login::None, "chat needs --login dev or token".to_owned()),
        (chat && members < 2, "--group-size must be at least 2".to_owned()),
        (
            chat && !options.connections.is_multiple_of(members.max(1)),
            format!("--connections must be a multiple of the conversation's {members} members"),
        ),
        (
            options.scenario == Scenario::Echo && options.login() != Login::None,
            "echo has no login".to_owned(),
        ),
        (
            options.login() == Login::None
                && options.protocol != Protocol::Json
                && options.scenario == Scenario::Idle,
            "idle without login sends WebSocket pings; leave --protocol json".to_owned(),
        ),
    ];
    match rules.into_iter().chain(stress_rules(options)).find(|(broken, _)| *broken) {
        Some((_, sentence)) => Err(sentence),
        None => Ok(()),
    }
}

fn stress_rules(options: &Options) -> Vec<(bool, String)> {
    let stress = &options.stress;
    let is = |scenario| options.scenario == scenario;
    let (fanout, hostile) = (is(Scenario::Fanout), is(Scenario::Hostile));
    let counted = is(Scenario::Churn) || is(Scenario::Establish);
    let by_name = options.login() == Login::Dev;
    vec![
        (!fanout && stress.slow > 0, "--slow belongs to fanout".to_owned()),
        (
            options.deflate && (hostile || counted),
            "--deflate belongs to idle, echo, chat and fanout".to_owned(),
        ),
        (!fanout && stress.offline > 0, "--offline belongs to fanout".to_owned()),
        (
            stress.offline.saturating_add(options.connections) > MEMBERS_MAX,
            format!("at most {MEMBERS_MAX} members"),
        ),
        (fanout && options.connections < 2, "fanout needs at least 2 --connections".to_owned()),
        (fanout && stress.senders == 0, "--senders must be at least 1".to_owned()),
        (
            fanout && stress.senders > options.connections,
            "--senders are members: no more than --connections".to_owned(),
        ),
        (
            (fanout || hostile || is(Scenario::Churn)) && !by_name,
            "this scenario needs --login dev".to_owned(),
        ),
        (
            options.reconnect && (fanout || hostile || counted),
            "--reconnect belongs to chat, echo and idle".to_owned(),
        ),
        (
            !hostile && stress.hostile + stress.flooders > 0,
            "--hostile and --flooders belong to hostile".to_owned(),
        ),
        (
            hostile && stress.hostile + stress.flooders == 0,
            "hostile needs --hostile or --flooders".to_owned(),
        ),
        (hostile && options.rate == 0, "hostile needs a --rate".to_owned()),
        (!counted && stress.total.is_some(), "--total belongs to churn and establish".to_owned()),
        (stress.total == Some(0), "--total must be at least 1".to_owned()),
        (
            (hostile || is(Scenario::Churn)) && options.protocol != Protocol::Json,
            "this scenario speaks JSON".to_owned(),
        ),
        (
            is(Scenario::Establish) && options.login() == Login::None,
            "establish needs --login dev or token".to_owned(),
        ),
        (
            is(Scenario::Establish) && stress.users == Some(0),
            "--users must be at least 1".to_owned(),
        ),
    ]
}

/// Cuts connections into workers; a conversation is never cut, so that each worker checks its own.
fn cut(options: &Options, files: u64) -> Result<Vec<Share>, String> {
    let unit = if options.scenario == Scenario::Chat { options.members() } else { 1 };
    let room = u32::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(u32::MAX);
    let total = options.connections.saturating_add(options.extra_connections());
    if room == 0 || unit > room {
        return Err(format!(
            "the limit of {files} open files does not hold a conversation of {unit} connections"
        ));
    }
    let mut workers = if options.workers == 0 { total.div_ceil(room) } else { options.workers };
    workers = workers.min(total);
    loop {
        let shares = even_shares(options, unit, workers);
        let largest = shares.iter().map(Share::connections).max().unwrap_or(0);
        let senders = if options.scenario == Scenario::Fanout { options.stress.senders } else { 0 };
        if shares.first().is_some_and(|first| first.active < senders) {
            return Err("the --senders must fit into one worker".to_owned());
        }
        if largest <= room {
            return Ok(shares);
        }
        if options.workers != 0 {
            return Err(format!(
                "--workers {} gives a process {largest} connections; its limit of open files allows {room}",
                options.workers
            ));
        }
        workers += 1;
    }
}

/// The part of one worker of so many, as a range of them.
fn slice(total: u32, worker: u32, workers: u32) -> Range<u32> {
    let up_to =
        |worker: u32| (u64::from(total) * u64::from(worker) / u64::from(workers.max(1))) as u32;
    up_to(worker)..up_to(worker + 1)
}

fn even_shares(options: &Options, unit: u32, workers: u32) -> Vec<Share> {
    let share = |worker| {
        let units = slice(options.connections / unit, worker, workers);
        let extra = slice(options.extra_connections(), worker, workers);
        Share {
            worker,
            workers,
            first_active: units.start * unit,
            active: (units.end - units.start) * unit,
            first_idle: options.connections + extra.start,
            idle: extra.end - extra.start,
            total_active: options.connections,
        }
    };
    (0..workers).map(share).collect()
}

fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let in_force = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    in_force.current.unwrap_or(u64::MAX)
}

fn tag() -> (String, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mixed = (since.as_nanos() as u64).wrapping_add(u64::from(std::process::id()) << 32);
    let mut bits = Rng::new(mixed).next_u64();
    let run = (bits & ((1 << RUN_BITS) - 1)) as u32;
    let mut tag = String::with_capacity(10);
    for _ in 0..10 {
        tag.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(bits % 36) as usize]));
        bits /= 36;
    }
    (tag, run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(line: &str, files: u64) -> Result<Plan, PlanError> {
        Plan::with_file_limit(
            &Options::from_args(line.split_whitespace()).expect("a command line"),
            files,
        )
    }

    #[test]
    fn one_worker_while_the_files_suffice() {
        let plan_one = plan("chat --connections 100 --idle-connections 50", 1000).expect("valid");
        assert_eq!(plan_one.shares.len(), 1);
        assert_eq!(plan_one.shares[0].connections(), 150);
        assert_eq!(plan_one.shares[0].global(100), 100);
        let many = plan("idle --connections 1000000", 20_000).expect("valid");
        assert_eq!(many.shares.len(), 51);
        assert!(many.shares.iter().all(|share| share.connections() <= 19_800));
    }

    #[test]
    fn broken_rules_are_told() {
        let cases = [
            ("chat --connections 0", "--connections"),
            ("chat --connections 5", "multiple"),
            ("chat --connections 10 --group-size 3", "multiple"),
            ("chat --payload-bytes 31", "--payload-bytes"),
            ("chat --login none", "login"),
            ("chat --deflate --protocol tcp", "--deflate"),
            ("churn --deflate", "--deflate"),
            ("echo --login dev", "login"),
            ("echo --group-size 4", "--group-size"),
            ("idle --connections 3000000", "at most"),
            ("chat --url ws://192.0.2.7:1/ws", "loopback"),
            ("idle --connections 500 --workers 2", "--workers 2"),
            ("chat --connections 900 --group-size 300", "open files"),
            ("fanout --warmup 1s", "--warmup"),
            ("chat --duration 2s --warmup 2s", "--warmup"),
            ("chat --slow 5", "--slow"),
            ("chat --offline 5", "--offline"),
            ("fanout --offline 4000000000", "members"),
            ("idle --hostile 5", "--hostile"),
            ("echo --total 5", "--total"),
            ("fanout --connections 1", "--connections"),
            ("fanout --senders 0", "--senders"),
            ("fanout --connections 900 --senders 700", "--senders"),
            ("fanout --login token", "--login dev"),
            ("fanout --reconnect", "--reconnect"),
            ("hostile --rate max", "--rate"),
            ("hostile --hostile 0 --flooders 0", "--hostile"),
            ("hostile --protocol binary", "JSON"),
            ("churn --protocol tcp", "JSON"),
            ("establish --login none", "--login"),
            ("establish --users 0", "--users"),
        ];
        for (line, word) in cases {
            let error = plan(line, 400).expect_err(line).to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn a_fan_out_may_be_cut_and_its_senders_stay_together() {
        let plan = plan("fanout --connections 900 --slow 300 --senders 3", 500).expect("valid");
        assert!(plan.shares.len() >= 4);
        assert!(plan.shares[0].active >= 3);
        assert_eq!(plan.shares.iter().map(|share| share.idle).sum::<u32>(), 300);
        assert_eq!(plan.standing(), 1200);
    }

    #[test]
    fn names_are_within_the_limits_of_the_protocol() {
        let plan = plan("chat", 1000).expect("valid");
        assert_eq!(proto::ids::check_username(&plan.user_name((1 << SENDER_BITS) - 1)), Ok(()));
        assert_eq!(proto::ids::check_conversation_id(&plan.group_id(u32::MAX)), Ok(()));
    }

    proptest! {
        #[test]
        fn shares_cover_everything_once_and_cut_no_conversation(
            groups in 1_u32..300, size in 2_u32..20, idle in 0_u32..500, files in 240_u64..2000,
        ) {
            let line = format!("chat --connections {} --group-size {size} --idle-connections {idle}", groups * size);
            let plan = plan(&line, files).expect("valid");
            let mut seen: Vec<u32> = plan.shares.iter().flat_map(|share| (0..share.connections()).map(|i| share.global(i))).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..groups * size + idle).collect::<Vec<_>>());
            for share in &plan.shares {
                prop_assert_eq!(share.first_active % size, 0);
                prop_assert_eq!(share.active % size, 0);
                prop_assert!(u64::from(share.connections()) <= files - RESERVED_FILES);
            }
        }
    }
}
