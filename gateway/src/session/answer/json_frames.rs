//! The JSON frames. 64-bit ids travel as strings, since JavaScript cannot hold them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proto::v1::{self, Failure, call_reply::Reply};
use serde::Serialize;
use serde::ser::Serializer;

use super::json_writer::{as_text, is_zero, write, write_about};
use super::{EVENT, LOGIN, PUSH, RESUMED, SEND};

#[derive(Serialize)]
pub(super) struct Done {
    pub(super) cmd: u32,
    pub(super) code: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) id: u32,
}

#[derive(Serialize)]
pub(super) struct Lagged<'a> {
    pub(super) cmd: u32,
    pub(super) conversation_id: &'a str,
    pub(super) from_seq: u64,
}

#[derive(Serialize)]
pub(super) struct Goaway<'a> {
    pub(super) cmd: u32,
    pub(super) code: u16,
    pub(super) reconnect_after_ms: u32,
    pub(super) reason: &'a str,
}

#[derive(Serialize)]
struct Answer<'a, T: Serialize> {
    cmd: u32,
    code: u32,
    #[serde(skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    conversation_id: &'a str,
    payload: T,
}

#[derive(Serialize)]
struct WelcomePayload<'a> {
    #[serde(serialize_with = "as_text")]
    user_id: u64,
    username: &'a str,
    heartbeat_ms: u32,
    server_time_ms: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    resume_token: &'a str,
}

pub(super) fn welcome(out: &mut Vec<u8>, id: u32, welcome: &v1::Welcome) {
    let payload = WelcomePayload {
        user_id: welcome.user_id,
        username: &welcome.username,
        heartbeat_ms: welcome.heartbeat_ms,
        server_time_ms: welcome.server_time_ms,
        resume_token: &welcome.resume_token,
    };
    write(out, &Answer { cmd: LOGIN, code: 0, id, conversation_id: "", payload });
}

#[derive(Serialize)]
struct Failed<'a> {
    cmd: Option<u32>,
    code: u32,
    #[serde(skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    msg_id: &'a str,
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    name: &'a str,
    temporary: bool,
    retry_after_ms: u32,
    detail: &'a str,
}

pub(super) fn failure(
    out: &mut Vec<u8>,
    cmd: Option<u32>,
    id: u32,
    msg_id: &str,
    failure: &Failure,
) {
    let error = ErrorBody {
        name: &failure.name,
        temporary: failure.temporary,
        retry_after_ms: failure.retry_after_ms,
        detail: &failure.detail,
    };
    write(out, &Failed { cmd, code: failure.code, id, msg_id, error });
}

#[derive(Serialize)]
struct AckFrame<'a> {
    cmd: u32,
    code: u32,
    #[serde(skip_serializing_if = "is_zero")]
    id: u32,
    msg_id: &'a str,
    seq: u64,
    #[serde(serialize_with = "as_text")]
    message_id: u64,
    created_at_ms: u64,
}

pub(super) fn ack(out: &mut Vec<u8>, ack: &v1::Ack) {
    write(
        out,
        &AckFrame {
            cmd: SEND,
            code: 0,
            id: ack.request_id,
            msg_id: &ack.client_msg_id,
            seq: ack.seq,
            message_id: ack.message_id,
            created_at_ms: ack.created_at_ms,
        },
    );
}

/// Content as JSON: a string where it is text, else base64 under another key.
#[derive(Serialize)]
enum Content<'a> {
    #[serde(rename = "content")]
    Text(&'a str),
    #[serde(rename = "content_base64")]
    Bytes(String),
}

impl<'a> Content<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Bytes(STANDARD.encode(bytes)), Self::Text)
    }
}

struct Item<'a>(&'a v1::Message);

/// About what an item takes beside its content.
const ITEM_BYTES: usize = 256;

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let message = self.0;
        let mut item = serializer.serialize_struct("Item", 8)?;
        item.serialize_field("msg_id", &message.client_msg_id)?;
        item.serialize_field("message_id", &format_args!("{}", message.message_id))?;
        item.serialize_field("seq", &message.seq)?;
        item.serialize_field("sender_id", &format_args!("{}", message.sender_id))?;
        item.serialize_field("sender", &message.sender)?;
        match Content::of(&message.content) {
            Content::Text(text) => item.serialize_field("content", text)?,
            Content::Bytes(text) => item.serialize_field("content_base64", &text)?,
        }
        item.serialize_field("msg_type", &message.msg_type)?;
        item.serialize_field("created_at_ms", &message.created_at_ms)?;
        item.end()
    }
}

#[derive(Serialize)]
struct PushFrame<'a> {
    cmd: u32,
    conversation_id: &'a str,
    payload: Item<'a>,
}

/// What messages take in a frame, as long as little of their content has to be escaped.
fn expected_len(messages: &[v1::Message]) -> usize {
    messages.iter().map(|message| message.content.len() + ITEM_BYTES).sum()
}

