//! The doors of this service: what it needs from the outside, as traits.
//!
//! Knows: the shared messages and the domain. Must not know: who stands behind a door.

#[cfg(feature = "cluster")]
mod cluster;
mod presence;
mod routes;
mod sessions;
mod store;

use std::time::Duration;

use bytes::Bytes;
use proto::ids::direct_conversation_id;
use proto::v1::{
    Call, CallReply, DeliveryBatch, EventDelivery, Kick, Message, SendReply, UpstreamBatch,
};

use crate::domain::conversation::Kind;
use crate::domain::delivery::ConnectionId;
use crate::domain::member::MemberSet;
use crate::domain::message::ClientKey;
use crate::domain::{ConversationNo, UserId};

#[cfg(feature = "cluster")]
pub use cluster::{
    Crowd, Crowds, DeadLetters, Expired, Keeping, Large, NewDeadLetter, PushOut, Reported, Reports,
    Retention, TaskOut,
};
pub use presence::{Turned, UserState, Watches};
pub use routes::{RouteCache, RouteRequest, Routes, Spoken};
pub use sessions::{Ended, Login, MembersChanged, Notifier, SessionChange, Sessions};
pub use store::{
    Activity, Backend, ConversationInfo, ConversationStore, Created, HistoryStore, Keep,
    MemberInfo, NewGroup, NewUser, RefreshToken, Refreshed, StoredMessage, Tip, TokenStore, User,
    UserStore, View,
};

/// Where answers and deliveries leave for the gateway.
pub trait DeliverySink: Send + Sync {
    /// Hands over all that one pipeline tick has for one shard. May block while the shard's mailbox is full.
    fn deliver(&self, batch: DeliveryBatch);
    /// Hands over the answer to one [`Call`].
    fn reply(&self, reply: CallReply);
    /// Hands over answers to several [`Call`]s, those of one connection in their order.
    fn replies(&self, replies: Vec<CallReply>) {
        replies.into_iter().for_each(|reply| self.reply(reply));
    }
    /// Hands over a conversation event for some connections of `shard`.
    fn event(&self, shard: u32, event: EventDelivery);
    /// Orders a connection closed.
    fn kick(&self, kick: Kick);
    /// Orders several connections closed.
    fn kicks(&self, kicks: Vec<Kick>) {
        kicks.into_iter().for_each(|kick| self.kick(kick));
    }
}

/// Values of `CallReply::command`: the field numbers of the requests in `Call`.
pub mod command {
    /// Answers a login.
    pub const LOGIN: u32 = 5;
    /// Answers a pull.
    pub const PULL: u32 = 6;
    /// Answers a sync.
    pub const SYNC: u32 = 7;
    /// Answers a create.
    pub const CREATE: u32 = 8;
    /// Answers a join.
    pub const JOIN: u32 = 9;
    /// Answers a leave.
    pub const LEAVE: u32 = 10;
    /// Answers a member list.
    pub const MEMBERS: u32 = 11;
    /// Answers a read mark.
    pub const READ: u32 = 12;
    /// Answers a presence query.
    pub const PRESENCE: u32 = 14;
}

/// What a source had within the time given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// At least one item was appended.
    Some,
    /// Nothing came within the timeout.
    Timeout,
    /// Nothing will come any more.
    Closed,
}

/// Where messages on their way to the pipeline come from.
pub trait UpstreamSource: Send {
    /// Appends everything that is queued to `into`; waits at most `timeout` when nothing is.
    fn recv(&mut self, into: &mut Vec<UpstreamBatch>, timeout: Duration) -> Received;
}

/// Where requests that are not messages come from.
pub trait CallSource: Send {
    /// Appends everything that is queued to `into`; waits at most `timeout` when nothing is.
    fn recv(&mut self, into: &mut Vec<Call>, timeout: Duration) -> Received;
}

/// Notes that any process of the service may need within minutes. One that is lost costs work, nothing else.
pub trait Notes: Send + Sync {
    /// Keeps a note for a while; names are chosen so that none comes twice.
    fn keep(&self, name: &str, note: &[u8], lifetime: Duration);
    /// The note of this name, if it is still there.
    fn find(&self, name: &str) -> Option<Vec<u8>>;
}

