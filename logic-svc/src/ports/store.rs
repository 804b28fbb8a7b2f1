//! What the operations and the accounts need of a store: users, conversations, history, refresh tokens.

use bytes::Bytes;

use super::{ConversationRecord, Ensure, StoreError};
use crate::domain::conversation::{Kind, Role};
use crate::domain::{ConversationNo, UserId};

type Result<T> = std::result::Result<T, StoreError>;

/// A user as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its unique name.
    pub username: String,
    /// Its display name.
    pub nickname: String,
    /// Hash of its password; `None`: it can log in by `--dev-login` only.
    pub password_hash: Option<String>,
    /// Access tokens of older epochs are refused.
    pub token_epoch: u64,
}

// No hash in any log.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A user to be made.
pub struct NewUser<'a> {
    /// Its unique name.
    pub username: &'a str,
    /// Its display name.
    pub nickname: &'a str,
    /// Hash of its password.
    pub password_hash: &'a str,
}

/// A conversation as stored, without its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationInfo {
    /// Its number.
    pub no: ConversationNo,
    /// Its text id.
    pub id: String,
    /// Direct or group.
    pub kind: Kind,
    /// Display name; empty: none given.
    pub name: String,
    /// How many are in it.
    pub member_count: u32,
    /// Made by `--dev-login` traffic.
    pub dev_made: bool,
}

/// A member as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// The user.
    pub user: UserId,
    /// User name.
    pub username: String,
    /// Display name.
    pub nickname: String,
    /// What the member may do.
    pub role: Role,
}

/// A group to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewGroup<'a> {
    /// Its text id.
    pub id: &'a str,
    /// Display name; may be empty.
    pub name: &'a str,
    /// Who makes it.
    pub owner: UserId,
    /// Everybody else.
    pub members: &'a [UserId],
}

/// What became of a request to make a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// Made, under this number.
    New(ConversationNo),
    /// The id is taken.
    Taken,
}

/// A message as it lies in the store; the sender's name is looked up by whoever needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its place in the conversation.
    pub seq: u64,
    /// Its id; carries the time.
    pub message_id: u64,
    /// Who sent it.
    pub sender: UserId,
    /// What it is.
    pub msg_type: u32,
    /// The client's own id of it.
    pub client_msg_id: String,
    /// Its bytes.
    pub content: Bytes,
}

/// Which end of a range survives when the range holds more bytes than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The oldest messages.
    Low,
    /// The newest messages.
    High,
}

/// A conversation and when it was last active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Activity {
    /// Id of the last message, or one taken at the making: newer is higher.
    pub active: u64,
    /// The conversation.
    pub no: ConversationNo,
}

/// A conversation with one user's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The conversation.
    pub info: ConversationInfo,
    /// What the user may do.
    pub role: Role,
    /// Seq of the last message.
    pub max_seq: u64,
    /// Up to where the user has read; own messages count as read.
    pub read_seq: u64,
    /// Id of the last message, or one taken at the making; carries the time.
    pub active: u64,
}

/// A refresh token to be kept.
#[derive(Clone, Copy)]
pub struct RefreshToken<'a> {
    /// SHA-256 of the token.
    pub hash: &'a [u8; 32],
    /// When it ends to be good, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// What became of a refresh token that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It was good; it is spent now and the new one kept.
    Good(UserId),
    /// No such token, or its time is over.
    Unknown,
    /// It was spent before: stolen, or its thief was faster. The whole family is void now.
    Reused,
}

