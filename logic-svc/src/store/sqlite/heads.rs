//! Where each conversation stands, in memory: last seq, last chunk, last activity. Written to disk only by the
//! merging of old chunks; after a start the chunks not merged yet tell the rest.

use std::collections::VecDeque;

use hashbrown::HashMap;
use rusqlite::Connection;

use super::{Result, body, int, store_error, uint};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{Append, StoreError};

/// One conversation. Numbers of conversations are dense, so these sit in a plain array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Last seq; 0: no message yet.
    pub(super) seq: u64,
    /// Last chunk; 0: none that is not merged.
    pub(super) chunk: u64,
    /// Id of the last message, or one taken at the making: what activity is ordered by, and when it was.
    pub(super) active: u64,
    /// Chunks of this conversation since the last signpost.
    since_signpost: u32,
}

/// A chunk to enter the chain at, so that a walk to an early seq need not begin at the end.
#[derive(Clone, Copy, Debug)]
struct Signpost {
    first_seq: u64,
    chunk: u64,
}

/// Every so many chunks of a conversation one is remembered.
const SIGNPOST_EVERY: u32 = 16;

/// All conversations.
#[derive(Debug, Default)]
pub(super) struct Heads {
    heads: Vec<Head>,
    signposts: HashMap<ConversationNo, VecDeque<Signpost>>,
    /// Last own message of a sender, where the merging has not written it to `members.read_seq` yet.
    own: HashMap<(ConversationNo, UserId), u64>,
    last_chunk: u64,
    newest_id: u64,
    /// Chunks not merged yet, roughly.
    waiting: u64,
}

impl Heads {
    /// Reads the stored heads and replays the chunks not merged yet.
    pub(super) fn load(connection: &Connection) -> Result<Self> {
        let mut heads = Self::default();
        heads.load_stored(connection).map_err(store_error)?;
        heads.replay(connection)?;
        Ok(heads)
    }

