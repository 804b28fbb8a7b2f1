//! Options of the scenarios that strain a server on purpose.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// What the slow readers of a fan-out do in the phase that the other is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlowBaseline {
    /// They read like everybody else: the group has the same size in both phases.
    Reading,
    /// They are not connected yet.
    Offline,
}

/// Options of the scenarios fanout, churn, hostile and establish.
#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub struct StressOptions {
    /// Fanout: connections that send; each is a member.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub senders: u32,
    /// Fanout: further members who join and are not online during the load.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub offline: u32,
    /// Fanout: further members that stop reading for the second of two phases.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slow: u32,
    /// Fanout: receive buffer of a slow reader in bytes, as asked of the kernel.
    #[arg(long, value_name = "BYTES", default_value_t = 16_384)]
    pub slow_rcvbuf: u32,
    /// Fanout: what the slow readers do in the first phase.
    #[arg(long, value_enum, default_value_t = SlowBaseline::Reading)]
    pub slow_baseline: SlowBaseline,
    /// Fanout --slow, hostile: fail when p99 of the others in the second phase is above this multiple of
    /// the first [default: 2, for hostile only reported].
    #[arg(long, value_name = "F")]
    pub max_p99_ratio: Option<f64>,
    /// Churn: connects in all. Establish: logins in all, in rounds of --connections [default: one round].
    #[arg(long, value_name = "T", default_value_if("scenario", "churn", "1000000"))]
    pub total: Option<u64>,
    /// Churn: fail when the server's private memory grew by more between warm-up and end.
    #[arg(long, value_name = "BYTES", default_value_t = 8 * 1024 * 1024)]
    pub max_growth_bytes: u64,
    /// Churn: fail when the server has more further descriptors at the end than after the warm-up.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_growth_descriptors: u64,
    /// Hostile: connections that misbehave before a login: silent, slow headers, one byte at a time, and
    /// upgraded without login, in equal parts.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        default_value_if("scenario", "hostile", "4000")
    )]
    pub hostile: u32,
    /// Hostile: connections that log in, send pings without end and never read.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        default_value_if("scenario", "hostile", "10")
    )]
    pub flooders: u32,
    /// Hostile: pings a second of each flooder (125 bytes each), as far as the server takes them.
    #[arg(long, value_name = "R", default_value_t = 8000)]
    pub flood_rate: u32,
    /// Hostile: the server's time from connecting to being logged in.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub deadline_ms: u64,
    /// Hostile: fail when a connection is closed further from the deadline.
    #[arg(long, value_name = "MS", default_value_t = 1500)]
    pub tolerance_ms: u64,
    /// Hostile: fail when the server's private memory grew by more for each flooder (for each hostile
    /// connection when there are none); needs --server-pid.
    #[arg(long, value_name = "BYTES", default_value_t = 2 * 1024 * 1024)]
    pub max_hostile_bytes: u64,
    /// Establish --login token: users whose tokens are fetched before the clock starts; connections share
    /// them [default: one for 16 connections].
    #[arg(long, value_name = "U")]
    pub users: Option<u32>,
}
