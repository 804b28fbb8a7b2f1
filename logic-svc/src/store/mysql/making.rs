//! Conversations that traffic brings into being: many at a time, and each once however many services make it.

use hashbrown::{HashMap, HashSet};
use mysql::{Conn, Value};

use super::members::records;
use super::sql::{ALTERNATIVES_MAX, LIST_MAX, Work, rows_in, rows_of_each, run_each};
use super::{Result, Store};
use crate::domain::conversation::{Kind, Role};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{ConversationRecord, Ensure};
use crate::snowflake;

/// A member to be entered.
pub(super) struct NewMember {
    pub(super) conversation: ConversationNo,
    pub(super) user: UserId,
    pub(super) role: Role,
    pub(super) joined_seq: u64,
    pub(super) version: u64,
}

/// A conversation to be entered.
pub(super) struct NewConversation<'a> {
    pub(super) id: &'a str,
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    pub(super) owner: Option<UserId>,
    pub(super) member_count: u64,
    pub(super) dev_made: bool,
}

impl Store {
    /// Makes the conversations that traffic brings into being; `None` where a user does not exist.
    pub(super) fn make_missing(
        &self,
        wanted: &[Ensure],
        made_id: u64,
    ) -> Result<Vec<Option<ConversationRecord>>> {
        let ids: Vec<String> = wanted.iter().map(Ensure::conversation_id).collect();
        let known = self.read(|connection| records(connection, &ids))?;
        let missing = |(ensure, known): (&'_ Ensure, &Option<ConversationRecord>)| {
            lacks(ensure, known.as_ref())
        };
        let work: Vec<&Ensure> = wanted
            .iter()
            .zip(&known)
            .filter(|&pair| missing(pair))
            .map(|(ensure, _)| ensure)
            .collect();
        if work.is_empty() {
            return Ok(known);
        }
        self.write(|connection| make(connection, &work, made_id))?;
        self.read(|connection| records(connection, &ids))
    }
}

/// Whether there is something to do.
fn lacks(ensure: &Ensure, known: Option<&ConversationRecord>) -> bool {
    match (ensure, known) {
        (_, None) => true,
        (Ensure::Direct { .. }, Some(_)) => false,
        (Ensure::DevGroup { user, .. }, Some(known)) => {
            known.dev_made && !known.members.contains(*user)
        }
    }
}

fn make(connection: &mut Conn, work: &[&Ensure], made_id: u64) -> Work<()> {
    let mut directs: Vec<(UserId, UserId)> = Vec::new();
    let mut groups: Vec<(&str, UserId)> = Vec::new();
    for ensure in work {
        match ensure {
            Ensure::Direct { low, high } => directs.push((*low, *high)),
            Ensure::DevGroup { id, user } => groups.push((id, *user)),
        }
    }
    directs.sort_unstable();
    directs.dedup();
    groups.sort_unstable();
    groups.dedup();
    if !directs.is_empty() {
        make_directs(connection, &directs, made_id)?;
    }
    if !groups.is_empty() {
        fill_groups(connection, &groups, made_id)?;
    }
    Ok(())
}

fn make_directs(connection: &mut Conn, directs: &[(UserId, UserId)], made_id: u64) -> Work<()> {
    let users: Vec<UserId> = directs.iter().flat_map(|&(low, high)| [low, high]).collect();
    let select = ("SELECT id FROM users WHERE id IN (", ")");
    let users: HashSet<UserId> =
        rows_in::<_, _, (UserId,)>(connection, select, &users, |user| *user)?
            .into_iter()
            .map(|(user,)| user)
            .collect();
    let both = |(low, high): &&(UserId, UserId)| users.contains(low) && users.contains(high);
    let mut directs: Vec<(String, UserId, UserId)> = directs
        .iter()
        .filter(both)
        .map(|&(low, high)| (proto::ids::direct_conversation_id(low, high), low, high))
        .collect();
    // One order for everybody, that of the index, so that two who make the same ones do not wait for each other in a
    // circle. The groups are in theirs already.
    directs.sort_unstable();
    let new: Vec<NewConversation<'_>> = directs
        .iter()
        .map(|(id, low, high)| NewConversation {
            id,
            kind: Kind::Direct,
            name: "",
            owner: None,
            member_count: if low == high { 1 } else { 2 },
            dev_made: false,
        })
        .collect();
    insert_conversations(connection, &new, made_id)?;
    let numbers = numbers(connection, directs.iter().map(|(id, ..)| id.as_str()))?;
    let mut members = Vec::with_capacity(2 * directs.len());
    for (id, low, high) in &directs {
        let Some(&(conversation, _)) = numbers.get(id.as_str()) else { continue };
        let both = if low == high { &[*low][..] } else { &[*low, *high] };
        members.extend(both.iter().map(|&user| NewMember {
            conversation,
            user,
            role: Role::Member,
            joined_seq: 0,
            version: 0,
        }));
    }
    members.sort_unstable_by_key(|member| (member.conversation, member.user));
    // Whoever made the conversation first entered the same two.
    insert_members(connection, &members, made_id, "conversation = VALUES(conversation)")
}

