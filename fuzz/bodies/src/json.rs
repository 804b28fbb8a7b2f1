//! The JSON form: what is read is what the text says, and what is refused gets an answer that the
//! client can read and match to its request.

use codec::ws::{Decoder, Event, Role};
use gateway::session::answer::{self, Refusal};
use gateway::session::{Command, Wire, json};
use proto::error::ErrorCode;
use proto::v1::call::Request;
use serde_json::Value;

/// Reads the input as text and checks it.
pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
}

/// Checks one text message.
///
/// # Panics
/// The decoder is wrong.
pub fn check(text: &str) {
    let value = serde_json::from_str::<Value>(text).ok();
    match json::decode(text) {
        // A number that no type of ours holds, or nesting that only a whole tree minds, is not ours
        // to judge where the key is not.
        Ok(command) => {
            if let Some(value) = value {
                check_command(&command, &value);
            }
        }
        Err(refusal) => check_refusal(text, value.as_ref(), &refusal),
    }
}

/// Every field of the command is that of the text.
fn check_command(command: &Command, value: &Value) {
    let id = number(&value["id"]);
    let payload = &value["payload"];
    let cmd = number(&value["cmd"]);
    match command {
        Command::Heartbeat { request_id } => assert_eq!((cmd, *request_id), (0, id as u32)),
        Command::Login(login) => {
            assert_eq!((cmd, login.request_id), (1, id as u32));
            assert_eq!(Some(login.hello.token.as_str()), payload["token"].as_str());
            assert_eq!(login.hello.device_id, text_of(&payload["device_id"]));
            assert_eq!(login.hello.device_class, text_of(&payload["device_class"]));
            assert!(login.hello.dev_user.is_empty(), "no command logs in by name");
        }
        Command::Send(send) => {
            assert_eq!((cmd, send.request_id), (2, id as u32));
            assert_eq!(Some(send.client_msg_id.as_str()), value["msg_id"].as_str());
            assert_eq!(Some(send.conversation_id.as_str()), value["conversation_id"].as_str());
            assert_eq!(Some(&send.content[..]), payload["content"].as_str().map(str::as_bytes));
            let msg_type = payload["msg_type"].as_u64().unwrap_or(1);
            assert_eq!(u64::from(send.msg_type), msg_type);
        }
        Command::Call { request_id, request } => {
            assert_eq!(u64::from(*request_id), id);
            assert_eq!(u64::from(answer::command_of(request)), cmd);
            check_request(request, value);
        }
    }
}

fn check_request(request: &Request, value: &Value) {
    let limit = number(&value["limit"]);
    let conversation = || text_of(&value["conversation_id"]);
    match request {
        Request::Pull(pull) => {
            assert_eq!(pull.conversation_id, conversation());
            assert_eq!(pull.cursor_seq, number(&value["cursor_seq"]));
            assert_eq!(u64::from(pull.limit), limit);
            assert_eq!(pull.backward, value["direction"] == "backward");
        }
        Request::Sync(sync) => {
            assert_eq!(sync.cursor, text_of(&value["cursor"]));
            assert_eq!(u64::from(sync.limit), limit);
        }
        Request::Create(create) => {
            let payload = &value["payload"];
            assert_eq!(create.r#type, text_of(&payload["type"]));
            assert_eq!(create.name, text_of(&payload["name"]));
            assert_eq!(create.conversation_id, text_of(&payload["conversation_id"]));
            let members = payload["members"].as_array().map_or(0, Vec::len);
            assert_eq!(create.members.len(), members);
        }
        Request::Join(membership) | Request::Leave(membership) => {
            assert_eq!(membership.conversation_id, conversation())
        }
        Request::Members(list) => {
            assert_eq!(list.conversation_id, conversation());
            assert_eq!(list.cursor, number(&value["cursor"]));
            assert_eq!(u64::from(list.limit), limit);
        }
        Request::Read(read) => {
            assert_eq!(read.conversation_id, conversation());
            assert_eq!(Some(read.read_seq), value["read_seq"].as_u64());
        }
        Request::Presence(query) => {
            let payload = &value["payload"];
            let users = payload["users"].as_array().map_or(0, Vec::len);
            assert_eq!(query.users.len(), users);
            assert_eq!(query.subscribe, payload["subscribe"] == true);
        }
        Request::Login(_) | Request::Closed(_) => panic!("not a client's request: {request:?}"),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Most bytes that an answer has beyond what it repeats of the request.
pub const ANSWER_MAX_BYTES: usize = 1024;

/// The refusal names a known error, and its answer is a frame that the client can match.
fn check_refusal(text: &str, value: Option<&Value>, refusal: &Refusal) {
    let name = refusal.failure.name.as_str();
    assert!(["BAD_REQUEST", "UNKNOWN_COMMAND"].contains(&name), "{text}: {refusal:?}");
    let known = ErrorCode::ALL.iter().find(|code| code.name() == name).expect("a known name");
    assert_eq!(refusal.failure.code, known.code());
    let mut bytes = Vec::new();
    answer::refuse(&mut bytes, Wire::Json, refusal);
    let repeated = serde_json::to_string(&refusal.client_msg_id).map_or(0, |text| text.len());
    assert!(
        bytes.len() <= repeated + ANSWER_MAX_BYTES,
        "{} bytes are answered with {}",
        text.len(),
        bytes.len()
    );
    let answer = read_text(&mut bytes);
    assert_eq!(answer["error"]["name"], name);
    // What is not even an object, or has a key twice, has nothing to be matched by.
    let told = refusal.command.is_some() || refusal.request_id != 0;
    if let Some(value) = value.filter(|value| told && value.is_object()) {
        assert_eq!(refusal.command.map(u64::from), value["cmd"].as_u64());
        let id = value["id"].as_u64().filter(|id| u32::try_from(*id).is_ok());
        assert_eq!(u64::from(refusal.request_id), id.unwrap_or_default());
    }
}

fn read_text(bytes: &mut [u8]) -> Value {
    let limits = codec::ws::Limits { max_message_bytes: 1 << 20, ..Default::default() };
    let mut input = bytes;
    match Decoder::new().next(&mut input, Role::Client, &limits) {
        Ok(Some(Event::Text(text))) => serde_json::from_str(text).expect("an answer is JSON"),
        other => panic!("an answer is a text frame: {other:?}"),
    }
}
