//! Text frames of the JSON protocol. Requests are written by hand; answers are parsed in one pass into
//! structs that borrow from the frame.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Failure, Incoming, Item, Page, ProtocolError, Request};

/// Appends a request.
pub(super) fn write(out: &mut Vec<u8>, request: &Request<'_>) {
    match *request {
        Request::Heartbeat => out.extend_from_slice(b"{\"cmd\":0}"),
        Request::Hello { token, .. } => {
            out.extend_from_slice(b"{\"cmd\":1,\"payload\":{\"token\":");
            string(out, token);
            out.extend_from_slice(b",\"device_id\":\"loadgen\",\"device_class\":\"load\"}}");
        }
        Request::Send { id, conversation_id, content } => {
            out.extend_from_slice(b"{\"cmd\":2,\"msg_id\":\"");
            out.extend_from_slice(id);
            out.extend_from_slice(b"\",\"conversation_id\":");
            string(out, conversation_id);
            out.extend_from_slice(b",\"payload\":{\"content\":\"");
            out.extend_from_slice(content);
            out.extend_from_slice(b"\",\"msg_type\":1}}");
        }
        Request::Pull { request_id, conversation_id, cursor_seq, limit } => {
            command(out, 3, request_id);
            out.extend_from_slice(b",\"conversation_id\":");
            string(out, conversation_id);
            append(out, format_args!(",\"cursor_seq\":{cursor_seq},\"limit\":{limit}}}"));
        }
        Request::Create { request_id, group_id, members } => {
            write_create(out, request_id, group_id, members)
        }
        Request::Join { request_id, conversation_id } => {
            command(out, 7, request_id);
            out.extend_from_slice(b",\"conversation_id\":");
            string(out, conversation_id);
            out.push(b'}');
        }
    }
}

fn write_create(out: &mut Vec<u8>, request_id: u32, group_id: Option<&str>, members: &[String]) {
    command(out, 6, request_id);
    match group_id {
        Some(id) => {
            out.extend_from_slice(b",\"payload\":{\"type\":\"group\",\"conversation_id\":");
            string(out, id);
        }
        None => out.extend_from_slice(b",\"payload\":{\"type\":\"direct\""),
    }
    out.extend_from_slice(b",\"members\":[");
    for (i, member) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, member);
    }
    out.extend_from_slice(b"]}}");
}

fn command(out: &mut Vec<u8>, cmd: u32, request_id: u32) {
    append(out, format_args!("{{\"cmd\":{cmd},\"id\":{request_id}"));
}

fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    use std::io::Write;
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}

fn string(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        append(out, format_args!("{}", serde_json::Value::from(text)));
    }
}

/// A string that borrows unless it holds escapes (plain `Cow` inside `Option` would always be copied).
#[derive(Clone, Debug, Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    cmd: u32,
    #[serde(default)]
    code: u32,
    #[serde(default)]
    id: Option<u32>,
    #[serde(default, borrow)]
    msg_id: Text<'a>,
    #[serde(default)]
    seq: u64,
    #[serde(default, borrow)]
    conversation_id: Text<'a>,
    #[serde(default, borrow)]
    payload: Payload<'a>,
    #[serde(default)]
    next_cursor_seq: u64,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    reconnect_after_ms: u32,
    #[serde(default)]
    from_seq: u64,
    #[serde(default, borrow)]
    error: Option<ErrorObject<'a>>,
}

#[derive(Default, Deserialize)]
struct ErrorObject<'a> {
    #[serde(default, borrow)]
    name: Text<'a>,
    #[serde(default)]
    temporary: bool,
    #[serde(default)]
    retry_after_ms: u32,
    #[serde(default, borrow)]
    detail: Text<'a>,
}

/// A message; of a conversation only the id is of interest.
#[derive(Default, Deserialize)]
struct Object<'a> {
    #[serde(default, borrow)]
    conversation_id: Text<'a>,
    #[serde(default, borrow)]
    msg_id: Text<'a>,
    #[serde(default)]
    seq: u64,
    #[serde(default, borrow)]
    content: Text<'a>,
}

