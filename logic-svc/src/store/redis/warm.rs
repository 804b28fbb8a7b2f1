//! One round trip a tick: what was stored is kept warm for readers, and the routes of its receivers are read.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use redis::Value;

use super::batch::Batch;
use super::client::Client;
use super::entry::{Entry, Lives};
use super::hot;
use super::reports::Wholeness;
use super::value;
use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::domain::{ConversationNo, UserId};
use crate::gateways::Gateways;
use crate::ports::{Clock, RouteCache, RouteRequest, Routes, Sent, Spoken, StoreError};

/// Hot lists are cut about every so many messages, and so may be longer by as many.
const CUT_EVERY: u64 = 32;
/// Inboxes are cut after so many writes.
const INBOX_CUT_EVERY: u32 = 256;
/// Inboxes whose writes are counted; more make the count begin anew.
const INBOXES_COUNTED: usize = 1 << 20;
/// Mirrors whose lifetime is known to be set; more make the notes begin anew.
const MIRRORS_NOTED: usize = 1 << 20;
/// Sends of this time share a key.
const WINDOW_S: u64 = 30;
/// Keys that share the sends of one time in a cluster.
const BUCKETS: u64 = 16;

/// What is kept warm.
#[derive(Clone, Debug)]
pub struct WarmSettings {
    /// Messages of a conversation that is read, see [`super::Cached`]; 0: none.
    pub hot_messages: u64,
    /// Lifetime of an inbox.
    pub inbox: Duration,
    /// Notes in an inbox; 0: none are kept.
    pub inbox_messages: u64,
    /// Whether sends of the last minute are noted. Each costs about 150 bytes for 90 seconds.
    pub sends: bool,
    /// Lifetime of the mirror of a conversation's last seq; zero: none is kept.
    pub last_seq: Duration,
}

impl Default for WarmSettings {
    fn default() -> Self {
        let week = Duration::from_secs(7 * 24 * 3600);
        Self { hot_messages: 100, inbox: week, inbox_messages: 0, sends: false, last_seq: week }
    }
}

/// The shared cache as one pipeline asks it.
pub struct Warm {
    client: Client,
    gateways: Arc<Gateways>,
    clock: Arc<dyn Clock>,
    settings: WarmSettings,
    /// Writes to each inbox, so that it is cut now and then and not each time.
    inbox_writes: HashMap<UserId, u32>,
    /// Conversations whose mirror has its lifetime, in the window at hand.
    mirrored: HashSet<ConversationNo>,
    mirror_window: u64,
    /// Keys of sends whose lifetime is set, in the window at hand.
    windows: (u64, u64),
}

/// A send that may have been seen before.
#[derive(Clone, Copy, Debug)]
pub struct SendId<'a> {
    /// The conversation.
    pub conversation: ConversationNo,
    /// Who sent it.
    pub sender: UserId,
    /// The client's own id of it.
    pub client_msg_id: &'a str,
}

impl Warm {
    /// Asks the Redis of `client`. Connections of lives that `gateways` does not know are void.
    #[must_use]
    pub fn new(
        client: Client,
        gateways: Arc<Gateways>,
        clock: Arc<dyn Clock>,
        settings: WarmSettings,
    ) -> Self {
        Self {
            client,
            gateways,
            clock,
            settings,
            inbox_writes: HashMap::new(),
            mirrored: HashSet::new(),
            mirror_window: 0,
            windows: (0, 0),
        }
    }

