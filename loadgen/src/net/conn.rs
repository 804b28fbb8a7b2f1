//! One connection's entry in the table.

use std::os::fd::OwnedFd;

use codec::{binary, ws};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not connected; waits for its turn, its token or the end of its back-off.
    Waiting,
    /// TCP connects.
    Connecting,
    /// The WebSocket handshake was sent.
    Upgrading,
    /// HELLO was sent.
    LoggingIn,
    /// Ready for messages.
    Active,
    /// Given up.
    Dead,
}

/// What keeps an incomplete piece of input.
#[derive(Debug, Default)]
pub(super) enum Input {
    /// The head of the handshake's answer so far.
    #[default]
    None,
    Head(Vec<u8>),
    WebSocket(ws::Decoder),
    Binary(binary::Decoder),
    /// Bytes go to the scenario as they come.
    Raw,
}

/// An idle connection owns nothing on the heap.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) socket: Option<OwnedFd>,
    pub(super) input: Input,
    /// Bytes not sent yet; taken from and given back to a pool.
    pub(super) out: Vec<u8>,
    pub(super) out_sent: usize,
    /// Start of connecting; once active, when the unanswered heartbeat was sent (0: none).
    pub(super) since_ns: u64,
    /// Grows with every socket, so that events of an earlier one are told apart.
    pub(super) generation: u32,
    /// Delay before the next attempt that the server asked for.
    pub(super) come_back_ms: u32,
    /// Attempts since the last success.
    pub(super) attempts: u16,
    pub(super) phase: Phase,
    /// The socket is full; more is sent when it says so.
    pub(super) blocked: bool,
    /// In the list of connections to flush.
    pub(super) dirty: bool,
    /// Sent something since the last visit of the heartbeat.
    pub(super) spoke: bool,
    /// Was active before.
    pub(super) known: bool,
    /// Must not come back, the server said.
    pub(super) banned: bool,
    /// What comes is left in the kernel.
    pub(super) paused: bool,
    /// permessage-deflate was agreed on.
    pub(super) deflates: bool,
}

impl Conn {
    pub(super) fn new() -> Self {
        Self {
            socket: None,
            input: Input::None,
            out: Vec::new(),
            out_sent: 0,
            since_ns: 0,
            generation: 0,
            come_back_ms: 0,
            attempts: 0,
            phase: Phase::Waiting,
            blocked: false,
            dirty: false,
            spoke: false,
            known: false,
            banned: false,
            paused: false,
            deflates: false,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Upgrading | Phase::LoggingIn)
    }
}
