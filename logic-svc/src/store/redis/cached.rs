//! A store with the shared cache before it. Whatever the cache does not have, or does not have for certain, comes from
//! the store, so that a Redis that is away, empty or old costs time only.
//!
//! - names of users: they never change (see [`super::names`]);
//! - the newest messages of conversations that are read: a list is believed only where its seqs follow on each other
//!   from the first to the last one asked for, and messages never change;
//! - read positions are mirrored, for whoever asks Redis for them.
//!
//! Not cached: token epochs and password hashes (a logout has to hold at once); the last seq of a conversation (a mirror
//! may lag, and nobody would pull what it does not tell of); views and lists of conversations; member lists, which
//! are asked for only after they changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::Value;

use super::client::Client;
use super::names::Names;
use super::{hot, scripts, value};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{
    Activity, Backend, ConversationInfo, ConversationRecord, ConversationStore, Created, Ensure,
    Expired, HistoryStore, Keep, Keeping, MemberInfo, NewGroup, NewUser, RefreshToken, Refreshed,
    Retention, StoreError, StoredMessage, Tip, TokenStore, User, UserStore, View,
};

/// A list of newest messages goes when nobody read it for this long.
const HOT_MS: u64 = 300_000;
/// The mirror of read positions goes after this time without a new one.
const READ_MS: u64 = 7 * 24 * 3600 * 1000;

type Result<T> = std::result::Result<T, StoreError>;

