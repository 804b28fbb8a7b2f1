//! The rules of one connection, pure: bytes, answers and time go in, outputs come out. No socket, no
//! queue, no clock.
//!
//! ```text
//!            preface, 101            login asked          welcome
//! Greeting ────────────► Anonymous ────────────► LoggingIn ─────► Open
//!     │                      │                       │              │
//!     ├─► handed to HTTP     └───────────┬───────────┴──────────────┘
//!     └─► Ended                          ▼
//!                                      Ended    (nothing more is read or written)
//! ```
//! In echo mode the way is Greeting, Echo, Ended.

pub mod answer;
pub mod binary;
pub mod bucket;
mod command;
pub mod deflate;
mod greeting;
pub mod json;
mod login;
mod output;
pub mod rules;
#[cfg(test)]
mod tests;

use proto::error::close_code;

pub use command::Command;
pub use output::{Cause, InPlace, Outputs, Verdict};

use crate::ids::ConnId;
use bucket::Bucket;
use deflate::{Deflate, Takeover};
use login::LoginWait;
use rules::Rules;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first bytes have not told what this is.
    Greeting,
    /// The transport stands, nobody has logged in.
    Anonymous,
    /// The logic service was asked; input waits.
    LoggingIn,
    /// Logged in.
    Open,
    /// Every data message goes back.
    Echo,
    /// The last bytes were written; what still arrives is dropped.
    Ended,
}

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    WebSocket,
    /// WebSocket with compressed messages; the window agreed on for ours.
    Deflated(codec::ws::deflate::WindowBits),
}

/// What frames are made of. Set by the first data message or the subprotocol, and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Undecided,
    Json,
    Binary,
}

/// How a frame for this connection is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// JSON in WebSocket text messages.
    Json,
    /// Binary frames in WebSocket binary messages.
    BinaryMessage,
    /// Binary frames on TCP.
    BinaryStream,
}

/// Bytes that an unfinished something holds. An idle connection holds nothing.
enum Buffer {
    Nothing,
    /// The beginning of an HTTP head or of the preface. Boxed twice over so that the idle case is small.
    #[allow(clippy::box_collection, reason = "a thin pointer keeps the table entry small")]
    Head(Box<Vec<u8>>),
    /// An unfinished WebSocket frame or message.
    WebSocket(codec::ws::Decoder),
    /// The windows of compressed messages that refer to earlier ones. An idle connection holds this too,
    /// but only where it was switched on and agreed on.
    Takeover(Box<Takeover>),
    /// An unfinished binary frame.
    Binary(codec::binary::Decoder),
    /// A login under way and the bytes that came behind it.
    Login(Box<LoginWait>),
}

/// One connection's rules and state.
pub struct Session {
    phase: Phase,
    transport: Transport,
    form: Form,
    /// The logic service was asked to log this connection in and has not been told of its end.
    announced: bool,
    pushes: u32,
    user_id: u64,
    messages: Bucket,
    requests: Bucket,
    buffer: Buffer,
}

/// What surrounds one input: who, when, under which rules, and where outputs go.
pub struct Context<'a> {
    /// The connection.
    pub id: ConnId,
    /// Milliseconds since the shard started; wraps.
    pub now_ms: u32,
    /// The shard's rules.
    pub rules: &'a Rules,
    /// The shard's compressors; `None` when compression is switched off.
    pub deflate: Option<&'a mut Deflate>,
    /// Collects what comes out.
    pub out: &'a mut Outputs,
}

impl Session {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(rules: &Rules, now_ms: u32) -> Self {
        Self {
            phase: Phase::Greeting,
            transport: Transport::Tcp,
            form: Form::Undecided,
            announced: false,
            pushes: 0,
            user_id: 0,
            messages: Bucket::full(&rules.message_rate, now_ms),
            requests: Bucket::full(&rules.request_rate, now_ms),
            buffer: Buffer::Nothing,
        }
    }

    /// Where the connection is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The user who is logged in, 0 for nobody.
    #[must_use]
    pub fn user_id(&self) -> u64 {
        self.user_id
    }

