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
    /// What becomes of the connection; reset by the shard before each input.
    pub verdict: Verdict,
}
