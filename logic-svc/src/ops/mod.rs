//! What clients can ask for besides sending: the same for calls and for REST.
//!
//! Knows: the store, presence, accounts. Must not know: how a request came in.

mod conversations;
mod events;
mod login;
mod logouts;
mod presence;
mod pull;
mod resume;
mod sync;

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use proto::error::ErrorCode;
use proto::ids::direct_conversation_users;
use proto::v1::{Conversation, Failure, Message};

use crate::auth::accounts::Accounts;
use crate::domain::conversation::{Kind, is_direct_space};
use crate::domain::reject::{NOT_A_MEMBER, NOT_FOUND};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{
    Backend, Clock, ConversationInfo, Ensure, IdSource, Keep, Notifier, Sessions, StoreError,
    StoredMessage, View,
};
use crate::snowflake;
use crate::store::failure;
use logouts::Logouts;
use sync::Snapshots;

pub(crate) use conversations::ReadMark;
pub(crate) use login::{ConnectionChange, LoginRequest};
pub(crate) use pull::PullRequest;

type Result<T, E = Failure> = std::result::Result<T, E>;

/// What the operations are told at start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Whether a mere user name logs in, and unknown groups come into being.
    pub dev_login: bool,
    /// Told to clients at login.
    pub heartbeat_ms: u32,
    /// Connections one user may have at the same time.
    pub max_connections_per_user: usize,
    /// Whether other processes log users out too: logins are looked at once more after they are registered.
    pub logouts_elsewhere: bool,
    /// Largest conversation whose members are told of joins and leaves.
    pub event_members_max: usize,
}

/// The operations. All of them block on the store.
pub(crate) struct Operations {
    store: Arc<dyn Backend>,
    sessions: Arc<dyn Sessions>,
    accounts: Accounts,
    notifier: Arc<dyn Notifier>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    settings: Settings,
    snapshots: Snapshots,
    logouts: Logouts,
}

impl Operations {
    /// Operations on this store.
    #[must_use]
    pub(crate) fn new(
        store: Arc<dyn Backend>,
        sessions: Arc<dyn Sessions>,
        accounts: Accounts,
        notifier: Arc<dyn Notifier>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        settings: Settings,
    ) -> Self {
        Self {
            store,
            sessions,
            accounts,
            notifier,
            clock,
            ids,
            settings,
            snapshots: Snapshots::default(),
            logouts: Logouts::default(),
        }
    }

    /// Lets other processes go on with lists that this one began.
    #[cfg(feature = "cluster")]
    #[must_use]
    pub(crate) fn sharing(mut self, notes: Arc<dyn crate::ports::Notes>) -> Self {
        self.snapshots.share(notes);
        self
    }

    /// Accounts and their sessions.
    #[must_use]
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Whether the store takes writes.
    #[must_use]
    pub(crate) fn ready(&self) -> bool {
        self.store.can_write()
    }

    fn next_id(&self) -> Result<u64> {
        let mut id = Vec::with_capacity(1);
        self.ids.take(1, &mut id).map_err(|error| failure(&error))?;
        Ok(id.pop().unwrap_or(0))
    }

    fn username(&self, user: UserId) -> Result<String> {
        let name = self.store.username(user).map_err(|error| failure(&error))?;
        name.ok_or_else(|| ErrorCode::UserNotFound.failure("no such user"))
    }

    /// The conversation, if the user may read it. Under dev login the group is made, or takes the user in.
    fn readable(&self, id: &str, user: UserId) -> Result<ConversationInfo> {
        let find = || self.store.conversation_of(id, user).map_err(|error| failure(&error));
        match find()? {
            Some((info, true)) => return Ok(info),
            Some((info, false)) if !(self.settings.dev_login && info.dev_made) => {
                return Err(NOT_A_MEMBER.failure());
            }
            None if !self.settings.dev_login || is_direct_space(id) => {
                return Err(NOT_FOUND.failure());
            }
            _ => {}
        }
        proto::ids::check_conversation_id(id)
            .map_err(|detail| ErrorCode::BadRequest.failure(detail))?;
        let ensure = Ensure::DevGroup { id: id.to_owned(), user };
        self.store.ensure(&[ensure], self.next_id()?).map_err(|error| failure(&error))?;
        self.members_changed(id, &[user], &[])?;
        match find()? {
            Some((info, true)) => Ok(info),
            _ => Err(NOT_FOUND.failure()),
        }
    }

    /// An existing conversation, whoever asks.
    fn existing(&self, id: &str, user: UserId) -> Result<(ConversationInfo, bool)> {
        let found = self.store.conversation_of(id, user).map_err(|error| failure(&error))?;
        found.ok_or_else(|| NOT_FOUND.failure())
    }

    /// The conversation as its member sees it.
    fn view(&self, no: ConversationNo, user: UserId) -> Result<Conversation> {
        let view = self.store.view(no, user).map_err(|error| failure(&error))?;
        let view = view.ok_or_else(|| NOT_A_MEMBER.failure())?;
        self.describe(view, user, &mut Names::new(self)).map_err(|error| failure(&error))
    }

    fn describe(
        &self,
        view: View,
        user: UserId,
        names: &mut Names<'_>,
    ) -> Result<Conversation, StoreError> {
        let View { info, role, max_seq, read_seq, active } = view;
        let last = self.store.messages(info.no, max_seq, max_seq, Keep::High, 0)?.pop();
        let last_message = last.map(|last| names.message(&info.id, last)).transpose()?;
        let name = match (info.kind, direct_conversation_users(&info.id)) {
            (Kind::Direct, Some((low, high))) => names.get(if low == user { high } else { low })?,
            _ if info.name.is_empty() => info.id.clone(),
            _ => info.name,
        };
        Ok(Conversation {
            conversation_id: info.id,
            r#type: info.kind.name().to_owned(),
            name,
            max_seq,
            read_seq,
            unread: max_seq - read_seq,
            member_count: info.member_count,
            role: role.name().to_owned(),
            last_active_at_ms: snowflake::time_ms(active),
            last_message,
        })
    }
}

/// Names of users, each asked for once.
struct Names<'a> {
    store: &'a dyn Backend,
    known: HashMap<UserId, String>,
}

impl<'a> Names<'a> {
    fn new(operations: &'a Operations) -> Self {
        Self { store: &*operations.store, known: HashMap::new() }
    }

    fn get(&mut self, user: UserId) -> Result<String, StoreError> {
        match self.known.entry(user) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(free) => {
                let name = self.store.username(user)?.unwrap_or_default();
                Ok(free.insert(name).clone())
            }
        }
    }

    fn message(
        &mut self,
        conversation_id: &str,
        stored: StoredMessage,
    ) -> Result<Message, StoreError> {
        Ok(Message {
            conversation_id: conversation_id.to_owned(),
            seq: stored.seq,
            message_id: stored.message_id,
            sender_id: stored.sender,
            sender: self.get(stored.sender)?,
            client_msg_id: stored.client_msg_id,
            msg_type: stored.msg_type,
            content: stored.content,
            created_at_ms: snowflake::time_ms(stored.message_id),
        })
    }
}