/// Users.
pub trait UserStore: Send + Sync {
    /// Makes a user; `None` if the name is taken.
    fn create_user(&self, new: &NewUser<'_>, now_ms: u64) -> Result<Option<UserId>>;
    /// The users of these names, made where missing, without a password; all in one transaction.
    fn ensure_users(&self, names: &[&str], now_ms: u64) -> Result<Vec<UserId>>;
    /// The user of this name.
    fn user_by_name(&self, name: &str) -> Result<Option<User>>;
    /// The users of these names, in their order; `None` where there is no such user.
    fn ids_of(&self, names: &[&str]) -> Result<Vec<Option<UserId>>>;
    /// The user of this id.
    fn user(&self, id: UserId) -> Result<Option<User>>;
    /// A user's name.
    fn username(&self, user: UserId) -> Result<Option<String>>;
    /// Name and token epoch of each of these users; `None` where there is no such user.
    fn names_and_epochs(&self, ids: &[UserId]) -> Result<Vec<Option<(String, u64)>>>;
}

/// Conversations and their members.
pub trait ConversationStore: Send + Sync {
    /// The conversation with this text id, and whether `user` is in it.
    fn conversation_of(&self, id: &str, user: UserId) -> Result<Option<(ConversationInfo, bool)>>;
    /// Makes the conversations that traffic brings into being; `None` where a user does not exist.
    /// `made_id` is an id of the same source as the messages' ids and carries the time.
    fn ensure(&self, wanted: &[Ensure], made_id: u64) -> Result<Vec<Option<ConversationRecord>>>;
    /// Makes a group. `made_id` is an id of the same source as the messages' ids and carries the time.
    fn create_group(&self, group: &NewGroup<'_>, made_id: u64) -> Result<Created>;
    /// Takes `user` into a group; false if already in.
    fn join(&self, group: &ConversationInfo, user: UserId, made_id: u64) -> Result<bool>;
    /// Takes `user` out of a group; false if not in. An owner who leaves passes the group to its oldest member.
    fn leave(&self, group: &ConversationInfo, user: UserId) -> Result<bool>;
    /// Moves read positions up, all in one transaction; none goes back, none goes beyond the last message.
    /// Gives the positions in force, `None` where the user is not a member.
    fn mark_read(&self, marks: &[(ConversationNo, UserId, u64)]) -> Result<Vec<Option<u64>>>;
    /// Members with ids above `after`, ascending, and whether there are more.
    fn list_members(
        &self,
        no: ConversationNo,
        after: UserId,
        limit: u32,
    ) -> Result<(Vec<MemberInfo>, bool)>;
    /// The users in a conversation, ascending; at most `max` of them.
    fn member_ids(&self, no: ConversationNo, max: usize) -> Result<Vec<UserId>>;
    /// Those of `others` with whom `user` shares one of the newest `most` conversations the user is in.
    fn acquainted(&self, user: UserId, others: &[UserId], most: u32) -> Result<Vec<UserId>>;
    /// Every conversation the user is in, in no order.
    fn activities(&self, user: UserId) -> Result<Vec<Activity>>;
    /// A conversation as `user` sees it; `None` if not a member.
    fn view(&self, no: ConversationNo, user: UserId) -> Result<Option<View>>;
}

/// What was said.
pub trait HistoryStore: Send + Sync {
    /// The seq of the conversation's last message; 0 if there is none.
    fn last_seq(&self, no: ConversationNo) -> Result<u64>;
    /// The newest id stored, or one above it: everything that happens later has a higher one.
    fn newest_id(&self) -> Result<u64>;
    /// The messages `low..=high` (cut to what exists), ascending, at most `max_bytes` of content but at least one.
    fn messages(
        &self,
        no: ConversationNo,
        low: u64,
        high: u64,
        keep: Keep,
        max_bytes: usize,
    ) -> Result<Vec<StoredMessage>>;
}

/// Where a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its number.
    pub no: ConversationNo,
    /// The seq of its last message; 0 if there is none.
    pub last_seq: u64,
}

/// Refresh tokens, kept as hashes only.
pub trait TokenStore: Send + Sync {
    /// Keeps the first token of a login.
    fn begin_session(&self, user: UserId, token: RefreshToken<'_>, now_ms: u64) -> Result<()>;
    /// Spends a token and keeps its successor.
    fn refresh_session(
        &self,
        old: &[u8; 32],
        new: RefreshToken<'_>,
        now_ms: u64,
    ) -> Result<Refreshed>;
    /// Voids all tokens of a user, the access tokens too.
    fn end_sessions(&self, user: UserId) -> Result<()>;
}

/// A whole store, as operations and accounts ask it. All methods block.
pub trait Backend: UserStore + ConversationStore + HistoryStore + TokenStore {
    /// Whether the last write went well. If none did lately, tries one.
    fn can_write(&self) -> bool;
    /// Where these conversations stand, in their order; `None` where there is none of this id, or `user` is not in it.
    /// A store that is far away is asked once for all of them.
    fn tips(&self, ids: &[&str], user: UserId) -> Result<Vec<Option<Tip>>> {
        let tip = |id: &&str| {
            let Some((info, true)) = self.conversation_of(id, user)? else { return Ok(None) };
            Ok(Some(Tip { no: info.no, last_seq: self.last_seq(info.no)? }))
        };
        ids.iter().map(tip).collect()
    }
}
