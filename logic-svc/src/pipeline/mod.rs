//! The way of a message: validate, dedup, sequence, persist, publish. One tick takes everything that waits
//! and stores it in one transaction; nothing is answered or delivered before that is durable.
//!
//! Knows: the domain, the ports. Must not know: which database, which queue.

mod cache;
mod doubt;
mod fetch;
mod recent;
mod steps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::v1::UpstreamBatch;

use crate::config::Config;
use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::domain::message::ClientKey;
use crate::domain::reject::Reject;
use crate::ports::{Change, IdSource, Members, MessageLog, Publisher, Run};
use cache::{CacheIndex, Conversations, Names};
use recent::Recent;

/// What the pipeline is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest content in bytes.
    pub content_max_bytes: usize,
    /// Whether unknown groups come into being by being written to.
    pub dev_login: bool,
    /// Most conversations kept at hand.
    pub cached_conversations: usize,
    /// Most members kept at hand, over all conversations.
    pub cached_members: usize,
    /// Most recent sends kept at hand.
    pub recent_sends: usize,
    /// How long what is at hand of a conversation is relied on without asking, where several processes change it and
    /// [`Pipeline::changed`] is told of changes.
    pub versions_hold: Duration,
    /// Control run: answer before the commit. For tests only.
    #[cfg(feature = "fault-injection")]
    pub ack_before_commit: bool,
    /// Control run: do not recognise retries. For tests only.
    #[cfg(feature = "fault-injection")]
    pub forget_sends: bool,
}

impl Settings {
    /// What the service's settings mean for the pipeline.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            content_max_bytes: config.content_max_bytes,
            dev_login: config.dev_login,
            cached_conversations: config.cached_conversations,
            cached_members: config.cached_members,
            recent_sends: config.recent_sends,
            versions_hold: VERSIONS_HOLD,
            #[cfg(feature = "fault-injection")]
            ack_before_commit: config.fault == Some(crate::config::Fault::AckBeforeCommit),
            #[cfg(feature = "fault-injection")]
            forget_sends: config.fault == Some(crate::config::Fault::NoUniqueKey),
        }
    }
}

/// The one place where messages get their order. One tick at a time.
pub struct Pipeline<L, M, O> {
    log: L,
    members: M,
    out: O,
    ids: Arc<dyn IdSource>,
    settings: Settings,
    conversations: Conversations,
    names: Names,
    recent: Recent,
    ticks: u64,
    /// When the tick began.
    began: Instant,
    changes: Vec<Change>,
    /// Messages that may have been stored, see [`doubt`].
    doubts: Vec<Item>,
    /// When a failing store was last spoken of in the log.
    warned: Option<Instant>,
}

/// Changes of a conversation's members are told before they are answered: this is for a process that ended between the
/// two, and for hands that change rows themselves.
pub(crate) const VERSIONS_HOLD: Duration = Duration::from_secs(10);

/// A store that fails every tick is spoken of this often.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// How often a tick that found its messages stored, or its places taken, is tried again.
const APPEND_RETRIES: u32 = 8;

/// One message on its way through a tick.
struct Item {
    origin: ConnectionId,
    sender: u64,
    send: proto::v1::Send,
    key: ClientKey,
    conversation: CacheIndex,
    run: u32,
    seq: u64,
    message_id: u64,
    outcome: Outcome,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Passed so far; stored if the transaction is.
    Pending,
    /// Refused.
    Refused(Reject),
    /// A retry of a message that has its place already.
    Known,
    /// The same message is in the log, and its deliveries may never have left.
    Stored,
    /// An earlier tick stored it without knowing: it is delivered, and its sender was answered then.
    Owed,
    /// A retry of an item of the same tick.
    Twin(u32),
}

/// The work of one tick.
#[derive(Default)]
struct Tick {
    items: Vec<Item>,
    /// Pending items in ascending order of their keys.
    by_key: Vec<u32>,
    runs: Vec<Run>,
}

impl<L: MessageLog, M: Members, O: Publisher> Pipeline<L, M, O> {
    /// A pipeline with nothing at hand yet.
    pub fn new(log: L, members: M, out: O, ids: Arc<dyn IdSource>, settings: Settings) -> Self {
        Self {
            log,
            members,
            out,
            ids,
            conversations: Conversations::default(),
            names: Names::new(settings.cached_conversations),
            recent: Recent::new(settings.recent_sends),
            ticks: 0,
            began: Instant::now(),
            changes: Vec::new(),
            doubts: Vec::new(),
            warned: None,
            settings,
        }
    }

    /// Takes all of `batches`, each from its gateway, and gives answers and deliveries.
    pub fn tick(&mut self, batches: Vec<(GatewayNo, UpstreamBatch)>) -> O::Out {
        let fresh = self.refresh(&batches).and_then(|()| self.fetch(&batches));
        let mut tick = Tick::default();
        self.validate(batches, &mut tick);
        let placed = fresh.and_then(|()| {
            self.settle_doubts(&mut tick)?;
            self.dedup(&mut tick);
            self.sequence(&mut tick)
        });
        match placed {
            Ok(()) => self.store_and_publish(tick),
            Err(error) => {
                self.refuse_pending(&mut tick, &error.into());
                self.publish(tick)
            }
        }
    }

    fn store_and_publish(&mut self, mut tick: Tick) -> O::Out {
        #[cfg(feature = "fault-injection")]
        if self.settings.ack_before_commit {
            return self.publish_then_persist(tick);
        }
        self.persist(&mut tick);
        self.publish(tick)
    }

    /// The members of these conversations changed: the next messages to them are worked with those of now.
    pub fn changed(&mut self, ids: &[String]) {
        ids.iter().for_each(|id| self.conversations.doubt(id));
    }

    /// Forgets everything at hand: others may have written meanwhile.
    pub fn forget(&mut self) {
        self.conversations = Conversations::default();
        self.recent = Recent::new(self.settings.recent_sends);
        self.doubts.clear();
        self.log.forget();
    }
}
