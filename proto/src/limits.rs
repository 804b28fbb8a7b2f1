//! Limits every party of the protocol agrees on.

/// Longest conversation id in bytes.
pub const CONVERSATION_ID_MAX_BYTES: usize = 64;
/// Longest client message id in bytes.
pub const CLIENT_MSG_ID_MAX_BYTES: usize = 64;
/// Default limit of a message's content in bytes (requirement B1).
pub const CONTENT_MAX_BYTES: usize = 4096;
/// Longest access token in bytes; checked before anything parses it.
pub const TOKEN_MAX_BYTES: usize = 4096;
/// Longest device id in bytes.
pub const DEVICE_ID_MAX_BYTES: usize = 64;
/// Longest device class in bytes.
pub const DEVICE_CLASS_MAX_BYTES: usize = 32;
/// Longest user name in bytes.
pub const USERNAME_MAX_BYTES: usize = 32;
/// Messages a pull returns when it names no limit.
pub const PULL_LIMIT_DEFAULT: u32 = 50;
/// Most messages a pull returns.
pub const PULL_LIMIT_MAX: u32 = 500;
/// Most bytes of content a pull returns, whatever its limit says (the page then has `has_more`).
pub const PULL_BYTES_MAX: usize = 512 * 1024;
/// Members a member list returns when it names no limit.
pub const MEMBERS_LIMIT_DEFAULT: u32 = 100;
/// Most members a member list returns.
pub const MEMBERS_LIMIT_MAX: u32 = 1000;
/// Most members one create call may name.
pub const CREATE_MEMBERS_MAX: usize = 1000;

/// Most resume points of one login.
pub const RESUME_POINTS_MAX: usize = 100;
/// Most messages that one login brings back, over all its resume points.
pub const RESUME_MESSAGES_MAX: u64 = 1000;
/// Longest resume token in bytes.
pub const RESUME_TOKEN_MAX_BYTES: usize = 128;

/// Most users one presence query may name.
pub const PRESENCE_USERS_MAX: usize = 100;
