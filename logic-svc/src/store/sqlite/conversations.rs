//! Conversations and their members: making, joining, leaving, reading positions.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::heads::Heads;
use super::{Fault, Result, Store, int, store_error, uint};
use crate::domain::conversation::{Kind, Role};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{
    Activity, Change, ConversationInfo, ConversationRecord, ConversationStore, Created, Ensure,
    MemberInfo, NewGroup, StoreError, View,
};
use crate::snowflake;

/// A conversation to be inserted.
pub(super) struct NewConversation<'a> {
    pub(super) id: &'a str,
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    pub(super) owner: Option<UserId>,
    pub(super) dev_made: bool,
    pub(super) members: &'a [(UserId, Role)],
}

/// A user's own part in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) role: Role,
    pub(super) read_seq: u64,
}

pub(super) fn find(connection: &Connection, id: &str) -> Result<Option<ConversationInfo>, Fault> {
    let sql = "SELECT id, conversation_id, type, name, member_count, dev_made FROM conversations \
               WHERE conversation_id = ?";
    one(connection.prepare_cached(sql)?.query_row([id], info).optional()?)
}

pub(super) fn by_no(
    connection: &Connection,
    no: ConversationNo,
) -> Result<Option<ConversationInfo>, Fault> {
    let sql = "SELECT id, conversation_id, type, name, member_count, dev_made FROM conversations WHERE id = ?";
    one(connection.prepare_cached(sql)?.query_row([int(no)], info).optional()?)
}

fn one(found: Option<Option<ConversationInfo>>) -> Result<Option<ConversationInfo>, Fault> {
    match found {
        Some(None) => Err(StoreError::Corrupt("a conversation of no known type".to_owned()).into()),
        Some(found) => Ok(found),
        None => Ok(None),
    }
}

fn info(row: &Row<'_>) -> rusqlite::Result<Option<ConversationInfo>> {
    let Some(kind) = Kind::from_number(row.get(2)?) else { return Ok(None) };
    Ok(Some(ConversationInfo {
        no: uint(row.get(0)?),
        id: row.get(1)?,
        kind,
        name: row.get(3)?,
        member_count: row.get(4)?,
        dev_made: row.get(5)?,
    }))
}

pub(super) fn membership(
    connection: &Connection,
    no: ConversationNo,
    user: UserId,
) -> rusqlite::Result<Option<Membership>> {
    let sql = "SELECT role, read_seq FROM members WHERE conversation = ? AND user = ?";
    connection
        .prepare_cached(sql)?
        .query_row([int(no), int(user)], |row| {
            Ok(Membership { role: Role::from_number(row.get(0)?), read_seq: uint(row.get(1)?) })
        })
        .optional()
}

impl ConversationStore for Store {
    fn conversation_of(&self, id: &str, user: UserId) -> Result<Option<(ConversationInfo, bool)>> {
        let reader = self.readers.get();
        let Some(found) = find(&reader, id).map_err(Fault::into_store_error)? else {
            return Ok(None);
        };
        let member = membership(&reader, found.no, user).map_err(store_error)?.is_some();
        Ok(Some((found, member)))
    }

    fn create_group(&self, group: &NewGroup<'_>, made_id: u64) -> Result<Created> {
        self.write(|tx, _| {
            if find(tx, group.id)?.is_some() {
                return Ok(Created::Taken);
            }
            let others = group.members.iter().filter(|&&user| user != group.owner);
            let mut members = vec![(group.owner, Role::Owner)];
            members.extend(others.map(|&user| (user, Role::Member)));
            members[1..].sort_unstable_by_key(|&(user, _)| user);
            members.dedup_by_key(|&mut (user, _)| user);
            let (id, name, owner) = (group.id, group.name, Some(group.owner));
            let new = NewConversation {
                id,
                kind: Kind::Group,
                name,
                owner,
                dev_made: false,
                members: &members,
            };
            self.insert_conversation(tx, &new, made_id).map(Created::New)
        })
    }

    fn join(&self, group: &ConversationInfo, user: UserId, made_id: u64) -> Result<bool> {
        self.write(|tx, changes| {
            if membership(tx, group.no, user)?.is_some() {
                return Ok(false);
            }
            self.take_in(tx, changes, group.no, &group.id, user, made_id).map(|()| true)
        })
    }

