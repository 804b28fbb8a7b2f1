//! Who is there, and who wants to know when that changes.

use proto::v1::Device;

use super::StoreError;
use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;

/// Whether a user is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserState {
    /// Each device that is connected.
    pub devices: Vec<Device>,
    /// When the user's last connection ended, in milliseconds since 1970; 0: not known.
    pub last_seen_ms: u64,
}

impl UserState {
    /// Whether any device is connected.
    #[must_use]
    pub fn is_online(&self) -> bool {
        !self.devices.is_empty()
    }
}

/// A user who came or went, and the connections that want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The user.
    pub user: UserId,
    /// Whether the user is there now.
    pub online: bool,
    /// When the user was there last, in milliseconds since 1970; 0: now, or not known.
    pub last_seen_ms: u64,
    /// Who is to be told.
    pub watchers: Vec<ConnectionId>,
}

/// Who is there, and who is told when that changes.
pub trait Watches: Send + Sync {
    /// How things stand with these users, in their order.
    ///
    /// # Errors
    /// It is not known at the moment: nobody is said to be away who may be there.
    fn states(&self, users: &[UserId]) -> Result<Vec<UserState>, StoreError>;

    /// From now on the connection is told of changes of these users and of no others; gives how things stand. What
    /// changes after that is told.
    ///
    /// # Errors
    /// As [`Watches::states`], or too many are told of a user already.
    fn watch(
        &self,
        connection: ConnectionId,
        users: &[UserId],
    ) -> Result<Vec<UserState>, StoreError>;
}
