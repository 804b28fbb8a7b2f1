//! The client's side of the protocols, without input or output: requests become bytes, the server's bytes
//! become [`Incoming`] values that borrow from the receive buffer.

pub mod binary;
mod fields;
pub mod json;

use std::borrow::Cow;

use clap::ValueEnum;
use codec::ws::{self, Opcode};
use serde::{Deserialize, Serialize};

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// JSON text frames on WebSocket.
    Json,
    /// Binary frames in WebSocket binary messages.
    Binary,
    /// Binary frames on raw TCP.
    Tcp,
}

impl Protocol {
    /// Whether it begins with a WebSocket handshake.
    #[must_use]
    pub fn is_websocket(self) -> bool {
        self != Self::Tcp
    }
}

/// What a client asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Keeps the connection alive.
    Heartbeat,
    /// Logs in (binary protocol only; JSON logs in with the handshake).
    Hello {
        /// Access token; empty to log in by name.
        token: &'a str,
        /// User name under development login.
        dev_user: &'a str,
    },
    /// One message into a conversation.
    Send {
        /// The client message id.
        id: &'a [u8],
        /// Where to.
        conversation_id: &'a str,
        /// ASCII without quotes, backslashes and control characters.
        content: &'a [u8],
    },
    /// Messages after a cursor.
    Pull {
        /// Echoed in the answer.
        request_id: u32,
        /// Of which conversation.
        conversation_id: &'a str,
        /// Exclusive.
        cursor_seq: u64,
        /// At most so many.
        limit: u32,
    },
    /// Makes a conversation of the caller and others.
    Create {
        /// Echoed in the answer.
        request_id: u32,
        /// `None`: a direct conversation; else a group of this id.
        group_id: Option<&'a str>,
        /// User names of the others.
        members: &'a [String],
    },
    /// Becomes a member.
    Join {
        /// Echoed in the answer.
        request_id: u32,
        /// Of which conversation.
        conversation_id: &'a str,
    },
}

/// One message as pushed or pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item<'a> {
    /// Empty in the pages of the JSON protocol.
    pub conversation_id: Cow<'a, str>,
    /// The client message id.
    pub msg_id: Cow<'a, str>,
    /// Its place in the conversation.
    pub seq: u64,
    /// What was sent.
    pub content: Cow<'a, [u8]>,
}

/// A part of a conversation's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<'a> {
    /// Of the pull; 0 when the answer names none.
    pub request_id: u32,
    /// Ascending by sequence number.
    pub items: Vec<Item<'a>>,
    /// Where to go on.
    pub next_cursor_seq: u64,
    /// Whether there is more.
    pub has_more: bool,
}

/// A request that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure<'a> {
    /// 0 when the answer names none.
    pub request_id: u32,
    /// Of the failed send; empty otherwise.
    pub msg_id: Cow<'a, str>,
    /// Stable name.
    pub name: Cow<'a, str>,
    /// Worth trying again.
    pub temporary: bool,
    /// After how long.
    pub retry_after_ms: u32,
    /// A sentence for the developer.
    pub detail: Cow<'a, str>,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Answer to a heartbeat.
    Heartbeat,
    /// Answer to the login.
    Welcome,
    /// A send is stored.
    Ack {
        /// The client message id.
        msg_id: Cow<'a, str>,
        /// Its place in the conversation.
        seq: u64,
    },
    /// A message of somebody else.
    Push(Item<'a>),
    /// Answer to a pull.
    Page(Page<'a>),
    /// Answer to create and join.
    Conversation {
        /// Of the request.
        request_id: u32,
        /// Which conversation.
        conversation_id: Cow<'a, str>,
    },
    /// Pushes were left out.
    Lagged {
        /// In which conversation.
        conversation_id: Cow<'a, str>,
        /// The first one.
        from_seq: u64,
    },
    /// The server is about to close.
    Goaway {
        /// Close code.
        code: u32,
        /// When to come back.
        reconnect_after_ms: u32,
    },
    /// A request failed.
    Failed(Failure<'a>),
    /// Something this client has no use for (an event).
    Other,
}

/// The server broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolError(pub String);

/// Working space of [`encode`], kept by the caller so that nothing is allocated for each request.
#[derive(Debug, Default)]
pub struct Scratch {
    body: Vec<u8>,
    frame: Vec<u8>,
}

/// The WebSocket message that a request is.
pub fn message<'s>(
    protocol: Protocol,
    request: &Request<'_>,
    scratch: &'s mut Scratch,
) -> (Opcode, &'s [u8]) {
    scratch.body.clear();
    scratch.frame.clear();
    if protocol == Protocol::Json {
        json::write(&mut scratch.body, request);
        return (Opcode::Text, &scratch.body);
    }
    binary::write_body(&mut scratch.body, request);
    binary::write_frame(&mut scratch.frame, request, &scratch.body);
    (Opcode::Binary, &scratch.frame)
}

/// Appends a request in its wire form; `mask` is the key of a WebSocket frame.
pub fn encode(
    protocol: Protocol,
    request: &Request<'_>,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
    mask: [u8; 4],
) {
    let (opcode, message) = self::message(protocol, request, scratch);
    if protocol.is_websocket() {
        ws::encode_frame_masked(out, opcode, message, mask);
    } else {
        out.extend_from_slice(message);
    }
}
