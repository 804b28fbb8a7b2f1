//! Conversations and names as the pipeline asks for them, and what others changed about them meanwhile.

use std::sync::Arc;

use hashbrown::HashMap;
use mysql::Conn;

use super::error::Fault;
use super::fanout::fanout_of;
use super::pool::Pool;
use super::sql::{ALTERNATIVES_MAX, Work, rows, rows_in, rows_of_each};
use super::{Result, Store};
use crate::domain::conversation::Kind;
use crate::domain::member::MemberSet;
use crate::domain::{ConversationNo, UserId};
use crate::ports::{Change, ConversationRecord, Ensure, Known, Members, UserStore};

/// Members read by one statement.
const MEMBERS_PAGE: u64 = 8192;

/// The pipeline's look at conversations and users.
pub(crate) struct Directory {
    store: Arc<Store>,
    /// A connection of its own: the pipeline waits for nobody's reading.
    reader: Pool,
    /// What the tick under way will ask for.
    fetched: Fetched,
}

/// Answers to questions that come later; `None`: there is no such thing.
#[derive(Default)]
struct Fetched {
    conversations: HashMap<String, Option<ConversationRecord>>,
    names: HashMap<UserId, Option<String>>,
}

impl Directory {
    /// The directory of this store.
    #[must_use]
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let reader = Pool::new(store.opts.clone(), 1, store.wait);
        Self { store, reader, fetched: Fetched::default() }
    }
}

impl Members for Directory {
    fn conversation(&mut self, id: &str) -> Result<Option<ConversationRecord>> {
        match self.fetched.conversations.get(id) {
            Some(None) => return Ok(None),
            // Taken: a large group is not copied, and whoever asks again wants to know it anew.
            Some(_) => return Ok(self.fetched.conversations.remove(id).flatten()),
            None => {}
        }
        let found = self.reader.run(|connection| records(connection, &[id]));
        Ok(found.map_err(Fault::into_store_error)?.pop().flatten())
    }

    fn username(&mut self, user: UserId) -> Result<Option<String>> {
        match self.fetched.names.get(&user) {
            Some(name) => Ok(name.clone()),
            None => self.store.username(user),
        }
    }

    fn fetch(&mut self, ids: &[&str], users: &[UserId]) -> Result<()> {
        let fetched = self.reader.run(|connection| {
            let conversations = records(connection, ids)?;
            let select = ("SELECT id, username FROM users WHERE id IN (", ")");
            let names: Vec<(UserId, String)> = rows_in(connection, select, users, |user| *user)?;
            Ok((conversations, names))
        });
        let (conversations, names) = fetched.map_err(Fault::into_store_error)?;
        let ids = ids.iter().map(|&id| id.to_owned());
        self.fetched.conversations = ids.zip(conversations).collect();
        self.fetched.names = users.iter().map(|user| (*user, None)).collect();
        self.fetched.names.extend(names.into_iter().map(|(user, name)| (user, Some(name))));
        Ok(())
    }

    fn ensure(
        &mut self,
        wanted: &[Ensure],
        made_id: u64,
    ) -> Result<Vec<Option<ConversationRecord>>> {
        self.store.make_missing(wanted, made_id)
    }

    fn asks_versions(&self) -> bool {
        true
    }

