//! Messages that may be in the log although nobody could say so: their transaction was under way when the database
//! went away, for longer than it is waited for.
//!
//! Their senders were told to try again, and will. But a message that has its place is not to be delivered behind
//! later ones, so the first tick that reaches the database again looks for them and delivers them before its own.

use super::{Item, Outcome, Pipeline, Tick};
use crate::ports::{Members, MessageLog, Publisher, SendKey, Sent, StoreError};

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
        let doubts = std::mem::take(&mut self.doubts);
        match self.look_for(doubts) {
            Ok(mut stored) => {
                stored.append(&mut tick.items);
                tick.items = stored;
                Ok(())
            }
            Err((doubts, error)) => {
                self.doubts = doubts;
                Err(error)
            }
        }
    }

    fn look_for(&mut self, mut doubts: Vec<Item>) -> Result<Vec<Item>, (Vec<Item>, StoreError)> {
        match self.find_all(&mut doubts) {
            Ok(found) => {
                let stored = doubts.into_iter().zip(found);
                Ok(stored.filter_map(|(item, sent)| Some(self.owe(item, sent?))).collect())
            }
            Err(error) => Err((doubts, error)),
        }
    }

    /// The places of those that are in the log as they were sent.
    fn find_all(&mut self, doubts: &mut [Item]) -> Result<Vec<Option<Sent>>, StoreError> {
        let mut numbers = Vec::with_capacity(doubts.len());
        for item in doubts.iter_mut() {
            numbers.push(self.place_of(item)?);
        }
        let keys: Vec<SendKey<'_>> = doubts
            .iter()
            .zip(numbers)
            .map(|(item, conversation)| {
                let sent = Sent { seq: item.seq, message_id: item.message_id };
                SendKey { key: &item.key, conversation, sender: item.sender, sent }
            })
            .collect();
        let found = self.log.find(&keys)?.into_iter().zip(doubts.iter());
        Ok(found
            .map(|(found, item)| {
                let found = found?;
                (found.content? == item.send.content).then_some(found.sent)
            })
            .collect())
    }

    /// Has the conversation and the sender of a message at hand; gives the number of the conversation.
    fn place_of(&mut self, item: &mut Item) -> Result<u64, StoreError> {
        let id = &item.send.conversation_id;
        let at = match self.conversations.find(id) {
            Some(at) => Some(at),
            None => {
                self.members.conversation(id)?.map(|record| self.conversations.insert(id, record))
            }
        };
        if !self.names.contains(item.sender)
            && let Some(name) = self.members.username(item.sender)?
        {
            self.names.insert(item.sender, &name);
        }
        // Conversations do not end; number 0 is nobody's.
        item.conversation = at.unwrap_or_default();
        Ok(at.and_then(|at| self.conversations.get(at)).map_or(0, |cached| cached.record.no))
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
}
