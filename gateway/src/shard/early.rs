//! Pushes that came before the welcome of their connection. A connection is registered before it is welcomed, and the
//! way of a push is another one than that of the welcome. Whoever asks for everything after the welcome needs nothing of
//! it; whoever resumed was told what was there when the logic service looked, and asks for nothing.

use std::collections::HashMap;

use proto::v1::Message;

use super::outbound::Outbound;
use super::turn::Shard;
use crate::net::poll_set::Token;
use crate::session::Phase;

/// Conversations in which connections missed something before their welcome.
#[derive(Default)]
pub(super) struct Early(HashMap<Token, Missed>);

struct Missed {
    marks: Outbound,
    /// More conversations than are worth a mark each.
    too_many: bool,
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
}

impl Shard {
    /// Right behind the welcome: where something was missed, the client is told to pull.
    pub(super) fn tell_of_early(&mut self, token: Token) {
        if self.early.0.is_empty() {
            return;
        }
        let Some(Missed { mut marks, too_many }) = self.early.0.remove(&token) else { return };
        let Some(connection) = self.table.get_mut(token) else { return };
        if connection.session.phase() != Phase::Open {
            return;
        }
        let first = connection.outbound.is_none();
        let outbound = connection.outbound.get_or_insert_default();
        let lags = marks.take_lagged();
        let fit = lags.iter().all(|lag| outbound.mark_lagged(&lag.conversation_id, lag.from_seq));
        if first {
            self.watch_writable(token, true);
        }
        if too_many || !fit {
            self.close_slow(token);
        }
    }
}
