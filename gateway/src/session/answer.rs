//! Everything that is written to a client, in each of the three wire forms.

use codec::binary::Kind;
use proto::v1;
use proto::v1::{Call, CallReply, Failure, SendReply, Welcome, call, call_reply};

use super::Wire;

mod json_frames;
mod json_writer;
mod presence_frames;

use json_frames as frames;

/// Command numbers of the JSON form (codec/PROTOCOL.md).
pub const HEARTBEAT: u32 = 0;
/// Log in.
pub const LOGIN: u32 = 1;
/// Send a message.
pub const SEND: u32 = 2;
/// Pull messages.
pub const PULL: u32 = 3;
/// Push of a message (server).
pub const PUSH: u32 = 4;
/// List conversations.
pub const SYNC: u32 = 5;
/// Create a conversation.
pub const CREATE: u32 = 6;
/// Join a group.
pub const JOIN: u32 = 7;
/// Leave a group.
pub const LEAVE: u32 = 8;
/// List members.
pub const MEMBERS: u32 = 9;
/// Pushes were left out (server).
pub const LAGGED: u32 = 10;
/// The server is about to close (server).
pub const GOAWAY: u32 = 11;
/// A conversation changed (server).
pub const EVENT: u32 = 12;
/// Move the read position.
pub const READ: u32 = 13;
/// What happened while the client was away (server).
pub const RESUMED: u32 = 14;
/// Ask which users are there.
pub const PRESENCE: u32 = 15;
/// A user came or went (server).
pub const PRESENCE_CHANGE: u32 = 16;

/// A refusal of something that never became a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusal {
    /// The command, if it could be read.
    pub command: Option<u32>,
    /// The request's id, 0 for none.
    pub request_id: u32,
    /// The client message id, empty for none.
    pub client_msg_id: String,
    /// Why.
    pub failure: Failure,
}

/// The JSON command of a request.
#[must_use]
pub fn command_of(request: &call::Request) -> u32 {
    match request {
        call::Request::Login(_) | call::Request::Closed(_) => LOGIN,
        call::Request::Pull(_) => PULL,
        call::Request::Sync(_) => SYNC,
        call::Request::Create(_) => CREATE,
        call::Request::Join(_) => JOIN,
        call::Request::Leave(_) => LEAVE,
        call::Request::Members(_) => MEMBERS,
        call::Request::Read(_) => READ,
        call::Request::Presence(_) => PRESENCE,
    }
}

/// The JSON command of a request by its field number in `Call` (see `CallReply.command`).
fn command_of_field(field: u32) -> u32 {
    match field {
        6 => PULL,
        7 => SYNC,
        8 => CREATE,
        9 => JOIN,
        10 => LEAVE,
        11 => MEMBERS,
        12 => READ,
        14 => PRESENCE,
        _ => LOGIN,
    }
}

/// The id of a call, 0 for none.
#[must_use]
pub fn request_id_of(call: &Call) -> u32 {
    match &call.request {
        Some(call::Request::Pull(request)) => request.request_id,
        Some(call::Request::Sync(request)) => request.request_id,
        Some(call::Request::Create(request)) => request.request_id,
        Some(call::Request::Join(request) | call::Request::Leave(request)) => request.request_id,
        Some(call::Request::Members(request)) => request.request_id,
        Some(call::Request::Read(request)) => request.request_id,
        Some(call::Request::Presence(request)) => request.request_id,
        Some(call::Request::Login(_) | call::Request::Closed(_)) | None => 0,
    }
}

/// A heartbeat's answer.
pub fn heartbeat(out: &mut Vec<u8>, wire: Wire, request_id: u32) {
    match wire {
        Wire::Json => json_writer::write_about(
            out,
            32,
            &frames::Done { cmd: HEARTBEAT, code: 0, id: request_id },
        ),
        Wire::BinaryMessage => {
            codec::ws::encode_frame(out, codec::ws::Opcode::Binary, &[Kind::Heartbeat as u8])
        }
        Wire::BinaryStream => codec::binary::encode_heartbeat(out),
    }
}

/// A login's answer.
pub fn welcome(out: &mut Vec<u8>, wire: Wire, request_id: u32, welcome: &Welcome) {
    match wire {
        Wire::Json => frames::welcome(out, request_id, welcome),
        _ => binary(out, wire, Kind::Welcome, welcome),
    }
}

