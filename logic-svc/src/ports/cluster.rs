//! What the cluster form needs besides: ways out to gateways and to later work, dead letters, large groups.

use std::time::Duration;

use proto::v1::{DeadLetter, PushRecord, Task};

use super::{Fanout, StoreError};
use crate::domain::delivery::GatewayNo;
use crate::domain::{ConversationNo, UserId};

/// The way to gateways for what no tick carries.
pub trait PushOut: Send + Sync {
    /// Sends records; what does not arrive is lost, and its loss is told in the log only.
    fn push(&self, records: Vec<(GatewayNo, PushRecord)>);
    /// Sends records and waits until all of them are durable on their way. A gateway that is gone counts as told.
    ///
    /// # Errors
    /// Not all of them within `limit`.
    fn push_and_wait(
        &self,
        records: Vec<(GatewayNo, PushRecord)>,
        limit: Duration,
    ) -> Result<(), StoreError>;
}

/// The way to work that is on nobody's path, and to whoever works on a conversation.
pub trait TaskOut: Send + Sync {
    /// Hands work over and waits until it is durable. Work about one conversation is done in order.
    ///
    /// # Errors
    /// It is not known to be durable.
    fn hand_over(&self, conversation_id: &str, task: Task) -> Result<(), StoreError>;

    /// Tells whoever gives a conversation's messages their places that its members changed, and waits until that is
    /// durable: a message that is sent later comes behind it.
    ///
    /// # Errors
    /// It is not known to be durable; what is at hand there may be old for [`VERSIONS_HOLD`](crate::pipeline).
    fn announce(&self, conversation_id: &str) -> Result<(), StoreError>;
}

/// A record that could not be worked.
#[derive(Clone, Copy, Debug)]
pub struct NewDeadLetter<'a> {
    /// Where it came from.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// What was wrong with it.
    pub reason: &'a str,
    /// How often it was tried.
    pub attempts: u32,
    /// The record as it came.
    pub payload: &'a [u8],
}

/// Records that could not be worked, kept for somebody to look at. One place is kept once.
pub trait DeadLetters: Send + Sync {
    /// Keeps one; what was kept of the same place before gives way.
    fn keep(&self, letter: &NewDeadLetter<'_>) -> Result<(), StoreError>;
    /// Those with ids below `below` (0: all), newest first, without their payloads.
    fn page(&self, below: u64, limit: u32) -> Result<Vec<DeadLetter>, StoreError>;
    /// One with its payload.
    fn get(&self, id: u64) -> Result<Option<DeadLetter>, StoreError>;
    /// Notes that it was put back into its topic.
    fn replayed(&self, id: u64) -> Result<(), StoreError>;
}

/// Which messages are kept; the last one of a conversation always is: the next one's seq follows on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Those made since then, in milliseconds since 1970; 0: of any age.
    pub since_ms: u64,
    /// So many of each conversation, the newest; 0: any number.
    pub messages: u64,
}

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// How many messages.
    pub messages: u64,
    /// Of which conversations.
    pub conversations: Vec<ConversationNo>,
    /// After which conversation to go on; `None`: all were looked at.
    pub next: Option<ConversationNo>,
}

/// Old messages go.
pub trait Retention: Send + Sync {
    /// Looks at a bounded number of conversations with numbers above `after`, and deletes a bounded number of messages
    /// that are not kept, the oldest of a conversation first, so that no holes come into being. May be done by several
    /// at once.
    ///
    /// # Errors
    /// The database is away; some may be deleted.
    fn expire(&self, keeping: Keeping, after: ConversationNo) -> Result<Expired, StoreError>;
}

/// A conversation that is, or may soon be, delivered by the gateways' member index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Large {
    /// Its number.
    pub no: ConversationNo,
    /// Its text id.
    pub id: String,
}

/// How a conversation's messages reach its members, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Its number.
    pub no: ConversationNo,
    /// How many are in it.
    pub members: u32,
    /// What holds now.
    pub fanout: Fanout,
}

/// Large groups.
pub trait Crowds: Send + Sync {
    /// For each of these users the conversations that are read by fan-out, or have at least `members` members.
    fn large_of(&self, users: &[UserId], members: u32) -> Result<Vec<Vec<Large>>, StoreError>;
    /// How things stand; `None`: no such conversation.
    fn crowd(&self, conversation_id: &str) -> Result<Option<Crowd>, StoreError>;
    /// Sets how messages reach the members, from the next message on; counts as a change of the conversation.
    fn set_fanout(&self, no: ConversationNo, fanout: Fanout) -> Result<(), StoreError>;
    /// Users with ids above `after` who are in the conversation, ascending.
    fn members_after(
        &self,
        no: ConversationNo,
        after: UserId,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError>;
    /// Conversations with numbers above `after`, ascending, whose messages reach their members in the other way than
    /// they should: written to each although there are `up` members or more, or read although there are fewer than
    /// `down`. Each with the way that is right. All conversations are looked through.
    fn misfits(
        &self,
        up: u32,
        down: u32,
        after: ConversationNo,
        limit: u32,
    ) -> Result<Vec<(Large, Fanout)>, StoreError>;
}

/// What gateways report, and at which gateways large conversations are listened to.
pub trait Reports: Send + Sync {
    /// Takes in a report: how many are connected, and sessions that are to be registered again.
    ///
    /// # Errors
    /// The cache is away.
    fn report(
        &self,
        gateway: GatewayNo,
        report: &proto::v1::GatewayReport,
    ) -> Result<Reported, StoreError>;
    /// Members of these large conversations are connected at the gateway.
    ///
    /// # Errors
    /// The cache is away.
    fn interested(
        &self,
        gateway: GatewayNo,
        conversations: &[ConversationNo],
    ) -> Result<(), StoreError>;
    /// A conversation becomes large (its gateways are counted from now on), or is no longer.
    ///
    /// # Errors
    /// The cache is away.
    fn group(&self, conversation: ConversationNo, large: bool) -> Result<(), StoreError>;
    /// Takes out what a gateway that is gone left behind.
    ///
    /// # Errors
    /// The cache is away.
    fn forget(&self, gateway: GatewayNo) -> Result<(), StoreError>;
    /// How many connections the gateway reported to this service last; `None`: it did not.
    fn count(&self, gateway: GatewayNo) -> Option<u32>;
    /// Whether the cache answers.
    fn is_up(&self) -> bool;
}

/// What became of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The sessions of this gateway are not known: it is to report them all.
    pub report_all: bool,
    /// Connections that lost their device to a newer login.
    pub replaced: Vec<crate::domain::delivery::ConnectionId>,
}