    fn load_stored(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut select = connection
            .prepare("SELECT conversation, seq, active FROM heads ORDER BY conversation")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let active = uint(row.get(2)?);
            let head = Head { seq: uint(row.get(1)?), active, ..Head::default() };
            *self.at(uint(row.get(0)?)) = head;
            self.newest_id = self.newest_id.max(active);
        }
        let last = connection.query_row(
            "SELECT max(value) FROM meta WHERE key = 'last_chunk'",
            [],
            |row| row.get::<_, Option<i64>>(0),
        )?;
        self.last_chunk = uint(last.unwrap_or(0));
        Ok(())
    }

    fn replay(&mut self, connection: &Connection) -> Result<()> {
        let mut select = connection
            .prepare("SELECT id, conversation, first_seq, count, body FROM chunks ORDER BY id")
            .map_err(store_error)?;
        let mut rows = select.query([]).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            let number = |at| row.get::<_, i64>(at).map(uint).map_err(store_error);
            let (id, conversation, first_seq, count) =
                (number(0)?, number(1)?, number(2)?, number(3)?);
            let bytes = row.get_ref(4).map_err(store_error)?;
            let bytes = bytes.as_blob().map_err(|error| StoreError::Corrupt(error.to_string()))?;
            self.replay_chunk(id, conversation, first_seq, count, bytes)?;
        }
        Ok(())
    }

    fn replay_chunk(
        &mut self,
        id: u64,
        no: ConversationNo,
        first_seq: u64,
        count: u64,
        bytes: &[u8],
    ) -> Result<()> {
        self.last_chunk = self.last_chunk.max(id);
        self.waiting += 1;
        let head = *self.at(no);
        if first_seq + count <= head.seq + 1 {
            // Merged already; a stop came before it was deleted.
            return Ok(());
        }
        if first_seq != head.seq + 1 {
            return Err(StoreError::Corrupt(format!(
                "conversation {no}: seq {first_seq} follows {}",
                head.seq
            )));
        }
        let mut newest = 0;
        for (seq, record) in (first_seq..).zip(body::records(bytes)?) {
            let record = record?;
            self.own.insert((no, record.sender), seq);
            newest = record.message_id;
        }
        self.advance(no, first_seq, count, id, newest);
        Ok(())
    }

    fn at(&mut self, no: ConversationNo) -> &mut Head {
        let at = no as usize;
        if self.heads.len() <= at {
            self.heads.resize(at + 1, Head::default());
        }
        &mut self.heads[at]
    }

    /// Notes a new chunk.
    fn advance(&mut self, no: ConversationNo, first_seq: u64, count: u64, chunk: u64, active: u64) {
        self.newest_id = self.newest_id.max(active);
        let head = self.at(no);
        let since = head.since_signpost + 1;
        *head = Head {
            seq: first_seq + count - 1,
            chunk,
            active,
            since_signpost: since % SIGNPOST_EVERY,
        };
        if since == SIGNPOST_EVERY {
            self.signposts.entry(no).or_default().push_back(Signpost { first_seq, chunk });
        }
    }

    /// Takes in what was just committed; `first_chunk` is the id of the first run's chunk.
    pub(super) fn committed(&mut self, append: &Append<'_>, first_chunk: u64) {
        for (chunk, run) in (first_chunk..).zip(append.runs) {
            let messages = &append.messages[run.start as usize..][..run.count as usize];
            for (seq, message) in (run.first_seq..).zip(messages) {
                self.own.insert((run.conversation, message.sender), seq);
            }
            let newest = messages.last().map_or(0, |message| message.message_id);
            self.advance(run.conversation, run.first_seq, run.count.into(), chunk, newest);
        }
        self.last_chunk += append.runs.len() as u64;
        self.waiting += append.runs.len() as u64;
    }

    /// Takes in a new conversation.
    pub(super) fn created(&mut self, no: ConversationNo, id: u64) {
        self.newest_id = self.newest_id.max(id);
        let head = self.at(no);
        if head.seq == 0 {
            head.active = id;
        }
    }

    /// Where a conversation stands.
    pub(super) fn get(&self, no: ConversationNo) -> Head {
        usize::try_from(no).ok().and_then(|at| self.heads.get(at)).copied().unwrap_or_default()
    }

    /// The chunk from which a walk down reaches every unmerged seq up to `seq` soonest.
    pub(super) fn entry(&self, no: ConversationNo, seq: u64) -> u64 {
        let beyond = self.signposts.get(&no).and_then(|posts| {
            let at = posts.partition_point(|post| post.first_seq <= seq);
            posts.get(at)
        });
        beyond.map_or_else(|| self.get(no).chunk, |post| post.chunk)
    }

    /// Last own message of `user` not written to its read position yet; 0: none.
    pub(super) fn own(&self, no: ConversationNo, user: UserId) -> u64 {
        self.own.get(&(no, user)).copied().unwrap_or(0)
    }

    /// Id of the newest chunk.
    pub(super) fn last_chunk(&self) -> u64 {
        self.last_chunk
    }

    /// Newest id stored.
    pub(super) fn newest_id(&self) -> u64 {
        self.newest_id
    }

    /// Chunks not merged yet.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Forgets what the merging has written and deleted: chunks up to `chunk`, own messages up to the given seq.
    pub(super) fn merged(
        &mut self,
        chunk: u64,
        rows: u64,
        own: impl Iterator<Item = (ConversationNo, UserId, u64)>,
    ) {
        self.waiting = self.waiting.saturating_sub(rows);
        self.signposts.retain(|_, posts| {
            while posts.front().is_some_and(|post| post.chunk <= chunk) {
                posts.pop_front();
            }
            !posts.is_empty()
        });
        for (no, user, seq) in own {
            if let hashbrown::hash_map::Entry::Occupied(entry) = self.own.entry((no, user))
                && *entry.get() <= seq
            {
                entry.remove();
            }
        }
        if self.own.capacity() > 4 * self.own.len().max(1024) {
            self.own.shrink_to_fit();
        }
    }

    /// Sets the stored form of a new conversation's head.
    pub(super) fn insert_stored(
        connection: &Connection,
        no: ConversationNo,
        id: u64,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT INTO heads(conversation, seq, active) VALUES(?, 0, ?)";
        connection.prepare_cached(sql)?.execute([int(no), int(id)]).map(drop)
    }
}
