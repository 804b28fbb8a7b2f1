//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::client::Protocol;
use crate::stress::StressOptions;

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Connections that only send heartbeats.
    Idle,
    /// Every message comes back as it was (for servers that echo; no login).
    Echo,
    /// Chat: messages into conversations, every one checked by the oracle.
    Chat,
    /// One conversation whose members are all online, few of them sending; --slow: some stop reading.
    Fanout,
    /// Connections come and go in every way; the server must have nothing left of them.
    Churn,
    /// Connections that misbehave beside healthy ones.
    Hostile,
    /// Connections log in as fast as possible, a window of them at a time.
    Establish,
}

/// How connections log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// By user name (the server runs with --dev-login).
    Dev,
    /// Registers users and logs in over REST, then by token.
    Token,
    /// Not at all; heartbeats are WebSocket pings.
    None,
}

/// Which conversations are read to their end and compared after a chat run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audit {
    /// Those with anything open, and up to 100 others a worker.
    Sample,
    /// Every one.
    All,
    /// None; a run with anything open then fails.
    None,
}

/// Everything a run can be told. The exit code is 0 when it passed, 1 when a threshold or the oracle
/// failed it, 2 when the command line is wrong.
///
/// At a rate the loop is open: each message has its due time, and its latency counts from there, so a
/// server that stalls shows in the latencies. With `--rate max` each connection keeps its window full
/// instead, and latencies are those of a saturated system.
#[derive(Clone, Debug, Parser, Serialize, Deserialize)]
#[command(
    name = "loadgen",
    args_override_self = true,
    version,
    about = "Open-loop load generator with an oracle that checks every message"
)]
pub struct Options {
    /// What the connections do.
    pub scenario: Scenario,
    /// Address under load; may be repeated, connections take turns.
    #[arg(long = "url", value_name = "URL", default_value = "ws://127.0.0.1:8080/ws")]
    pub urls: Vec<String>,
    /// Connections that take part (fanout: members; churn: open at a time; hostile: healthy ones) [default:
    /// 100, fanout and establish 10000, churn 1000].
    #[arg(
        long,
        value_name = "N",
        hide_default_value = true,
        default_value_t = 100,
        default_value_ifs([
            ("scenario", "fanout", "10000"),
            ("scenario", "establish", "10000"),
            ("scenario", "churn", "1000"),
        ])
    )]
    pub connections: u32,
    /// Chat: further connections that only send heartbeats.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub idle_connections: u32,
    /// Messages (hostile: heartbeats of the healthy) a second over all connections; 0 or `max` saturates
    /// [default: 100, fanout 10].
    #[arg(
        long,
        value_name = "R",
        hide_default_value = true,
        default_value = "100",
        default_value_if("scenario", "fanout", "10"),
        value_parser = parse_rate
    )]
    pub rate: u64,
    /// How long messages are sent (idle: how long connections are held; fanout --slow and hostile: of each
    /// phase).
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Chat, echo: latencies of messages due in this time from the start of the load are left out. The messages
    /// are sent, counted and checked like all others.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Each connection sends a heartbeat this often.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub heartbeat: Duration,
    /// Length of a message's content in bytes, at least 32.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub payload_bytes: u32,
    /// Unanswered messages a connection may have; more wait their turn [default: 64, with --rate max 8].
    #[arg(long, value_name = "W")]
    pub window: Option<u32>,
    /// How messages travel.
    #[arg(long, value_name = "P", value_enum, default_value_t = Protocol::Json)]
    pub protocol: Protocol,
    /// Offer permessage-deflate, without context takeover (idle, echo, chat, fanout).
    #[arg(long)]
    pub deflate: bool,
    /// How connections log in [default: dev, for echo none].
    #[arg(long, value_enum)]
    pub login: Option<Login>,
    /// Chat: members of a conversation; without it pairs in direct conversations.
    #[arg(long, value_name = "G", conflicts_with = "pairs")]
    pub group_size: Option<u32>,
    /// Chat: connections 2k and 2k+1 in a direct conversation; the default.
    #[arg(long)]
    pub pairs: bool,
    /// Keep unanswered messages, come back when a connection breaks, and send them again.
    #[arg(long)]
    pub reconnect: bool,
    /// Connections opened a second; 0: as fast as it goes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub connect_rate: u32,
    /// Connections that may be on their way at the same time [default: 2000, establish 256].
    #[arg(
        long,
        value_name = "N",
        hide_default_value = true,
        default_value_t = 2000,
        default_value_if("scenario", "establish", "256")
    )]
    pub connect_in_flight: u32,
    /// Longest time for connecting, logging in and making conversations.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = parse_duration)]
    pub setup_timeout: Duration,
    /// An unanswered message is sent again after this time.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub ack_timeout: Duration,
    /// The load ends early when standard input does.
    #[arg(long, hide = true)]
    pub until_input_ends: bool,
    /// Chat, for control runs: members do not pull what they missed while they were away. It is to be found out.
    #[arg(long, hide = true)]
    pub no_catch_up: bool,
    /// Longest wait for outstanding answers and deliveries at the end.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub drain: Duration,
    /// Chat: which conversations are read from the server and compared at the end.
    #[arg(long, value_enum, default_value_t = Audit::Sample)]
    pub audit: Audit,
    /// Worker processes; 0: as many as the limit of open files asks for.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub workers: u32,
    /// Repeats the same load; drawn and printed when absent.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Write the result as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Say on standard error when messages begin (`stage: load`) and when no more are sent (`stage: finish`).
    #[arg(long)]
    pub stages: bool,
    /// Also report CPU and memory of this process.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Permit addresses other than loopback.
    #[arg(long)]
    pub allow_remote: bool,
    /// Fail when p99 of the answers, deliveries or (idle) heartbeats is above.
    #[arg(long, value_name = "MS")]
    pub max_p99_ms: Option<f64>,
    /// Fail when more acknowledged (echo: sent) messages are lost.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_lost: u64,
    /// Fail when more messages are pushed twice on one connection.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_duplicates: u64,
    /// Fail when more messages were silently not pushed to a connected member.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_missed: u64,
    /// Fail when more messages have no final answer at the end, or could not be sent in time.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_unanswered: u64,
    /// Fail when more messages are refused for good.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_refused: u64,
    /// Fail when more connections break [default: 0, with --reconnect no limit].
    #[arg(long, value_name = "N")]
    pub max_disconnects: Option<u64>,
    /// Those of fanout, churn, hostile and establish.
    #[command(flatten)]
    #[serde(flatten)]
    pub stress: StressOptions,
}

