//! Faults of the peer. Each carries the close code the peer is told; none is a fault of ours.

use super::Kind;

/// Why bytes of the binary protocol were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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

impl Error {
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
