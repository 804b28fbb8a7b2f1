//! How endpoints are watched and asked.

use super::breaker::BreakerSettings;

/// How endpoints are watched and asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointsSettings {
    /// How long a TCP connection may take.
    pub connect_timeout_ms: u64,
    /// How often every endpoint is asked whether it is well (`grpc.health.v1`; servers without
    /// that service count as well). With [`EndpointsSettings::probe_timeout_ms`] it bounds how
    /// long a dead endpoint goes unnoticed.
    pub probe_interval_ms: u64,
    /// How long the answer to that may take.
    pub probe_timeout_ms: u64,
    /// How often idle connections are pinged.
    pub keepalive_interval_ms: u64,
    /// A connection whose ping is not answered for this long is closed, with the calls on it.
    pub keepalive_timeout_ms: u64,
    /// The first wait before a call is repeated; doubled each time, with jitter.
    pub retry_first_ms: u64,
    /// The longest such wait.
    pub retry_longest_ms: u64,
    /// When an endpoint that answers with failures is left alone.
    pub breaker: BreakerSettings,
}

impl Default for EndpointsSettings {
    fn default() -> EndpointsSettings {
        EndpointsSettings {
            connect_timeout_ms: 500,
            probe_interval_ms: 250,
            probe_timeout_ms: 500,
            keepalive_interval_ms: 1_000,
            keepalive_timeout_ms: 2_000,
            retry_first_ms: 10,
            retry_longest_ms: 200,
            breaker: BreakerSettings::default(),
        }
    }
}