pub(super) fn push(out: &mut Vec<u8>, message: &v1::Message) {
    let expected_len = expected_len(std::slice::from_ref(message));
    let conversation_id = &message.conversation_id;
    write_about(
        out,
        expected_len,
        &PushFrame { cmd: PUSH, conversation_id, payload: Item(message) },
    );
}

#[derive(Serialize)]
struct EventFrame<'a> {
    cmd: u32,
    conversation_id: &'a str,
    payload: EventPayload<'a>,
}

#[derive(Serialize)]
struct EventPayload<'a> {
    event: &'a str,
    #[serde(serialize_with = "as_text")]
    user_id: u64,
    username: &'a str,
}

pub(super) fn event(out: &mut Vec<u8>, event: &v1::Event) {
    let payload =
        EventPayload { event: &event.event, user_id: event.user_id, username: &event.username };
    write(out, &EventFrame { cmd: EVENT, conversation_id: &event.conversation_id, payload });
}

#[derive(Serialize)]
struct PageFrame<'a> {
    cmd: u32,
    code: u32,
    #[serde(skip_serializing_if = "is_zero")]
    id: u32,
    conversation_id: &'a str,
    payload: Vec<Item<'a>>,
    next_cursor_seq: u64,
    has_more: bool,
}

#[derive(Serialize)]
struct ListFrame<'a, T: Serialize, C: Serialize> {
    cmd: u32,
    code: u32,
    #[serde(skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    conversation_id: &'a str,
    payload: Vec<T>,
    next_cursor: C,
    has_more: bool,
}

#[derive(Serialize)]
struct ConversationItem<'a> {
    conversation_id: &'a str,
    r#type: &'a str,
    name: &'a str,
    max_seq: u64,
    read_seq: u64,
    unread: u64,
    member_count: u32,
    role: &'a str,
    last_active_at_ms: u64,
    last_message: Option<Item<'a>>,
}

impl<'a> From<&'a v1::Conversation> for ConversationItem<'a> {
    fn from(conversation: &'a v1::Conversation) -> Self {
        Self {
            conversation_id: &conversation.conversation_id,
            r#type: &conversation.r#type,
            name: &conversation.name,
            max_seq: conversation.max_seq,
            read_seq: conversation.read_seq,
            unread: conversation.unread,
            member_count: conversation.member_count,
            role: &conversation.role,
            last_active_at_ms: conversation.last_active_at_ms,
            last_message: conversation.last_message.as_ref().map(Item),
        }
    }
}

#[derive(Serialize)]
struct MemberItem<'a> {
    #[serde(serialize_with = "as_text")]
    user_id: u64,
    username: &'a str,
    nickname: &'a str,
    role: &'a str,
}

impl<'a> From<&'a v1::Member> for MemberItem<'a> {
    fn from(member: &'a v1::Member) -> Self {
        Self {
            user_id: member.user_id,
            username: &member.username,
            nickname: &member.nickname,
            role: &member.role,
        }
    }
}

#[derive(Serialize)]
struct ReadFrame<'a> {
    cmd: u32,
    code: u32,
    #[serde(skip_serializing_if = "is_zero")]
    id: u32,
    conversation_id: &'a str,
    read_seq: u64,
}

#[derive(Serialize)]
struct ResumedFrame<'a> {
    cmd: u32,
    conversation_id: &'a str,
    recovered: bool,
    max_seq: u64,
    payload: Vec<Item<'a>>,
}

fn resumed(out: &mut Vec<u8>, resumed: &v1::Resumed) {
    let v1::Resumed { conversation_id, recovered, max_seq, items } = resumed;
    let (recovered, max_seq) = (*recovered, *max_seq);
    let payload = items.iter().map(Item).collect();
    let frame = ResumedFrame { cmd: RESUMED, conversation_id, recovered, max_seq, payload };
    write_about(out, expected_len(items), &frame);
}

fn read(out: &mut Vec<u8>, cmd: u32, id: u32, reply: &v1::ReadReply) {
    let v1::ReadReply { conversation_id, read_seq, .. } = reply;
    write(out, &ReadFrame { cmd, code: 0, id, conversation_id, read_seq: *read_seq });
}

