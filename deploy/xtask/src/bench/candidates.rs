//! Who is measured, and how each is started.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::instrument::{Instrument, Subject, gateway_echo, gateway_paced};
use super::peers::{Peer, Workshop};
use crate::build::{self, GATEWAY};
use crate::interrupt::Interrupt;
use crate::repo::Repo;

/// A server that echoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Echo {
    /// `gateway echo`, with the driver it chooses itself.
    Gateway,
    /// `gateway echo --io epoll`.
    GatewayEpoll,
    /// `gateway echo --io glommio`.
    GatewayGlommio,
    /// `gateway echo --congestion-control reno`: connections that are not paced.
    GatewayReno,
    /// Our own floor: WebSocket on epoll and batched sends, without sessions, timers, limits.
    BareProbe,
    /// uWebSockets, C++.
    Uws,
    /// fastwebsockets on tokio, Rust.
    Fastwebsockets,
    /// tokio-tungstenite, Rust.
    TokioTungstenite,
    /// tokio-websockets, Rust.
    TokioWebsockets,
    /// gws, Go.
    Gws,
    /// gorilla/websocket, Go.
    Gorilla,
    /// ws, Node.js.
    Ws,
    /// The unit against itself, which shows the instrument's noise.
    Unit,
}

/// How a candidate comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Our gateway; with the driver named, or the one it chooses.
    Ours(Option<&'static str>),
    /// Our gateway with this congestion control.
    Paced(&'static str),
    /// Our own floor, which is built as the peers are.
    Floor,
    /// Somebody else's server.
    Theirs(Peer),
    /// The unit.
    Unit,
}

impl Echo {
    /// How it comes about.
    pub(super) fn origin(self) -> Origin {
        match self {
            Self::Gateway => Origin::Ours(None),
            Self::GatewayEpoll => Origin::Ours(Some("epoll")),
            Self::GatewayGlommio => Origin::Ours(Some("glommio")),
            Self::GatewayReno => Origin::Paced("reno"),
            Self::BareProbe => Origin::Floor,
            Self::Uws => Origin::Theirs(Peer::Uws),
            Self::Fastwebsockets => Origin::Theirs(Peer::Fastwebsockets),
            Self::TokioTungstenite => Origin::Theirs(Peer::TokioTungstenite),
            Self::TokioWebsockets => Origin::Theirs(Peer::TokioWebsockets),
            Self::Gws => Origin::Theirs(Peer::Gws),
            Self::Gorilla => Origin::Theirs(Peer::Gorilla),
            Self::Ws => Origin::Theirs(Peer::Ws),
            Self::Unit => Origin::Unit,
        }
    }
}

/// Subjects in the order asked for, and a line for each that had to be left out.
#[derive(Debug, Default)]
pub(super) struct Lineup {
    pub(super) subjects: Vec<Subject>,
    pub(super) left_out: Vec<String>,
}

impl Lineup {
    /// Takes a subject, or says why it is missing. Without it the others are measured all the
    /// same.
    ///
    /// # Errors
    /// When somebody wants us to stop.
    pub(super) fn add(
        &mut self,
        name: &str,
        subject: anyhow::Result<Subject>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        match subject {
            Ok(subject) => self.subjects.push(subject),
            Err(error) if interrupt.raised() => return Err(error),
            Err(error) => {
                let line = format!("{name} is left out: {error:#}");
                eprintln!("{line}");
                // In a file one line is enough.
                self.left_out.push(line.lines().next().unwrap_or_default().to_owned());
            }
        }
        Ok(())
    }

    /// The lines for those left out, for the result.
    pub(super) fn notes(&self) -> String {
        self.left_out.iter().map(|line| format!("\n{line}\n")).collect()
    }
}

/// Builds gateways and peers.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    repo: &'a Repo,
    profile: &'a str,
    interrupt: &'a Interrupt,
    workshop: Workshop<'a>,
    gateway: OnceCell<PathBuf>,
}

/// The driver that the gateway has only when built with the feature of its name.
const GLOMMIO: &str = "glommio";

