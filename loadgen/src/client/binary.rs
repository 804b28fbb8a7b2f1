//! Bodies of the binary protocol.

use std::borrow::Cow;

use codec::binary::Kind;
use prost::Message as _;
use proto::v1;

use super::fields::{Fields, Value, put_bytes, put_number};
use super::{Failure, Incoming, Item, Page, ProtocolError, Request};

/// Appends the whole frame of a request to `out`.
pub(super) fn write_frame(out: &mut Vec<u8>, request: &Request<'_>, body: &[u8]) {
    match kind(request) {
        Kind::Heartbeat => codec::binary::encode_heartbeat(out),
        kind => codec::binary::encode(out, kind, body),
    }
}

/// Writes the body of a request into an empty `scratch`.
pub(super) fn write_body(scratch: &mut Vec<u8>, request: &Request<'_>) {
    match *request {
        Request::Heartbeat => {}
        Request::Hello { token, dev_user } => {
            put_bytes(scratch, 1, token.as_bytes());
            put_bytes(scratch, 2, b"loadgen");
            put_bytes(scratch, 3, b"load");
            put_bytes(scratch, 5, dev_user.as_bytes());
        }
        Request::Send { id, conversation_id, content } => {
            put_number(scratch, 1, 1);
            put_bytes(scratch, 2, conversation_id.as_bytes());
            put_bytes(scratch, 3, id);
            put_number(scratch, 4, 1);
            put_bytes(scratch, 5, content);
        }
        Request::Pull { request_id, conversation_id, cursor_seq, limit } => {
            put_number(scratch, 1, request_id.into());
            put_bytes(scratch, 2, conversation_id.as_bytes());
            put_number(scratch, 3, cursor_seq);
            put_number(scratch, 4, limit.into());
        }
        Request::Create { request_id, group_id, members } => {
            put_number(scratch, 1, request_id.into());
            put_bytes(scratch, 2, if group_id.is_some() { b"group" } else { b"direct" });
            put_bytes(scratch, 3, group_id.unwrap_or_default().as_bytes());
            for member in members {
                put_bytes(scratch, 5, member.as_bytes());
            }
        }
        Request::Join { request_id, conversation_id } => {
            put_number(scratch, 1, request_id.into());
            put_bytes(scratch, 2, conversation_id.as_bytes());
        }
    }
}

fn kind(request: &Request<'_>) -> Kind {
    match request {
        Request::Heartbeat => Kind::Heartbeat,
        Request::Hello { .. } => Kind::Hello,
        Request::Send { .. } => Kind::Send,
        Request::Pull { .. } => Kind::Pull,
        Request::Create { .. } => Kind::CreateConversation,
        Request::Join { .. } => Kind::Join,
    }
}

/// Reads one frame of the server.
///
/// # Errors
/// The body is not the message that its kind promises.
pub fn read(kind: Kind, body: &[u8]) -> Result<Incoming<'_>, ProtocolError> {
    let fault = || ProtocolError(format!("the body of a {} frame is malformed", kind.name()));
    match kind {
        Kind::Heartbeat => Ok(Incoming::Heartbeat),
        Kind::Ack => read_ack(body).ok_or_else(fault),
        Kind::Push => read_push(body).ok_or_else(fault),
        Kind::Page => read_page(body).ok_or_else(fault),
        _ => read_rare(kind, body).map_err(|_| fault()),
    }
}

fn read_ack(body: &[u8]) -> Option<Incoming<'_>> {
    let (mut msg_id, mut seq) = ("", 0);
    for field in Fields(body) {
        match field? {
            (2, Value::Bytes(bytes)) => msg_id = str::from_utf8(bytes).ok()?,
            (3, Value::Number(number)) => seq = number,
            _ => {}
        }
    }
    Some(Incoming::Ack { msg_id: Cow::Borrowed(msg_id), seq })
}

fn read_push(body: &[u8]) -> Option<Incoming<'_>> {
    let mut item = None;
    for field in Fields(body) {
        if let (2, Value::Bytes(bytes)) = field? {
            item = Some(read_item(bytes)?);
        }
    }
    item.map(Incoming::Push)
}

fn read_item(body: &[u8]) -> Option<Item<'_>> {
    let mut item = Item::default();
    for field in Fields(body) {
        match field? {
            (1, Value::Bytes(bytes)) => {
                item.conversation_id = Cow::Borrowed(str::from_utf8(bytes).ok()?)
            }
            (2, Value::Number(number)) => item.seq = number,
            (6, Value::Bytes(bytes)) => item.msg_id = Cow::Borrowed(str::from_utf8(bytes).ok()?),
            (8, Value::Bytes(bytes)) => item.content = Cow::Borrowed(bytes),
            _ => {}
        }
    }
    Some(item)
}

fn read_page(body: &[u8]) -> Option<Incoming<'_>> {
    let mut page = Page::default();
    for field in Fields(body) {
        match field? {
            (1, Value::Number(number)) => page.request_id = u32::try_from(number).ok()?,
            (3, Value::Bytes(bytes)) => page.items.push(read_item(bytes)?),
            (4, Value::Number(number)) => page.next_cursor_seq = number,
            (5, Value::Number(number)) => page.has_more = number != 0,
            _ => {}
        }
    }
    Some(Incoming::Page(page))
}

