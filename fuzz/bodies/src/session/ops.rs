//! What may happen to a connection, and the bytes of it.

use codec::binary::{self, Kind};
use codec::ws::{Opcode, encode_fragment, encode_frame_masked, handshake::write_client_request};
use prost::Message;
use proto::v1;

use crate::input::Reader;

/// The nonce of all handshakes here.
pub const NONCE: [u8; 16] = *b"the sample nonce";

/// One event in the life of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes arrive.
    Bytes(Arrival),
    /// The logic service lets the user in.
    Welcome,
    /// The logic service refuses.
    LoginFailed {
        /// Whether trying again may help.
        temporary: bool,
    },
    /// Time passes.
    Wait {
        /// Milliseconds.
        ms: u32,
    },
    /// As long passes as the last RATE_LIMITED asked for.
    WaitAsAsked,
    /// A message for this connection.
    Push {
        /// Bytes of its content.
        size: u16,
    },
    /// Everything asked so far is answered.
    Answer,
    /// The uplink is full: the messages of the last arrival are refused.
    Busy,
    /// The server ends the connection.
    Close,
    /// The server stops.
    GoAway,
    /// The shard asks whether the end is to be reported.
    TakeAnnounced,
}

/// Bytes of one kind, spoilt or not, in one piece or two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// What they are.
    pub part: Part,
    /// How often it comes again right behind itself, as far as [`ARRIVAL_MAX_BYTES`] allow.
    pub again: u8,
    /// A place (modulo the length) and what is changed there; 0 changes nothing.
    pub spoil: (u16, u8),
    /// Where they are cut for the twin.
    pub cut: u16,
    /// They come in one piece with the next arrival.
    pub joined: bool,
}

/// What a client may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A WebSocket handshake, by its place in [`TARGETS`] and [`PROTOCOLS`].
    Handshake(u8, u8),
    /// The preface of raw TCP.
    Preface,
    /// A text message, by its place in [`TEXTS`].
    Text(u8),
    /// A text message in two fragments with a ping between them.
    Fragments(u8),
    /// A binary frame in a WebSocket message, by its place in [`frame`].
    Message(u8),
    /// A binary frame on TCP.
    Stream(u8),
    /// A ping.
    Ping,
    /// A pong that nobody asked for.
    Pong,
    /// A binary message without a byte.
    Empty,
    /// A close frame.
    Close,
    /// Anything.
    Raw(Vec<u8>),
}

/// A part that comes again and again makes no more bytes than these.
const ARRIVAL_MAX_BYTES: usize = 16 * 1024;

/// Targets of a handshake.
pub const TARGETS: [&str; 6] =
    ["/ws", "/ws?user_id=alice&device_id=d", "/ws?token=abc", "/other", "/", "/ws?user_id=%zz"];

/// Subprotocols of a handshake.
pub const PROTOCOLS: [&[&str]; 5] = [
    &[],
    &["corelane.json.v1"],
    &["corelane.bin.v1"],
    &["corelane.json.v1", "bearer.t.o.k"],
    &["corelane.bin.v1", "bearer.t.o.k"],
];

/// Text messages, good and bad. The first sends, the second logs in.
pub const TEXTS: [&str; 22] = [
    r#"{"cmd":2,"id":7,"msg_id":"m1","conversation_id":"c","payload":{"content":"hello"}}"#,
    r#"{"cmd":1,"id":1,"payload":{"token":"t","device_id":"d","device_class":"web"}}"#,
    r#"{"cmd":0}"#,
    r#"{"cmd":0,"id":4294967295}"#,
    r#"{"cmd":3,"id":2,"conversation_id":"c","cursor_seq":5,"limit":10}"#,
    r#"{"cmd":5}"#,
    r#"{"cmd":6,"id":3,"payload":{"type":"group","name":"n","members":["bob"]}}"#,
    r#"{"cmd":7,"conversation_id":"c"}"#,
    r#"{"cmd":8,"conversation_id":"c"}"#,
    r#"{"cmd":9,"conversation_id":"c","cursor":3}"#,
    r#"{"cmd":13,"conversation_id":"c","read_seq":9}"#,
    r#"{"cmd":2,"msg_id":"","conversation_id":"c","payload":{"content":"x"}}"#,
    r#"{"cmd":2,"msg_id":"m","conversation_id":"a\u0000b","payload":{"content":"x"}}"#,
    r#"{"cmd":2,"msg_id":"m","conversation_id":"c","payload":{"content":5}}"#,
    r#"{"cmd":2,"msg_id":"m","conversation_id":"c","payload":{"content":"x","msg_type":0}}"#,
    r#"{"cmd":4}"#,
    r#"{"cmd":-1}"#,
    r#"{"cmd":1,"payload":{}}"#,
    r#"{"cmd":3,"conversation_id":""}"#,
    "[]",
    "{",
    "",
];

