//! The steps of a tick.

use std::time::Instant;

use proto::error::ErrorCode;
use proto::ids::{check_conversation_id, direct_conversation_users};
use proto::v1::{Ack, Message, SendReply, UpstreamBatch, UpstreamFrame};

use super::{APPEND_RETRIES, CacheIndex, Item, Outcome, Pipeline, Tick, WARN_EVERY};
use crate::domain::conversation::is_direct_space;
use crate::domain::delivery::{ConnectionId, GatewayNo, ShardId};
use crate::domain::message::{ClientKey, check_content, message_type};
use crate::domain::reject::{NOT_A_MEMBER, NOT_FOUND, Reject, STORE_BUSY, STORE_FAULT};
use crate::ports::{
    Append, AppendError, Ensure, Found, Members, MessageLog, NewMessage, PublishTick, Publisher,
    Run, SendKey, Sent, StoreError,
};
use crate::snowflake;

/// A message whose conversation may first have to be made, or to take the sender in.
struct Wanted {
    item: u32,
    ensure: Ensure,
}

/// What a look at the conversation says about a send.
enum Seat {
    Found(CacheIndex),
    Wanted(Ensure),
    Refused(Reject),
}

impl<L: MessageLog, M: Members, O: Publisher> Pipeline<L, M, O> {
    /// Turns frames into items; what may not be sent is refused here.
    pub(super) fn validate(&mut self, batches: Vec<(GatewayNo, UpstreamBatch)>, tick: &mut Tick) {
        tick.items.reserve(batches.iter().map(|(_, batch)| batch.frames.len()).sum());
        let mut wanted = Vec::new();
        for (gateway, batch) in batches {
            for frame in batch.frames {
                let mut item = item(ShardId { gateway, shard: batch.shard }, frame);
                match self.check(&mut item) {
                    Ok(Seat::Found(at)) => item.conversation = at,
                    Ok(Seat::Wanted(ensure)) => {
                        wanted.push(Wanted { item: tick.items.len() as u32, ensure })
                    }
                    Ok(Seat::Refused(reject)) | Err(reject) => {
                        item.outcome = Outcome::Refused(reject)
                    }
                }
                tick.items.push(item);
            }
        }
        if !wanted.is_empty() {
            self.ensure(wanted, tick);
        }
    }

    fn check(&mut self, item: &mut Item) -> Result<Seat, Reject> {
        item.key = ClientKey::parse(&item.send.client_msg_id)?;
        item.send.msg_type = message_type(item.send.msg_type)?;
        check_content(item.send.msg_type, &item.send.content, self.settings.content_max_bytes)?;
        let seat = self.seat(&item.send.conversation_id, item.sender)?;
        if !matches!(seat, Seat::Refused(_)) {
            self.know_name(item.sender)?;
        }
        Ok(seat)
    }

    fn seat(&mut self, id: &str, sender: u64) -> Result<Seat, Reject> {
        let Some(at) = self.find_conversation(id)? else {
            return Ok(self.seat_in_unknown(id, sender));
        };
        let record = self.conversations.get(at).map(|cached| &cached.record);
        Ok(match record {
            Some(record) if record.members.contains(sender) => Seat::Found(at),
            Some(record) if record.dev_made && self.settings.dev_login => {
                Seat::Wanted(Ensure::DevGroup { id: id.to_owned(), user: sender })
            }
            _ => Seat::Refused(NOT_A_MEMBER),
        })
    }

    fn seat_in_unknown(&self, id: &str, sender: u64) -> Seat {
        match direct_conversation_users(id) {
            Some((low, high)) if low == sender || high == sender => {
                Seat::Wanted(Ensure::Direct { low, high })
            }
            None if self.settings.dev_login && !is_direct_space(id) => {
                Seat::Wanted(Ensure::DevGroup { id: id.to_owned(), user: sender })
            }
            _ => Seat::Refused(NOT_FOUND),
        }
    }

    fn find_conversation(&mut self, id: &str) -> Result<Option<CacheIndex>, Reject> {
        if let Some(at) = self.conversations.find(id) {
            return Ok(Some(at));
        }
        check_conversation_id(id).map_err(|detail| Reject::new(ErrorCode::BadRequest, detail))?;
        self.load_conversation(id).map_err(|error| refusal(&error))
    }

