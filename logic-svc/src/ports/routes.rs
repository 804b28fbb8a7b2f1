//! The shared cache as the way out of the pipeline asks it, once a tick.

use proto::v1::Message;

use super::StoreError;
use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::domain::{ConversationNo, UserId};

/// The messages that one conversation got in a tick, ascending by seq.
#[derive(Clone, Debug)]
pub struct Spoken<'a> {
    /// The conversation.
    pub conversation: ConversationNo,
    /// Its text id.
    pub conversation_id: &'a str,
    /// Whose inboxes get a note of it; empty where members pull.
    pub inboxes: &'a [UserId],
    /// The messages.
    pub messages: Vec<&'a Message>,
}

/// What a tick asks and tells.
#[derive(Clone, Debug, Default)]
pub struct RouteRequest<'a> {
    /// What was stored: kept warm for readers.
    pub spoken: &'a [Spoken<'a>],
    /// Users whose connections are wanted, each once.
    pub users: &'a [UserId],
    /// Large conversations whose gateways are wanted, each once.
    pub groups: &'a [ConversationNo],
}

/// Where a tick's deliveries go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Connections of gateways that live, for each user asked for, in their order.
    pub connections: Vec<Vec<ConnectionId>>,
    /// Gateways that live and may have members connected, for each conversation asked for, in their order.
    pub gateways: Vec<Vec<GatewayNo>>,
}

/// The shared cache: one round trip a tick.
pub trait RouteCache: Send {
    /// Keeps warm what was stored, and gives the routes.
    ///
    /// # Errors
    /// The routes are not known at the moment; every gateway that lives has to be asked.
    fn tick(&mut self, request: &RouteRequest<'_>) -> Result<Routes, StoreError>;
}