/// How many frames [`frame`] knows.
pub const FRAMES: u8 = 16;

/// A binary frame, good or bad. The first sends, the second logs in.
fn frame(which: u8) -> Vec<u8> {
    let c = || "c".to_owned();
    let send = v1::Send {
        request_id: 7,
        conversation_id: c(),
        client_msg_id: "m1".into(),
        msg_type: 1,
        content: b"hello"[..].into(),
    };
    let hello = v1::Hello { token: "t".into(), ..Default::default() };
    let membership = v1::Membership { request_id: 4, conversation_id: c() };
    let (kind, body) = match which % FRAMES {
        0 => (Kind::Send, send.encode_to_vec()),
        1 => (Kind::Hello, hello.encode_to_vec()),
        2 => (Kind::Heartbeat, Vec::new()),
        3 => (Kind::Sync, v1::Sync { request_id: 2, ..Default::default() }.encode_to_vec()),
        4 => (Kind::Sync, v1::Sync { limit: 2, ..Default::default() }.encode_to_vec()),
        5 => (Kind::Join, membership.encode_to_vec()),
        6 => (Kind::Leave, membership.encode_to_vec()),
        7 => (Kind::Pull, vec![8, 1]),
        8 => (Kind::ListMembers, vec![8, 1, 18, 1, b'c']),
        9 => (Kind::Read, vec![8, 1, 18, 1, b'c', 24, 5]),
        10 => (Kind::CreateConversation, vec![8, 1]),
        11 => (Kind::Send, v1::Send { content: vec![0xFF].into(), ..send }.encode_to_vec()),
        12 => (Kind::Send, vec![0xFF; 3]),
        13 => (Kind::Hello, vec![0xFF; 3]),
        14 => (Kind::Push, vec![8, 1]),
        _ => (Kind::Send, v1::Send { content: vec![b'x'; 5000].into(), ..send }.encode_to_vec()),
    };
    let mut bytes = Vec::new();
    match kind {
        Kind::Heartbeat => binary::encode_heartbeat(&mut bytes),
        kind => binary::encode(&mut bytes, kind, &body),
    }
    bytes
}

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

impl Part {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Handshake(target, protocols) => {
                let target = TARGETS[usize::from(*target) % TARGETS.len()];
                let protocols = PROTOCOLS[usize::from(*protocols) % PROTOCOLS.len()];
                write_client_request(&mut out, "127.0.0.1", target, protocols, NONCE);
            }
            Self::Preface => out.extend(binary::PREFACE),
            Self::Text(which) => {
                encode_frame_masked(&mut out, Opcode::Text, text(*which).as_bytes(), KEY)
            }
            Self::Fragments(which) => {
                let (front, back) = text(*which).as_bytes().split_at(text(*which).len() / 2);
                encode_fragment(&mut out, Opcode::Text, false, front, Some(KEY));
                encode_fragment(&mut out, Opcode::Ping, true, b"between", Some(KEY));
                encode_fragment(&mut out, Opcode::Continuation, true, back, Some(KEY));
            }
            Self::Message(which) => {
                encode_frame_masked(&mut out, Opcode::Binary, &frame(*which), KEY)
            }
            Self::Stream(which) => out = frame(*which),
            Self::Ping => encode_frame_masked(&mut out, Opcode::Ping, b"ping", KEY),
            Self::Pong => encode_frame_masked(&mut out, Opcode::Pong, b"", KEY),
            Self::Empty => encode_frame_masked(&mut out, Opcode::Binary, b"", KEY),
            Self::Close => codec::ws::encode_close_masked(&mut out, 1000, "bye", KEY),
            Self::Raw(bytes) => out.extend(bytes),
        }
        out
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        match reader.byte() % 11 {
            0 => Self::Handshake(reader.byte(), reader.byte()),
            1 => Self::Preface,
            2 => Self::Text(reader.byte()),
            3 => Self::Fragments(reader.byte()),
            4 => Self::Message(reader.byte()),
            5 => Self::Stream(reader.byte()),
            6 => Self::Ping,
            7 => Self::Close,
            9 => Self::Pong,
            10 => Self::Empty,
            _ => {
                let len = usize::from(reader.byte());
                Self::Raw(reader.take(len).to_vec())
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Handshake(target, protocols) => out.extend([0, *target, *protocols]),
            Self::Preface => out.push(1),
            Self::Text(which) => out.extend([2, *which]),
            Self::Fragments(which) => out.extend([3, *which]),
            Self::Message(which) => out.extend([4, *which]),
            Self::Stream(which) => out.extend([5, *which]),
            Self::Ping => out.push(6),
            Self::Close => out.push(7),
            Self::Pong => out.push(9),
            Self::Empty => out.push(10),
            Self::Raw(bytes) => {
                let bytes = &bytes[..bytes.len().min(255)];
                out.extend([8, bytes.len() as u8]);
                out.extend(bytes);
            }
        }
    }
}

