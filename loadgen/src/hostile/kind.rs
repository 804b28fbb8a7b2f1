//! The ways to misbehave.

use crate::clock::{MILLISECOND_NS, SECOND_NS};

/// One way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Never sends a byte.
    #[default]
    Silent,
    /// A handshake that goes on, one header line a second.
    SlowHeader,
    /// A handshake one byte at a time.
    Drip,
    /// A whole handshake, and then no login.
    HalfOpen,
    /// Logs in, sends pings without end, and never reads the pongs.
    PingFlood,
}

impl Kind {
    /// Kinds without a login take turns.
    pub(super) fn without_login(number: u32) -> Self {
        match number % 4 {
            0 => Self::Silent,
            1 => Self::SlowHeader,
            2 => Self::Drip,
            _ => Self::HalfOpen,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::SlowHeader => "slow_header",
            Self::Drip => "one_byte_at_a_time",
            Self::HalfOpen => "half_open_upgrade",
            Self::PingFlood => "ping_flood",
        }
    }

    /// Whether the server must close it when its time for the login is over.
    pub(super) fn has_deadline(self) -> bool {
        self != Self::PingFlood
    }

    /// Time between two actions; `None`: it does nothing more.
    pub(super) fn interval_ns(self) -> Option<u64> {
        match self {
            Self::Silent | Self::HalfOpen => None,
            Self::SlowHeader => Some(SECOND_NS),
            Self::Drip => Some(250 * MILLISECOND_NS),
            Self::PingFlood => Some(50 * MILLISECOND_NS),
        }
    }
}