/// The failure of a request.
pub fn failure(out: &mut Vec<u8>, wire: Wire, command: u32, request_id: u32, failure: &Failure) {
    match wire {
        Wire::Json => frames::failure(out, Some(command), request_id, "", failure),
        _ => binary(out, wire, Kind::Error, &error(request_id, String::new(), failure)),
    }
}

/// The failure of a message.
pub fn send_failure(
    out: &mut Vec<u8>,
    wire: Wire,
    request_id: u32,
    client_msg_id: &str,
    failure: &Failure,
) {
    match wire {
        Wire::Json => frames::failure(out, Some(SEND), request_id, client_msg_id, failure),
        _ => binary(out, wire, Kind::Error, &error(request_id, client_msg_id.to_owned(), failure)),
    }
}

/// The failure of something that never became a request.
pub fn refuse(out: &mut Vec<u8>, wire: Wire, refusal: &Refusal) {
    let Refusal { command, request_id, client_msg_id, failure } = refusal;
    match wire {
        Wire::Json => frames::failure(out, *command, *request_id, client_msg_id, failure),
        _ => binary(out, wire, Kind::Error, &error(*request_id, client_msg_id.clone(), failure)),
    }
}

fn error(request_id: u32, client_msg_id: String, failure: &Failure) -> v1::Error {
    v1::Error {
        request_id,
        name: failure.name.clone(),
        code: failure.code,
        temporary: failure.temporary,
        retry_after_ms: failure.retry_after_ms,
        detail: failure.detail.clone(),
        client_msg_id,
    }
}

/// The answer to a message: committed, or refused.
pub fn send_reply(out: &mut Vec<u8>, wire: Wire, reply: &SendReply) {
    let Some(ack) = &reply.ack else { return };
    match (&reply.failure, wire) {
        (Some(failure), _) => send_failure(out, wire, ack.request_id, &ack.client_msg_id, failure),
        (None, Wire::Json) => frames::ack(out, ack),
        (None, _) => binary(out, wire, Kind::Ack, ack),
    }
}

/// The answer to a call other than login.
pub fn call_reply(out: &mut Vec<u8>, wire: Wire, reply: &CallReply) {
    use call_reply::Reply;
    let Some(body) = &reply.reply else { return };
    let command = command_of_field(reply.command);
    if let Reply::Failure(body) = body {
        return failure(out, wire, command, reply.request_id, body);
    }
    if wire == Wire::Json {
        return frames::call_reply(out, command, reply.request_id, body);
    }
    match body {
        Reply::Page(body) => binary(out, wire, Kind::Page, body),
        Reply::Conversations(body) => binary(out, wire, Kind::Conversations, body),
        Reply::Conversation(body) => binary(out, wire, Kind::Conversation, body),
        Reply::Members(body) => binary(out, wire, Kind::Members, body),
        Reply::Read(body) => binary(out, wire, Kind::ReadReply, body),
        Reply::Resumed(body) => binary(out, wire, Kind::Resumed, body),
        Reply::Presence(body) => binary(out, wire, Kind::Presence, body),
        Reply::Welcome(_) | Reply::Failure(_) => {}
    }
}

/// The push of a message in the JSON form: the same bytes for every receiver.
pub fn push_json(out: &mut Vec<u8>, message: &v1::Message) {
    frames::push(out, message);
}

/// What the push of a message begins with in a binary form; the message itself, of `message_len` bytes and the same for
/// every receiver, has to follow. Only the number of the push is this connection's own.
pub fn push_binary_head(out: &mut Vec<u8>, wire: Wire, push_no: u64, message_len: usize) {
    use prost::encoding::{
        WireType, encode_key, encode_varint, encoded_len_varint, key_len, uint64,
    };
    // Field 1 of Push as a varint, field 2 as a length-delimited message: what prost would write,
    // without encoding the message again.
    let message_field_len = key_len(2) + encoded_len_varint(message_len as u64) + message_len;
    let body_len = uint64::encoded_len(1, &push_no) + message_field_len;
    if wire == Wire::BinaryMessage {
        let frame_len = codec::binary::encoded_len(Kind::Push, body_len);
        codec::ws::encode_header(out, codec::ws::Opcode::Binary, true, frame_len, None);
    }
    codec::binary::encode_header(out, Kind::Push, body_len);
    uint64::encode(1, &push_no, out);
    encode_key(2, WireType::LengthDelimited, out);
    encode_varint(message_len as u64, out);
}