fn text(which: u8) -> &'static str {
    TEXTS[usize::from(which) % TEXTS.len()]
}

impl Arrival {
    /// The part whole and unspoilt, once, on its own.
    #[must_use]
    pub fn plain(part: Part) -> Self {
        Self { part, again: 0, spoil: (0, 0), cut: 0, joined: false }
    }

    /// The bytes as they arrive.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let part = self.part.bytes();
        let mut bytes = part.repeat(self.times(part.len()));
        let len = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(usize::from(self.spoil.0) % len) {
            *byte ^= self.spoil.1;
        }
        bytes
    }

    fn times(&self, part_len: usize) -> usize {
        let most = (ARRIVAL_MAX_BYTES / part_len.max(1)).max(1);
        most.min(usize::from(self.again) + 1)
    }

    /// As many frames without a purpose as there may be in it, if nothing before it was spoilt.
    #[must_use]
    pub fn idle_frames(&self) -> usize {
        let part_len = self.part.bytes().len();
        let in_one = match self.part {
            Part::Text(_) | Part::Message(_) | Part::Stream(_) => 1,
            Part::Ping | Part::Pong | Part::Empty | Part::Close => 1,
            // The request, and the ping in its midst.
            Part::Fragments(_) => 2,
            Part::Handshake(..) | Part::Preface | Part::Raw(_) => part_len,
        };
        in_one * self.times(part_len)
    }
}

impl Op {
    /// Reads one operation.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        match reader.byte() % 16 {
            0..=5 => {
                let flags = reader.byte();
                let part = Part::read(reader);
                let spoil = if flags & 1 == 0 { (0, 0) } else { (reader.short(), reader.byte()) };
                let cut = if flags & 2 == 0 { 0 } else { reader.short() };
                let again = if flags & 8 == 0 { 0 } else { reader.byte() };
                Self::Bytes(Arrival { part, again, spoil, cut, joined: flags & 4 != 0 })
            }
            6 => Self::Welcome,
            7 => Self::LoginFailed { temporary: reader.byte() & 1 == 1 },
            8 => Self::Wait { ms: reader.short().into() },
            9 => Self::Wait { ms: reader.long() },
            10 => Self::WaitAsAsked,
            11 => Self::Push { size: reader.short() },
            12 => Self::Answer,
            13 => Self::Busy,
            14 => match reader.byte() % 2 {
                0 => Self::Close,
                _ => Self::GoAway,
            },
            _ => Self::TakeAnnounced,
        }
    }

    /// Writes what [`Op::read`] reads.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes(arrival) => {
                let spoilt = u8::from(arrival.spoil != (0, 0));
                let cut = u8::from(arrival.cut != 0);
                let again = u8::from(arrival.again != 0);
                out.extend([0, spoilt | cut << 1 | u8::from(arrival.joined) << 2 | again << 3]);
                arrival.part.write(out);
                if spoilt == 1 {
                    out.extend(arrival.spoil.0.to_le_bytes());
                    out.push(arrival.spoil.1);
                }
                if cut == 1 {
                    out.extend(arrival.cut.to_le_bytes());
                }
                if again == 1 {
                    out.push(arrival.again);
                }
            }
            Self::Welcome => out.push(6),
            Self::LoginFailed { temporary } => out.extend([7, u8::from(*temporary)]),
            Self::Wait { ms } => {
                out.push(9);
                out.extend(ms.to_le_bytes());
            }
            Self::WaitAsAsked => out.push(10),
            Self::Push { size } => {
                out.push(11);
                out.extend(size.to_le_bytes());
            }
            Self::Answer => out.push(12),
            Self::Busy => out.push(13),
            Self::Close => out.extend([14, 0]),
            Self::GoAway => out.extend([14, 1]),
            Self::TakeAnnounced => out.push(15),
        }
    }
}
