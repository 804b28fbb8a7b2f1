//! Conversations and names as the pipeline asks for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, Transaction};

use super::conversations::{self, NewConversation};
use super::{Fault, Result, Store, int, lock, uint};
use crate::domain::UserId;
use crate::domain::conversation::{Kind, Role};
use crate::domain::member::MemberSet;
use crate::ports::{Change, ConversationRecord, Ensure, Fanout, Known, Members, UserStore};

/// The pipeline's look at conversations and users.
pub(crate) struct Directory {
    store: Arc<Store>,
}

impl Directory {
    /// The directory of this store.
    #[must_use]
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Members for Directory {
    fn conversation(&mut self, id: &str) -> Result<Option<ConversationRecord>> {
        let reader = self.store.readers.get();
        record(&reader, id).map_err(Fault::into_store_error)
    }

    fn username(&mut self, user: UserId) -> Result<Option<String>> {
        self.store.username(user)
    }

    fn ensure(
        &mut self,
        wanted: &[Ensure],
        made_id: u64,
    ) -> Result<Vec<Option<ConversationRecord>>> {
        self.store.make_missing(wanted, made_id)
    }

    /// The file is near: what is asked for is read when it is.
    fn fetch(&mut self, _: &[&str], _: &[UserId]) -> Result<()> {
        Ok(())
    }

    fn changes(&mut self, _: &[Known<'_>], into: &mut Vec<Change>) -> Result<()> {
        if self.store.has_changes.swap(false, Ordering::Acquire) {
            into.append(&mut lock(&self.store.changes));
        }
        Ok(())
    }
}

impl Store {
    /// Makes the conversations that traffic brings into being; `None` where a user does not exist.
    /// `made_id` is an id of the same source as the messages' ids and carries the time.
    pub(super) fn make_missing(
        &self,
        wanted: &[Ensure],
        made_id: u64,
    ) -> Result<Vec<Option<ConversationRecord>>> {
        self.write(|tx, changes| {
            wanted.iter().map(|ensure| self.ensure_one(tx, changes, ensure, made_id)).collect()
        })
    }

    fn ensure_one(
        &self,
        tx: &Transaction<'_>,
        changes: &mut Vec<Change>,
        ensure: &Ensure,
        made_id: u64,
    ) -> Result<Option<ConversationRecord>, Fault> {
        let id = ensure.conversation_id();
        let known = record(tx, &id)?;
        match ensure {
            Ensure::Direct { .. } if known.is_some() => Ok(known),
            Ensure::Direct { low, high } => self.ensure_direct(tx, &id, *low, *high, made_id),
            Ensure::DevGroup { user, .. } => {
                match &known {
                    None => self.make_dev_group(tx, &id, *user, made_id)?,
                    Some(known) if known.dev_made && !known.members.contains(*user) => {
                        self.take_in(tx, changes, known.no, &id, *user, made_id)?;
                    }
                    Some(_) => return Ok(known),
                }
                record(tx, &id)
            }
        }
    }

    fn ensure_direct(
        &self,
        tx: &Transaction<'_>,
        id: &str,
        low: UserId,
        high: UserId,
        made_id: u64,
    ) -> Result<Option<ConversationRecord>, Fault> {
        for user in [low, high] {
            if user_missing(tx, user)? {
                return Ok(None);
            }
        }
        let users: &[UserId] = if low == high { &[low] } else { &[low, high] };
        let members: Vec<_> = users.iter().map(|&user| (user, Role::Member)).collect();
        let new = NewConversation {
            id,
            kind: Kind::Direct,
            name: "",
            owner: None,
            dev_made: false,
            members: &members,
        };
        self.insert_conversation(tx, &new, made_id)?;
        record(tx, id)
    }

    fn make_dev_group(
        &self,
        tx: &Transaction<'_>,
        id: &str,
        user: UserId,
        made_id: u64,
    ) -> Result<(), Fault> {
        let members = [(user, Role::Owner)];
        let new = NewConversation {
            id,
            kind: Kind::Group,
            name: "",
            owner: Some(user),
            dev_made: true,
            members: &members,
        };
        self.insert_conversation(tx, &new, made_id).map(drop)
    }
}

fn user_missing(connection: &Connection, user: UserId) -> rusqlite::Result<bool> {
    let found =
        connection.prepare_cached("SELECT 1 FROM users WHERE id = ?")?.exists([int(user)])?;
    Ok(!found)
}

/// The conversation with this text id, with all its members.
fn record(connection: &Connection, id: &str) -> Result<Option<ConversationRecord>, Fault> {
    let Some(found) = conversations::find(connection, id)? else { return Ok(None) };
    let sql = "SELECT user FROM members WHERE conversation = ?";
    let mut select = connection.prepare_cached(sql)?;
    let members = select.query_map([int(found.no)], |row| row.get::<_, i64>(0).map(uint))?;
    let members: Vec<UserId> = members.collect::<rusqlite::Result<_>>()?;
    let members = MemberSet::new(members);
    Ok(Some(ConversationRecord {
        no: found.no,
        kind: found.kind,
        dev_made: found.dev_made,
        members,
        version: 0,
        fanout: Fanout::Write,
    }))
}