/// An event in a conversation.
pub fn event(out: &mut Vec<u8>, wire: Wire, event: &v1::Event) {
    match wire {
        Wire::Json => frames::event(out, event),
        _ => binary(out, wire, Kind::Event, event),
    }
}

/// A user came or went.
pub fn presence_change(out: &mut Vec<u8>, wire: Wire, change: &v1::PresenceChange) {
    match wire {
        Wire::Json => presence_frames::change(out, change),
        _ => binary(out, wire, Kind::PresenceChange, change),
    }
}

/// Pushes of a conversation were left out from `from_seq` on.
pub fn lagged(out: &mut Vec<u8>, wire: Wire, conversation_id: &str, from_seq: u64) {
    match wire {
        Wire::Json => {
            json_writer::write(out, &frames::Lagged { cmd: LAGGED, conversation_id, from_seq })
        }
        _ => {
            let body = v1::Lagged { conversation_id: conversation_id.to_owned(), from_seq };
            binary(out, wire, Kind::Lagged, &body);
        }
    }
}

/// The connection is about to be closed.
pub fn goaway(out: &mut Vec<u8>, wire: Wire, code: u16, reconnect_after_ms: u32, reason: &str) {
    match wire {
        Wire::Json => json_writer::write(
            out,
            &frames::Goaway { cmd: GOAWAY, code, reconnect_after_ms, reason },
        ),
        _ => {
            let body =
                v1::Goaway { code: u32::from(code), reconnect_after_ms, reason: reason.to_owned() };
            binary(out, wire, Kind::Goaway, &body);
        }
    }
}

fn binary(out: &mut Vec<u8>, wire: Wire, kind: Kind, body: &impl prost::Message) {
    framed(out, wire, kind, usual_bytes(kind), |out| {
        // Writing to a Vec cannot fail.
        let _ = body.encode_length_delimited(out);
    });
}

/// A frame of about `expected_len` bytes, alone or in a message of its own; `write` appends the length of its body and
/// the body.
fn framed(
    out: &mut Vec<u8>,
    wire: Wire,
    kind: Kind,
    expected_len: usize,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let write = |out: &mut Vec<u8>| codec::binary::encode_delimited(out, kind, write);
    if wire == Wire::BinaryMessage {
        codec::ws::encode_frame_around(out, codec::ws::Opcode::Binary, expected_len, write);
    } else {
        write(out);
    }
}

/// About how long frames of a kind are: lists are not short, all else is.
fn usual_bytes(kind: Kind) -> usize {
    match kind {
        Kind::Page | Kind::Conversations | Kind::Members | Kind::Resumed => 1000,
        _ => 60,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    /// The hand-made head of a push is what prost writes.
    #[test]
    fn a_shared_push_reads_like_a_whole_one() {
        let message = v1::Message {
            conversation_id: "c".into(),
            seq: 300,
            content: vec![9; 200].into(),
            ..Default::default()
        };
        for push_no in [1, 127, 128, u64::MAX] {
            let mut out = Vec::new();
            push_binary_head(&mut out, Wire::BinaryStream, push_no, message.encoded_len());
            message.encode(&mut out).unwrap();
            let whole = v1::Push { push_no, message: Some(message.clone()) };
            let mut expected = Vec::new();
            codec::binary::encode(&mut expected, Kind::Push, &whole.encode_to_vec());
            assert_eq!(out, expected);

            let mut framed = Vec::new();
            push_binary_head(&mut framed, Wire::BinaryMessage, push_no, message.encoded_len());
            message.encode(&mut framed).unwrap();
            let mut expected = Vec::new();
            codec::ws::encode_frame(&mut expected, codec::ws::Opcode::Binary, &out);
            assert_eq!(framed, expected);
        }
    }

    #[test]
    fn a_binary_frame_in_a_message_is_one_unmasked_frame() {
        let mut out = Vec::new();
        heartbeat(&mut out, Wire::BinaryMessage, 0);
        assert_eq!(out, [0x82, 1, 0]);
        out.clear();
        lagged(&mut out, Wire::BinaryMessage, "c", 5);
        assert_eq!(out[..4], [0x82, 7, 0x14, 5]);
    }
}
