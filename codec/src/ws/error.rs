//! Faults of the peer. Each carries the close code the peer is told; none is a fault of ours.

/// Why a WebSocket peer's bytes were refused (RFC 6455 sections 5, 7 and 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reserved bit is set and no extension gives it a meaning there (section 5.2).
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
    /// The payload of a compressed message is no DEFLATE stream, or not a whole one. No RFC names a
    /// code; 1007 is the one for a payload that does not fit its message's type, and the framing, which
    /// 1002 is about, was right.
    #[error("the compressed payload is not a whole DEFLATE stream")]
    BadDeflate,
    /// A close frame with a body of one byte (section 5.5.1).
    #[error("a close frame with a body of one byte")]
    BadCloseBody,
    /// A close code that must not be sent (section 7.4).
    #[error("close code {0} must not be sent")]
    BadCloseCode(u16),
}

impl Error {
    /// The code for the close frame that answers this fault: 1002, 1007, 1008 or 1009.
    #[must_use]
    pub const fn close_code(&self) -> u16 {
        match self {
            Self::BadUtf8 | Self::BadDeflate => 1007,
            Self::TooManyFragments { .. } => 1008,
            Self::MessageTooLong { .. } => 1009,
            _ => 1002,
        }
    }
}
