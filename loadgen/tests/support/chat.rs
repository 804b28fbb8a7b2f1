//! The chat: users, conversations, and the ways in which it can go wrong.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::wire::{Answer, Ask, Stored};
use super::writer::Out;

pub(crate) type ConnId = u64;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Acknowledged and pushed, but not in the history (echo: does not come back).
    LoseAcked,
    /// Stored and acknowledged, not pushed.
    DropPush,
    /// Not pushed, but with a marker to pull.
    Lag,
    /// The same, but the marker names a place one too late.
    LagLate,
    /// Pushed twice.
    Duplicate,
    /// Pushed after the next one.
    Reorder,
    /// Content changed on the way.
    Corrupt,
    /// A sequence number is left out.
    SkipSeq,
    /// Every send of the same message is stored anew.
    NoDedup,
    /// Refused for good, but stored and pushed.
    RefuseButStore,
    /// Refused for good.
    Refuse,
    /// Told to come again later.
    RateLimit,
    /// Stored, but never answered the first time.
    Mute,
    /// Stored, answered and pushed only when somebody has read the history from its start.
    Late,
    /// Stored, answered and pushed; then the connection breaks before the answer is out.
    Sever,
}

/// It happens to every n-th message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Misbehave {
    pub(crate) what: What,
    pub(crate) every: u64,
}

#[derive(Default)]
struct Conversation {
    members: Vec<String>,
    log: Vec<Stored>,
    known: HashMap<String, u64>,
    next_seq: u64,
    /// A push that waits for the next one of the same sender.
    held: Option<(ConnId, Stored)>,
    /// Sends that wait for a reader: who sent it, its id and its content.
    late: Vec<(ConnId, String, String)>,
}

pub(crate) struct Chat {
    misbehave: Option<Misbehave>,
    count: u64,
    next_conn: ConnId,
    online: HashMap<ConnId, (String, Out)>,
    conversations: HashMap<String, Conversation>,
}

impl Chat {
    pub(crate) fn new(misbehave: Option<Misbehave>) -> Self {
        Self {
            misbehave,
            count: 0,
            next_conn: 0,
            online: HashMap::new(),
            conversations: HashMap::new(),
        }
    }

    pub(crate) fn log_in(&mut self, user: &str, out: Out) -> ConnId {
        self.next_conn += 1;
        self.online.insert(self.next_conn, (user.to_owned(), out));
        self.next_conn
    }

    pub(crate) fn log_out(&mut self, conn: ConnId) {
        self.online.remove(&conn);
    }

    pub(crate) fn online(&self) -> usize {
        self.online.len()
    }

    pub(crate) fn stored(&self) -> usize {
        self.conversations.values().map(|conversation| conversation.log.len()).sum()
    }

    pub(crate) fn sever(&mut self) {
        for (_, (_, out)) in self.online.drain() {
            out.shutdown();
        }
    }

    /// Whether the next message meets its fate, and which.
    pub(crate) fn misbehaves(&mut self) -> Option<What> {
        self.count += 1;
        self.misbehave.filter(|m| self.count.is_multiple_of(m.every)).map(|m| m.what)
    }

    pub(crate) fn handle(&mut self, conn: ConnId, ask: Ask) {
        let Some((user, out)) =
            self.online.get(&conn).map(|(user, out)| (user.clone(), out.clone()))
        else {
            return;
        };
        match ask {
            Ask::Send { conversation, msg_id, content } => {
                self.send(conn, &user, &out, &conversation, msg_id, content)
            }
            Ask::Pull { id, conversation, cursor, limit } => {
                out.send(&self.page(id, conversation.clone(), cursor, limit as usize));
                if cursor == 0 {
                    self.send_late(&conversation);
                }
            }
            Ask::Create { id, group, members } => {
                let name = group.unwrap_or_else(|| format!("dm_{}_{}", user, members[0]));
                let conversation = self.conversations.entry(name.clone()).or_default();
                conversation.members = members;
                conversation.members.push(user);
                out.send(&Answer::Conversation { id, conversation: name });
            }
            Ask::Join { id, conversation } => {
                let answer = match self.conversations.get_mut(&conversation) {
                    Some(known) => {
                        known.members.push(user);
                        Answer::Conversation { id, conversation }
                    }
                    None => Answer::failure(id, "", "CONVERSATION_NOT_FOUND", false),
                };
                out.send(&answer);
            }
            Ask::Heartbeat | Ask::Hello { .. } => {}
        }
    }

    fn page(&self, id: u32, conversation: String, cursor: u64, limit: usize) -> Answer {
        let log = self.conversations.get(&conversation).map_or(&[][..], |c| &c.log);
        let after: Vec<&Stored> = log.iter().filter(|stored| stored.seq > cursor).collect();
        let items: Vec<Stored> = after.iter().take(limit).map(|stored| (*stored).clone()).collect();
        let next = items.last().map_or(cursor, |stored| stored.seq);
        let has_more = after.len() > items.len();
        Answer::Page { id, conversation, items, next, has_more }
    }