impl<'a> Builder<'a> {
    /// Peers are built beside `built`, a program of ours.
    ///
    /// # Errors
    /// When there is no place to build peers.
    pub(super) fn new(
        repo: &'a Repo,
        profile: &'a str,
        built: &Path,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let workshop = Workshop::beside(built, repo, interrupt)?;
        Ok(Self { repo, profile, interrupt, workshop, gateway: OnceCell::new() })
    }

    /// The gateway's program.
    ///
    /// # Errors
    /// When it does not build.
    pub(super) fn gateway(&self) -> anyhow::Result<PathBuf> {
        if let Some(program) = self.gateway.get() {
            return Ok(program.clone());
        }
        let program = build::build(self.repo, GATEWAY, self.profile, self.interrupt)?;
        Ok(self.gateway.get_or_init(|| program).clone())
    }

    /// The gateway with a driver named. Glommio is in no build but its own, which is copied aside
    /// before the ordinary program takes its place again.
    fn gateway_with(&self, driver: &str) -> anyhow::Result<PathBuf> {
        let program = self.gateway()?;
        if driver != GLOMMIO {
            return Ok(program);
        }
        let aside = self.workshop.build_gateway(GLOMMIO, self.profile, &program)?;
        build::build(self.repo, GATEWAY, self.profile, self.interrupt)?;
        Ok(aside)
    }

    /// A peer, see [`Workshop::subject`].
    ///
    /// # Errors
    /// When it cannot be built here.
    pub(super) fn peer(&self, peer: Peer, broadcast: bool) -> anyhow::Result<Subject> {
        eprintln!("building {}", peer.name());
        self.workshop.subject(peer, broadcast)
    }

    /// The candidates of an echo measurement. Whatever does not build or start here is left out
    /// with a line, except the gateway itself.
    ///
    /// # Errors
    /// When the gateway does not build.
    pub(super) fn echo(
        &self,
        candidates: &[Echo],
        unit: &Subject,
        instrument: &Instrument<'_>,
    ) -> anyhow::Result<Lineup> {
        let mut lineup = Lineup::default();
        for candidate in candidates {
            let subject = match candidate.origin() {
                Origin::Unit => Ok(Subject { name: String::from("unit again"), ..unit.clone() }),
                Origin::Theirs(peer) => self.peer(peer, false),
                // It builds anywhere, but starts only where io_uring is allowed.
                Origin::Floor => self
                    .peer(Peer::BareProbe, false)
                    .and_then(|subject| instrument.try_start(&subject).map(|()| subject)),
                Origin::Ours(None) => Ok(gateway_echo(self.gateway()?, None)),
                Origin::Paced(algorithm) => {
                    let subject = gateway_paced(self.gateway()?, algorithm);
                    instrument.try_start(&subject).map(|()| subject)
                }
                Origin::Ours(Some(driver)) => self.gateway_with(driver).and_then(|program| {
                    let subject = gateway_echo(program, Some(driver));
                    instrument.try_start(&subject).map(|()| subject)
                }),
            };
            let name = candidate.to_possible_value().map(|value| value.get_name().to_owned());
            lineup.add(&name.unwrap_or_default(), subject, self.interrupt)?;
        }
        Ok(lineup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_go_by_the_same_name_everywhere() {
        for candidate in Echo::value_variants() {
            let value = candidate.to_possible_value().unwrap();
            match candidate.origin() {
                Origin::Theirs(peer) => assert_eq!(peer.name(), value.get_name()),
                Origin::Floor => assert_eq!(Peer::BareProbe.name(), value.get_name()),
                Origin::Ours(Some(driver)) | Origin::Paced(driver) => {
                    assert_eq!(format!("gateway-{driver}"), value.get_name());
                }
                Origin::Ours(None) | Origin::Unit => {}
            }
        }
    }

    #[test]
    fn who_is_missing_gets_a_line() {
        let interrupt = Interrupt::default();
        let mut lineup = Lineup::default();
        lineup.add("here", Ok(Subject::default()), &interrupt).unwrap();
        lineup.add("gone", Err(anyhow::anyhow!("no compiler\nmore")), &interrupt).unwrap();
        assert_eq!(lineup.subjects.len(), 1);
        assert_eq!(lineup.notes(), "\ngone is left out: no compiler\n");
        interrupt.raise();
        assert!(lineup.add("gone", Err(anyhow::anyhow!("stopped")), &interrupt).is_err());
    }
}