    /// Whether the logic service has to be told that the connection ended; true at most once.
    pub fn take_announced(&mut self) -> bool {
        std::mem::take(&mut self.announced)
    }

    /// How frames for this connection are written.
    #[must_use]
    pub fn wire(&self) -> Wire {
        match (self.transport, self.form) {
            (Transport::Tcp, _) => Wire::BinaryStream,
            (_, Form::Binary) => Wire::BinaryMessage,
            _ => Wire::Json,
        }
    }

    /// The number of the next push on this connection, from 1.
    pub fn next_push_no(&mut self) -> u64 {
        self.pushes = self.pushes.wrapping_add(1);
        u64::from(self.pushes)
    }

    /// Bytes arrived.
    pub fn on_bytes(&mut self, cx: &mut Context<'_>, input: &mut [u8]) {
        match (self.phase, self.transport) {
            (Phase::Greeting, _) => self.greet(cx, input),
            (Phase::LoggingIn, _) => self.hold(cx, input),
            (Phase::Ended, _) => {}
            (_, Transport::Tcp) => self.on_stream(cx, input),
            (_, Transport::WebSocket | Transport::Deflated(_)) => self.on_websocket(cx, input),
        }
    }

    fn on_websocket_event(&mut self, cx: &mut Context<'_>, event: codec::ws::Event<'_>) {
        use codec::ws::{Event, Opcode, encode_frame};
        match event {
            Event::Text(text) if self.phase == Phase::Echo => {
                self.echo(cx, Opcode::Text, text.as_bytes())
            }
            Event::Binary(bytes) if self.phase == Phase::Echo => {
                self.echo(cx, Opcode::Binary, bytes)
            }
            Event::Text(text) => self.on_text(cx, text),
            Event::Binary(bytes) => self.on_binary_message(cx, bytes),
            Event::Ping(payload) => {
                encode_frame(&mut cx.out.bytes, Opcode::Pong, payload);
                self.charge(cx);
            }
            Event::Pong(_) => self.charge(cx),
            // RFC 6455 5.5.1: answer with the code received.
            Event::Close(Some(frame)) => self.close_websocket(cx, frame.code, ""),
            Event::Close(None) => {
                encode_frame(&mut cx.out.bytes, Opcode::Close, &[]);
                self.end(cx);
            }
        }
    }

    #[inline]
    fn echo(&self, cx: &mut Context<'_>, opcode: codec::ws::Opcode, payload: &[u8]) {
        match self.transport {
            Transport::Tcp | Transport::WebSocket => cx.out.send_back(opcode, payload),
            // What is compressed has to be in one piece.
            Transport::Deflated(_) => codec::ws::encode_frame(&mut cx.out.bytes, opcode, payload),
        }
    }

    fn on_text(&mut self, cx: &mut Context<'_>, text: &str) {
        if self.form == Form::Binary {
            return self.close(cx, close_code::PROTOCOL_VIOLATION, "this connection speaks binary");
        }
        self.form = Form::Json;
        match json::decode(text) {
            Ok(command) => self.on_command(cx, command),
            Err(refusal) => {
                answer::refuse(&mut cx.out.bytes, Wire::Json, &refusal);
                self.charge(cx);
            }
        }
    }

    fn on_binary_message(&mut self, cx: &mut Context<'_>, mut message: &[u8]) {
        if self.form == Form::Json {
            return self.close(cx, close_code::PROTOCOL_VIOLATION, "this connection speaks JSON");
        }
        self.form = Form::Binary;
        if message.is_empty() {
            return self.charge(cx);
        }
        loop {
            match codec::binary::next_in_message(&mut message, &cx.rules.binary) {
                Ok(Some(frame)) => self.on_frame(cx, &frame),
                Ok(None) => return,
                Err(error) => return self.close(cx, error.close_code(), &error.to_string()),
            }
            match self.phase {
                Phase::Ended => return,
                // HELLO is alone in its message: what follows would have to be kept apart from the stream.
                Phase::LoggingIn if !message.is_empty() => {
                    return self.close(
                        cx,
                        close_code::PROTOCOL_VIOLATION,
                        "HELLO must be the last frame of its message",
                    );
                }
                _ => {}
            }
        }
    }