fn read_rare(kind: Kind, body: &[u8]) -> Result<Incoming<'static>, prost::DecodeError> {
    Ok(match kind {
        Kind::Welcome => {
            v1::Welcome::decode(body)?;
            Incoming::Welcome
        }
        Kind::Conversation => {
            let reply = v1::ConversationReply::decode(body)?;
            let conversation_id = reply.conversation.unwrap_or_default().conversation_id;
            Incoming::Conversation {
                request_id: reply.request_id,
                conversation_id: conversation_id.into(),
            }
        }
        Kind::Lagged => {
            let lagged = v1::Lagged::decode(body)?;
            Incoming::Lagged {
                conversation_id: lagged.conversation_id.into(),
                from_seq: lagged.from_seq,
            }
        }
        Kind::Goaway => {
            let goaway = v1::Goaway::decode(body)?;
            Incoming::Goaway { code: goaway.code, reconnect_after_ms: goaway.reconnect_after_ms }
        }
        Kind::Error => {
            let error = v1::Error::decode(body)?;
            Incoming::Failed(Failure {
                request_id: error.request_id,
                msg_id: error.client_msg_id.into(),
                name: error.name.into(),
                temporary: error.temporary,
                retry_after_ms: error.retry_after_ms,
                detail: error.detail.into(),
            })
        }
        _ => Incoming::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(request: &Request<'_>) -> Vec<u8> {
        let mut scratch = Vec::new();
        write_body(&mut scratch, request);
        scratch
    }

    #[test]
    fn requests_are_the_messages_of_the_proto_files() {
        let hello = v1::Hello::decode(&*body(&Request::Hello { token: "", dev_user: "ann" }))
            .expect("hello");
        assert_eq!((hello.token.as_str(), hello.dev_user.as_str()), ("", "ann"));
        let send = Request::Send { id: b"id-1", conversation_id: "c", content: b"hi" };
        let send = v1::Send::decode(&*body(&send)).expect("send");
        assert_eq!((send.client_msg_id.as_str(), send.conversation_id.as_str()), ("id-1", "c"));
        assert_eq!((&*send.content, send.msg_type), (&b"hi"[..], 1));
        let pull =
            Request::Pull { request_id: 9, conversation_id: "c", cursor_seq: 300, limit: 500 };
        let pull = v1::Pull::decode(&*body(&pull)).expect("pull");
        assert_eq!(
            (pull.request_id, pull.cursor_seq, pull.limit, pull.backward),
            (9, 300, 500, false)
        );
        let members = ["bob".to_owned(), "eve".to_owned()];
        let create = Request::Create { request_id: 4, group_id: Some("g"), members: &members };
        let create = v1::CreateConversation::decode(&*body(&create)).expect("create");
        assert_eq!((create.r#type.as_str(), create.conversation_id.as_str()), ("group", "g"));
        assert_eq!(create.members, members);
        let join =
            v1::Membership::decode(&*body(&Request::Join { request_id: 5, conversation_id: "g" }));
        assert_eq!(join.expect("join").conversation_id, "g");
    }

    fn message(seq: u64) -> v1::Message {
        v1::Message {
            conversation_id: "c".into(),
            seq,
            message_id: 1 << 60,
            sender_id: 4,
            sender: "ann".into(),
            client_msg_id: "id-1".into(),
            msg_type: 1,
            content: bytes::Bytes::from_static(b"hi"),
            created_at_ms: 1_700_000_000_000,
        }
    }

    fn item(seq: u64) -> Item<'static> {
        let content = Cow::Borrowed(&b"hi"[..]);
        Item { conversation_id: "c".into(), msg_id: "id-1".into(), seq, content }
    }

    #[test]
    fn hand_read_frames_agree_with_prost() {
        let push = v1::Push { push_no: 3, message: Some(message(7)) }.encode_to_vec();
        assert_eq!(read(Kind::Push, &push), Ok(Incoming::Push(item(7))));
        let ack = v1::Ack {
            request_id: 1,
            client_msg_id: "id-1".into(),
            seq: 300,
            message_id: 5,
            created_at_ms: 6,
        };
        let expected = Incoming::Ack { msg_id: "id-1".into(), seq: 300 };
        assert_eq!(read(Kind::Ack, &ack.encode_to_vec()), Ok(expected));
        let page = v1::Page {
            request_id: 9,
            conversation_id: "c".into(),
            items: vec![message(1), message(2)],
            next_cursor_seq: 2,
            has_more: true,
        };
        let items = vec![item(1), item(2)];
        let expected =
            Incoming::Page(Page { request_id: 9, items, next_cursor_seq: 2, has_more: true });
        assert_eq!(read(Kind::Page, &page.encode_to_vec()), Ok(expected));
    }

    #[test]
    fn rare_frames() {
        let error = v1::Error {
            request_id: 2,
            name: "BUSY".into(),
            temporary: true,
            retry_after_ms: 70,
            ..Default::default()
        };
        let body = error.encode_to_vec();
        let Ok(Incoming::Failed(failure)) = read(Kind::Error, &body) else {
            panic!("an error is a failure")
        };
        assert_eq!((&*failure.name, failure.temporary, failure.retry_after_ms), ("BUSY", true, 70));
        let goaway = v1::Goaway { code: 4000, reconnect_after_ms: 50, reason: String::new() }
            .encode_to_vec();
        assert_eq!(
            read(Kind::Goaway, &goaway),
            Ok(Incoming::Goaway { code: 4000, reconnect_after_ms: 50 })
        );
        assert_eq!(read(Kind::Event, &[]), Ok(Incoming::Other));
    }

    #[test]
    fn a_malformed_body_is_an_error() {
        for kind in [Kind::Ack, Kind::Push, Kind::Page, Kind::Error] {
            let error = read(kind, &[0xff, 0xff]).expect_err("malformed");
            assert!(error.0.contains(kind.name()), "{error}");
        }
    }
}
