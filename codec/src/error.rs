//! Faults of the peer. Each carries the close code the peer is told; none is a fault of ours.

use crate::binary::Kind;

/// Why a WebSocket peer's bytes were refused (RFC 6455 sections 5, 7 and 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// A reserved bit is set and no extension gives it a meaning (section 5.2).
    #[error("a reserved bit is set")]
    ReservedBits,
    /// Opcodes 3-7 and 11-15 have no meaning (section 5.2).
    #[error("reserved opcode {0}")]
    ReservedOpcode(u8),
    /// A client's frame is not masked (section 5.1).
    #[error("a client's frame must be masked")]
    Unmasked,
    /// A server's frame is masked (section 5.1).
    #[error("a server's frame must not be masked")]
    Masked,
    /// A control frame without FIN (section 5.5).
    #[error("a control frame must not be fragmented")]
    FragmentedControl,
    /// A control frame of more than 125 bytes (section 5.5).
    #[error("a control frame has more than 125 bytes")]
    ControlTooLong,
    /// A continuation frame while no message is open (section 5.4).
    #[error("a continuation frame without a message to continue")]
    UnexpectedContinuation,
    /// A new data frame while a message is open (section 5.4).
    #[error("a new message inside a fragmented one")]
    ExpectedContinuation,
    /// A length in more bytes than it needs, or with its top bit set (section 5.2).
    #[error("the length is not encoded in its shortest form")]
    BadLength,
    /// The message would have more bytes than the limit (section 10.4).
    #[error("the message is longer than {limit} bytes")]
    MessageTooLong {
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// The message has more fragments than the limit (section 10.4).
    #[error("the message has more than {limit} fragments")]
    TooManyFragments {
        /// The limit in force, in frames.
        limit: u32,
    },
    /// A text message or a close reason is not UTF-8 (section 8.1).
    #[error("text is not UTF-8")]
    BadUtf8,
    /// A close frame with a body of one byte (section 5.5.1).
    #[error("a close frame with a body of one byte")]
    BadCloseBody,
    /// A close code that must not be sent (section 7.4).
    #[error("close code {0} must not be sent")]
    BadCloseCode(u16),
}

impl WebSocketError {
    /// The code for the close frame that answers this fault: 1002, 1007, 1008 or 1009.
    #[must_use]
    pub const fn close_code(&self) -> u16 {
        match self {
            Self::BadUtf8 => 1007,
            Self::TooManyFragments { .. } => 1008,
            Self::MessageTooLong { .. } => 1009,
            _ => 1002,
        }
    }
}

/// Why bytes of the binary protocol were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    /// The connection does not begin with `CRLN`.
    #[error("the connection does not begin with the magic bytes CRLN")]
    BadMagic,
    /// A version of the protocol that is not spoken here.
    #[error("protocol version {0} is not known")]
    BadVersion(u8),
    /// A bit of the first byte that must be zero is set.
    #[error("a reserved flag is set")]
    ReservedFlags,
    /// No such frame kind.
    #[error("frame kind {0:#04x} is not known")]
    UnknownKind(u8),
    /// A kind that only the other side may send.
    #[error("frame kind {0:?} is not the peer's to send")]
    WrongDirection(Kind),
    /// A length in more bytes than it needs, or in more than four.
    #[error("the length is not encoded in its shortest form of at most 4 bytes")]
    BadLength,
    /// A frame with a length of zero; every body has at least one field.
    #[error("a frame of kind {0:?} has an empty body")]
    EmptyBody(Kind),
    /// The body is longer than its kind may be.
    #[error("a frame of kind {kind:?} declares more than {limit} bytes")]
    BodyTooLong {
        /// The kind of the frame.
        kind: Kind,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// A WebSocket message ends inside a frame.
    #[error("the message ends inside a frame")]
    CutFrame,
}

impl BinaryError {
    /// The close code that answers this fault: 4902 for a body over its limit, else 4901. Both are in
    /// the range that tells the client not to come back.
    #[must_use]
    pub const fn close_code(&self) -> u16 {
        match self {
            Self::BodyTooLong { .. } => 4902,
            _ => 4901,
        }
    }
}