    fn send(
        &mut self,
        conn: ConnId,
        user: &str,
        out: &Out,
        name: &str,
        msg_id: String,
        content: String,
    ) {
        let fate = self.misbehaves();
        let Some(conversation) = self.conversations.get_mut(name) else {
            return out.send(&Answer::failure(0, &msg_id, "CONVERSATION_NOT_FOUND", false));
        };
        match fate {
            Some(What::Refuse) => {
                return out.send(&Answer::failure(0, &msg_id, "FORBIDDEN", false));
            }
            Some(What::RateLimit) => {
                return out.send(&Answer::failure(0, &msg_id, "RATE_LIMITED", true));
            }
            _ => {}
        }
        let no_dedup = self.misbehave.is_some_and(|m| m.what == What::NoDedup);
        if let Some(&seq) = conversation.known.get(&msg_id).filter(|_| !no_dedup) {
            return out.send(&Answer::Ack { msg_id, seq });
        }
        if fate == Some(What::Late) {
            return conversation.late.push((conn, msg_id, content));
        }
        conversation.next_seq += if fate == Some(What::SkipSeq) { 2 } else { 1 };
        let stored = Stored {
            seq: conversation.next_seq,
            msg_id: msg_id.clone(),
            sender: user.to_owned(),
            content,
        };
        conversation.known.insert(msg_id.clone(), stored.seq);
        if fate != Some(What::LoseAcked) {
            conversation.log.push(stored.clone());
        }
        let answer = Answer::Ack { msg_id: msg_id.clone(), seq: stored.seq };
        match fate {
            Some(What::RefuseButStore) => {
                out.send(&Answer::failure(0, &msg_id, "FORBIDDEN", false))
            }
            // The first answer is lost: the retry finds the message known.
            Some(What::Mute | What::NoDedup) => {}
            Some(What::Sever) => out.shutdown(),
            _ => out.send(&answer),
        }
        self.push(conn, name, stored, fate);
    }

    /// Does what waited for a reader.
    fn send_late(&mut self, name: &str) {
        let late = self.conversations.get_mut(name).map(|known| std::mem::take(&mut known.late));
        for (conn, msg_id, content) in late.unwrap_or_default() {
            let Some(conversation) = self.conversations.get_mut(name) else { return };
            let Some((user, out)) = self.online.get(&conn) else { continue };
            conversation.next_seq += 1;
            let (seq, sender) = (conversation.next_seq, user.clone());
            let stored = Stored { seq, msg_id: msg_id.clone(), sender, content };
            conversation.known.insert(msg_id.clone(), seq);
            conversation.log.push(stored.clone());
            out.send(&Answer::Ack { msg_id, seq });
            self.push(conn, name, stored, None);
        }
    }

    fn push(&mut self, from: ConnId, name: &str, mut stored: Stored, fate: Option<What>) {
        let Some(conversation) = self.conversations.get_mut(name) else { return };
        let push = |stored: Stored| Answer::Push { conversation: name.to_owned(), message: stored };
        let seq = stored.seq;
        let mut answers = Vec::new();
        match fate {
            Some(What::DropPush) => {}
            Some(What::Lag) => {
                answers.push(Answer::Lagged { conversation: name.to_owned(), from_seq: seq })
            }
            Some(What::LagLate) => {
                answers.push(Answer::Lagged { conversation: name.to_owned(), from_seq: seq + 1 })
            }
            Some(What::Reorder) if conversation.held.is_none() => {
                conversation.held = Some((from, stored))
            }
            Some(What::Duplicate) => answers.extend([push(stored.clone()), push(stored)]),
            Some(What::Corrupt) => {
                stored.content.pop();
                answers.push(push(stored));
            }
            _ => {
                answers.push(push(stored));
                let held = conversation.held.take_if(|(sender, _)| *sender == from);
                answers.extend(held.map(|(_, stored)| push(stored)));
            }
        }
        let members = &conversation.members;
        for (&conn, (user, out)) in &self.online {
            if conn != from && members.contains(user) {
                answers.iter().for_each(|answer| out.send_push(answer, name, seq));
            }
        }
    }
}

/// Answers one REST call whose head is complete in `head`; `None` when the connection is over.
pub(crate) fn rest(stream: &mut TcpStream, head: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 4096];
    let (path, body) = loop {
        if let Some(request) = whole_request(head) {
            break request;
        }
        let received = stream.read(&mut piece).ok().filter(|&received| received > 0)?;
        head.extend_from_slice(&piece[..received]);
    };
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let user = body["username"].as_str()?;
    let (status, answer) = match path.as_str() {
        "/api/v1/users" => ("201 Created", serde_json::json!({"user_id": "1"})),
        "/api/v1/login" => ("200 OK", serde_json::json!({"access_token": format!("tok-{user}")})),
        _ => ("404 Not Found", serde_json::json!({})),
    };
    let answer = answer.to_string();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).ok()?;
    Some(())
}

/// Takes one request with its body from the front.
fn whole_request(bytes: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, _) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    let end = head.len() + 4 + length.parse::<usize>().ok()?;
    if bytes.len() < end {
        return None;
    }
    let body = bytes[head.len() + 4..end].to_vec();
    let path = head.split(' ').nth(1)?.to_owned();
    bytes.drain(..end);
    Some((path, body))
}