#[derive(Default)]
enum Payload<'a> {
    #[default]
    None,
    One(Object<'a>),
    Many(Vec<Object<'a>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PayloadVisitor;
        impl<'de> Visitor<'de> for PayloadVisitor {
            type Value = Payload<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list of objects")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Object::deserialize(MapAccessDeserializer::new(map)).map(Payload::One)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(512));
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Payload::Many(items))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Payload::None)
            }
        }
        deserializer.deserialize_any(PayloadVisitor)
    }
}

fn item<'a>(object: Object<'a>, conversation_id: &Text<'a>) -> Item<'a> {
    let content = match object.content.0 {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    Item {
        conversation_id: conversation_id.0.clone(),
        msg_id: object.msg_id.0,
        seq: object.seq,
        content,
    }
}

/// Reads one text frame of the server.
///
/// # Errors
/// It is not JSON, or not an object with a `cmd`.
pub fn read(text: &str) -> Result<Incoming<'_>, ProtocolError> {
    let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| {
        let shown: String = text.chars().take(120).collect();
        ProtocolError(format!("a frame is not understood ({error}): {shown}"))
    })?;
    if frame.code != 0 && frame.cmd != 11 {
        return Ok(failed(frame));
    }
    Ok(match (frame.cmd, frame.payload) {
        (0, _) => Incoming::Heartbeat,
        (1, _) => Incoming::Welcome,
        (2, _) => Incoming::Ack { msg_id: frame.msg_id.0, seq: frame.seq },
        (4, Payload::One(object)) => Incoming::Push(item(object, &frame.conversation_id)),
        (3, payload) => Incoming::Page(Page {
            request_id: frame.id.unwrap_or(0),
            items: match payload {
                Payload::Many(objects) => {
                    objects.into_iter().map(|o| item(o, &Text::default())).collect()
                }
                _ => Vec::new(),
            },
            next_cursor_seq: frame.next_cursor_seq,
            has_more: frame.has_more,
        }),
        (6 | 7, Payload::One(object)) => Incoming::Conversation {
            request_id: frame.id.unwrap_or(0),
            conversation_id: object.conversation_id.0,
        },
        (10, _) => {
            Incoming::Lagged { conversation_id: frame.conversation_id.0, from_seq: frame.from_seq }
        }
        (11, _) => {
            Incoming::Goaway { code: frame.code, reconnect_after_ms: frame.reconnect_after_ms }
        }
        _ => Incoming::Other,
    })
}

