//! What a phase of a measurement cost: accounts read before and after it.

use std::time::Duration;

use anyhow::Context;

use crate::machine;
use crate::process::Observed;

/// Accounts at one moment, in nanoseconds.
#[derive(Debug)]
pub struct Accounts {
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
        Ok(Self {
            server: server.cpu_ns()?,
            client: Observed::this().cpu_ns()?,
            core_idle: server_core.map(machine::core_idle_ns).transpose()?,
        })
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

    #[test]
    fn a_phase_costs_the_difference_of_two_readings() {
        let before = Accounts { server: 10, client: 5, core_idle: Some(1_000) };
        let now = Accounts { server: 70, client: 25, core_idle: Some(1_030) };
        let spent = before.spent(&now, WALL).unwrap();
        assert_eq!(spent, Cpu { server_ns: 60, client_ns: 20, core_ns: Some(70) });
        let without = Accounts { core_idle: None, ..now };
        assert_eq!(before.spent(&without, WALL).unwrap().core_ns, None);
    }

    #[test]
    fn a_thread_that_took_its_account_with_it_is_told() {
        let before = Accounts { server: 10, client: 5, core_idle: None };
        let now = Accounts { server: 9, client: 5, core_idle: None };
        let refusal = before.spent(&now, WALL).unwrap_err().to_string();
        assert!(refusal.contains("thread ended"), "{refusal}");
    }

    /// Idle time is told in ticks: a phase shorter than one may seem to have been idle for longer than it was.
    #[test]
    fn a_core_idle_for_longer_than_the_phase_did_nothing() {
        let before = Accounts { server: 1, client: 1, core_idle: Some(0) };
        let now = Accounts { server: 1, client: 1, core_idle: Some(10_000_000) };
        assert_eq!(before.spent(&now, WALL).unwrap().core_ns, Some(0));
    }
}
