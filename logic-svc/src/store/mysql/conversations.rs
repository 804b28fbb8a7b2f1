//! Conversations and their members as operations ask for them.

use mysql::Conn;
use mysql::prelude::Queryable;

use hashbrown::HashMap;

use super::error::Fault;
use super::making::{NewConversation, NewMember, insert_members, take_in};
use super::sql::{ALTERNATIVES_MAX, Work, first, rows, rows_in, rows_of_each, run, run_each};
use super::{Result, Store, now_ms};
use crate::domain::conversation::{Kind, Role};
use crate::domain::{ConversationNo, UserId};
use crate::ports::{
    Activity, ConversationInfo, ConversationRecord, ConversationStore, Created, Ensure, MemberInfo,
    NewGroup, View,
};
use crate::snowflake;

/// Own messages count as read; they are looked for among so many of the newest. Who wrote before that and has not
/// read since is shown what came in between as unread, his own message too.
const OWN_WINDOW: u64 = 300;

type Row = (ConversationNo, String, i64, String, u32, bool);

fn info((no, id, kind, name, member_count, dev_made): Row) -> Work<ConversationInfo> {
    let kind =
        Kind::from_number(kind).ok_or_else(|| Fault::corrupt("a conversation of no known type"))?;
    Ok(ConversationInfo { no, id, kind, name, member_count, dev_made })
}

impl ConversationStore for Store {
    fn conversation_of(&self, id: &str, user: UserId) -> Result<Option<(ConversationInfo, bool)>> {
        let sql = "SELECT c.id, c.conversation_id, c.type, c.name, c.member_count, c.dev_made, \
                   EXISTS(SELECT 1 FROM conversation_members m WHERE m.conversation = c.id AND m.user_id = ? \
                   AND m.left_at_ms IS NULL) FROM conversations c WHERE c.conversation_id = ?";
        type Found = (ConversationNo, String, i64, String, u32, bool, bool);
        self.read(|connection| {
            let found: Option<Found> = first(connection, sql, (user, id.as_bytes()))?;
            let Some((no, id, kind, name, count, dev_made, member)) = found else {
                return Ok(None);
            };
            Ok(Some((info((no, id, kind, name, count, dev_made))?, member)))
        })
    }

    fn ensure(&self, wanted: &[Ensure], made_id: u64) -> Result<Vec<Option<ConversationRecord>>> {
        self.make_missing(wanted, made_id)
    }

    fn create_group(&self, group: &NewGroup<'_>, made_id: u64) -> Result<Created> {
        self.write(|connection| create(connection, group, made_id))
    }

    fn join(&self, group: &ConversationInfo, user: UserId, made_id: u64) -> Result<bool> {
        let wanted = [(group.no, user)];
        self.write(|connection| Ok(!take_in(connection, &wanted, made_id)?.is_empty()))
    }

    fn leave(&self, group: &ConversationInfo, user: UserId) -> Result<bool> {
        self.write(|connection| let_go(connection, group.no, user))
    }

    fn mark_read(&self, marks: &[(ConversationNo, UserId, u64)]) -> Result<Vec<Option<u64>>> {
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        self.write(|connection| mark(connection, marks))
    }

    fn list_members(
        &self,
        no: ConversationNo,
        after: UserId,
        limit: u32,
    ) -> Result<(Vec<MemberInfo>, bool)> {
        let sql = "SELECT m.user_id, u.username, u.nickname, m.role FROM conversation_members m \
                   JOIN users u ON u.id = m.user_id WHERE m.conversation = ? AND m.user_id > ? \
                   AND m.left_at_ms IS NULL ORDER BY m.user_id LIMIT ?";
        let found: Vec<(UserId, String, String, i64)> =
            self.read(|connection| rows(connection, sql, (no, after, u64::from(limit) + 1)))?;
        let mut members: Vec<MemberInfo> = found
            .into_iter()
            .map(|(user, username, nickname, role)| {
                let role = Role::from_number(role);
                MemberInfo { user, username, nickname, role }
            })
            .collect();
        let more = members.len() > limit as usize;
        members.truncate(limit as usize);
        Ok((members, more))
    }

    fn member_ids(&self, no: ConversationNo, max: usize) -> Result<Vec<UserId>> {
        let sql = "SELECT user_id FROM conversation_members WHERE conversation = ? AND left_at_ms IS NULL \
                   ORDER BY user_id LIMIT ?";
        let found: Vec<(UserId,)> =
            self.read(|connection| rows(connection, sql, (no, max as u64)))?;
        Ok(found.into_iter().map(|(user,)| user).collect())
    }

    fn acquainted(&self, user: UserId, others: &[UserId], most: u32) -> Result<Vec<UserId>> {
        let before = format!(
            "SELECT DISTINCT m.user_id FROM (SELECT conversation FROM conversation_members \
             WHERE user_id = {user} AND left_at_ms IS NULL ORDER BY conversation DESC LIMIT {most}) own \
             JOIN conversation_members m ON m.conversation = own.conversation \
             WHERE m.left_at_ms IS NULL AND m.user_id IN ("
        );
        let found: Vec<(UserId,)> =
            self.read(|connection| rows_in(connection, (&before, ")"), others, |other| *other))?;
        Ok(found.into_iter().map(|(user,)| user).collect())
    }

