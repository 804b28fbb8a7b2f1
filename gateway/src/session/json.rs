//! The JSON form, inbound: one text message is one request.

use std::fmt;
use std::marker::PhantomData;

use proto::error::ErrorCode;
use proto::v1::{
    CreateConversation, Hello, ListMembers, Membership, PresenceQuery, Pull, Read, ResumePoint,
    Send, Sync, call,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::answer::{self, Refusal};
use super::command::{Command, Login, malformed};

/// Everything a request may carry. Fields are looked at one by one, so that a wrong type names its field.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Request<'a> {
    #[serde(borrow)]
    cmd: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    msg_id: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation_id: Option<&'a RawValue>,
    #[serde(borrow)]
    cursor_seq: Option<&'a RawValue>,
    #[serde(borrow)]
    cursor: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    direction: Option<&'a RawValue>,
    #[serde(borrow)]
    read_seq: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    msg_type: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    device_id: Option<&'a RawValue>,
    #[serde(borrow)]
    device_class: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation_id: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    members: Option<&'a RawValue>,
    #[serde(borrow)]
    resume_token: Option<&'a RawValue>,
    #[serde(borrow)]
    resume: Option<&'a RawValue>,
    #[serde(borrow)]
    users: Option<&'a RawValue>,
    #[serde(borrow)]
    subscribe: Option<&'a RawValue>,
}

/// The last message a client has of a conversation.
#[derive(Deserialize)]
struct Point {
    conversation_id: String,
    seq: u64,
}

/// A JSON object and nothing else: what serde derives for a struct takes an array for its fields in their order too,
/// and `[0]` is no heartbeat.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Reads one request.
///
/// # Errors
/// The answer to give: what is wrong, with as much of `cmd`, `id` and `msg_id` as could be read.
pub fn decode(text: &str) -> Result<Command, Refusal> {
    let Object(request): Object<Request<'_>> =
        serde_json::from_str(text).map_err(|error| not_a_request(&error))?;
    let command = required::<u32>(request.cmd, "cmd", "a command number");
    let id = optional::<u32>(request.id, "id", "a number from 1 to 4294967295");
    let named = |failure| Refusal {
        command: command.as_ref().ok().copied(),
        request_id: id.as_ref().ok().copied().unwrap_or_default(),
        client_msg_id: optional::<String>(request.msg_id, "msg_id", "").unwrap_or_default(),
        failure,
    };
    let build = || {
        let (command, id) = (command.clone()?, id.clone()?);
        dispatch(command, id, &request)
    };
    build().map_err(named)
}

/// The parser's sentence may hold a whole string of the client's, escaped: an answer many times the
/// length of its question. Its beginning says enough.
fn not_a_request(error: &serde_json::Error) -> Refusal {
    const SENTENCE_MAX_BYTES: usize = 120;
    let sentence = error.to_string();
    let end = sentence.floor_char_boundary(SENTENCE_MAX_BYTES);
    malformed(format!("not a JSON request object: {}", &sentence[..end]))
}

type Outcome<T> = Result<T, proto::v1::Failure>;

fn dispatch(command: u32, request_id: u32, request: &Request<'_>) -> Outcome<Command> {
    let call = |request| Ok(Command::Call { request_id, request });
    match command {
        answer::HEARTBEAT => Ok(Command::Heartbeat { request_id }),
        answer::LOGIN => login(request_id, request),
        answer::SEND => send(request_id, request),
        answer::PULL => call(call::Request::Pull(pull(request_id, request)?)),
        answer::SYNC => call(call::Request::Sync(Sync {
            request_id,
            cursor: optional(request.cursor, "cursor", "a string")?,
            limit: limit(request)?,
        })),
        answer::CREATE => call(call::Request::Create(create(request_id, request)?)),
        answer::JOIN => call(call::Request::Join(membership(request_id, request)?)),
        answer::LEAVE => call(call::Request::Leave(membership(request_id, request)?)),
        answer::MEMBERS => call(call::Request::Members(ListMembers {
            request_id,
            conversation_id: conversation_id(request.conversation_id)?,
            cursor: optional(request.cursor, "cursor", "a number")?,
            limit: limit(request)?,
        })),
        answer::READ => call(call::Request::Read(Read {
            request_id,
            conversation_id: conversation_id(request.conversation_id)?,
            read_seq: required(request.read_seq, "read_seq", "a number")?,
        })),
        answer::PRESENCE => call(call::Request::Presence(presence(request_id, request)?)),
        _ => {
            Err(ErrorCode::UnknownCommand
                .failure(format!("cmd {command} is not a client's command")))
        }
    }
}

fn payload<'a>(request: &Request<'a>) -> Outcome<Payload<'a>> {
    let Some(raw) = request.payload else { return Err(bad("payload", "an object")) };
    let Object(payload) =
        serde_json::from_str(raw.get()).map_err(|_| bad("payload", "an object"))?;
    Ok(payload)
}

