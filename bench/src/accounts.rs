//! What a phase of a measurement cost: accounts read before and after it.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::machine::IdleSource;
use crate::process::Observed;

/// Accounts at one moment, in nanoseconds.
#[derive(Debug)]
pub struct Accounts {
    /// When the core's account was read.
    at: Instant,
    server: u64,
    client: u64,
    /// How long the server's core has been idle, if that is of interest.
    core_idle: Option<u64>,
}

impl Accounts {
    /// The accounts of the server, of the calling process and, where it is named, of the server's core.
    ///
    /// # Errors
    /// When the server is gone or there is no such core.
    pub fn read(server: &Observed, server_core: Option<usize>) -> anyhow::Result<Self> {
        Self::read_from(server, server_core.map(|core| (IdleSource::Ticks, core)))
    }

    /// The same with the core's idle time from the source named.
    ///
    /// # Errors
    /// When the server is gone or the source does not tell of that core.
    pub fn read_from(
        server: &Observed,
        server_core: Option<(IdleSource, usize)>,
    ) -> anyhow::Result<Self> {
        let core_idle = server_core.map(|(source, core)| source.idle_ns(core)).transpose()?;
        let at = Instant::now();
        let (server, client) = (server.cpu_ns()?, Observed::this().cpu_ns()?);
        Ok(Self { at, server, client, core_idle })
    }

    /// The time from this reading to a later one.
    #[must_use]
    pub fn until(&self, later: &Self) -> Duration {
        later.at.saturating_duration_since(self.at)
    }

    /// What was spent in the time `wall` that ends `now`.
    ///
    /// # Errors
    /// When a thread of the server ended and took its account with it.
    pub fn spent(&self, now: &Self, wall: Duration) -> anyhow::Result<Cpu> {
        let server = now.server.checked_sub(self.server);
        let idle = now.core_idle.zip(self.core_idle).map(|(now, from)| now.saturating_sub(from));
        let wall_ns = u64::try_from(wall.as_nanos())?;
        Ok(Cpu {
            server_ns: server.context("a server thread ended while it was measured")?,
            client_ns: now.client.saturating_sub(self.client),
            core_ns: idle.map(|idle| wall_ns.saturating_sub(idle)),
        })
    }
}

/// CPU time of one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Of the server's threads, as the scheduler charged it; see [`Observed::cpu_ns`] for what that leaves out.
    pub server_ns: u64,
    /// Of the measuring client.
    pub client_ns: u64,
    /// Of all that ran on the server's core, by whomever: all of the time but what the core was idle for.
    pub core_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Duration = Duration::from_nanos(100);

    fn accounts(server: u64, client: u64, core_idle: Option<u64>) -> Accounts {
        Accounts { at: Instant::now(), server, client, core_idle }
    }

    #[test]
    fn a_phase_costs_the_difference_of_two_readings() {
        let before = accounts(10, 5, Some(1_000));
        let now = accounts(70, 25, Some(1_030));
        let spent = before.spent(&now, WALL).unwrap();
        assert_eq!(spent, Cpu { server_ns: 60, client_ns: 20, core_ns: Some(70) });
        let without = Accounts { core_idle: None, ..now };
        assert_eq!(before.spent(&without, WALL).unwrap().core_ns, None);
    }

    #[test]
    fn a_thread_that_took_its_account_with_it_is_told() {
        let before = accounts(10, 5, None);
        let now = accounts(9, 5, None);
        let refusal = before.spent(&now, WALL).unwrap_err().to_string();
        assert!(refusal.contains("thread ended"), "{refusal}");
    }

    /// Idle time is told in ticks: a phase shorter than one may seem to have been idle for longer than it was.
    #[test]
    fn a_core_idle_for_longer_than_the_phase_did_nothing() {
        let before = accounts(1, 1, Some(0));
        let now = accounts(1, 1, Some(10_000_000));
        assert_eq!(before.spent(&now, WALL).unwrap().core_ns, Some(0));
    }
}