/// The time of day. May step back; whoever needs more must take care of it.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// Where message ids come from.
pub trait IdSource: Send + Sync {
    /// Appends `count` ids, each above every id handed out before.
    ///
    /// # Errors
    /// Whether the ids would be nobody else's is in doubt.
    fn take(&self, count: usize, into: &mut Vec<u64>) -> Result<(), StoreError>;
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot work at the moment (disk full, I/O error); the same request may succeed later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What it holds contradicts itself.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// Anything else; a fault of this program.
    #[error("the store refused: {0}")]
    Internal(String),
}

/// Why a tick was not appended. Nothing of it is stored then.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// At least one of the messages is stored already: ask [`MessageLog::find`] which.
    #[error("a message of the batch is stored already")]
    Duplicate,
    /// Another writer was here; the heads were loaded anew.
    #[error("another writer appended to the log")]
    Fenced,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The messages of one conversation in one tick, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The conversation.
    pub conversation: ConversationNo,
    /// Sequence number of the first message; filled by [`MessageLog::place`].
    pub first_seq: u64,
    /// How many messages.
    pub count: u32,
    /// Index of the first in [`Append::messages`].
    pub start: u32,
}

/// One message to be stored. Its seq is `first_seq` of its run plus its place in the run.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    /// Its id; carries the time.
    pub message_id: u64,
    /// Who sent it.
    pub sender: UserId,
    /// What it is.
    pub msg_type: u32,
    /// The client's own id of it.
    pub key: &'a ClientKey,
    /// Its bytes.
    pub content: &'a [u8],
}

/// One row of the index that finds repeated sends.
#[derive(Clone, Copy, Debug)]
pub struct SendKey<'a> {
    /// The client's id of the message.
    pub key: &'a ClientKey,
    /// The conversation.
    pub conversation: ConversationNo,
    /// Who sent it.
    pub sender: UserId,
    /// Its place; what is found for a repeated send.
    pub sent: Sent,
}

/// The place a message got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Sequence number in its conversation.
    pub seq: u64,
    /// Its id.
    pub message_id: u64,
}

/// All that one tick stores, in one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// One entry for each conversation that spoke.
    pub runs: &'a [Run],
    /// The messages, run by run.
    pub messages: &'a [NewMessage<'a>],
    /// The same messages' keys in ascending order.
    pub keys: &'a [SendKey<'a>],
}

/// The durable log of messages, one writer.
pub trait MessageLog: Send {
    /// Fills `first_seq` of each run: one above the conversation's last.
    fn place(&mut self, runs: &mut [Run]) -> Result<(), StoreError>;
    /// Stores all or nothing, durably. Refuses a run that does not follow on its conversation's last message.
    fn append(&mut self, append: Append<'_>) -> Result<(), AppendError>;
    /// Looks up which of the sends are stored already, in the order asked.
    fn find(&mut self, keys: &[SendKey<'_>]) -> Result<Vec<Option<Found>>, StoreError>;
    /// Others may have written: nothing remembered is to be relied on. A log with one writer remembers nothing wrong.
    fn forget(&mut self) {}
}

/// A message found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its place.
    pub sent: Sent,
    /// What was stored, if its deliveries may never have left: a log shared by several processes cannot tell.
    /// This is delivered then, whatever came with the retry.
    pub body: Option<Body>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its type.
    pub msg_type: u32,
    /// Its content.
    pub content: Bytes,
}

/// How a conversation's messages reach its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fanout {
    /// Each member is addressed: an inbox each, and their connections.
    #[default]
    Write,
    /// Gateways know who is connected; members pull the rest.
    Read,
}

/// A conversation as the pipeline needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationRecord {
    /// Its number.
    pub no: ConversationNo,
    /// Direct or group.
    pub kind: Kind,
    /// Made by `--dev-login` traffic: takes every sender in.
    pub dev_made: bool,
    /// Who is in it.
    pub members: MemberSet,
    /// Counts the changes of its members, where several processes change them; else 0.
    pub version: u64,
    /// How its messages reach its members.
    pub fanout: Fanout,
}

