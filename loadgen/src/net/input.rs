//! From received bytes to what the server said.

use codec::ws::deflate::Inflater;
use codec::ws::handshake::{self, ResponseError};
use codec::ws::{self, Event, Opcode};
use codec::{Role, binary};

use super::conn::{Input, Phase};
use super::{Down, Handler, Net, socket};
use crate::client::{Incoming, binary as frames, json};
use crate::clock;

/// Pages may hold hundreds of messages.
const WEBSOCKET: ws::Limits =
    ws::Limits { max_message_bytes: 16 * 1024 * 1024, max_fragments: 1024 };
const HEAD_MAX: usize = 16 * 1024;

impl Net {
    /// Receives once. `all`: the end of the stream may be near, so go on (in the next turn) until it shows.
    pub(super) fn read<H: Handler>(&mut self, handler: &mut H, token: u64, all: bool) {
        let Some(index) = self.index_of(token) else { return };
        if self.conns[index as usize].paused {
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        let socket = self.conns[index as usize].socket.as_ref();
        let received = socket.map_or(Ok(None), |socket| socket::receive(socket, &mut input));
        self.now_ns = clock::now_ns();
        let result = match received {
            Ok(Some(0)) => Err(Down::new("CLOSED_BY_PEER")),
            Ok(Some(count)) => {
                self.stats.counters.received_bytes += count as u64;
                if count == input.len() || all {
                    self.again.push_back(token);
                }
                self.on_bytes(handler, index, &mut input[..count])
            }
            Ok(None) => Ok(()),
            Err(error) => Err(Down::new(format!("RECEIVE_{}", socket::error_name(&error)))),
        };
        self.input = input;
        if let Err(down) = result {
            self.down(handler, index, &down);
        }
    }

    fn on_bytes<H: Handler>(
        &mut self,
        handler: &mut H,
        index: u32,
        bytes: &mut [u8],
    ) -> Result<(), Down> {
        let mut state = std::mem::take(&mut self.conns[index as usize].input);
        let result = match &mut state {
            Input::Head(head) => return self.on_head(handler, index, head, bytes),
            Input::WebSocket(decoder) => self.on_websocket(handler, index, decoder, bytes),
            Input::Binary(decoder) => self.on_stream(handler, index, decoder, bytes),
            Input::Raw => {
                handler.on_data(self, index, bytes);
                Ok(())
            }
            Input::None => Ok(()),
        };
        self.conns[index as usize].input = state;
        result
    }

    fn on_head<H: Handler>(
        &mut self,
        handler: &mut H,
        index: u32,
        head: &mut Vec<u8>,
        bytes: &mut [u8],
    ) -> Result<(), Down> {
        head.extend_from_slice(bytes);
        let answer = handshake::read_response_to(head, self.offer(), self.nonce(index));
        let answer = answer.map_err(|error| {
            // A token that is refused is asked for anew, as after close code 4200.
            let refused = error == ResponseError::Status(401);
            Down { name: format!("HANDSHAKE: {error}"), code: if refused { 4200 } else { 0 } }
        })?;
        let Some(answer) = answer else {
            if head.len() > HEAD_MAX {
                return Err(Down::new("HANDSHAKE: too long"));
            }
            self.conns[index as usize].input = Input::Head(std::mem::take(head));
            return Ok(());
        };
        let deflates = answer.deflate.is_some();
        let mut rest = head.split_off(answer.head_len);
        self.conns[index as usize].deflates = deflates;
        self.stats.counters.deflating += u64::from(deflates);
        self.conns[index as usize].input = Input::WebSocket(ws::Decoder::new());
        self.log_in(handler, index);
        if rest.is_empty() { Ok(()) } else { self.on_bytes(handler, index, &mut rest) }
    }

    fn on_websocket<H: Handler>(
        &mut self,
        handler: &mut H,
        index: u32,
        decoder: &mut ws::Decoder,
        bytes: &mut [u8],
    ) -> Result<(), Down> {
        let lent = self.deflate.as_mut().filter(|_| self.conns[index as usize].deflates);
        let mut inflater = lent.and_then(|deflate| deflate.inflater.take());
        let result = self.read_messages(handler, index, decoder, inflater.as_deref_mut(), bytes);
        if let Some(deflate) = self.deflate.as_mut().filter(|_| inflater.is_some()) {
            deflate.inflater = inflater;
        }
        result
    }

    fn read_messages<H: Handler>(
        &mut self,
        handler: &mut H,
        index: u32,
        decoder: &mut ws::Decoder,
        mut inflater: Option<&mut Inflater>,
        mut bytes: &mut [u8],
    ) -> Result<(), Down> {
        loop {
            let event = match inflater.as_deref_mut() {
                None => decoder.next(&mut bytes, Role::Client, &WEBSOCKET),
                Some(inflater) => {
                    decoder.next_inflating(&mut bytes, Role::Client, &WEBSOCKET, inflater, None)
                }
            };
            match event.map_err(|error| Down::new(format!("WEBSOCKET: {error}")))? {
                Some(event) => self.on_event(handler, index, event)?,
                None => return Ok(()),
            }
        }
    }

    fn on_event<H: Handler>(
        &mut self,
        handler: &mut H,
        index: u32,
        event: Event<'_>,
    ) -> Result<(), Down> {
        match event {
            Event::Text(text) if self.raw => handler.on_data(self, index, text.as_bytes()),
            Event::Binary(bytes) if self.raw => handler.on_data(self, index, bytes),
            Event::Text(text) if handler.on_text(self, index, text) => {}
            Event::Text(text) => {
                let incoming =
                    json::read(text).map_err(|error| Down::new(format!("PROTOCOL: {error}")))?;
                self.on_incoming(handler, index, incoming)?;
            }
            Event::Binary(mut bytes) => {
                let limits = binary::Limits::new(Role::Client);
                loop {
                    let frame = binary::next_in_message(&mut bytes, &limits);
                    match frame.map_err(|error| Down::new(format!("PROTOCOL: {error}")))? {
                        Some(frame) => self.on_frame(handler, index, frame)?,
                        None => return Ok(()),
                    }
                }
            }
            Event::Ping(payload) => self.send_frame(index, Opcode::Pong, payload),
            Event::Pong(_) => self.on_heartbeat(index),
            Event::Close(close) => {
                return Err(Down::coded(close.map_or(1005, |close| u32::from(close.code))));
            }
        }
        Ok(())
    }

    fn on_stream<H: Handler>(
        &mut self,
        handler: &mut H,
        index: u32,
        decoder: &mut binary::Decoder,
        bytes: &[u8],
    ) -> Result<(), Down> {
        let limits = binary::Limits::new(Role::Client);
        let mut rest = bytes;
        loop {
            let frame = decoder.next(&mut rest, &limits);
            match frame.map_err(|error| Down::new(format!("PROTOCOL: {error}")))? {
                Some(frame) => self.on_frame(handler, index, frame)?,
                None => return Ok(()),
            }
        }
    }

    fn on_frame<H: Handler>(
        &mut self,
        handler: &mut H,
        index: u32,
        frame: binary::Frame<'_>,
    ) -> Result<(), Down> {
        let incoming = frames::read(frame.kind, frame.body);
        self.on_incoming(
            handler,
            index,
            incoming.map_err(|error| Down::new(format!("PROTOCOL: {error}")))?,
        )
    }

    fn on_incoming<H: Handler>(
        &mut self,
        handler: &mut H,
        index: u32,
        incoming: Incoming<'_>,
    ) -> Result<(), Down> {
        let phase = self.conns[index as usize].phase;
        match incoming {
            Incoming::Heartbeat => {
                self.on_heartbeat(index);
                handler.on_incoming(self, index, incoming);
            }
            Incoming::Welcome if phase == Phase::LoggingIn => self.established(handler, index),
            Incoming::Failed(failure) if phase == Phase::LoggingIn => {
                return Err(Down { name: format!("LOGIN_{}", failure.name), code: 4200 });
            }
            Incoming::Goaway { code, reconnect_after_ms } => {
                self.stats.counters.goaways += 1;
                let conn = &mut self.conns[index as usize];
                conn.come_back_ms = reconnect_after_ms;
                conn.banned |= (4900..5000).contains(&code);
            }
            incoming => handler.on_incoming(self, index, incoming),
        }
        Ok(())
    }
}
