//! Counters of one shard, written by its thread and read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one shard.
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub(super) $name: AtomicU64,)* }

        /// The counters at one moment, or the sum of several shards'.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StatsSnapshot { $($(#[$doc])* pub $name: u64,)* }

        impl Stats {
            /// The counters now.
            #[must_use]
            pub fn snapshot(&self) -> StatsSnapshot {
                StatsSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl StatsSnapshot {
            /// Every counter with its name.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        impl std::ops::Add for StatsSnapshot {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

stats! {
    /// Connections open now.
    connections,
    /// Connections accepted since the start.
    accepted,
    /// Connections refused, whatever the reason.
    refused,
    /// ... because the process has as many as it may.
    refused_full,
    /// ... because their address has as many as it may.
    refused_address,
    /// ... because more came at once than the rate allows.
    refused_rate,
    /// ... because the logic service does not keep up.
    refused_overload,
    /// ... because the process is out of descriptors.
    refused_descriptors,
    /// ... because there is no room for more plain HTTP.
    refused_http,
    /// Accepts that failed for want of descriptors or memory, and were tried again later.
    accepts_failed,
    /// Logins sent away because too many were under way.
    logins_shed,
    /// Connections closed for too many frames without a purpose.
    flooded,
    /// Turns of the pump.
    turns,
    /// Messages handed to the uplink.
    messages,
    /// Messages and requests answered BUSY because the uplink was full.
    busy,
    /// Pushes written to connections.
    pushes,
    /// Pushes left out because the connection did not keep up.
    lagged,
    /// LAGGED marks handed to connections, which tell of them.
    lagged_marks,
    /// Connections closed because they did not even read answers to their own requests.
    slow_closed,
    /// Connections closed for silence or a missed handshake deadline.
    timed_out,
}

pub(super) fn add(counter: &AtomicU64, count: usize) {
    // Only the shard's own thread writes: no read-modify-write is needed.
    counter.store(counter.load(Ordering::Relaxed) + count as u64, Ordering::Relaxed);
}

pub(super) fn set(counter: &AtomicU64, value: usize) {
    counter.store(value as u64, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