    fn activities(&self, user: UserId) -> Result<Vec<Activity>> {
        let sql = "SELECT c.id, COALESCE((SELECT x.message_id FROM messages x WHERE x.conversation = c.id \
                   ORDER BY x.seq DESC LIMIT 1), c.made_id) FROM conversation_members m \
                   JOIN conversations c ON c.id = m.conversation WHERE m.user_id = ? AND m.left_at_ms IS NULL";
        let found: Vec<(ConversationNo, u64)> =
            self.read(|connection| rows(connection, sql, (user,)))?;
        Ok(found.into_iter().map(|(no, active)| Activity { active, no }).collect())
    }

    fn view(&self, no: ConversationNo, user: UserId) -> Result<Option<View>> {
        self.read(|connection| view(connection, no, user))
    }
}

fn create(connection: &mut Conn, group: &NewGroup<'_>, made_id: u64) -> Work<Created> {
    let mut others: Vec<UserId> =
        group.members.iter().copied().filter(|&user| user != group.owner).collect();
    others.sort_unstable();
    others.dedup();
    let new = NewConversation {
        id: group.id,
        kind: Kind::Group,
        name: group.name,
        owner: Some(group.owner),
        member_count: others.len() as u64 + 1,
        dev_made: false,
    };
    let conversation = match insert_new(connection, &new, made_id) {
        Err(fault) if fault.taken().is_some() => return Ok(Created::Taken),
        done => done?,
    };
    let member = |user, role| NewMember { conversation, user, role, joined_seq: 0, version: 0 };
    let mut members = vec![member(group.owner, Role::Owner)];
    members.extend(others.into_iter().map(|user| member(user, Role::Member)));
    insert_members(connection, &members, made_id, "conversation = VALUES(conversation)")?;
    Ok(Created::New(conversation))
}

/// Enters one conversation that must not be there yet.
fn insert_new(
    connection: &mut Conn,
    new: &NewConversation<'_>,
    made_id: u64,
) -> Work<ConversationNo> {
    let sql = "INSERT INTO conversations(conversation_id, type, name, owner_id, member_count, dev_made, made_id, \
               created_at_ms) VALUES(?, ?, ?, ?, ?, ?, ?, ?)";
    let (kind, made_ms) = (new.kind.number(), snowflake::time_ms(made_id));
    let id = new.id.as_bytes();
    let values = (id, kind, new.name, new.owner, new.member_count, new.dev_made, made_id, made_ms);
    connection.exec_drop(sql, values)?;
    Ok(connection.last_insert_id())
}

fn let_go(connection: &mut Conn, no: ConversationNo, user: UserId) -> Work<bool> {
    let sql = "SELECT version FROM conversations WHERE id = ? FOR UPDATE";
    let Some((version,)) = first::<(u64,)>(connection, sql, (no,))? else { return Ok(false) };
    let sql = "SELECT role FROM conversation_members WHERE conversation = ? AND user_id = ? AND left_at_ms IS NULL";
    let Some((role,)) = first::<(i64,)>(connection, sql, (no, user))? else { return Ok(false) };
    let sql = "UPDATE conversation_members SET left_at_ms = ?, version = ? WHERE conversation = ? AND user_id = ?";
    run(connection, sql, (now_ms(), version + 1, no, user))?;
    let sql = "UPDATE conversations SET version = version + 1, member_count = member_count - 1 WHERE id = ?";
    run(connection, sql, (no,))?;
    if Role::from_number(role) == Role::Owner {
        pass_on(connection, no)?;
    }
    Ok(true)
}

/// Gives the group to the member who has been in it longest; to nobody if it is empty.
fn pass_on(connection: &mut Conn, no: ConversationNo) -> Work<()> {
    let sql = "SELECT user_id FROM conversation_members WHERE conversation = ? AND left_at_ms IS NULL \
               ORDER BY joined_at_ms, joined_seq, user_id LIMIT 1";
    let oldest = first::<(UserId,)>(connection, sql, (no,))?.map(|(user,)| user);
    if let Some(user) = oldest {
        let sql = "UPDATE conversation_members SET role = ? WHERE conversation = ? AND user_id = ?";
        run(connection, sql, (Role::Owner.number(), no, user))?;
    }
    run(connection, "UPDATE conversations SET owner_id = ? WHERE id = ?", (oldest, no))
}