impl Options {
    /// Reads arguments as after the program's name, for callers that are no command line.
    ///
    /// # Errors
    /// The message that the command line would print.
    pub fn from_args<I, S>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<std::ffi::OsString> + Clone,
    {
        let name = std::iter::once(std::ffi::OsString::from("loadgen"));
        Self::try_parse_from(name.chain(args.into_iter().map(Into::into)))
    }

    /// How connections log in.
    #[must_use]
    pub fn login(&self) -> Login {
        self.login.unwrap_or(if self.scenario == Scenario::Echo { Login::None } else { Login::Dev })
    }

    /// Unanswered messages a connection may have.
    #[must_use]
    pub fn window(&self) -> u32 {
        self.window.unwrap_or(if self.rate == 0 { 8 } else { 64 })
    }

    /// Connections beside those that take part: idle, slow or hostile ones.
    #[must_use]
    pub fn extra_connections(&self) -> u32 {
        let stress = &self.stress;
        self.idle_connections
            .saturating_add(stress.slow)
            .saturating_add(stress.hostile)
            .saturating_add(stress.flooders)
    }

    /// Members of a conversation.
    #[must_use]
    pub fn members(&self) -> u32 {
        self.group_size.unwrap_or(2)
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    if text == "max" {
        return Ok(0);
    }
    let rate: u64 =
        text.parse().map_err(|_| "expected a number of messages a second, or max".to_owned())?;
    if rate <= 100_000_000 { Ok(rate) } else { Err("at most 100000000".to_owned()) }
}

/// Reads `500ms`, `30s`, `5m`, `2h`; a bare number is seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 =
        number.parse().map_err(|_| "expected a time such as 500ms, 30s, 5m, 2h".to_owned())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("unknown unit {unit:?}; expected ms, s, m or h")),
    };
    if seconds > 7.0 * 86_400.0 {
        return Err("at most 168h".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::from_args(line.split_whitespace())
    }

    #[test]
    fn the_command_is_well_formed() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn defaults_of_each_scenario() {
        let chat = parse("chat").expect("valid");
        assert_eq!((chat.login(), chat.window(), chat.members()), (Login::Dev, 64, 2));
        assert_eq!(chat.urls, ["ws://127.0.0.1:8080/ws"]);
        let echo = parse("echo --rate max").expect("valid");
        assert_eq!((echo.login(), echo.window(), echo.rate), (Login::None, 8, 0));
    }

    #[test]
    fn defaults_of_the_straining_scenarios() {
        let of = |line: &str| {
            let options = parse(line).expect(line);
            (options.connections, options.rate, options.stress.total, options.extra_connections())
        };
        assert_eq!(of("fanout"), (10_000, 10, None, 0));
        assert_eq!(of("fanout --slow 10 --connections 5 --rate 3"), (5, 3, None, 10));
        assert_eq!(of("churn"), (1000, 100, Some(1_000_000), 0));
        assert_eq!(of("hostile"), (100, 100, None, 4010));
        assert_eq!(of("establish --total 7"), (10_000, 100, Some(7), 0));
        assert_eq!(parse("establish").expect("valid").connect_in_flight, 256);
        assert_eq!(parse("chat").expect("valid").connect_in_flight, 2000);
    }

    #[test]
    fn everything_given() {
        let line = "chat --url ws://127.0.0.1:1/a --url ws://127.0.0.1:2/a --connections 10 --rate 20000 \
            --duration 1m --heartbeat 500ms --json out.json --payload-bytes 512 --workers 3 --seed 9 \
            --protocol binary --window 4 --login token --idle-connections 7 --group-size 5 --reconnect \
            --max-p99-ms 7.5 --max-lost 1 --audit all";
        let options = parse(line).expect("valid");
        assert_eq!(options.urls.len(), 2);
        assert_eq!((options.rate, options.window(), options.members()), (20_000, 4, 5));
        assert_eq!(options.duration, Duration::from_mins(1));
        assert_eq!(options.heartbeat, Duration::from_millis(500));
        assert_eq!(options.max_p99_ms, Some(7.5));
        assert_eq!(options.audit, Audit::All);
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        let wrong = [
            "",
            "dance",
            "chat --rate many",
            "chat --duration soon",
            "chat --duration 3y",
            "chat --duration 200h",
            "chat --protocol http",
            "chat --pairs --group-size 3",
            "chat --connections -1",
            "chat --nonsense",
        ];
        for line in wrong {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(parse("--help").expect_err("help").exit_code(), 0);
    }

    #[test]
    fn durations() {
        let cases =
            [("500ms", 500), ("2", 2000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)];
        for (text, ms) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert!(parse_duration("").is_err());
        assert!(parse_duration("-1s").is_err());
    }
}
