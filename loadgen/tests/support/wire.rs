//! The server's side of the three wire forms.

use codec::Role;
use codec::binary::{self, Kind};
use codec::ws::{self, Event, Opcode};
use prost::Message as _;
use proto::v1;
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Binary,
    Tcp,
}

/// A request, whatever its form.
#[derive(Debug)]
pub(crate) enum Ask {
    Heartbeat,
    Hello { user: String },
    Send { conversation: String, msg_id: String, content: String },
    Pull { id: u32, conversation: String, cursor: u64, limit: u32 },
    Create { id: u32, group: Option<String>, members: Vec<String> },
    Join { id: u32, conversation: String },
}

/// A stored message.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) msg_id: String,
    pub(crate) sender: String,
    pub(crate) content: String,
}

/// Something to say, whatever its form.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Heartbeat,
    Welcome,
    Ack { msg_id: String, seq: u64 },
    Push { conversation: String, message: Stored },
    Page { id: u32, conversation: String, items: Vec<Stored>, next: u64, has_more: bool },
    Conversation { id: u32, conversation: String },
    Lagged { conversation: String, from_seq: u64 },
    Failure { id: u32, msg_id: String, name: &'static str, temporary: bool },
}

impl Answer {
    pub(crate) fn failure(id: u32, msg_id: &str, name: &'static str, temporary: bool) -> Self {
        Self::Failure { id, msg_id: msg_id.to_owned(), name, temporary }
    }
}

pub(crate) fn decode_websocket(
    decoder: &mut ws::Decoder,
    bytes: &mut [u8],
    form: &mut Form,
    asks: &mut Vec<Ask>,
) -> bool {
    let mut input = bytes;
    while let Some(event) =
        decoder.next(&mut input, Role::Server, &ws::Limits::DEFAULT).expect("well-formed")
    {
        match event {
            Event::Text(text) => asks.push(from_json(text)),
            Event::Binary(mut message) => {
                *form = Form::Binary;
                let limits = binary::Limits::new(Role::Server);
                while let Some(frame) =
                    binary::next_in_message(&mut message, &limits).expect("well-formed")
                {
                    asks.push(from_frame(frame));
                }
            }
            Event::Ping(_) | Event::Pong(_) => {}
            Event::Close(_) => return false,
        }
    }
    true
}

pub(crate) fn decode_stream(
    decoder: &mut binary::Decoder,
    bytes: &[u8],
    asks: &mut Vec<Ask>,
) -> bool {
    let mut input = bytes;
    let limits = binary::Limits::new(Role::Server);
    while let Some(frame) = decoder.next(&mut input, &limits).expect("well-formed") {
        asks.push(from_frame(frame));
    }
    true
}

fn from_json(text: &str) -> Ask {
    let frame: Value = serde_json::from_str(text).expect("JSON");
    let id = frame["id"].as_u64().unwrap_or(0) as u32;
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conversation = string(&frame["conversation_id"]);
    match frame["cmd"].as_u64().expect("a command") {
        0 => Ask::Heartbeat,
        2 => Ask::Send {
            conversation,
            msg_id: string(&frame["msg_id"]),
            content: string(&frame["payload"]["content"]),
        },
        3 => Ask::Pull {
            id,
            conversation,
            cursor: frame["cursor_seq"].as_u64().unwrap_or(0),
            limit: frame["limit"].as_u64().unwrap_or(50) as u32,
        },
        6 => Ask::Create {
            id,
            group: (frame["payload"]["type"] == "group")
                .then(|| string(&frame["payload"]["conversation_id"])),
            members: frame["payload"]["members"]
                .as_array()
                .expect("members")
                .iter()
                .map(string)
                .collect(),
        },
        7 => Ask::Join { id, conversation },
        other => panic!("unexpected command {other}"),
    }
}