    fn know_name(&mut self, user: u64) -> Result<(), Reject> {
        match self.load_name(user) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Reject::new(ErrorCode::UserNotFound, "no such user")),
            Err(error) => Err(refusal(&error)),
        }
    }

    fn next_id(&self) -> Result<u64, StoreError> {
        let mut id = Vec::with_capacity(1);
        self.ids.take(1, &mut id)?;
        Ok(id.pop().unwrap_or(0))
    }

    /// Makes the conversations that messages of this tick bring into being, in one transaction of their own.
    fn ensure(&mut self, wanted: Vec<Wanted>, tick: &mut Tick) {
        let mut asked: Vec<Ensure> = wanted.iter().map(|wanted| wanted.ensure.clone()).collect();
        asked.dedup();
        let made = self.next_id().and_then(|id| self.members.ensure(&asked, id));
        match made {
            Ok(records) => {
                for (ensure, record) in asked.iter().zip(records) {
                    if let Some(record) = record {
                        let id = ensure.conversation_id();
                        self.conversations.insert(&id, record, self.began);
                    }
                }
            }
            Err(error) => {
                let outcome = Outcome::Refused(refusal(&error));
                wanted.iter().for_each(|wanted| tick.items[wanted.item as usize].outcome = outcome);
                return;
            }
        }
        for wanted in wanted {
            let item = &mut tick.items[wanted.item as usize];
            let at = self.conversations.find(&item.send.conversation_id);
            let record = at.and_then(|at| self.conversations.get(at)).map(|cached| &cached.record);
            match (at, record) {
                (Some(at), Some(record)) if record.members.contains(item.sender) => {
                    item.conversation = at
                }
                (Some(_), _) => item.outcome = Outcome::Refused(NOT_A_MEMBER),
                _ => item.outcome = Outcome::Refused(NOT_FOUND),
            }
        }
    }

    /// Recognises retries: of recent sends, and within the tick.
    pub(super) fn dedup(&mut self, tick: &mut Tick) {
        #[cfg(feature = "fault-injection")]
        if self.settings.forget_sends {
            tick.by_key = pending(&tick.items).collect();
            return;
        }
        for item in tick.items.iter_mut().filter(|item| item.outcome == Outcome::Pending) {
            let Some(cached) = self.conversations.get(item.conversation) else { continue };
            if let Some(sent) = self.recent.get(&item.key, cached.record.no, item.sender) {
                item.settle(sent);
            }
        }
        tick.by_key = sorted_by_key(&tick.items);
        mark_twins(tick);
    }

    /// Gives every pending item its place in its conversation and its id.
    pub(super) fn sequence(&mut self, tick: &mut Tick) -> Result<(), StoreError> {
        tick.runs.clear();
        self.ticks += 1;
        for item in tick.items.iter_mut().filter(|item| item.outcome == Outcome::Pending) {
            let Some(cached) = self.conversations.get_mut(item.conversation) else { continue };
            if cached.tick != self.ticks {
                cached.tick = self.ticks;
                cached.run = tick.runs.len() as u32;
                tick.runs.push(Run {
                    conversation: cached.record.no,
                    first_seq: 0,
                    count: 0,
                    start: 0,
                });
            }
            item.run = cached.run;
            let run = &mut tick.runs[item.run as usize];
            // For now the place within the run.
            item.seq = u64::from(run.count);
            run.count += 1;
        }
        self.log.place(&mut tick.runs)?;
        let mut ids = Vec::new();
        self.ids.take(tick.by_key.len(), &mut ids)?;
        let pending = tick.items.iter_mut().filter(|item| item.outcome == Outcome::Pending);
        for (item, id) in pending.zip(ids) {
            item.seq += tick.runs[item.run as usize].first_seq;
            item.message_id = id;
        }
        Ok(())
    }

    /// Stores all pending items, or none. Retries that only the database knew are found here.
    pub(super) fn persist(&mut self, tick: &mut Tick) {
        let mut result = self.append(tick);
        for _ in 0..APPEND_RETRIES {
            let settled = match result {
                Err(AppendError::Duplicate) => self.settle_known(tick),
                // The heads were loaded anew: other places, the same messages.
                Err(AppendError::Fenced) => Ok(()),
                _ => break,
            };
            result = settled
                .and_then(|()| self.sequence(tick))
                .map_err(AppendError::from)
                .and_then(|()| self.append(tick));
        }
        if let Err(error) = result {
            if matches!(error, AppendError::Store(StoreError::Unavailable(_))) {
                self.doubt(tick);
            }
            self.refuse_pending(tick, &error);
        }
    }

    /// Nothing of the tick was stored: its senders are told so.
    pub(super) fn refuse_pending(&mut self, tick: &mut Tick, error: &AppendError) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, messages = tick.items.len(), "a tick was not stored");
        }
        let reject = match error {
            AppendError::Store(error) => refusal(error),
            AppendError::Duplicate | AppendError::Fenced => STORE_FAULT,
        };
        let unsettled =
            |item: &&mut Item| matches!(item.outcome, Outcome::Pending | Outcome::Twin(_));
        let pending = tick.items.iter_mut().filter(unsettled);
        pending.for_each(|item| item.outcome = Outcome::Refused(reject));
    }

    fn append(&mut self, tick: &Tick) -> Result<(), AppendError> {
        if tick.by_key.is_empty() {
            return Ok(());
        }
        let mut runs = tick.runs.clone();
        let messages = lay_out(&tick.items, &mut runs);
        let keys: Vec<SendKey<'_>> =
            tick.by_key.iter().map(|&at| self.send_key(&tick.items[at as usize])).collect();
        self.log.append(Append { runs: &runs, messages: &messages, keys: &keys })
    }

    pub(super) fn send_key<'a>(&self, item: &'a Item) -> SendKey<'a> {
        let conversation =
            self.conversations.get(item.conversation).map_or(0, |cached| cached.record.no);
        let sent = Sent { seq: item.seq, message_id: item.message_id };
        SendKey { key: &item.key, conversation, sender: item.sender, sent }
    }

    /// Asks the database which of the pending items it has.
    fn settle_known(&mut self, tick: &mut Tick) -> Result<(), StoreError> {
        let keys: Vec<SendKey<'_>> =
            tick.by_key.iter().map(|&at| self.send_key(&tick.items[at as usize])).collect();
        let found = self.log.find(&keys)?;
        for (&at, found) in tick.by_key.iter().zip(found) {
            let Some(Found { sent, body }) = found else { continue };
            let item = &mut tick.items[at as usize];
            item.settle(sent);
            if let Some(body) = body {
                item.say(body);
                item.outcome = Outcome::Stored;
            }
        }
        tick.by_key.retain(|&at| tick.items[at as usize].outcome == Outcome::Pending);
        Ok(())
    }

    /// Answers every item and delivers the stored ones; remembers them against retries.
    pub(super) fn publish(&mut self, mut tick: Tick) -> O::Out {
        let mut out = self.out.begin();
        for at in 0..tick.items.len() {
            let (outcome, sent) = result_of(&tick.items, at);
            let item = &mut tick.items[at];
            if matches!(outcome, Outcome::Pending | Outcome::Stored | Outcome::Owed)
                && let Some(cached) = self.conversations.get(item.conversation)
            {
                let (origin, sender) = (item.origin, item.sender);
                if outcome != Outcome::Owed {
                    let key = std::mem::replace(&mut item.key, ClientKey::empty());
                    self.recent.insert(key, cached.record.no, sender, sent);
                }
                let sender_name = self.names.get(sender);
                out.deliver(origin, &cached.record, || message(item, sender_name));
            }
            if outcome != Outcome::Owed {
                out.reply(item.origin, reply(item, outcome, sent));
            }
        }
        out.finish()
    }

    /// Control run: what must never happen, to show that the checks would see it.
    #[cfg(feature = "fault-injection")]
    pub(super) fn publish_then_persist(&mut self, mut tick: Tick) -> O::Out {
        let mut copy =
            Tick { by_key: tick.by_key.clone(), runs: tick.runs.clone(), ..Tick::default() };
        copy.items = tick.items.iter().map(Item::duplicate).collect();
        let out = self.publish(copy);
        self.persist(&mut tick);
        out
    }
}

