//! Who is logged in at this gateway, by connection, by user and by large conversation, and in which life
//! of the gateway. The threads of the bus and of the control side share it.
//!
//! Knows: users, devices, names of conversations. Must not know: sockets, messages, how changes arrive.

mod identity;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::v1::{InterestChange, Interests, Session};

use crate::ids::ConnId;
pub use identity::Identity;
pub use table::{Entrant, Table};

/// What became of a connection.
#[derive(Clone, Debug)]
pub enum Change {
    /// It was let in.
    Entered(Entrant),
    /// It ended.
    Left(ConnId),
}

/// The index, shared.
#[derive(Debug, Default)]
pub struct Index(Mutex<State>);

/// What the index holds.
#[derive(Debug, Default)]
pub struct State {
    table: Table,
    /// Changes of interest that arrived while logins were being asked for: the answers may be older than
    /// these, so they are applied once more behind them.
    meanwhile: Option<Vec<Arc<InterestChange>>>,
    /// Messages that passed by while logins that resume were being asked for.
    passed: Option<Passed>,
}

/// Most conversations noted while logins are under way; beyond that every message counts as passed by.
const PASSED_MAX: usize = 16_384;

/// The newest message of each conversation that was addressed to a group or to users, not to connections, while
/// logins were being asked for: whoever was let in meanwhile was not found yet and has not got it.
#[derive(Debug, Default)]
pub struct Passed(HashMap<Box<str>, u64>);

impl Passed {
    fn note(&mut self, conversation_id: &str, seq: u64) {
        if let Some(newest) = self.0.get_mut(conversation_id) {
            *newest = seq.max(*newest);
        } else if self.0.len() < PASSED_MAX {
            self.0.insert(conversation_id.into(), seq);
        }
    }

    /// Whether a message of the conversation above `seq` may have passed by.
    #[must_use]
    pub fn has_newer(&self, conversation_id: &str, seq: u64) -> bool {
        match self.0.get(conversation_id) {
            Some(newest) => *newest > seq,
            None => self.0.len() >= PASSED_MAX,
        }
    }
}

impl Index {
    /// The index for a series of looks and changes.
    pub fn open(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections are logged in.
    pub fn len(&self) -> usize {
        self.open().table.len()
    }

    /// Whether nobody is logged in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logins are about to be asked for; `resumes`: some of them want to know what they missed.
    pub fn begin_changes(&self, resumes: bool) {
        let mut state = self.open();
        state.meanwhile = Some(Vec::new());
        state.passed = resumes.then(Passed::default);
    }

    /// The logins asked for were answered (or given up): takes in who came and went, in their order, and
    /// what large conversations they are in. Gives what passed them by.
    pub fn finish_changes(
        &self,
        changes: impl IntoIterator<Item = Change>,
        interests: &[Interests],
    ) -> Passed {
        let mut state = self.open();
        for change in changes {
            match change {
                Change::Entered(entrant) => state.table.insert(entrant),
                Change::Left(connection) => state.table.remove(connection),
            }
        }
        for interest in interests {
            let Interests { shard, slot, generation, user_id, conversation_ids } = interest;
            let connection = ConnId { shard: *shard, slot: *slot, generation: *generation };
            state.table.add_interests(connection, *user_id, conversation_ids);
        }
        for change in state.meanwhile.take().unwrap_or_default() {
            state.table.apply(&change);
        }
        state.passed.take().unwrap_or_default()
    }

    /// At most `most` sessions from `cursor` on, and the cursor for the next call; `None`: that was all.
    /// Sessions that come or go between calls may be in it or not.
    pub fn sessions(&self, cursor: u32, most: usize) -> (Vec<Session>, Option<u32>) {
        self.open().table.sessions(cursor, most)
    }

    /// Heap bytes in use, for whoever watches what a session costs.
    pub fn heap_bytes(&self) -> usize {
        self.open().table.heap_bytes()
    }
}

impl State {
    /// Users came into or left a large conversation, or it is no longer one.
    pub fn apply(&mut self, change: InterestChange) {
        self.table.apply(&change);
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.push(Arc::new(change));
        }
    }

    /// A message for a group or for users is about to be expanded.
    pub fn note(&mut self, conversation_id: &str, seq: u64) {
        if let Some(passed) = &mut self.passed {
            passed.note(conversation_id, seq);
        }
    }

    /// Calls `found` with every connection of a user.
    pub fn of_user(&self, user_id: u64, found: impl FnMut(ConnId)) {
        self.table.of_user(user_id, found);
    }

    /// Calls `found` with every connection whose user is in this large conversation.
    pub fn of_conversation(&self, conversation_id: &str, found: impl FnMut(ConnId)) {
        self.table.of_conversation(conversation_id, found);
    }
}