/// A conversation that a message may bring into being, or widen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ensure {
    /// The direct conversation of two users, if both exist.
    Direct {
        /// The lower user id.
        low: UserId,
        /// The higher user id.
        high: UserId,
    },
    /// A dev-made group with this user in it. An existing group of another make stays as it is.
    DevGroup {
        /// Its id.
        id: String,
        /// Whom it takes in.
        user: UserId,
    },
}

impl Ensure {
    /// The conversation's text id.
    #[must_use]
    pub fn conversation_id(&self) -> String {
        match self {
            Self::Direct { low, high } => direct_conversation_id(*low, *high),
            Self::DevGroup { id, .. } => id.clone(),
        }
    }
}

/// Something that changed about a conversation since it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A user came in.
    Joined {
        /// The conversation's text id.
        id: String,
        /// Who.
        user: UserId,
    },
    /// A user went out.
    Left {
        /// The conversation's text id.
        id: String,
        /// Who.
        user: UserId,
    },
    /// With what came before, the conversation is as of this version.
    Version {
        /// The conversation's text id.
        id: String,
        /// The version.
        version: u64,
        /// How its messages reach its members now.
        fanout: Fanout,
    },
}

/// A conversation at hand, and how old what is known of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// Its number.
    pub no: ConversationNo,
    /// Its text id.
    pub id: &'a str,
    /// As of this version.
    pub version: u64,
}

/// Who is in which conversation.
pub trait Members: Send {
    /// The conversation with this text id.
    fn conversation(&mut self, id: &str) -> Result<Option<ConversationRecord>, StoreError>;
    /// A user's name.
    fn username(&mut self, user: UserId) -> Result<Option<String>, StoreError>;
    /// Told which conversations and users a tick will ask for one by one, where versions are asked: a store that is
    /// far away fetches them together. It holds for this tick only.
    fn fetch(&mut self, ids: &[&str], users: &[UserId]) -> Result<(), StoreError>;
    /// Makes what is missing, all in one transaction; `None` where a user does not exist.
    fn ensure(
        &mut self,
        wanted: &[Ensure],
        now_ms: u64,
    ) -> Result<Vec<Option<ConversationRecord>>, StoreError>;
    /// Whether [`Members::changes`] wants to know which conversations the tick is about.
    fn asks_versions(&self) -> bool {
        false
    }
    /// Appends what changed, in the order of the commits: since the last call, or, where versions are asked, about
    /// `known` since their versions.
    fn changes(&mut self, known: &[Known<'_>], into: &mut Vec<Change>) -> Result<(), StoreError>;
}

/// Who is connected where.
pub trait Presence: Send + Sync {
    /// A look at one moment.
    type View<'a>: PresenceView
    where
        Self: 'a;
    /// Takes the look that serves a whole tick.
    fn view(&self) -> Self::View<'_>;
}

/// Presence at one moment.
pub trait PresenceView {
    /// Calls `found` with every connection of `user`.
    fn connections(&self, user: UserId, found: impl FnMut(ConnectionId));
    /// How many connections there are.
    fn len(&self) -> usize;
    /// Whether nobody is connected.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Calls `found` with every connection there is.
    fn all(&self, found: impl FnMut(UserId, ConnectionId));
}

/// The way out of the pipeline: answers and deliveries of one tick, collected.
pub trait Publisher: Send {
    /// What a tick gives.
    type Out;
    /// A tick under way.
    type Tick<'a>: PublishTick<Out = Self::Out>
    where
        Self: 'a;
    /// Begins a tick.
    fn begin(&mut self) -> Self::Tick<'_>;
}

/// Answers and deliveries of one tick.
pub trait PublishTick {
    /// What a tick gives.
    type Out;
    /// Adds the answer to a send.
    fn reply(&mut self, origin: ConnectionId, reply: SendReply);
    /// Adds a message for every connection of the members but `origin`, which sent it. `build` is called at most
    /// once, and only if the message is needed.
    fn deliver(
        &mut self,
        origin: ConnectionId,
        conversation: &ConversationRecord,
        build: impl FnOnce() -> Message,
    );
    /// All of it.
    fn finish(self) -> Self::Out;
}
