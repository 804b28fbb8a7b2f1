//! What the client sees: everything a session writes, read by the client's side of the codec.

use codec::binary::{self, Kind};
use codec::ws::handshake::read_response;
use codec::ws::{self, Event, Role};
use prost::Message as _;
use proto::v1;
use serde_json::Value;

use super::ops::NONCE;

/// Something the model wants to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A request was refused until so many milliseconds have passed; whether it was a message.
    RateLimited { message: bool, after_ms: u32 },
    /// A ping or heartbeat was answered, or a request refused.
    Idle,
    /// The connection was closed with this code; `None` without one.
    Closed(Option<u16>),
    /// An HTTP answer other than 101.
    Rejected,
}

enum Form {
    /// Nothing was written yet.
    Unknown,
    WebSocket(ws::Decoder),
    Stream(binary::Decoder),
    /// Nothing more may come.
    Over,
}

/// The client's end of a connection.
pub(super) struct View {
    form: Form,
    pushes: u64,
    /// Data messages are what the client sent.
    echo: bool,
}

impl View {
    pub(super) fn new(echo: bool) -> Self {
        Self { form: Form::Unknown, pushes: 0, echo }
    }

    /// Takes what was written. `spoilt`: the handshake was not as we wrote it, so that the proof in
    /// the answer need not be for our nonce.
    pub(super) fn read(&mut self, bytes: &[u8], spoilt: bool) -> Vec<Told> {
        let mut told = Vec::new();
        let mut bytes = bytes.to_vec();
        if bytes.is_empty() {
            return told;
        }
        let mut start = 0;
        if matches!(self.form, Form::Unknown) {
            start = self.first_bytes(&bytes, spoilt, &mut told);
        }
        match std::mem::replace(&mut self.form, Form::Over) {
            Form::WebSocket(decoder) => {
                self.read_websocket(decoder, &mut bytes[start..], &mut told)
            }
            Form::Stream(decoder) => self.read_stream(decoder, &bytes[start..], &mut told),
            Form::Over | Form::Unknown => {
                assert_eq!(bytes.len(), start, "bytes after the end: {bytes:x?}")
            }
        }
        told
    }

    /// Reads an HTTP head, and where it ends; the binary protocol has none.
    fn first_bytes(&mut self, bytes: &[u8], spoilt: bool, told: &mut Vec<Told>) -> usize {
        if !bytes.starts_with(b"HTTP/1.1 ") {
            self.form = Form::Stream(binary::Decoder::new());
            return 0;
        }
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        if bytes.starts_with(b"HTTP/1.1 101 ") {
            let response = read_response(bytes, NONCE);
            assert!(spoilt || matches!(response, Ok(Some(_))), "{response:?}");
            self.form = Form::WebSocket(ws::Decoder::new());
            return end;
        }
        let head = String::from_utf8_lossy(&bytes[..end]);
        let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next());
        let length = length.and_then(|length| length.parse().ok());
        assert_eq!(length, Some(bytes.len() - end), "{head}");
        told.push(Told::Rejected);
        self.form = Form::Over;
        bytes.len()
    }

    fn read_websocket(
        &mut self,
        mut decoder: ws::Decoder,
        mut input: &mut [u8],
        told: &mut Vec<Told>,
    ) {
        let limits = ws::Limits { max_message_bytes: 1 << 24, ..ws::Limits::DEFAULT };
        loop {
            match decoder.next(&mut input, Role::Client, &limits).expect("what we write is valid") {
                Some(Event::Text(_) | Event::Binary(_)) if self.echo => {}
                Some(Event::Text(text)) => self.on_text(text, told),
                Some(Event::Binary(mut message)) => {
                    let limits = binary::Limits::new(Role::Client);
                    assert!(!message.is_empty());
                    while let Some(frame) =
                        binary::next_in_message(&mut message, &limits).expect("whole frames")
                    {
                        self.on_frame(frame.kind, frame.body, told);
                    }
                }
                Some(Event::Pong(_)) => told.push(Told::Idle),
                Some(Event::Ping(_)) => panic!("nobody asked for a ping"),
                Some(Event::Close(frame)) => {
                    told.push(Told::Closed(frame.map(|frame| frame.code)));
                    return assert!(input.is_empty(), "bytes after the close: {input:x?}");
                }
                None => break,
            }
        }
        assert!(decoder.is_idle(), "frames are written whole");
        self.form = Form::WebSocket(decoder);
    }

    fn read_stream(
        &mut self,
        mut decoder: binary::Decoder,
        mut input: &[u8],
        told: &mut Vec<Told>,
    ) {
        let limits = binary::Limits::new(Role::Client);
        while let Some(frame) = decoder.next(&mut input, &limits).expect("what we write is valid") {
            if frame.kind == Kind::Goaway {
                let goaway = v1::Goaway::decode(frame.body).expect("a body");
                told.push(Told::Closed(u16::try_from(goaway.code).ok()));
                return assert!(input.is_empty(), "bytes after GOAWAY: {input:x?}");
            }
            self.on_frame(frame.kind, frame.body, told);
        }
        assert!(decoder.is_idle(), "frames are written whole");
        self.form = Form::Stream(decoder);
    }

    fn on_text(&mut self, text: &str, told: &mut Vec<Told>) {
        let answer: Value = serde_json::from_str(text).expect("JSON");
        let cmd = &answer["cmd"];
        assert!(cmd.is_null() || cmd.as_u64().is_some(), "{text}");
        let Some(error) = answer.get("error") else {
            let pushed = [4, 10, 11, 12].iter().any(|number| cmd == number);
            told.extend((*cmd == 0).then_some(Told::Idle));
            return assert!(pushed || answer["code"] == 0, "{text}");
        };
        told.push(Told::Idle);
        assert_eq!(answer["code"].as_u64(), known_code(error["name"].as_str()), "{text}");
        if error["name"] == "RATE_LIMITED" {
            let after_ms = error["retry_after_ms"].as_u64().expect("a delay");
            told.push(Told::RateLimited {
                message: *cmd == 2,
                after_ms: u32::try_from(after_ms).expect("a delay"),
            });
        }
    }

    fn on_frame(&mut self, kind: Kind, body: &[u8], told: &mut Vec<Told>) {
        match kind {
            Kind::Push => {
                let push = v1::Push::decode(body).expect("a body");
                self.pushes += 1;
                assert_eq!(push.push_no, self.pushes);
                assert!(push.message.is_some());
            }
            Kind::Error => {
                told.push(Told::Idle);
                let error = v1::Error::decode(body).expect("a body");
                assert_eq!(known_code(Some(&error.name)), Some(error.code.into()), "{error:?}");
                if error.name == "RATE_LIMITED" {
                    let message = !error.client_msg_id.is_empty();
                    told.push(Told::RateLimited { message, after_ms: error.retry_after_ms });
                }
            }
            Kind::Welcome => drop(v1::Welcome::decode(body).expect("a body")),
            Kind::Ack => drop(v1::Ack::decode(body).expect("a body")),
            Kind::Conversations => drop(v1::Conversations::decode(body).expect("a body")),
            Kind::Goaway => drop(v1::Goaway::decode(body).expect("a body")),
            Kind::Heartbeat => told.push(Told::Idle),
            kind => panic!("{kind:?} is not written here"),
        }
    }
}

fn known_code(name: Option<&str>) -> Option<u64> {
    let known = proto::error::ErrorCode::ALL.iter().find(|code| Some(code.name()) == name);
    known.map(|code| code.code().into())
}