impl Item {
    fn settle(&mut self, sent: Sent) {
        self.seq = sent.seq;
        self.message_id = sent.message_id;
        self.outcome = Outcome::Known;
    }
}

fn item(from: ShardId, frame: UpstreamFrame) -> Item {
    let ShardId { gateway, shard } = from;
    Item {
        origin: ConnectionId { gateway, shard, slot: frame.slot, generation: frame.generation },
        sender: frame.user_id,
        // A frame without a message fails the check of its client id.
        send: frame.send.unwrap_or_default(),
        key: ClientKey::empty(),
        conversation: 0,
        run: 0,
        seq: 0,
        message_id: 0,
        outcome: Outcome::Pending,
    }
}

fn pending(items: &[Item]) -> impl Iterator<Item = u32> + '_ {
    (0..items.len() as u32).filter(|&at| items[at as usize].outcome == Outcome::Pending)
}

/// Indices of the pending items in the order of the index of sends, so that its inserts go from left to right.
fn sorted_by_key(items: &[Item]) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> =
        pending(items).map(|at| (items[at as usize].key.prefix(), at)).collect();
    order.sort_by(|a, b| {
        a.0.cmp(&b.0).then_with(|| identity(items, a.1).cmp(&identity(items, b.1)))
    });
    order.into_iter().map(|(_, at)| at).collect()
}

