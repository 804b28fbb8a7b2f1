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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 15,000 idle connections of different users may take 200 bytes each in all of the process.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 88, "{}", size_of::<Connection>());
    }
}