    fn leave(&self, group: &ConversationInfo, user: UserId) -> Result<bool> {
        self.write(|tx, changes| {
            let Some(membership) = membership(tx, group.no, user)? else { return Ok(false) };
            let sql = "DELETE FROM members WHERE conversation = ? AND user = ?";
            tx.prepare_cached(sql)?.execute([int(group.no), int(user)])?;
            let sql = "UPDATE conversations SET member_count = member_count - 1 WHERE id = ?";
            tx.prepare_cached(sql)?.execute([int(group.no)])?;
            if membership.role == Role::Owner {
                pass_on(tx, group.no)?;
            }
            changes.push(Change::Left { id: group.id.clone(), user });
            Ok(true)
        })
    }

    fn mark_read(&self, marks: &[(ConversationNo, UserId, u64)]) -> Result<Vec<Option<u64>>> {
        let stored = self.write(|tx, _| {
            let mut in_force = Vec::with_capacity(marks.len());
            for &(no, user, seq) in marks {
                let seq = seq.min(self.heads().get(no).seq);
                let known = membership(tx, no, user)?;
                if known.is_some_and(|membership| membership.read_seq < seq) {
                    let sql =
                        "UPDATE members SET read_seq = ?3 WHERE conversation = ?1 AND user = ?2";
                    tx.prepare_cached(sql)?.execute([int(no), int(user), int(seq)])?;
                }
                in_force.push(known.map(|membership| membership.read_seq.max(seq)));
            }
            Ok(in_force)
        })?;
        let heads = self.heads();
        let with_own = marks
            .iter()
            .zip(stored)
            .map(|(&(no, user, _), seq)| seq.map(|seq| seq.max(heads.own(no, user))));
        Ok(with_own.collect())
    }

    fn list_members(
        &self,
        no: ConversationNo,
        after: UserId,
        limit: u32,
    ) -> Result<(Vec<MemberInfo>, bool)> {
        let reader = self.readers.get();
        let list = || -> rusqlite::Result<Vec<MemberInfo>> {
            let sql = "SELECT m.user, u.username, u.nickname, m.role FROM members m JOIN users u ON u.id = m.user \
                       WHERE m.conversation = ? AND m.user > ? ORDER BY m.user LIMIT ?";
            let mut select = reader.prepare_cached(sql)?;
            let rows = select.query_map(params![int(no), int(after), limit + 1], |row| {
                let role = Role::from_number(row.get(3)?);
                Ok(MemberInfo {
                    user: uint(row.get(0)?),
                    username: row.get(1)?,
                    nickname: row.get(2)?,
                    role,
                })
            })?;
            rows.collect()
        };
        let mut members = list().map_err(store_error)?;
        let more = members.len() > limit as usize;
        members.truncate(limit as usize);
        Ok((members, more))
    }

    fn member_ids(&self, no: ConversationNo, max: usize) -> Result<Vec<UserId>> {
        let reader = self.readers.get();
        let list = || -> rusqlite::Result<Vec<UserId>> {
            let sql = "SELECT user FROM members WHERE conversation = ? ORDER BY user LIMIT ?";
            let mut select = reader.prepare_cached(sql)?;
            let rows = select.query_map(params![int(no), int(max as u64)], |row| {
                row.get::<_, i64>(0).map(uint)
            })?;
            rows.collect()
        };
        list().map_err(store_error)
    }

    fn ensure(&self, wanted: &[Ensure], made_id: u64) -> Result<Vec<Option<ConversationRecord>>> {
        self.make_missing(wanted, made_id)
    }

    fn acquainted(&self, user: UserId, others: &[UserId], most: u32) -> Result<Vec<UserId>> {
        let sql = "SELECT 1 FROM (SELECT conversation FROM members WHERE user = ?1 \
                   ORDER BY conversation DESC LIMIT ?3) own \
                   CROSS JOIN members m ON m.conversation = own.conversation AND m.user = ?2 LIMIT 1";
        self.read(others.len(), |reader| {
            let mut select = reader.prepare_cached(sql)?;
            let mut found = Vec::new();
            for &other in others {
                if select.exists(params![int(user), int(other), most])? {
                    found.push(other);
                }
            }
            Ok(found)
        })
    }