fn mark(connection: &mut Conn, marks: &[(ConversationNo, UserId, u64)]) -> Work<Vec<Option<u64>>> {
    let select = (
        "SELECT m.conversation, m.user_id, m.read_seq, COALESCE((SELECT x.seq FROM messages x \
         WHERE x.conversation = m.conversation ORDER BY x.seq DESC LIMIT 1), 0) \
         FROM conversation_members m WHERE m.left_at_ms IS NULL AND (",
        ")",
    );
    let part = ("(m.conversation = ? AND m.user_id = ?)", " OR ");
    let stored: Vec<(ConversationNo, UserId, u64, u64)> =
        rows_of_each(connection, select, part, ALTERNATIVES_MAX, marks, |(no, user, _), into| {
            into.push((*no).into());
            into.push((*user).into());
        })?;
    let mut in_force: HashMap<(ConversationNo, UserId), (u64, u64)> = HashMap::new();
    for (no, user, read, last) in stored {
        in_force.insert((no, user), (read, last));
    }
    let mut raised = Vec::new();
    for &(no, user, seq) in marks {
        let Some((read, last)) = in_force.get_mut(&(no, user)) else { continue };
        if seq.min(*last) > *read {
            *read = seq.min(*last);
            raised.push((no, user));
        }
    }
    raised.sort_unstable();
    raised.dedup();
    raise(connection, &raised, &in_force)?;
    add_own(connection, &mut in_force)?;
    Ok(marks
        .iter()
        .map(|&(no, user, _)| in_force.get(&(no, user)).map(|&(read, _)| read))
        .collect())
}

fn raise(
    connection: &mut Conn,
    raised: &[(ConversationNo, UserId)],
    to: &HashMap<(ConversationNo, UserId), (u64, u64)>,
) -> Work<()> {
    // From the list to the rows: the other way a small table is read whole, and rows nobody asked for are waited for.
    let statement = (
        "UPDATE (",
        ") k STRAIGHT_JOIN conversation_members m ON m.conversation = k.no AND m.user_id = k.user_id \
         SET m.read_seq = k.seq WHERE m.left_at_ms IS NULL AND m.read_seq < k.seq",
    );
    let part = (
        "SELECT CAST(? AS UNSIGNED) AS no, CAST(? AS UNSIGNED) AS user_id, CAST(? AS UNSIGNED) AS seq",
        " UNION ALL ",
    );
    run_each(connection, statement, part, ALTERNATIVES_MAX, raised, |(no, user), into| {
        into.push((*no).into());
        into.push((*user).into());
        into.push(to.get(&(*no, *user)).map_or(0, |&(read, _)| read).into());
    })
}

/// Own messages count as read.
fn add_own(
    connection: &mut Conn,
    in_force: &mut HashMap<(ConversationNo, UserId), (u64, u64)>,
) -> Work<()> {
    let behind: Vec<(ConversationNo, UserId, u64)> = in_force
        .iter()
        .filter(|(_, (read, last))| read < last)
        .map(|(&(no, user), &(read, last))| (no, user, read.max(last.saturating_sub(OWN_WINDOW))))
        .collect();
    let select = (
        "SELECT conversation, sender_id, MAX(seq) FROM messages WHERE ",
        " GROUP BY conversation, sender_id",
    );
    let part = ("(conversation = ? AND seq > ? AND sender_id = ?)", " OR ");
    let own: Vec<(ConversationNo, UserId, u64)> = rows_of_each(
        connection,
        select,
        part,
        ALTERNATIVES_MAX,
        &behind,
        |(no, user, from), into| {
            into.push((*no).into());
            into.push((*from).into());
            into.push((*user).into());
        },
    )?;
    for (no, user, seq) in own {
        if let Some((read, _)) = in_force.get_mut(&(no, user)) {
            *read = seq.max(*read);
        }
    }
    Ok(())
}

fn view(connection: &mut Conn, no: ConversationNo, user: UserId) -> Work<Option<View>> {
    let sql = "SELECT c.id, c.conversation_id, c.type, c.name, c.member_count, c.dev_made, m.role, m.read_seq, \
               c.made_id, l.seq, l.message_id FROM conversations c \
               JOIN conversation_members m ON m.conversation = c.id AND m.user_id = ? AND m.left_at_ms IS NULL \
               LEFT JOIN messages l ON l.conversation = c.id AND l.seq = (SELECT x.seq FROM messages x \
               WHERE x.conversation = c.id ORDER BY x.seq DESC LIMIT 1) WHERE c.id = ?";
    type Found = (u64, String, i64, String, u32, bool, i64, u64, u64, Option<u64>, Option<u64>);
    let found: Option<Found> = first(connection, sql, (user, no))?;
    let Some((no, id, kind, name, count, dev_made, role, read, made_id, seq, message_id)) = found
    else {
        return Ok(None);
    };
    let max_seq = seq.unwrap_or(0);
    let mut in_force = HashMap::from([((no, user), (read, max_seq))]);
    add_own(connection, &mut in_force)?;
    let read_seq = in_force.get(&(no, user)).map_or(read, |&(read, _)| read).min(max_seq);
    Ok(Some(View {
        info: info((no, id, kind, name, count, dev_made))?,
        role: Role::from_number(role),
        max_seq,
        read_seq,
        active: message_id.unwrap_or(made_id),
    }))
}