fn failed(frame: Frame<'_>) -> Incoming<'_> {
    let error = frame.error.unwrap_or_default();
    let name = if error.name.0.is_empty() {
        Cow::Owned(format!("CODE_{}", frame.code))
    } else {
        error.name.0
    };
    Incoming::Failed(Failure {
        request_id: frame.id.unwrap_or(0),
        msg_id: frame.msg_id.0,
        name,
        temporary: error.temporary,
        retry_after_ms: error.retry_after_ms,
        detail: error.detail.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(request: &Request<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        write(&mut out, request);
        serde_json::from_slice(&out).expect("a request is JSON")
    }

    #[test]
    fn requests_as_the_contract_has_them() {
        use serde_json::json;
        let send =
            Request::Send { id: b"id-1", conversation_id: "group_101", content: b"Hello World" };
        let expected = json!({"cmd":2,"msg_id":"id-1","conversation_id":"group_101",
            "payload":{"content":"Hello World","msg_type":1}});
        assert_eq!(written(&send), expected);
        assert_eq!(written(&Request::Heartbeat), json!({"cmd":0}));
        let pull =
            Request::Pull { request_id: 7, conversation_id: "a\"b", cursor_seq: 100, limit: 500 };
        let expected =
            json!({"cmd":3,"id":7,"conversation_id":"a\"b","cursor_seq":100,"limit":500});
        assert_eq!(written(&pull), expected);
        let members = ["bob".to_owned(), "eve".to_owned()];
        let create = Request::Create { request_id: 1, group_id: Some("g"), members: &members };
        let expected = json!({"cmd":6,"id":1,"payload":{"type":"group","conversation_id":"g","members":["bob","eve"]}});
        assert_eq!(written(&create), expected);
        let direct = Request::Create { request_id: 1, group_id: None, members: &members[..1] };
        assert_eq!(
            written(&direct),
            json!({"cmd":6,"id":1,"payload":{"type":"direct","members":["bob"]}})
        );
        let join = Request::Join { request_id: 2, conversation_id: "g" };
        assert_eq!(written(&join), json!({"cmd":7,"id":2,"conversation_id":"g"}));
    }

    #[test]
    fn an_ack_and_a_push_borrow() {
        let ack = read(
            r#"{"cmd":2,"code":0,"msg_id":"m","seq":1001,"message_id":"99","created_at_ms":5}"#,
        );
        assert_eq!(ack, Ok(Incoming::Ack { msg_id: "m".into(), seq: 1001 }));
        let push = read(
            r#"{"cmd":4,"conversation_id":"c","payload":{"msg_id":"m","message_id":"9","seq":101,"sender_id":"4","sender":"alice","content":"hi","msg_type":1,"created_at_ms":1}}"#,
        );
        let Ok(Incoming::Push(item)) = push else { panic!("a push: {push:?}") };
        assert!(matches!(item.content, Cow::Borrowed(b"hi")));
        assert!(matches!(item.msg_id, Cow::Borrowed("m")));
        assert_eq!((&*item.conversation_id, item.seq), ("c", 101));
    }

    #[test]
    fn escapes_are_understood() {
        let Ok(Incoming::Push(item)) = read(
            r#"{"cmd":4,"conversation_id":"c","payload":{"msg_id":"m","seq":1,"content":"a\nb"}}"#,
        ) else {
            panic!("a push")
        };
        assert_eq!(&*item.content, b"a\nb");
    }

    #[test]
    fn a_page() {
        let page = read(
            r#"{"cmd":3,"code":0,"id":7,"conversation_id":"c","payload":[{"msg_id":"a","seq":1,"content":"x"},{"msg_id":"b","seq":2,"content":"y"}],"next_cursor_seq":2,"has_more":true}"#,
        );
        let Ok(Incoming::Page(page)) = page else { panic!("a page: {page:?}") };
        assert_eq!((page.request_id, page.next_cursor_seq, page.has_more), (7, 2, true));
        assert_eq!(page.items.iter().map(|item| item.seq).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_failure_keeps_its_name() {
        let text = r#"{"cmd":2,"code":429,"msg_id":"m","error":{"name":"RATE_LIMITED","temporary":true,"retry_after_ms":40,"detail":"slow"}}"#;
        let Ok(Incoming::Failed(failure)) = read(text) else { panic!("a failure") };
        assert_eq!(
            (&*failure.name, failure.temporary, failure.retry_after_ms),
            ("RATE_LIMITED", true, 40)
        );
        let Ok(Incoming::Failed(failure)) = read(r#"{"cmd":3,"code":500,"error":null}"#) else {
            panic!("a failure")
        };
        assert_eq!(&*failure.name, "CODE_500");
    }

    #[test]
    fn the_rest() {
        assert_eq!(read(r#"{"cmd":0,"code":0}"#), Ok(Incoming::Heartbeat));
        assert_eq!(read(r#"{"cmd":0}"#), Ok(Incoming::Heartbeat));
        assert_eq!(
            read(r#"{"cmd":1,"code":0,"payload":{"user_id":"7","heartbeat_ms":30000}}"#),
            Ok(Incoming::Welcome)
        );
        let goaway = read(r#"{"cmd":11,"code":4000,"reconnect_after_ms":9,"reason":"bye"}"#);
        assert_eq!(goaway, Ok(Incoming::Goaway { code: 4000, reconnect_after_ms: 9 }));
        assert_eq!(
            read(r#"{"cmd":10,"conversation_id":"c","from_seq":4}"#),
            Ok(Incoming::Lagged { conversation_id: "c".into(), from_seq: 4 })
        );
        let created = read(
            r#"{"cmd":6,"code":0,"id":1,"payload":{"conversation_id":"dm_1_2","type":"direct","name":null,"last_message":null}}"#,
        );
        assert_eq!(
            created,
            Ok(Incoming::Conversation { request_id: 1, conversation_id: "dm_1_2".into() })
        );
        assert_eq!(read(r#"{"cmd":12,"payload":{"event":"joined"}}"#), Ok(Incoming::Other));
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in ["", "[]", "{}", r#"{"cmd":"x"}"#, r#"{"cmd":4,"payload":true}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