fn from_frame(frame: binary::Frame<'_>) -> Ask {
    let body = frame.body;
    match frame.kind {
        Kind::Heartbeat => Ask::Heartbeat,
        Kind::Hello => {
            let hello = v1::Hello::decode(body).expect("hello");
            let user = hello.token.strip_prefix("tok-").map_or(hello.dev_user, str::to_owned);
            Ask::Hello { user }
        }
        Kind::Send => {
            let send = v1::Send::decode(body).expect("send");
            let content = String::from_utf8(send.content.to_vec()).expect("text");
            Ask::Send { conversation: send.conversation_id, msg_id: send.client_msg_id, content }
        }
        Kind::Pull => {
            let pull = v1::Pull::decode(body).expect("pull");
            let (id, conversation) = (pull.request_id, pull.conversation_id);
            Ask::Pull { id, conversation, cursor: pull.cursor_seq, limit: pull.limit }
        }
        Kind::CreateConversation => {
            let create = v1::CreateConversation::decode(body).expect("create");
            let group = (create.r#type == "group").then_some(create.conversation_id);
            Ask::Create { id: create.request_id, group, members: create.members }
        }
        Kind::Join => {
            let join = v1::Membership::decode(body).expect("join");
            Ask::Join { id: join.request_id, conversation: join.conversation_id }
        }
        other => panic!("unexpected frame {other:?}"),
    }
}

pub(crate) fn encode(form: Form, answer: &Answer, out: &mut Vec<u8>) {
    match form {
        Form::Json => ws::encode_frame(out, Opcode::Text, to_json(answer).to_string().as_bytes()),
        Form::Tcp => to_frame(answer, out),
        Form::Binary => {
            let mut frame = Vec::new();
            to_frame(answer, &mut frame);
            ws::encode_frame(out, Opcode::Binary, &frame);
        }
    }
}

fn to_json(answer: &Answer) -> Value {
    let item = |stored: &Stored| {
        json!({"msg_id": stored.msg_id, "message_id": "1", "seq": stored.seq, "sender_id": "1",
            "sender": stored.sender, "content": stored.content, "msg_type": 1, "created_at_ms": 1})
    };
    match answer {
        Answer::Heartbeat => json!({"cmd":0,"code":0}),
        Answer::Welcome => json!({"cmd":1,"code":0,"payload":{"user_id":"1"}}),
        Answer::Ack { msg_id, seq } => {
            json!({"cmd":2,"code":0,"msg_id":msg_id,"seq":seq,"message_id":"1"})
        }
        Answer::Push { conversation, message } => {
            json!({"cmd":4,"conversation_id":conversation,"payload":item(message)})
        }
        Answer::Page { id, conversation, items, next, has_more } => {
            let items: Vec<Value> = items.iter().map(item).collect();
            json!({"cmd":3,"code":0,"id":id,"conversation_id":conversation,"payload":items,
                "next_cursor_seq":next,"has_more":has_more})
        }
        Answer::Conversation { id, conversation } => {
            json!({"cmd":6,"code":0,"id":id,"payload":{"conversation_id":conversation,"name":"x","last_message":null}})
        }
        Answer::Lagged { conversation, from_seq } => {
            json!({"cmd":10,"conversation_id":conversation,"from_seq":from_seq})
        }
        Answer::Failure { id, msg_id, name, temporary } => {
            let mut value = json!({"cmd":2,"code":499,"error":{"name":name,"temporary":temporary,"retry_after_ms":20}});
            if *id > 0 {
                value["id"] = json!(id);
            }
            if !msg_id.is_empty() {
                value["msg_id"] = json!(msg_id);
            }
            value
        }
    }
}

fn to_frame(answer: &Answer, out: &mut Vec<u8>) {
    let message = |conversation: &str, stored: &Stored| v1::Message {
        conversation_id: conversation.to_owned(),
        seq: stored.seq,
        client_msg_id: stored.msg_id.clone(),
        sender: stored.sender.clone(),
        content: stored.content.clone().into_bytes().into(),
        ..Default::default()
    };
    let (kind, body) = match answer {
        Answer::Heartbeat => return binary::encode_heartbeat(out),
        Answer::Welcome => {
            (Kind::Welcome, v1::Welcome { user_id: 1, ..Default::default() }.encode_to_vec())
        }
        Answer::Ack { msg_id, seq } => (
            Kind::Ack,
            v1::Ack { client_msg_id: msg_id.clone(), seq: *seq, ..Default::default() }
                .encode_to_vec(),
        ),
        Answer::Push { conversation, message: stored } => (
            Kind::Push,
            v1::Push { push_no: 0, message: Some(message(conversation, stored)) }.encode_to_vec(),
        ),
        Answer::Page { id, conversation, items, next, has_more } => {
            let page = v1::Page {
                request_id: *id,
                conversation_id: conversation.clone(),
                items: items.iter().map(|stored| message(conversation, stored)).collect(),
                next_cursor_seq: *next,
                has_more: *has_more,
            };
            (Kind::Page, page.encode_to_vec())
        }
        Answer::Conversation { id, conversation } => {
            let conversation =
                v1::Conversation { conversation_id: conversation.clone(), ..Default::default() };
            let reply = v1::ConversationReply { request_id: *id, conversation: Some(conversation) };
            (Kind::Conversation, reply.encode_to_vec())
        }
        Answer::Lagged { conversation, from_seq } => (
            Kind::Lagged,
            v1::Lagged { conversation_id: conversation.clone(), from_seq: *from_seq }
                .encode_to_vec(),
        ),
        Answer::Failure { id, msg_id, name, temporary } => {
            let error = v1::Error {
                request_id: *id,
                name: (*name).to_owned(),
                temporary: *temporary,
                retry_after_ms: 20,
                client_msg_id: msg_id.clone(),
                ..Default::default()
            };
            (Kind::Error, error.encode_to_vec())
        }
    };
    binary::encode(out, kind, &body);
}