pub(super) fn call_reply(out: &mut Vec<u8>, cmd: u32, id: u32, reply: &Reply) {
    match reply {
        Reply::Page(page) => write_about(
            out,
            expected_len(&page.items),
            &PageFrame {
                cmd,
                code: 0,
                id,
                conversation_id: &page.conversation_id,
                payload: page.items.iter().map(Item).collect(),
                next_cursor_seq: page.next_cursor_seq,
                has_more: page.has_more,
            },
        ),
        Reply::Conversations(list) => {
            let payload: Vec<ConversationItem<'_>> = list.items.iter().map(Into::into).collect();
            let next_cursor = list.next_cursor.as_str();
            write(
                out,
                &ListFrame {
                    cmd,
                    code: 0,
                    id,
                    conversation_id: "",
                    payload,
                    next_cursor,
                    has_more: list.has_more,
                },
            );
        }
        Reply::Members(list) => {
            let payload: Vec<MemberItem<'_>> = list.items.iter().map(Into::into).collect();
            let conversation_id = list.conversation_id.as_str();
            write(
                out,
                &ListFrame {
                    cmd,
                    code: 0,
                    id,
                    conversation_id,
                    payload,
                    next_cursor: list.next_cursor,
                    has_more: list.has_more,
                },
            );
        }
        Reply::Conversation(reply) => {
            let payload = reply.conversation.as_ref().map(ConversationItem::from);
            let conversation_id = reply
                .conversation
                .as_ref()
                .map_or("", |conversation| &conversation.conversation_id);
            write(out, &Answer { cmd, code: 0, id, conversation_id, payload });
        }
        Reply::Read(body) => read(out, cmd, id, body),
        Reply::Resumed(body) => resumed(out, body),
        Reply::Presence(body) => {
            let payload = super::presence_frames::items(body);
            write(out, &Answer { cmd, code: 0, id, conversation_id: "", payload });
        }
        Reply::Welcome(_) | Reply::Failure(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use codec::ws::{Decoder, Event, Limits, Role};

    use super::*;

    fn text(out: &[u8]) -> serde_json::Value {
        let start = if out[1] < 126 { 2 } else { 4 };
        serde_json::from_slice(&out[start..]).unwrap()
    }

    #[test]
    fn frames_are_those_of_the_contract() {
        let mut out = Vec::new();
        write(&mut out, &Done { cmd: 0, code: 0, id: 0 });
        assert_eq!(&out[2..], br#"{"cmd":0,"code":0}"#);

        out.clear();
        let ack_body = v1::Ack {
            client_msg_id: "uuid".into(),
            seq: 1001,
            message_id: u64::MAX,
            created_at_ms: 5,
            request_id: 0,
        };
        ack(&mut out, &ack_body);
        let expected = serde_json::json!({"cmd":2,"code":0,"msg_id":"uuid","seq":1001,"message_id":"18446744073709551615","created_at_ms":5});
        assert_eq!(text(&out), expected);

        out.clear();
        let message = v1::Message {
            conversation_id: "g".into(),
            content: vec![0xff, 0xfe].into(),
            msg_type: 100,
            ..Default::default()
        };
        push(&mut out, &message);
        let frame = text(&out);
        assert_eq!(frame["payload"]["content_base64"], "//4=");
        assert!(frame["payload"].get("content").is_none());
    }

    /// The messages of all frames in `bytes`.
    fn items(mut bytes: &mut [u8]) -> Vec<serde_json::Value> {
        let limits = Limits { max_message_bytes: 1 << 22, ..Limits::DEFAULT };
        let mut decoder = Decoder::new();
        let mut items = Vec::new();
        while let Some(event) = decoder.next(&mut bytes, Role::Client, &limits).unwrap() {
            let Event::Text(text) = event else { panic!("{event:?}") };
            match serde_json::from_str::<serde_json::Value>(text).unwrap()["payload"].take() {
                serde_json::Value::Array(page) => items.extend(page),
                item => items.push(item),
            }
        }
        assert!(bytes.is_empty() && decoder.is_idle());
        items
    }

    /// Whatever content makes of the length that was expected of a frame.
    #[test]
    fn a_frame_of_any_length_is_whole() {
        for len in [0, 1, 60, 125, 1000, 40_000, 65_100, 65_300, 65_535, 70_000] {
            // In JSON one takes as many bytes, one twice, one six times as many, one a third more.
            for byte in [b'x', b'"', 1, 0xff] {
                let message = v1::Message { content: vec![byte; len].into(), ..Default::default() };
                let page = v1::Page { items: vec![message.clone(); 3], ..Default::default() };
                let mut out = b"before".to_vec();
                push(&mut out, &message);
                call_reply(&mut out, 4, 1, &Reply::Page(page));
                let items = items(&mut out[6..]);
                assert_eq!(items.len(), 4, "{len} {byte}");
                for item in items {
                    let content = match item["content_base64"].as_str() {
                        Some(text) => STANDARD.decode(text).unwrap(),
                        None => item["content"].as_str().unwrap().into(),
                    };
                    assert!(content == vec![byte; len], "{len} {byte}");
                }
            }
        }
    }

    #[test]
    fn content_is_kept_to_the_byte() {
        let mut out = Vec::new();
        let content = "\0 <b>\"'; DROP TABLE messages; -- 🦀\u{2028}";
        push(&mut out, &v1::Message { content: content.into(), msg_type: 1, ..Default::default() });
        assert_eq!(text(&out)["payload"]["content"], content);
    }
}
