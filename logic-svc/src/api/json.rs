//! The JSON forms of answers, with the same keys as the JSON frames. Ids of 64 bits travel as text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::v1;
use serde::Serialize;

/// One message.
#[derive(Serialize)]
pub(super) struct Message {
    msg_id: String,
    message_id: String,
    seq: u64,
    sender_id: String,
    sender: String,
    #[serde(flatten)]
    content: Content,
    msg_type: u32,
    created_at_ms: u64,
}

/// Content: a string where it is text, else base64 under another key, as in the JSON frames.
#[derive(Serialize)]
enum Content {
    #[serde(rename = "content")]
    Text(String),
    #[serde(rename = "content_base64")]
    Bytes(String),
}

impl From<v1::Message> for Message {
    fn from(message: v1::Message) -> Self {
        Self {
            msg_id: message.client_msg_id,
            message_id: message.message_id.to_string(),
            seq: message.seq,
            sender_id: message.sender_id.to_string(),
            sender: message.sender,
            content: content(&message.content),
            msg_type: message.msg_type,
            created_at_ms: message.created_at_ms,
        }
    }
}

fn content(bytes: &[u8]) -> Content {
    match std::str::from_utf8(bytes) {
        Ok(text) => Content::Text(text.to_owned()),
        Err(_) => Content::Bytes(STANDARD.encode(bytes)),
    }
}

/// One conversation as its member sees it.
#[derive(Serialize)]
pub(super) struct Conversation {
    conversation_id: String,
    r#type: String,
    name: String,
    max_seq: u64,
    read_seq: u64,
    unread: u64,
    member_count: u32,
    role: String,
    last_active_at_ms: u64,
    last_message: Option<Message>,
}

impl From<v1::Conversation> for Conversation {
    fn from(conversation: v1::Conversation) -> Self {
        Self {
            conversation_id: conversation.conversation_id,
            r#type: conversation.r#type,
            name: conversation.name,
            max_seq: conversation.max_seq,
            read_seq: conversation.read_seq,
            unread: conversation.unread,
            member_count: conversation.member_count,
            role: conversation.role,
            last_active_at_ms: conversation.last_active_at_ms,
            last_message: conversation.last_message.map(Message::from),
        }
    }
}

/// One member.
#[derive(Serialize)]
pub(super) struct Member {
    user_id: String,
    username: String,
    nickname: String,
    role: String,
}

impl From<v1::Member> for Member {
    fn from(member: v1::Member) -> Self {
        let v1::Member { user_id, username, nickname, role } = member;
        Self { user_id: user_id.to_string(), username, nickname, role }
    }
}

/// A page of conversations.
#[derive(Serialize)]
pub(super) struct Conversations {
    items: Vec<Conversation>,
    next_cursor: String,
    has_more: bool,
}

impl From<v1::Conversations> for Conversations {
    fn from(page: v1::Conversations) -> Self {
        let items = page.items.into_iter().map(Conversation::from).collect();
        Self { items, next_cursor: page.next_cursor, has_more: page.has_more }
    }
}

/// A page of messages.
#[derive(Serialize)]
pub(super) struct Messages {
    conversation_id: String,
    items: Vec<Message>,
    next_cursor_seq: u64,
    has_more: bool,
}

impl From<v1::Page> for Messages {
    fn from(page: v1::Page) -> Self {
        let v1::Page { conversation_id, items, next_cursor_seq, has_more, .. } = page;
        Self {
            conversation_id,
            items: items.into_iter().map(Message::from).collect(),
            next_cursor_seq,
            has_more,
        }
    }
}

/// A page of members.
#[derive(Serialize)]
pub(super) struct Members {
    conversation_id: String,
    items: Vec<Member>,
    next_cursor: u64,
    has_more: bool,
}

impl From<v1::Members> for Members {
    fn from(page: v1::Members) -> Self {
        let v1::Members { conversation_id, items, next_cursor, has_more, .. } = page;
        let items = items.into_iter().map(Member::from).collect();
        Self { conversation_id, items, next_cursor, has_more }
    }
}