    /// Where these sends were stored within the last minute, in their order, as far as known: a miss says nothing.
    ///
    /// # Errors
    /// Redis is away.
    pub fn seen(&self, sends: &[SendId<'_>]) -> Result<Vec<Option<Sent>>, StoreError> {
        let window = self.clock.now_ms() / 1000 / WINDOW_S;
        let mut batch = self.client.batch();
        for send in sends {
            for window in window.saturating_sub(2)..=window {
                let key = self.send_key(window, send.conversation);
                batch.command("HGET", 2).key("msg_dedup:", key).argument(&send_field(send));
            }
        }
        let answers = self.client.run_within(&batch, self.client.options().tick_timeout)?;
        let found = |one: &Value| {
            let (seq, id) = value::bytes(one).split_first_chunk::<8>()?;
            let message_id = u64::from_le_bytes(id.try_into().ok()?);
            Some(Sent { seq: u64::from_le_bytes(*seq), message_id })
        };
        Ok(answers.chunks(3).map(|windows| windows.iter().find_map(found)).collect())
    }

    fn send_key(&self, window: u64, conversation: ConversationNo) -> u64 {
        let bucket = if self.client.is_cluster() { conversation % BUCKETS } else { 0 };
        window * BUCKETS + bucket
    }

    /// The last seqs. A sorted set of one member, since only there the server itself keeps a number from going back:
    /// a script costs it three times as much.
    fn add_last_seqs(&mut self, batch: &mut Batch, spoken: &[Spoken<'_>]) {
        for one in spoken {
            let Some(last) = one.messages.last() else { continue };
            let no = one.conversation;
            batch
                .command("ZADD", 4)
                .key("conv_seq:", no)
                .argument(b"GT")
                .number(last.seq)
                .argument(b"seq");
            if self.mirrored.len() >= MIRRORS_NOTED {
                self.mirrored.clear();
            }
            if self.mirrored.insert(no) {
                let lifetime_ms = millis(self.settings.last_seq);
                batch.command("PEXPIRE", 2).key("conv_seq:", no).number(lifetime_ms);
            }
        }
    }

    /// Begins to set lifetimes anew every now and then.
    fn begin_window(&mut self) {
        let window = self.clock.now_ms() / millis(self.settings.last_seq / 4).max(1);
        if self.mirror_window != window {
            self.mirror_window = window;
            self.mirrored.clear();
        }
    }

    fn add_hot(&self, batch: &mut Batch, spoken: &Spoken<'_>) {
        let (Some(first), Some(last)) = (spoken.messages.first(), spoken.messages.last()) else {
            return;
        };
        // Only a list that is there grows: whoever reads a conversation makes it, and it goes when nobody reads.
        batch
            .command("RPUSHX", 1 + spoken.messages.len())
            .key("hot_messages:", spoken.conversation);
        let mut bytes = Vec::new();
        for message in &spoken.messages {
            bytes.clear();
            hot::encode_message(message, &mut bytes);
            batch.argument(&bytes);
        }
        if first.seq.saturating_sub(1) / CUT_EVERY != last.seq / CUT_EVERY {
            let most = format!("-{}", self.settings.hot_messages);
            batch
                .command("LTRIM", 3)
                .key("hot_messages:", spoken.conversation)
                .argument(most.as_bytes())
                .argument(b"-1");
        }
    }

    fn add_sends(&mut self, batch: &mut Batch, spoken: &[Spoken<'_>]) {
        let window = self.clock.now_ms() / 1000 / WINDOW_S;
        if self.windows.0 != window {
            self.windows = (window, 0);
        }
        let mut by_key: Vec<(u64, &Spoken<'_>)> =
            spoken.iter().map(|one| (self.send_key(window, one.conversation), one)).collect();
        by_key.sort_by_key(|&(key, _)| key);
        for same in by_key.chunk_by(|a, b| a.0 == b.0) {
            let key = same[0].0;
            let count: usize = same.iter().map(|(_, one)| one.messages.len()).sum();
            batch.command("HSET", 1 + 2 * count).key("msg_dedup:", key);
            for (_, one) in same {
                for message in &one.messages {
                    let send = SendId {
                        conversation: one.conversation,
                        sender: message.sender_id,
                        client_msg_id: &message.client_msg_id,
                    };
                    let mut place = [0; 16];
                    place[..8].copy_from_slice(&message.seq.to_le_bytes());
                    place[8..].copy_from_slice(&message.message_id.to_le_bytes());
                    batch.argument(&send_field(&send)).argument(&place);
                }
            }
            let bit = 1 << (key % BUCKETS);
            if self.windows.1 & bit == 0 {
                self.windows.1 |= bit;
                batch.command("EXPIRE", 2).key("msg_dedup:", key).number(3 * WINDOW_S);
            }
        }
    }

    fn add_inboxes(&mut self, batch: &mut Batch, spoken: &[Spoken<'_>]) {
        let mut notes: Vec<(UserId, ConversationNo, u64, u64)> = Vec::new();
        for one in spoken {
            let Some(last) = one.messages.last() else { continue };
            let note = |&user: &UserId| (user, one.conversation, last.seq, last.created_at_ms);
            notes.extend(one.inboxes.iter().map(note));
        }
        notes.sort_unstable();
        for same in notes.chunk_by(|a, b| a.0 == b.0) {
            let user = same[0].0;
            batch.command("ZADD", 1 + 2 * same.len()).key("im:inbox:", user);
            for &(_, conversation, seq, at_ms) in same {
                batch.number(at_ms).argument(format!("{conversation}:{seq}").as_bytes());
            }
            let newest = same.iter().map(|note| note.3).max().unwrap_or(0);
            self.tend_inbox(batch, user, newest);
        }
    }

    /// Cuts an inbox at its first write and every so many writes after it.
    fn tend_inbox(&mut self, batch: &mut Batch, user: UserId, now_ms: u64) {
        if self.inbox_writes.len() >= INBOXES_COUNTED {
            self.inbox_writes.clear();
        }
        let writes = self.inbox_writes.entry(user).or_insert(0);
        *writes += 1;
        if *writes % INBOX_CUT_EVERY != 1 {
            return;
        }
        let kept_ms = millis(self.settings.inbox);
        let over = format!("-{}", self.settings.inbox_messages.saturating_add(1));
        batch
            .command("ZREMRANGEBYSCORE", 3)
            .key("im:inbox:", user)
            .argument(b"-inf")
            .number(now_ms.saturating_sub(kept_ms));
        batch
            .command("ZREMRANGEBYRANK", 3)
            .key("im:inbox:", user)
            .argument(b"0")
            .argument(over.as_bytes());
        batch.command("PEXPIRE", 2).key("im:inbox:", user).number(kept_ms.saturating_mul(2));
    }

    fn add_reads(batch: &mut Batch, request: &RouteRequest<'_>) {
        Wholeness::ask(batch);
        for &user in request.users {
            batch.command("HVALS", 1).key("user_session:", user);
        }
        for &no in request.groups {
            batch.command("SMEMBERS", 1).key("group_gateways:", no);
            batch.command("SISMEMBER", 2).key("group_gateways:", no).run_id();
        }
    }

    fn routes(&self, request: &RouteRequest<'_>, answers: &[Value]) -> Result<Routes, StoreError> {
        let lives = Lives::of(&self.gateways);
        let (users, groups) = (request.users.len(), 2 * request.groups.len());
        let [whole, answers @ ..] = answers else { return Err(unknown()) };
        if answers.len() < users + groups || !Wholeness::read(whole, &lives) {
            return Err(unknown());
        }
        let (users, answers) = answers.split_at(users);
        // However long ago an entry was told of: a clock that is ahead must not hide anybody, and whoever is not there
        // any more gets nothing.
        let of_user = |values: &Value| -> Vec<ConnectionId> {
            let entries = value::list(values).iter().filter_map(|one| {
                let entry = Entry::parse(value::bytes(one))?;
                let no = lives.reached(entry.gateway, entry.epoch, &self.gateways)?;
                Some(entry.at(no))
            });
            entries.collect()
        };
        Ok(Routes {
            connections: users.iter().map(of_user).collect(),
            gateways: answers[..groups]
                .chunks(2)
                .map(|group| self.gateways_of(group, &lives))
                .collect(),
        })
    }

    /// The gateways of a large conversation: those of its set, if this life of the server began it, else all.
    fn gateways_of(&self, answers: &[Value], lives: &Lives) -> Vec<GatewayNo> {
        let [members, Value::Int(1)] = answers else { return self.gateways.reachable() };
        let number = |member: &Value| {
            let (id, epoch) = std::str::from_utf8(value::bytes(member)).ok()?.rsplit_once('@')?;
            lives.reached(id, epoch.parse().ok()?, &self.gateways)
        };
        let mut numbers: Vec<GatewayNo> = value::list(members).iter().filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }
}

impl RouteCache for Warm {
    fn tick(&mut self, request: &RouteRequest<'_>) -> Result<Routes, StoreError> {
        let asks = !request.users.is_empty() || !request.groups.is_empty();
        if !asks && request.spoken.is_empty() {
            return Ok(Routes::default());
        }
        if !self.client.is_up() {
            return Err(StoreError::Unavailable("Redis is away".to_owned()));
        }
        let mut batch = self.client.batch();
        if asks {
            Self::add_reads(&mut batch, request);
        }
        if !self.settings.last_seq.is_zero() {
            self.begin_window();
            self.add_last_seqs(&mut batch, request.spoken);
        }
        if self.settings.hot_messages > 0 {
            request.spoken.iter().for_each(|spoken| self.add_hot(&mut batch, spoken));
        }
        if self.settings.sends && !request.spoken.is_empty() {
            self.add_sends(&mut batch, request.spoken);
        }
        if self.settings.inbox_messages > 0 {
            self.add_inboxes(&mut batch, request.spoken);
        }
        let answers = self.client.run_within(&batch, self.client.options().tick_timeout)?;
        if !asks {
            return Ok(Routes::default());
        }
        self.routes(request, &answers)
    }
}

fn send_field(send: &SendId<'_>) -> Vec<u8> {
    let mut field = Vec::with_capacity(16 + send.client_msg_id.len());
    field.extend(send.conversation.to_be_bytes());
    field.extend(send.sender.to_be_bytes());
    field.extend(send.client_msg_id.as_bytes());
    field
}

fn unknown() -> StoreError {
    StoreError::Unavailable("the routes are being registered anew".to_owned())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