    fn activities(&self, user: UserId) -> Result<Vec<Activity>> {
        self.list_activities(user)
    }

    fn view(&self, no: ConversationNo, user: UserId) -> Result<Option<View>> {
        self.view_of(no, user)
    }
}

impl Store {
    pub(super) fn insert_conversation(
        &self,
        tx: &Transaction<'_>,
        new: &NewConversation<'_>,
        made_id: u64,
    ) -> Result<ConversationNo, Fault> {
        let sql = "INSERT INTO conversations(conversation_id, type, name, owner, member_count, dev_made, created_at_ms) \
                   VALUES(?, ?, ?, ?, ?, ?, ?)";
        let (kind, owner, count) =
            (new.kind.number(), new.owner.map(int), new.members.len() as u64);
        let values = params![
            new.id,
            kind,
            new.name,
            owner,
            int(count),
            new.dev_made,
            int(snowflake::time_ms(made_id))
        ];
        tx.prepare_cached(sql)?.execute(values)?;
        let no = uint(tx.last_insert_rowid());
        for &(user, role) in new.members {
            insert_member(tx, no, user, role, 0, made_id)?;
        }
        Heads::insert_stored(tx, no, made_id)?;
        // Should the commit fail, the id stays behind for a number that nobody has yet: harmless.
        self.heads_mut().created(no, made_id);
        Ok(no)
    }

    pub(super) fn take_in(
        &self,
        tx: &Transaction<'_>,
        changes: &mut Vec<Change>,
        no: ConversationNo,
        id: &str,
        user: UserId,
        made_id: u64,
    ) -> Result<(), Fault> {
        let sql = "UPDATE conversations SET member_count = member_count + 1 WHERE id = ?";
        tx.prepare_cached(sql)?.execute([int(no)])?;
        let sql = "SELECT member_count FROM conversations WHERE id = ?";
        let count: i64 = tx.prepare_cached(sql)?.query_row([int(no)], |row| row.get(0))?;
        // Whoever comes into an empty group owns it.
        let role = if count == 1 { Role::Owner } else { Role::Member };
        insert_member(tx, no, user, role, self.heads().get(no).seq, made_id)?;
        if role == Role::Owner {
            set_owner(tx, no, Some(user))?;
        }
        changes.push(Change::Joined { id: id.to_owned(), user });
        Ok(())
    }
}

/// A new member has read up to where it came in; everything before can still be pulled.
fn insert_member(
    tx: &Transaction<'_>,
    no: ConversationNo,
    user: UserId,
    role: Role,
    joined_seq: u64,
    made_id: u64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO members(conversation, user, role, joined_seq, joined_at_ms, read_seq) \
               VALUES(?1, ?2, ?3, ?4, ?5, ?4)";
    let values =
        [int(no), int(user), role.number(), int(joined_seq), int(snowflake::time_ms(made_id))];
    tx.prepare_cached(sql)?.execute(values).map(drop)
}

/// Gives the group to the member who has been in it longest; to nobody if it is empty.
fn pass_on(tx: &Transaction<'_>, no: ConversationNo) -> rusqlite::Result<()> {
    let sql = "SELECT user FROM members WHERE conversation = ? ORDER BY joined_at_ms, joined_seq, user LIMIT 1";
    let oldest: Option<i64> =
        tx.prepare_cached(sql)?.query_row([int(no)], |row| row.get(0)).optional()?;
    if let Some(user) = oldest {
        let sql = "UPDATE members SET role = ? WHERE conversation = ? AND user = ?";
        tx.prepare_cached(sql)?.execute([Role::Owner.number(), int(no), user])?;
    }
    set_owner(tx, no, oldest.map(uint))
}

fn set_owner(
    tx: &Transaction<'_>,
    no: ConversationNo,
    owner: Option<UserId>,
) -> rusqlite::Result<()> {
    let sql = "UPDATE conversations SET owner = ? WHERE id = ?";
    tx.prepare_cached(sql)?.execute(params![owner.map(int), int(no)]).map(drop)
}