/// A store with the shared cache before it.
pub struct Cached<B: ?Sized> {
    inner: Arc<B>,
    client: Client,
    names: Names,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<B: Backend + ?Sized> Cached<B> {
    /// Puts the Redis of `client` before `inner`.
    #[must_use]
    pub fn new(inner: Arc<B>, client: Client) -> Self {
        let names = Names::new(client.clone());
        Self { inner, client, names, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// How often messages came out of the cache, and how often they did not.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Read positions of users in a conversation as far as mirrored: `None` where not known.
    ///
    /// # Errors
    /// Redis is away.
    pub fn mirrored_reads(&self, no: ConversationNo, users: &[UserId]) -> Result<Vec<Option<u64>>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = self.client.batch();
        batch.command("ZMSCORE", 1 + users.len()).key("read:", no);
        for &user in users {
            batch.number(user);
        }
        let answers = self.client.run(&batch)?;
        let seq = |score: &Value| std::str::from_utf8(value::bytes(score)).ok()?.parse().ok();
        Ok(value::list(&answers[0]).iter().map(seq).collect())
    }

    /// The messages out of the list, and the last seq as mirrored (0: not known); `None` where the list does not hold
    /// all of them.
    fn hot(
        &self,
        no: ConversationNo,
        low: u64,
        high: u64,
    ) -> Result<(Option<Vec<StoredMessage>>, u64)> {
        let mut batch = self.client.batch();
        batch.command("LRANGE", 3).key("hot_messages:", no).argument(b"0").argument(b"-1");
        batch.command("PEXPIRE", 2).key("hot_messages:", no).number(HOT_MS);
        batch.command("ZSCORE", 2).key("conv_seq:", no).argument(b"seq");
        let answers = self.client.run_within(&batch, self.client.options().tick_timeout)?;
        let last = value::unsigned(&answers[2]);
        let list = value::list(&answers[0]);
        if list.is_empty() {
            return Ok((None, last));
        }
        let decoded: Option<Vec<StoredMessage>> =
            list.iter().map(|one| hot::decode(value::bytes(one))).collect();
        let all = decoded.unwrap_or_default();
        if !all.is_sorted_by(|a, b| a.seq + 1 == b.seq) || all.is_empty() {
            // A tick did not reach Redis. The next reader makes the list anew.
            self.forget_messages(&[no])?;
            return Ok((None, 0));
        }
        let holds = all.first().is_some_and(|first| first.seq <= low)
            && all.last().is_some_and(|newest| newest.seq >= high);
        let found = all.into_iter().filter(|one| (low..=high).contains(&one.seq));
        Ok((holds.then(|| found.collect()), last))
    }

    /// Makes the list of a conversation that is read, if there is none.
    fn warm_up(&self, no: ConversationNo, messages: &[StoredMessage]) {
        let mut batch = self.client.batch();
        batch
            .script(scripts::FILL.sha(), 1 + messages.len())
            .key("hot_messages:", no)
            .number(HOT_MS);
        let mut bytes = Vec::new();
        for message in messages {
            bytes.clear();
            hot::encode_stored(message, &mut bytes);
            batch.argument(&bytes);
        }
        let _ = self.client.run(&batch);
    }

    /// Ends the lists of conversations; the next reader makes them anew.
    fn forget_messages(&self, conversations: &[ConversationNo]) -> Result<()> {
        let mut batch = self.client.batch();
        for &no in conversations {
            batch.command("DEL", 1).key("hot_messages:", no);
        }
        self.client.run(&batch).map(drop)
    }

    fn mirror_reads(&self, marks: &[(ConversationNo, UserId, u64)], held: &[Option<u64>]) {
        if !self.client.is_up() {
            return;
        }
        let mut batch = self.client.batch();
        for (&(no, user, _), seq) in marks.iter().zip(held) {
            let Some(seq) = *seq else { continue };
            batch.command("ZADD", 4).key("read:", no).argument(b"GT").number(seq).number(user);
            batch.command("PEXPIRE", 2).key("read:", no).number(READ_MS);
        }
        let _ = self.client.run(&batch);
    }
}

/// What fits into `max_bytes` of content, at least one, from the end that is kept.
fn cut(mut messages: Vec<StoredMessage>, keep: Keep, max_bytes: usize) -> Vec<StoredMessage> {
    let mut bytes = 0_usize;
    let mut fits = |message: &StoredMessage| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(message.content.len().max(1));
        first || bytes <= max_bytes
    };
    match keep {
        Keep::Low => {
            let count = messages.iter().take_while(|one| fits(one)).count();
            messages.truncate(count);
        }
        Keep::High => {
            let count = messages.iter().rev().take_while(|one| fits(one)).count();
            messages.drain(..messages.len() - count);
        }
    }
    messages
}

impl<B: Backend + Retention + ?Sized> Retention for Cached<B> {
    fn expire(&self, keeping: Keeping, after: ConversationNo) -> Result<Expired> {
        let expired = self.inner.expire(keeping, after)?;
        if !expired.conversations.is_empty() {
            // Without an answer the lists go by themselves, once nobody has read them for some minutes.
            let _ = self.forget_messages(&expired.conversations);
        }
        Ok(expired)
    }
}

impl<B: Backend + ?Sized> UserStore for Cached<B> {
    fn create_user(&self, new: &NewUser<'_>, now_ms: u64) -> Result<Option<UserId>> {
        let made = self.inner.create_user(new, now_ms)?;
        self.names.made(made.as_slice());
        Ok(made)
    }

    fn ensure_users(&self, names: &[&str], now_ms: u64) -> Result<Vec<UserId>> {
        self.inner.ensure_users(names, now_ms)
    }

    fn ids_of(&self, names: &[&str]) -> Result<Vec<Option<UserId>>> {
        self.inner.ids_of(names)
    }

    fn user_by_name(&self, name: &str) -> Result<Option<User>> {
        self.inner.user_by_name(name)
    }

    fn user(&self, id: UserId) -> Result<Option<User>> {
        self.inner.user(id)
    }

    fn username(&self, user: UserId) -> Result<Option<String>> {
        self.names.name(user, || self.inner.user(user))
    }

