//! Who is let in: accepting, what is shed under load, and how those are told who are not let in.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::connection::Connection;
use super::door::SPREAD_S;
use super::stats;
use super::turn::{LISTENER, Shard};
use crate::limits::ACCEPTS_PER_TURN;
use crate::net::capacity::{AddressKey, NoPlace};
use crate::net::poll_set::{Readiness, Token};
use crate::net::sockets::{self, Accepted, Received};
use crate::session::{Phase, Session};

/// When somebody of an address that has its share may try again.
const ADDRESS_RETRY_S: u32 = 30;
/// How often a shard that refuses says so in the log.
const TELL_EVERY_MS: u32 = 5_000;

/// Connections accepted at one time that are a herd.
const HERD: usize = 4;

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoPlace(NoPlace),
    /// More new connections than the rate allows.
    Rate,
    /// The logic service does not keep up with what is there.
    Overload,
    /// The process is out of descriptors.
    Descriptors,
    /// No room for plain HTTP.
    Http,
}

impl Shard {
    /// The listener has something. In a herd each connection would bring an edge, a wake and a turn of its
    /// own: from here on they gather in the listener's queue. Connections that are in notice nothing of it.
    pub(super) fn on_listener(&mut self) {
        if self.accept() >= HERD && !self.door.gathering {
            self.gather(true);
        }
    }

    /// Whether a herd is coming, so that [`Self::accept_gathered`] has to be called once in a while.
    pub(super) fn is_gathering(&self) -> bool {
        self.door.gathering
    }

    /// Accepts what has gathered, in a turn of its own. The herd is over when that was little.
    pub(super) fn accept_gathered(&mut self) {
        self.look_at_the_clock();
        if self.accept() < HERD {
            // What came since is told at once.
            self.gather(false);
        }
        self.end_turn();
        self.go_on_if_more();
    }

    fn gather(&mut self, on: bool) {
        let Some(listener) = &self.listener else { return self.door.gathering = false };
        match self.poll.mute(listener, LISTENER, on) {
            Ok(()) => self.door.gathering = on,
            Err(error) => tracing::warn!(%error, "cannot change how the listener is watched"),
        }
    }

