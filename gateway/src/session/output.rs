//! What comes out of a session.

use proto::v1::{Call, UpstreamFrame};

/// What becomes of the connection after an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    #[default]
    Stay,
    /// It is closed once its bytes are out.
    Close,
    /// It is plain HTTP: the socket and `Outputs::handed_over` go to the control thread.
    HandOver,
}

/// Why a session ended its connection, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was no room for one more client.
    NoRoom,
    /// Too many frames without a purpose.
    Flood,
    /// Its login was sent away, as too many were under way.
    LoginShed,
}

/// Collects the outputs of all sessions of a turn. The shard owns it and empties it.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Bytes for the connection, appended; the shard notes where they start.
    pub bytes: Vec<u8>,
    /// Messages for the log.
    pub messages: Vec<UpstreamFrame>,
    /// Requests for the logic service.
    pub calls: Vec<Call>,
    /// Bytes already read of a connection that is handed over.
    pub handed_over: Vec<u8>,
    /// What the connection owes for frames without a purpose: milliseconds until all of it is forgiven.
    /// The shard sets it before each input and keeps it after.
    pub debt_ms: u32,
    /// Whoever says now that it is a client has to be told that there is no room.
    pub no_room: bool,
    /// When not 0, a login is sent away with this delay instead of being asked for.
    pub login_delay_ms: u32,
    /// Why the connection ends, where somebody counts it; reset by the shard.
    pub cause: Option<Cause>,
    /// What becomes of the connection; reset by the shard before each input.
    pub verdict: Verdict,
}
