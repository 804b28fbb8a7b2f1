//! What a token says once it was found good.

use crate::domain::UserId;

/// Whose token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The user.
    pub user: UserId,
    /// The epoch the token was issued in; good only while it is still the user's.
    pub epoch: u64,
}

/// What a token of ours is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) identity: Identity,
    /// Good from here on, in seconds since 1970.
    pub(super) from_s: u64,
    /// Good before this time.
    pub(super) until_s: u64,
}
