//! Who is connected where: what logins and ends of connections change, and what orders about connections are.

use std::borrow::Cow;

use proto::v1::EventDelivery;

use super::{StoreError, Watches};
use crate::domain::UserId;
use crate::domain::delivery::{ConnectionId, ShardId};

/// A change of who is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// A connection whose user is known wants in.
    Login {
        /// The user.
        user: UserId,
        /// The connection.
        connection: ConnectionId,
        /// Stable name of the device; empty: none, never taken over.
        device_id: String,
        /// "web", "mobile", "desktop" or the application's own.
        device_class: String,
    },
    /// A connection ended.
    Closed {
        /// Its user; 0 where the gateway never learned it.
        user: UserId,
        /// The connection.
        connection: ConnectionId,
    },
}

/// What a login did to earlier connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Registered beside whatever else the user has.
    Added,
    /// Registered; this connection of the same device is to be closed.
    Replaced(ConnectionId),
    /// Registered; the policy of its device class closes these connections (one of the same device may be among them).
    Kicked(Vec<ConnectionId>),
    /// Not registered: another device of its class is in, and the policy lets that one stay.
    ClassTaken,
    /// Not registered: the user has as many connections as allowed.
    TooMany,
    /// Not registered: the connection's numbers are beyond what a gateway has.
    OutOfRange,
}

/// Who is connected where, as logins change it.
pub trait Sessions: Watches {
    /// Asks `plan` for changes, applies them in their order, and tells `done` what became of the logins among
    /// them, in their order. A user has at most `most` connections.
    ///
    /// Where one process holds everything, nobody sees the new entries before `done` has returned, so that an answer
    /// given there goes before every delivery the entry makes possible. An error: nothing was applied for
    /// certain, `done` was not called.
    fn change(
        &self,
        most: usize,
        plan: &mut dyn FnMut() -> Vec<SessionChange>,
        done: &mut dyn FnMut(Vec<Login>),
    ) -> Result<(), StoreError>;

    /// All connections of these users.
    fn of(&self, users: &[UserId]) -> Result<Vec<ConnectionId>, StoreError>;
}

/// A connection to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The connection.
    pub connection: ConnectionId,
    /// Close code 4000-4999.
    pub code: u16,
    /// For the client's developer.
    pub reason: Cow<'static, str>,
}

/// The way to connections for what is neither an answer nor a message.
pub trait Notifier: Send + Sync {
    /// Tells connections of some shards of something that changed.
    fn events(&self, events: Vec<(ShardId, EventDelivery)>);
    /// Orders connections closed.
    fn end(&self, connections: Vec<Ended>);
    /// Users came into a group or went out of it: done before the one who asked for it is answered. May be told twice.
    ///
    /// # Errors
    /// Whoever has to know was not told; the request is to be repeated.
    fn members_changed(&self, change: &MembersChanged<'_>) -> Result<(), StoreError> {
        let _ = change;
        Ok(())
    }
}

/// Users who came into a group or went out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MembersChanged<'a> {
    /// The group.
    pub conversation_id: &'a str,
    /// Made just now: nobody can remember it otherwise.
    pub is_new: bool,
    /// Who came in.
    pub joined: &'a [UserId],
    /// Who went out.
    pub left: &'a [UserId],
}
