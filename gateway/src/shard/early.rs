//! Pushes that came before the welcome of their connection. A connection is registered before it is welcomed, and the
//! way of a push is another one than that of the welcome. Whoever asks for everything after the welcome needs nothing of
//! it; whoever resumed was told what was there when the logic service looked, and asks for nothing.

use std::collections::HashMap;

use proto::v1::Message;

use super::outbound::Outbound;
use crate::net::poll_set::Token;

/// Conversations in which connections missed something before their welcome.
#[derive(Default)]
pub(super) struct Early(HashMap<Token, Missed>);

/// What one of them missed.
pub(super) struct Missed {
    pub(super) marks: Outbound,
    /// More conversations than are worth a mark each.
    pub(super) too_many: bool,
}

impl Early {
    /// A push for a connection that waits for its welcome.
    pub(super) fn note(&mut self, token: Token, message: &Message) {
        let missed = self.0.entry(token);
        let missed =
            missed.or_insert_with(|| Missed { marks: Outbound::default(), too_many: false });
        if !missed.too_many {
            let fits = missed.marks.mark_lagged(&message.conversation_id, message.seq);
            missed.too_many = !fits;
        }
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, token: Token) {
        if !self.0.is_empty() {
            self.0.remove(&token);
        }
    }

    /// What the connection missed, when it is welcomed.
    pub(super) fn take(&mut self, token: Token) -> Option<Missed> {
        if self.0.is_empty() { None } else { self.0.remove(&token) }
    }
}
