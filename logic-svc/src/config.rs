//! What can be set from outside, with defaults that suit the embedded form.

use std::path::PathBuf;

use proto::limits::CONTENT_MAX_BYTES;

use crate::domain::device::DevicePolicies;

/// Settings of the service.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the database and the signing key; made at first start.
    pub data_dir: PathBuf,
    /// Whether a connection may log in by mere user name. For trying things out on loopback only.
    pub dev_login: bool,
    /// How often a client has to send something; told to it at login.
    pub heartbeat_ms: u32,
    /// Longest content of a message in bytes.
    pub content_max_bytes: usize,
    /// Connections one user may have at the same time.
    pub max_connections_per_user: usize,
    /// How many devices of a class a user may have connected.
    pub device_policy: DevicePolicies,
    /// Most messages one transaction takes.
    pub tick_max_messages: usize,
    /// Lifetime of an access token in seconds.
    pub access_token_s: u64,
    /// Lifetime of a refresh token in seconds.
    pub refresh_token_s: u64,
    /// `iss` of the access tokens.
    pub issuer: String,
    /// `aud` of the access tokens.
    pub audience: String,
    /// Number of this process in message ids, 0 to 1023; no two running processes of one deployment share it.
    pub worker_id: u16,
    /// Most conversations whose members are kept in memory.
    pub cached_conversations: usize,
    /// Most members kept in memory over all conversations.
    pub cached_members: usize,
    /// Most recent sends kept in memory to answer retries without asking the database.
    pub recent_sends: usize,
    /// Connections of the database for reading.
    pub read_connections: usize,
    /// Password hashes computed at the same time.
    pub hash_threads: usize,
    /// Memory of one password hash in KiB (argon2id).
    pub hash_memory_kib: u32,
    /// Membership events are told to the members of conversations up to this size; in larger ones only to
    /// the devices of the user concerned.
    pub event_members_max: usize,
    /// Chunks of the message log that may wait before old ones are merged into sorted history rows.
    pub merge_backlog_rows: usize,
    /// Chunks that wait at which merging hardly gives way to traffic. A start reads all chunks that wait, about
    /// 0.6 us each: this bounds how long it takes.
    pub merge_backlog_hard_rows: usize,
    /// Size of the write-ahead log in bytes from which it is copied back into the database.
    pub wal_checkpoint_bytes: u64,
    /// A safety switched off on purpose.
    #[cfg(feature = "fault-injection")]
    pub fault: Option<Fault>,
}

/// A safety that a control run switches off to show that its test sees the damage.
/// For tests only; exists only under the crate feature `fault-injection`.
#[cfg(feature = "fault-injection")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Retries are neither remembered nor refused by the unique key: each takes effect again.
    NoUniqueKey,
    /// Senders are answered before their message is in the database.
    AckBeforeCommit,
    /// What belongs to an earlier life of a gateway is taken for its present one's.
    AnyEpoch,
    /// While routes are not known, gateways are not asked for the receivers.
    NoBroadcast,
    /// A gateway whose registration went is spoken to no more at once.
    NoLingering,
    /// The connection whose place a login took is not closed.
    NoKick,
    /// A record that cannot be worked is not set apart.
    NoDeadLetters,
}

#[cfg(feature = "fault-injection")]
impl Fault {
    /// Names in `CORELANE_FAULT`.
    pub const NAMED: &[(&str, Self)] = &[
        ("no_dedupe", Self::NoUniqueKey),
        ("ack_before_commit", Self::AckBeforeCommit),
        ("any_epoch", Self::AnyEpoch),
        ("no_broadcast", Self::NoBroadcast),
        ("no_lingering", Self::NoLingering),
        ("no_kick", Self::NoKick),
        ("no_dead_letters", Self::NoDeadLetters),
    ];

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|&(_, fault)| fault)
    }

    /// Whether `CORELANE_FAULT` named this one when it was first looked at.
    #[must_use]
    pub fn is_asked_for(self) -> bool {
        static ASKED: std::sync::LazyLock<Option<Fault>> = std::sync::LazyLock::new(|| {
            std::env::var("CORELANE_FAULT").ok().and_then(|name| Fault::named(&name))
        });
        *ASKED == Some(self)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            dev_login: false,
            heartbeat_ms: 30_000,
            content_max_bytes: CONTENT_MAX_BYTES,
            max_connections_per_user: 32,
            device_policy: DevicePolicies::default(),
            tick_max_messages: 4096,
            access_token_s: 15 * 60,
            refresh_token_s: 30 * 24 * 3600,
            issuer: "corelane".to_owned(),
            audience: "corelane".to_owned(),
            worker_id: 0,
            cached_conversations: 100_000,
            cached_members: 2_000_000,
            recent_sends: 65_536,
            read_connections: 4,
            hash_threads: 2,
            hash_memory_kib: 19 * 1024,
            event_members_max: 1000,
            merge_backlog_rows: 65_536,
            merge_backlog_hard_rows: 1_000_000,
            wal_checkpoint_bytes: 32 * 1024 * 1024,
            #[cfg(feature = "fault-injection")]
            fault: None,
        }
    }
}