    fn changes(&mut self, known: &[Known<'_>], into: &mut Vec<Change>) -> Result<()> {
        self.fetched = Fetched::default();
        if known.is_empty() {
            return Ok(());
        }
        let changes = self.reader.run(|connection| changes(connection, known));
        into.append(&mut changes.map_err(Fault::into_store_error)?);
        Ok(())
    }
}

/// What changed since the versions known. Rows are read after the versions, so they may be newer: then they come
/// again with the next version, and taking them in twice changes nothing.
fn changes(connection: &mut Conn, known: &[Known<'_>]) -> Work<Vec<Change>> {
    let select = ("SELECT id, version, fanout_mode FROM conversations WHERE id IN (", ")");
    let now: Vec<(ConversationNo, u64, u64)> =
        rows_in(connection, select, known, |known| known.no)?;
    let now: HashMap<_, _> =
        now.into_iter().map(|(no, version, mode)| (no, (version, mode))).collect();
    let moved: Vec<(&Known<'_>, u64, u64)> = known
        .iter()
        .filter_map(|known| now.get(&known.no).map(|&(version, mode)| (known, version, mode)))
        .filter(|(known, version, _)| known.version != *version)
        .collect();
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let select = (
        "SELECT conversation, user_id, left_at_ms IS NULL FROM conversation_members WHERE ",
        " ORDER BY conversation, version",
    );
    let part = ("(conversation = ? AND version > ?)", " OR ");
    let members: Vec<(ConversationNo, UserId, bool)> =
        rows_of_each(connection, select, part, ALTERNATIVES_MAX, &moved, |(known, ..), into| {
            into.push(known.no.into());
            into.push(known.version.into());
        })?;
    let ids: HashMap<_, _> = moved.iter().map(|(known, ..)| (known.no, known.id)).collect();
    let mut changes = Vec::with_capacity(members.len() + moved.len());
    for (no, user, inside) in members {
        let id = ids.get(&no).copied().unwrap_or_default().to_owned();
        changes.push(if inside { Change::Joined { id, user } } else { Change::Left { id, user } });
    }
    changes.extend(moved.into_iter().map(|(known, version, mode)| Change::Version {
        id: known.id.to_owned(),
        version,
        fanout: fanout_of(mode),
    }));
    Ok(changes)
}

type Head = (ConversationNo, String, i64, bool, u64, u64, u64);

/// The conversations with these text ids, with all their members. The version is read before the members: what
/// changes in between is seen as a change later.
pub(super) fn records<T: AsRef<str>>(
    connection: &mut Conn,
    ids: &[T],
) -> Work<Vec<Option<ConversationRecord>>> {
    let select = (
        "SELECT id, conversation_id, type, dev_made, version, fanout_mode, member_count FROM conversations \
         WHERE conversation_id IN (",
        ")",
    );
    let mut heads: Vec<Head> =
        rows_in(connection, select, ids, |id| id.as_ref().as_bytes().to_vec())?;
    // A list that was padded does not give a row twice, a list in several statements may.
    heads.sort_unstable_by_key(|head| head.0);
    heads.dedup_by_key(|head| head.0);
    let mut members = members_of(connection, &heads)?;
    let mut found = HashMap::with_capacity(heads.len());
    for (no, id, kind, dev_made, version, mode, _) in heads {
        let kind = Kind::from_number(kind)
            .ok_or_else(|| Fault::corrupt("a conversation of no known type"))?;
        let members = MemberSet::new(members.remove(&no).unwrap_or_default());
        let fanout = fanout_of(mode);
        found.insert(id, ConversationRecord { no, kind, dev_made, members, version, fanout });
    }
    Ok(ids.iter().map(|id| found.get(id.as_ref()).cloned()).collect())
}

/// The members of several conversations: small ones together, large ones in pages.
fn members_of(connection: &mut Conn, heads: &[Head]) -> Work<HashMap<ConversationNo, Vec<UserId>>> {
    let mut members: HashMap<ConversationNo, Vec<UserId>> = HashMap::new();
    let mut small = Vec::new();
    let mut count = 0;
    for (no, .., member_count) in heads {
        if *member_count > MEMBERS_PAGE / 4 {
            members.insert(*no, all_members(connection, *no)?);
            continue;
        }
        small.push(*no);
        count += member_count;
        if count > MEMBERS_PAGE {
            together(connection, &small, &mut members)?;
            small.clear();
            count = 0;
        }
    }
    together(connection, &small, &mut members)?;
    Ok(members)
}

fn together(
    connection: &mut Conn,
    numbers: &[ConversationNo],
    into: &mut HashMap<ConversationNo, Vec<UserId>>,
) -> Work<()> {
    let select = (
        "SELECT conversation, user_id FROM conversation_members WHERE conversation IN (",
        ") AND left_at_ms IS NULL",
    );
    for (no, user) in rows_in::<_, _, (u64, u64)>(connection, select, numbers, |no| *no)? {
        into.entry(no).or_default().push(user);
    }
    Ok(())
}

fn all_members(connection: &mut Conn, no: ConversationNo) -> Work<Vec<UserId>> {
    let sql = "SELECT user_id FROM conversation_members \
               WHERE conversation = ? AND user_id > ? AND left_at_ms IS NULL ORDER BY user_id LIMIT ?";
    let mut all: Vec<UserId> = Vec::new();
    loop {
        let after = all.last().copied().unwrap_or(0);
        let page: Vec<(UserId,)> = rows(connection, sql, (no, after, MEMBERS_PAGE))?;
        let full = page.len() as u64 == MEMBERS_PAGE;
        all.extend(page.into_iter().map(|(user,)| user));
        if !full {
            return Ok(all);
        }
    }
}