/// What makes two sends the same one; the cache index stands for the conversation.
fn identity(items: &[Item], at: u32) -> (&ClientKey, CacheIndex, u64) {
    let item = &items[at as usize];
    (&item.key, item.conversation, item.sender)
}

/// Equal neighbours in key order are one send: the first counts. The sort is stable, so the first is the one
/// that came first.
fn mark_twins(tick: &mut Tick) {
    let Tick { items, by_key, .. } = tick;
    let mut first = None;
    by_key.retain(|&at| match first {
        Some(one) if identity(items, one) == identity(items, at) => {
            items[at as usize].outcome = Outcome::Twin(one);
            false
        }
        _ => {
            first = Some(at);
            true
        }
    });
}

/// Puts the pending items run by run, runs by conversation.
fn lay_out<'a>(items: &'a [Item], runs: &mut [Run]) -> Vec<NewMessage<'a>> {
    let mut start = 0;
    for run in runs.iter_mut() {
        run.start = start;
        start += run.count;
    }
    let mut order = vec![0; start as usize];
    for at in pending(items) {
        let item = &items[at as usize];
        let run = &runs[item.run as usize];
        order[run.start as usize + (item.seq - run.first_seq) as usize] = at;
    }
    let messages = order.into_iter().map(|at| new_message(&items[at as usize])).collect();
    runs.sort_unstable_by_key(|run| run.conversation);
    messages
}

fn new_message(item: &Item) -> NewMessage<'_> {
    NewMessage {
        message_id: item.message_id,
        sender: item.sender,
        msg_type: item.send.msg_type,
        key: &item.key,
        content: &item.send.content,
    }
}

fn refusal(error: &StoreError) -> Reject {
    match error {
        StoreError::Unavailable(_) => STORE_BUSY,
        StoreError::Corrupt(_) | StoreError::Internal(_) => STORE_FAULT,
    }
}

/// What became of the item at `at`; a twin shares the fate of the item it repeats.
fn result_of(items: &[Item], at: usize) -> (Outcome, Sent) {
    let item = &items[at];
    let place = |item: &Item| Sent { seq: item.seq, message_id: item.message_id };
    match item.outcome {
        Outcome::Twin(first) => {
            let first = &items[first as usize];
            let outcome = if let Outcome::Refused(reject) = first.outcome {
                Outcome::Refused(reject)
            } else {
                Outcome::Known
            };
            (outcome, place(first))
        }
        outcome => (outcome, place(item)),
    }
}

/// The message as its receivers get it. Takes what the answer does not need.
fn message(item: &mut Item, sender: &str) -> Message {
    Message {
        conversation_id: std::mem::take(&mut item.send.conversation_id),
        seq: item.seq,
        message_id: item.message_id,
        sender_id: item.sender,
        sender: sender.to_owned(),
        client_msg_id: item.send.client_msg_id.clone(),
        msg_type: item.send.msg_type,
        content: std::mem::take(&mut item.send.content),
        created_at_ms: snowflake::time_ms(item.message_id),
    }
}

fn reply(item: &mut Item, outcome: Outcome, sent: Sent) -> SendReply {
    let mut ack = Ack {
        request_id: item.send.request_id,
        client_msg_id: std::mem::take(&mut item.send.client_msg_id),
        ..Default::default()
    };
    let failure = match outcome {
        Outcome::Refused(reject) => Some(reject.failure()),
        Outcome::Pending | Outcome::Known | Outcome::Stored | Outcome::Owed | Outcome::Twin(_) => {
            ack.seq = sent.seq;
            ack.message_id = sent.message_id;
            ack.created_at_ms = snowflake::time_ms(sent.message_id);
            None
        }
    };
    SendReply {
        slot: item.origin.slot,
        generation: item.origin.generation,
        ack: Some(ack),
        failure,
    }
}