    /// Accepts what waits, up to a turn's share, and says how many that were.
    pub(super) fn accept(&mut self) -> usize {
        for accepted in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else { return accepted };
            match sockets::accept(listener) {
                Accepted::Connection(socket, peer) => self.admit(socket, peer),
                Accepted::Gone => {}
                Accepted::WouldBlock => return accepted,
                Accepted::Exhausted(_) if self.turn_away_one() => {}
                // Nothing can be done before something is closed; the next tick looks again.
                Accepted::Exhausted(_) => return accepted,
            }
        }
        self.accept_again = true;
        ACCEPTS_PER_TURN
    }

    /// There is no descriptor left for the next connection: the spare one takes it just long enough to
    /// say so. Otherwise it would wait in the listener's queue, its client not knowing for what.
    fn turn_away_one(&mut self) -> bool {
        drop(self.door.spare.take());
        let accepted = self.listener.as_ref().map(sockets::accept);
        let taken = match accepted {
            Some(Accepted::Connection(socket, _)) => {
                self.answer_refused(&socket, Refusal::Descriptors);
                true
            }
            Some(Accepted::Gone) => true,
            _ => {
                stats::add(&self.stats.accepts_failed, 1);
                false
            }
        };
        self.door.spare = sockets::spare_descriptor().ok();
        taken
    }

    fn admit(&mut self, socket: OwnedFd, peer: SocketAddr) {
        let key = AddressKey::of(peer.ip());
        if let Err(refusal) = self.find_place(key) {
            return self.refuse(socket, refusal);
        }
        let session = Session::new(&self.rules, self.now_ms);
        let token = self.table.insert(Connection::new(session, socket, self.now_ms));
        self.door.remember(token, key);
        stats::add(&self.stats.accepted, 1);
        stats::set(&self.stats.connections, self.table.len());
        let added =
            self.table.get(token).map(|connection| self.poll.add(&connection.socket, token));
        if let Some(Err(error)) = added {
            tracing::warn!(%error, "cannot watch a new connection");
            self.forget(token);
            return;
        }
        // The look at the handshake's deadline is also the first look at silence.
        let limits = &self.rules.limits;
        self.wheel.insert(token, limits.handshake_ms.min(limits.silence_ms()));
        // In a herd the request is there before the connection is accepted: that saves an event, and with
        // it a turn of its own.
        self.receive(Readiness { token, readable: true, writable: false, hang_up: false });
    }

    fn find_place(&mut self, key: AddressKey) -> Result<(), Refusal> {
        if self.door.logging_in >= self.door.limits.max_logins || self.uplink.is_crowded() {
            return Err(Refusal::Overload);
        }
        self.door.limits.capacity.take(key).map_err(Refusal::NoPlace)?;
        if !self.door.may_enter(self.now_ms) {
            self.door.limits.capacity.give_back(key);
            return Err(Refusal::Rate);
        }
        Ok(())
    }

    fn refuse(&mut self, socket: OwnedFd, refusal: Refusal) {
        self.answer_refused(&socket, refusal);
        self.door.see_off(socket, self.now_ms);
    }

    /// Hands plain HTTP over with what was read of it, or refuses it.
    pub(super) fn hand_over(&mut self, token: Token) {
        let read = std::mem::take(&mut self.outputs.handed_over);
        let Some(connection) = self.take_out(token) else { return };
        if self.poll.remove(&connection.socket).is_err() {
            return self.door.left(token, Phase::Ended);
        }
        let handed_over =
            match (&self.http, self.door.left_for_http(token, connection.socket, read)) {
                (Some(http), Ok(handed_over)) => {
                    http.try_send(handed_over).map_err(|error| error.into_inner().socket)
                }
                (None, Ok(handed_over)) => Err(handed_over.socket),
                (_, Err(socket)) => Err(socket),
            };
        if let Err(socket) = handed_over {
            self.refuse(socket, Refusal::Http);
        }
    }

    /// Says no, in the one language that can be spoken before the peer has said anything.
    fn answer_refused(&mut self, socket: &OwnedFd, refusal: Refusal) {
        let counter = match refusal {
            Refusal::NoPlace(NoPlace::Full) => &self.stats.refused_full,
            Refusal::NoPlace(NoPlace::Address) => &self.stats.refused_address,
            Refusal::Rate => &self.stats.refused_rate,
            Refusal::Overload => &self.stats.refused_overload,
            Refusal::Descriptors => &self.stats.refused_descriptors,
            Refusal::Http => &self.stats.refused_http,
        };
        stats::add(counter, 1);
        stats::add(&self.stats.refused, 1);
        let spread_s = 1 + (stats::get(&self.stats.refused) % u64::from(SPREAD_S)) as u32;
        let (status, retry_after_s, reason) = match refusal {
            Refusal::NoPlace(NoPlace::Address) => {
                ("429 Too Many Requests", ADDRESS_RETRY_S, "too many connections of this address\n")
            }
            _ => ("503 Service Unavailable", spread_s, "the server has no room now\n"),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nRetry-After: {retry_after_s}\r\nConnection: close\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{reason}",
            reason.len()
        );
        // What the peer has sent so far is read, or closing would destroy the answer on its way.
        if let Received::Bytes(_) = sockets::recv(socket, &mut self.buffer) {}
        // A peer that is gone needs no answer.
        let _ = sockets::send(socket, answer.as_bytes());
    }

    /// One line of log for all refusals of some seconds.
    pub(super) fn tell_refusals(&mut self) {
        let refused = stats::get(&self.stats.refused) + stats::get(&self.stats.accepts_failed);
        let passed_ms = self.now_ms.wrapping_sub(self.door.told_at_ms);
        if refused == self.door.told || (passed_ms < TELL_EVERY_MS && self.door.told > 0) {
            return;
        }
        let now = self.stats.snapshot();
        tracing::warn!(
            shard = self.index,
            full = now.refused_full,
            address = now.refused_address,
            rate = now.refused_rate,
            overload = now.refused_overload,
            descriptors = now.refused_descriptors,
            http = now.refused_http,
            accepts_failed = now.accepts_failed,
            "connections are refused (counts since the start)"
        );
        self.door.told = refused;
        self.door.told_at_ms = self.now_ms;
    }
}