fn login(request_id: u32, request: &Request<'_>) -> Outcome<Command> {
    let payload = payload(request)?;
    let resume_token: String = optional(payload.resume_token, "payload.resume_token", "a string")?;
    let token = if resume_token.is_empty() { required } else { optional };
    let resume: Vec<Object<Point>> = optional(
        payload.resume,
        "payload.resume",
        "a list of {\"conversation_id\":\"..\",\"seq\":N}",
    )?;
    let point = |Object(Point { conversation_id, seq })| ResumePoint { conversation_id, seq };
    let hello = Hello {
        token: token(payload.token, "payload.token", "a string")?,
        resume_token,
        resume: resume.into_iter().map(point).collect(),
        device_id: optional(payload.device_id, "payload.device_id", "a string")?,
        device_class: optional(payload.device_class, "payload.device_class", "a string")?,
        ..Hello::default()
    };
    Ok(Command::Login(Login { request_id, hello }))
}

fn send(request_id: u32, request: &Request<'_>) -> Outcome<Command> {
    let payload = payload(request)?;
    let content: String = required(payload.content, "payload.content", "a string")?;
    Ok(Command::Send(Send {
        request_id,
        conversation_id: conversation_id(request.conversation_id)?,
        client_msg_id: required(request.msg_id, "msg_id", "a string")?,
        msg_type: optional_or(payload.msg_type, 1, "payload.msg_type", "a number from 1")?,
        content: content.into(),
    }))
}

fn pull(request_id: u32, request: &Request<'_>) -> Outcome<Pull> {
    let direction: String =
        optional(request.direction, "direction", "\"forward\" or \"backward\"")?;
    let backward = match direction.as_str() {
        "" | "forward" => false,
        "backward" => true,
        _ => return Err(bad("direction", "\"forward\" or \"backward\"")),
    };
    Ok(Pull {
        request_id,
        conversation_id: conversation_id(request.conversation_id)?,
        cursor_seq: optional(request.cursor_seq, "cursor_seq", "a number from 0")?,
        limit: limit(request)?,
        backward,
    })
}

fn create(request_id: u32, request: &Request<'_>) -> Outcome<CreateConversation> {
    let payload = payload(request)?;
    Ok(CreateConversation {
        request_id,
        r#type: required(payload.kind, "payload.type", "\"group\" or \"direct\"")?,
        conversation_id: optional(payload.conversation_id, "payload.conversation_id", "a string")?,
        name: optional(payload.name, "payload.name", "a string")?,
        members: optional(payload.members, "payload.members", "a list of user names")?,
    })
}

fn presence(request_id: u32, request: &Request<'_>) -> Outcome<PresenceQuery> {
    let payload = payload(request)?;
    Ok(PresenceQuery {
        request_id,
        users: required(payload.users, "payload.users", "a list of user names")?,
        subscribe: optional(payload.subscribe, "payload.subscribe", "true or false")?,
    })
}

fn membership(request_id: u32, request: &Request<'_>) -> Outcome<Membership> {
    Ok(Membership { request_id, conversation_id: conversation_id(request.conversation_id)? })
}

fn conversation_id(raw: Option<&RawValue>) -> Outcome<String> {
    required(raw, "conversation_id", "a string")
}

fn limit(request: &Request<'_>) -> Outcome<u32> {
    optional(request.limit, "limit", "a number from 1")
}

fn required<T: DeserializeOwned>(raw: Option<&RawValue>, field: &str, wanted: &str) -> Outcome<T> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(|| bad(field, wanted))
}

fn optional<T: DeserializeOwned + Default>(
    raw: Option<&RawValue>,
    field: &str,
    wanted: &str,
) -> Outcome<T> {
    optional_or(raw, T::default(), field, wanted)
}

fn optional_or<T: DeserializeOwned>(
    raw: Option<&RawValue>,
    default: T,
    field: &str,
    wanted: &str,
) -> Outcome<T> {
    match raw {
        None => Ok(default),
        // `null` is how some serialisers say "absent".
        Some(raw) if raw.get() == "null" => Ok(default),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| bad(field, wanted)),
    }
}

