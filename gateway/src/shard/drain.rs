//! How stopping goes on.

/// How long the peer has to finish after our last byte.
pub(super) const LINGER_MS: u32 = 2_000;

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// Not stopping.
    No,
    /// Answers under way are waited for.
    Finishing { since_ms: u32 },
    /// GOAWAY was said.
    Leaving { since_ms: u32 },
    /// Nothing is left to do.
    Done,
}
