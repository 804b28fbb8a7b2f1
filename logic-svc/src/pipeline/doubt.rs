//! Messages that may be in the log although nobody could say so: their transaction was under way when the database
//! went away, for longer than it is waited for.
//!
//! Their senders were told to try again, and will. But a message that has its place is not to be delivered behind
//! later ones, so the first tick that reaches the database again looks for them and delivers them before its own.

use super::{Item, Outcome, Pipeline, Tick};
use crate::domain::reject::NOT_FOUND;
use crate::ports::{Body, Found, Members, MessageLog, Publisher, SendKey, Sent, StoreError};

/// Most messages in doubt; the oldest give way, and are delivered when their senders try again.
const DOUBTS_MAX: usize = 65_536;

impl<L: MessageLog, M: Members, O: Publisher> Pipeline<L, M, O> {
    /// Keeps those items of a tick that may have been stored.
    pub(super) fn doubt(&mut self, tick: &Tick) {
        let pending = tick.items.iter().filter(|item| item.outcome == Outcome::Pending);
        self.doubts.extend(pending.map(Item::duplicate));
        let over = self.doubts.len().saturating_sub(DOUBTS_MAX);
        self.doubts.drain(..over);
    }

    /// Puts those messages in doubt that are in the log in front of the tick; the others were not stored.
    ///
    /// # Errors
    /// The log cannot say: they stay in doubt, and nothing may be placed behind them.
    pub(super) fn settle_doubts(&mut self, tick: &mut Tick) -> Result<(), StoreError> {
        if self.doubts.is_empty() {
            return Ok(());
        }
        let mut doubts = std::mem::take(&mut self.doubts);
        match self.find_all(&mut doubts) {
            Ok(found) => {
                let stored = doubts.into_iter().zip(found);
                let owed = stored.filter_map(|(item, sent)| Some(self.owe(item, sent?)));
                tick.items.splice(..0, owed.collect::<Vec<_>>());
                Ok(())
            }
            Err(error) => {
                self.doubts = doubts;
                Err(error)
            }
        }
    }

    /// The places of those that are in the log. Their conversations and senders are at hand then.
    fn find_all(&mut self, doubts: &mut Vec<Item>) -> Result<Vec<Option<Sent>>, StoreError> {
        for item in doubts.iter_mut() {
            self.load_name(item.sender)?;
            match self.load_conversation(&item.send.conversation_id)? {
                Some(at) => item.conversation = at,
                None => item.outcome = Outcome::Refused(NOT_FOUND),
            }
        }
        // Whatever its conversation was, it is not there to be delivered to.
        doubts.retain(|item| item.outcome == Outcome::Pending);
        let keys: Vec<SendKey<'_>> = doubts.iter().map(|item| self.send_key(item)).collect();
        let found = self.log.find(&keys)?;
        let owed = |(found, item): (Option<Found>, &mut Item)| {
            let Found { sent, body } = found?;
            item.say(body?);
            Some(sent)
        };
        Ok(found.into_iter().zip(doubts.iter_mut()).map(owed).collect())
    }

    /// A message that has its place and is still to be delivered; its sender was answered.
    fn owe(&mut self, mut item: Item, sent: Sent) -> Item {
        item.seq = sent.seq;
        item.message_id = sent.message_id;
        item.outcome = Outcome::Owed;
        if let Some(cached) = self.conversations.get(item.conversation)
            && self.recent.get(&item.key, cached.record.no, item.sender).is_none()
        {
            self.recent.insert(item.key.clone(), cached.record.no, item.sender, sent);
        }
        item
    }
}

impl Item {
    pub(super) fn duplicate(&self) -> Self {
        Self { send: self.send.clone(), key: self.key.clone(), ..*self }
    }

    /// Takes what was stored in place of what came: a retry may differ, but all receivers see one message.
    pub(super) fn say(&mut self, Body { msg_type, content }: Body) {
        self.send.msg_type = msg_type;
        self.send.content = content;
    }
}