/// Makes dev groups that are missing, empty at first, and takes users in.
fn fill_groups(connection: &mut Conn, wanted: &[(&str, UserId)], made_id: u64) -> Work<()> {
    let mut ids: Vec<&str> = wanted.iter().map(|&(id, _)| id).collect();
    ids.dedup();
    let missing: Vec<&str> = {
        let known = numbers(connection, ids.iter().copied())?;
        ids.iter().copied().filter(|id| !known.contains_key(*id)).collect()
    };
    let new: Vec<NewConversation<'_>> = missing
        .into_iter()
        .map(|id| NewConversation {
            id,
            kind: Kind::Group,
            name: "",
            owner: None,
            member_count: 0,
            dev_made: true,
        })
        .collect();
    insert_conversations(connection, &new, made_id)?;
    let numbers = numbers(connection, ids.into_iter())?;
    let wanted: Vec<(ConversationNo, UserId)> = wanted
        .iter()
        .filter_map(|(id, user)| numbers.get(*id).map(|&(no, dev_made)| (no, dev_made, *user)))
        .filter(|&(_, dev_made, _)| dev_made)
        .map(|(no, _, user)| (no, user))
        .collect();
    take_in(connection, &wanted, made_id)?;
    Ok(())
}

fn numbers<'a>(
    connection: &mut Conn,
    ids: impl Iterator<Item = &'a str>,
) -> Work<HashMap<String, (ConversationNo, bool)>> {
    let ids: Vec<&str> = ids.collect();
    let select =
        ("SELECT conversation_id, id, dev_made FROM conversations WHERE conversation_id IN (", ")");
    let found: Vec<(String, ConversationNo, bool)> =
        rows_in(connection, select, &ids, |id| id.as_bytes().to_vec())?;
    Ok(found.into_iter().map(|(id, no, dev_made)| (id, (no, dev_made))).collect())
}

