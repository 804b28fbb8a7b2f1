//! The rules of conversations and messages: pure, no clock, no database, no queue.

pub mod conversation;
pub mod delivery;
pub mod device;
pub mod member;
pub mod message;
pub mod reject;

/// A user's number; also its public id.
pub type UserId = u64;

/// A conversation's number inside the service. Outside it goes by its text id.
pub type ConversationNo = u64;