    fn names_and_epochs(&self, ids: &[UserId]) -> Result<Vec<Option<(String, u64)>>> {
        self.inner.names_and_epochs(ids)
    }
}

impl<B: Backend + ?Sized> ConversationStore for Cached<B> {
    fn conversation_of(&self, id: &str, user: UserId) -> Result<Option<(ConversationInfo, bool)>> {
        self.inner.conversation_of(id, user)
    }

    fn ensure(&self, wanted: &[Ensure], made_id: u64) -> Result<Vec<Option<ConversationRecord>>> {
        self.inner.ensure(wanted, made_id)
    }

    fn create_group(&self, group: &NewGroup<'_>, made_id: u64) -> Result<Created> {
        self.inner.create_group(group, made_id)
    }

    fn join(&self, group: &ConversationInfo, user: UserId, made_id: u64) -> Result<bool> {
        self.inner.join(group, user, made_id)
    }

    fn leave(&self, group: &ConversationInfo, user: UserId) -> Result<bool> {
        self.inner.leave(group, user)
    }

    fn mark_read(&self, marks: &[(ConversationNo, UserId, u64)]) -> Result<Vec<Option<u64>>> {
        let held = self.inner.mark_read(marks)?;
        self.mirror_reads(marks, &held);
        Ok(held)
    }

    fn list_members(
        &self,
        no: ConversationNo,
        after: UserId,
        limit: u32,
    ) -> Result<(Vec<MemberInfo>, bool)> {
        self.inner.list_members(no, after, limit)
    }

    fn member_ids(&self, no: ConversationNo, max: usize) -> Result<Vec<UserId>> {
        self.inner.member_ids(no, max)
    }

    fn acquainted(&self, user: UserId, others: &[UserId], most: u32) -> Result<Vec<UserId>> {
        self.inner.acquainted(user, others, most)
    }

    fn activities(&self, user: UserId) -> Result<Vec<Activity>> {
        self.inner.activities(user)
    }

    fn view(&self, no: ConversationNo, user: UserId) -> Result<Option<View>> {
        self.inner.view(no, user)
    }
}

impl<B: Backend + ?Sized> HistoryStore for Cached<B> {
    fn last_seq(&self, no: ConversationNo) -> Result<u64> {
        self.inner.last_seq(no)
    }

    fn newest_id(&self) -> Result<u64> {
        self.inner.newest_id()
    }

    fn messages(
        &self,
        no: ConversationNo,
        low: u64,
        high: u64,
        keep: Keep,
        max_bytes: usize,
    ) -> Result<Vec<StoredMessage>> {
        let low = low.max(1);
        if low > high {
            return Ok(Vec::new());
        }
        let hot = if self.client.is_up() { self.hot(no, low, high).ok() } else { None };
        let last = match hot {
            Some((Some(found), _)) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(cut(found, keep, max_bytes));
            }
            Some((None, last)) => last,
            None => 0,
        };
        self.misses.fetch_add(1, Ordering::Relaxed);
        let found = self.inner.messages(no, low, high, keep, max_bytes)?;
        if last > 0 && found.last().is_some_and(|newest| newest.seq >= last) {
            self.warm_up(no, &found);
        }
        Ok(found)
    }
}

impl<B: Backend + ?Sized> TokenStore for Cached<B> {
    fn begin_session(&self, user: UserId, token: RefreshToken<'_>, now_ms: u64) -> Result<()> {
        self.inner.begin_session(user, token, now_ms)
    }

    fn refresh_session(
        &self,
        old: &[u8; 32],
        new: RefreshToken<'_>,
        now_ms: u64,
    ) -> Result<Refreshed> {
        self.inner.refresh_session(old, new, now_ms)
    }

    fn end_sessions(&self, user: UserId) -> Result<()> {
        self.inner.end_sessions(user)
    }
}

impl<B: Backend + ?Sized> Backend for Cached<B> {
    fn can_write(&self) -> bool {
        self.inner.can_write()
    }

    fn tips(&self, ids: &[&str], user: UserId) -> Result<Vec<Option<Tip>>> {
        self.inner.tips(ids, user)
    }
}