    fn on_stream(&mut self, cx: &mut Context<'_>, input: &mut [u8]) {
        let mut decoder = match std::mem::replace(&mut self.buffer, Buffer::Nothing) {
            Buffer::Binary(decoder) => decoder,
            _ => codec::binary::Decoder::new(),
        };
        let mut rest: &[u8] = input;
        loop {
            match decoder.next(&mut rest, &cx.rules.binary) {
                Ok(Some(frame)) => self.on_frame(cx, &frame),
                Ok(None) => break,
                Err(error) => return self.close(cx, error.close_code(), &error.to_string()),
            }
            match self.phase {
                Phase::Ended => return,
                Phase::LoggingIn => return self.hold(cx, rest),
                _ => {}
            }
        }
        if !decoder.is_idle() {
            self.buffer = Buffer::Binary(decoder);
        }
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, frame: &codec::binary::Frame<'_>) {
        let anonymous = self.phase == Phase::Anonymous;
        match binary::decode(frame) {
            Ok(Command::Login(hello)) => self.on_command(cx, Command::Login(hello)),
            // The binary protocol has no room for anything but HELLO before authentication.
            _ if anonymous => {
                self.close(cx, close_code::UNAUTHENTICATED, "the first frame must be HELLO")
            }
            Ok(command) => self.on_command(cx, command),
            Err(refusal) => {
                answer::refuse(&mut cx.out.bytes, self.wire(), &refusal);
                self.charge(cx);
            }
        }
    }

    /// Counts a frame without a purpose, and ends a connection that sends little else.
    fn charge(&mut self, cx: &mut Context<'_>) {
        if self.phase == Phase::Echo {
            return;
        }
        cx.out.debt_ms = cx.out.debt_ms.saturating_add(cx.rules.idle_frame_ms);
        if cx.out.debt_ms > cx.rules.max_debt_ms && self.phase != Phase::Ended {
            cx.out.cause = Some(Cause::Flood);
            self.close(cx, close_code::FLOODING, "too many frames without a purpose");
        }
    }

    /// Ends the connection with a close code (4000-4999) in the form that the peer understands.
    pub fn close(&mut self, cx: &mut Context<'_>, code: u16, reason: &str) {
        self.release_upgrade(cx);
        match (self.phase, self.wire()) {
            (Phase::Ended, _) => {}
            (Phase::Greeting, _) => self.end(cx),
            (_, Wire::BinaryStream) => {
                answer::goaway(&mut cx.out.bytes, Wire::BinaryStream, code, 0, reason);
                self.end(cx);
            }
            _ => self.close_websocket(cx, code, reason),
        }
    }

    /// Says GOAWAY with a delay and ends the connection: the server is stopping.
    pub fn go_away(&mut self, cx: &mut Context<'_>, reconnect_after_ms: u32) {
        self.send_away(cx, close_code::GOING_AWAY, reconnect_after_ms, "the server is stopping");
    }

    /// Ends the connection as [`Self::close`] does, with a GOAWAY before it that says when to come back.
    fn send_away(&mut self, cx: &mut Context<'_>, code: u16, delay_ms: u32, reason: &str) {
        if !matches!(self.phase, Phase::Open | Phase::LoggingIn | Phase::Anonymous) {
            return self.close(cx, code, reason);
        }
        self.release_upgrade(cx);
        let wire = self.wire();
        answer::goaway(&mut cx.out.bytes, wire, code, delay_ms, reason);
        match wire {
            Wire::BinaryStream => self.end(cx),
            _ => self.close_websocket(cx, code, reason),
        }
    }

    fn close_websocket(&mut self, cx: &mut Context<'_>, code: u16, reason: &str) {
        codec::ws::encode_close(&mut cx.out.bytes, code, reason);
        self.end(cx);
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        self.phase = Phase::Ended;
        self.buffer = Buffer::Nothing;
        cx.out.verdict = Verdict::Close;
    }
}
