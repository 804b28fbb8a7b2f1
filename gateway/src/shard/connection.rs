//! The table entry of one connection: all that an idle connection holds.

use std::os::fd::OwnedFd;

use crate::session::Session;
use crate::shard::outbound::Outbound;
use crate::shard::outgoing::HeadIndex;

/// One connection.
pub(super) struct Connection {
    pub(super) session: Session,
    pub(super) socket: OwnedFd,
    /// When the current phase's clock started: accept, last byte received, or end.
    pub(super) since_ms: u32,
    /// This turn's output, if any.
    pub(super) outgoing: HeadIndex,
    /// What could not be sent at once. Exists only while there is something.
    pub(super) outbound: Option<Box<Outbound>>,
    /// Bytes may wait in the socket: receiving was put off while a login was under way.
    pub(super) receive_put_off: bool,
    /// Our side of the stream is finished.
    pub(super) finished_sending: bool,
    /// What the peer owes for frames without a purpose, in milliseconds until all is forgiven. As of the
    /// last byte received.
    pub(super) debt_ms: u16,
}

impl Connection {
    pub(super) fn new(session: Session, socket: OwnedFd, now_ms: u32) -> Self {
        Self {
            session,
            socket,
            since_ms: now_ms,
            outgoing: HeadIndex::NONE,
            outbound: None,
            receive_put_off: false,
            finished_sending: false,
            debt_ms: 0,
        }
    }

    /// A sign of life: silence begins anew, and debt is forgiven for the time since the last one.
    pub(super) fn is_alive(&mut self, now_ms: u32) {
        let passed_ms = now_ms.wrapping_sub(self.since_ms);
        self.debt_ms = self.debt_ms.saturating_sub(u16::try_from(passed_ms).unwrap_or(u16::MAX));
        self.since_ms = now_ms;
    }

    /// More than `room` bytes wait to be taken by the peer.
    pub(super) fn waits_for_reader(&self, room: usize) -> bool {
        self.outbound.as_ref().is_some_and(|outbound| outbound.len() > room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::session::rules::{Mode, Rules};

    #[test]
    fn debt_is_forgiven_with_time() {
        let rules = Rules::new(Mode::Echo, Limits::default());
        let socket = crate::net::sockets::spare_descriptor().unwrap();
        let mut connection = Connection::new(Session::new(&rules, 0), socket, u32::MAX - 9);
        connection.debt_ms = 100;
        connection.is_alive(20);
        assert_eq!((connection.debt_ms, connection.since_ms), (70, 20));
        connection.is_alive(1_000_000);
        assert_eq!(connection.debt_ms, 0);
    }

    /// 15,000 idle connections of different users may take 200 bytes each in all of the process.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 72, "{}", size_of::<Connection>());
    }
}