/// Takes users into groups. Gives those that were not in yet. Changes of one conversation's members are made one
/// after another: whoever makes one holds the conversation's row until the commit.
pub(super) fn take_in(
    connection: &mut Conn,
    wanted: &[(ConversationNo, UserId)],
    made_id: u64,
) -> Work<Vec<(ConversationNo, UserId)>> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let mut groups: Vec<ConversationNo> = wanted.iter().map(|&(no, _)| no).collect();
    groups.dedup();
    let select = (
        "SELECT c.id, c.member_count, c.version, COALESCE((SELECT m.seq FROM messages m \
         WHERE m.conversation = c.id ORDER BY m.seq DESC LIMIT 1), 0) \
         FROM conversations c FORCE INDEX (PRIMARY) WHERE c.id IN (",
        ") ORDER BY c.id FOR UPDATE",
    );
    let locked: Vec<(ConversationNo, u64, u64, u64)> =
        rows_in(connection, select, &groups, |no| *no)?;
    let select = (
        "SELECT conversation, user_id FROM conversation_members WHERE left_at_ms IS NULL AND (",
        ")",
    );
    let part = ("(conversation = ? AND user_id = ?)", " OR ");
    let inside: HashSet<(ConversationNo, UserId)> =
        rows_of_each(connection, select, part, ALTERNATIVES_MAX, &wanted, |(no, user), into| {
            into.push((*no).into());
            into.push((*user).into());
        })?
        .into_iter()
        .collect();
    wanted.retain(|pair| !inside.contains(pair));
    let mut members = Vec::with_capacity(wanted.len());
    let mut updates = Vec::new();
    for (no, count, version, seq) in locked {
        let users = wanted.iter().filter(|(of, _)| *of == no).map(|(_, user)| *user);
        let before = members.len();
        for (place, user) in users.enumerate() {
            // Whoever comes into an empty group owns it.
            let role = if count == 0 && place == 0 { Role::Owner } else { Role::Member };
            let version = version + 1;
            members.push(NewMember { conversation: no, user, role, joined_seq: seq, version });
        }
        let added = (members.len() - before) as u64;
        let owner = members[before..].iter().find(|member| member.role == Role::Owner);
        if added > 0 {
            updates.push((no, added, owner.map(|member| member.user)));
        }
    }
    members.sort_unstable_by_key(|member| (member.conversation, member.user));
    let again = "role = VALUES(role), joined_seq = VALUES(joined_seq), joined_at_ms = VALUES(joined_at_ms), \
                 read_seq = VALUES(read_seq), muted_until_ms = NULL, version = VALUES(version), left_at_ms = NULL";
    insert_members(connection, &members, made_id, again)?;
    count_up(connection, &updates)?;
    Ok(wanted)
}

fn count_up(connection: &mut Conn, updates: &[(ConversationNo, u64, Option<UserId>)]) -> Work<()> {
    // From the list to the rows: the other way a small table is read whole, and rows of others are waited for, who
    // wait for ours.
    let statement = (
        "UPDATE (",
        ") k STRAIGHT_JOIN conversations c ON c.id = k.id SET c.version = c.version + 1, c.member_count = c.member_count + k.added, \
         c.owner_id = COALESCE(k.owner, c.owner_id)",
    );
    let part = (
        "SELECT CAST(? AS UNSIGNED) AS id, CAST(? AS UNSIGNED) AS added, CAST(? AS UNSIGNED) AS owner",
        " UNION ALL ",
    );
    run_each(connection, statement, part, ALTERNATIVES_MAX, updates, |(no, added, owner), into| {
        into.push((*no).into());
        into.push((*added).into());
        into.push(Value::from(*owner));
    })
}

/// Enters conversations; those that are there stay as they are.
pub(super) fn insert_conversations(
    connection: &mut Conn,
    new: &[NewConversation<'_>],
    made_id: u64,
) -> Work<()> {
    let statement = (
        "INSERT INTO conversations(conversation_id, type, name, owner_id, member_count, dev_made, made_id, \
         created_at_ms) VALUES",
        " ON DUPLICATE KEY UPDATE id = id",
    );
    run_each(connection, statement, ("(?,?,?,?,?,?,?,?)", ","), LIST_MAX, new, |new, into| {
        into.push(new.id.as_bytes().into());
        into.push(new.kind.number().into());
        into.push(new.name.into());
        into.push(Value::from(new.owner));
        into.push(new.member_count.into());
        into.push(new.dev_made.into());
        into.push(made_id.into());
        into.push(snowflake::time_ms(made_id).into());
    })
}

/// Enters members; `again` is what happens where there is a row. A new member has read up to where it came in;
/// everything before can still be pulled.
pub(super) fn insert_members(
    connection: &mut Conn,
    members: &[NewMember],
    made_id: u64,
    again: &str,
) -> Work<()> {
    let after = format!(" ON DUPLICATE KEY UPDATE {again}");
    let statement = (
        "INSERT INTO conversation_members(conversation, user_id, role, joined_seq, joined_at_ms, read_seq, version) \
         VALUES",
        after.as_str(),
    );
    run_each(connection, statement, ("(?,?,?,?,?,?,?)", ","), LIST_MAX, members, |member, into| {
        into.push(member.conversation.into());
        into.push(member.user.into());
        into.push(member.role.number().into());
        into.push(member.joined_seq.into());
        into.push(snowflake::time_ms(made_id).into());
        into.push(member.joined_seq.into());
        into.push(member.version.into());
    })
}