fn bad(field: &str, wanted: &str) -> proto::v1::Failure {
    ErrorCode::BadRequest.failure(format!("{field} must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Refusal {
        decode(text).expect_err(text)
    }

    #[test]
    fn the_documented_examples_are_read() {
        assert_eq!(decode(r#"{"cmd":0}"#), Ok(Command::Heartbeat { request_id: 0 }));
        let send = decode(
            r#"{"cmd":2,"msg_id":"uuid","conversation_id":"group_101","payload":{"content":"Hello World","msg_type":1}}"#,
        );
        let Ok(Command::Send(send)) = send else { panic!("{send:?}") };
        assert_eq!(
            (send.client_msg_id.as_str(), send.conversation_id.as_str(), &send.content[..]),
            ("uuid", "group_101", &b"Hello World"[..])
        );
        let pull = decode(r#" {"conversation_id":"group_101", "cursor_seq":100, "cmd":3} "#);
        let Ok(Command::Call { request: call::Request::Pull(pull), .. }) = pull else {
            panic!("{pull:?}")
        };
        assert_eq!((pull.cursor_seq, pull.limit, pull.backward), (100, 0, false));
    }

    #[test]
    fn a_login_may_bring_a_resume_token_and_points() {
        let text = r#"{"cmd":1,"payload":{"resume_token":"r","resume":[{"conversation_id":"g","seq":7}]}}"#;
        let Ok(Command::Login(Login { hello, .. })) = decode(text) else { panic!() };
        assert_eq!((hello.token.as_str(), hello.resume_token.as_str()), ("", "r"));
        let point = ResumePoint { conversation_id: "g".into(), seq: 7 };
        assert_eq!(hello.resume, [point]);
        for resume in
            [r#"{}"#, r#"[["g",7]]"#, r#"[{"seq":1}]"#, r#"[{"conversation_id":"g","seq":-1}]"#]
        {
            let text = format!(r#"{{"cmd":1,"payload":{{"token":"t","resume":{resume}}}}}"#);
            assert!(refusal(&text).failure.detail.contains("payload.resume"), "{text}");
        }
    }

    #[test]
    fn a_wrong_type_names_its_field_and_keeps_the_request_recognisable() {
        let refused = refusal(
            r#"{"cmd":2,"id":7,"msg_id":"m","conversation_id":5,"payload":{"content":"x"}}"#,
        );
        assert_eq!(
            (refused.command, refused.request_id, refused.client_msg_id.as_str()),
            (Some(2), 7, "m")
        );
        assert_eq!(refused.failure.name, "BAD_REQUEST");
        assert!(refused.failure.detail.contains("conversation_id"), "{}", refused.failure.detail);
    }

    #[test]
    fn bad_requests_are_refused_by_name() {
        for (text, name) in [
            ("", "BAD_REQUEST"),
            ("{", "BAD_REQUEST"),
            ("[]", "BAD_REQUEST"),
            ("[0]", "BAD_REQUEST"),
            (r#"{"cmd":1,"payload":[null,null,"token"]}"#, "BAD_REQUEST"),
            ("null", "BAD_REQUEST"),
            (r#""cmd""#, "BAD_REQUEST"),
            ("{}", "BAD_REQUEST"),
            (r#"{"cmd":"0"}"#, "BAD_REQUEST"),
            (r#"{"cmd":-1}"#, "BAD_REQUEST"),
            (r#"{"cmd":1.5}"#, "BAD_REQUEST"),
            (r#"{"cmd":0,"cmd":1}"#, "BAD_REQUEST"),
            (r#"{"cmd":99}"#, "UNKNOWN_COMMAND"),
            (r#"{"cmd":4,"payload":{}}"#, "UNKNOWN_COMMAND"),
            (r#"{"cmd":0,"id":"x"}"#, "BAD_REQUEST"),
            (r#"{"cmd":1}"#, "BAD_REQUEST"),
            (r#"{"cmd":1,"payload":{"token":5}}"#, "BAD_REQUEST"),
            (r#"{"cmd":2,"msg_id":"m","conversation_id":"c"}"#, "BAD_REQUEST"),
            (r#"{"cmd":2,"msg_id":"m","conversation_id":"c","payload":[]}"#, "BAD_REQUEST"),
            (
                r#"{"cmd":2,"msg_id":"m","conversation_id":"c","payload":{"content":{"a":1}}}"#,
                "BAD_REQUEST",
            ),
            (r#"{"cmd":2,"conversation_id":"c","payload":{"content":"x"}}"#, "BAD_REQUEST"),
            (r#"{"cmd":3,"conversation_id":"c","cursor_seq":-1}"#, "BAD_REQUEST"),
            (r#"{"cmd":3,"conversation_id":"c","direction":"up"}"#, "BAD_REQUEST"),
            (r#"{"cmd":6,"payload":{"type":"group","members":"bob"}}"#, "BAD_REQUEST"),
            (r#"{"cmd":15,"payload":{}}"#, "BAD_REQUEST"),
            (r#"{"cmd":15,"payload":{"users":["bob",7]}}"#, "BAD_REQUEST"),
            (r#"{"cmd":15,"payload":{"users":[],"subscribe":1}}"#, "BAD_REQUEST"),
        ] {
            assert_eq!(refusal(text).failure.name, name, "{text}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let deep = format!(
            r#"{{"cmd":2,"msg_id":"m","conversation_id":"c","payload":{{"content":{deep}}}}}"#
        );
        assert_eq!(decode(&deep).map(drop).unwrap_err().failure.name, "BAD_REQUEST");
    }

    #[test]
    fn null_is_absent_and_unknown_keys_are_ignored() {
        assert!(decode(r#"{"cmd":3,"conversation_id":"c","cursor_seq":null,"limit":null,"extra":{"a":[1]}}"#).is_ok());
    }
}
