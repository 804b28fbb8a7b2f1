//! Compressed messages of a session (RFC 7692): the compressors belong to the shard, a session keeps
//! one byte, and windows only where a context is taken over.

use codec::ws::deflate::{Agreement, Config, Deflater, Inflater, WindowBits, Windows};
use codec::ws::{Decoder, Role};

use super::{Buffer, Context, Phase, Session, Transport};

/// The compressors that all connections of a shard share.
pub struct Deflate {
    inflater: Inflater,
    deflater: Deflater,
}

impl Deflate {
    /// Compressors of a configuration; their memory comes with the first compressed message.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { inflater: Inflater::new(), deflater: Deflater::new(config) }
    }

    /// Compresses the messages of `bytes` from `start` on for any number of receivers of whom
    /// [`Session::shares_compressed`] holds.
    pub fn compress_shared(&mut self, bytes: &mut Vec<u8>, start: usize) {
        self.deflater.compress_frames(bytes, start, WindowBits::Fifteen, None);
    }
}

/// What a connection with context takeover keeps all the time.
pub(super) struct Takeover {
    decoder: Decoder,
    windows: Windows,
}

impl Session {
    /// The handshake agreed on compression.
    pub(super) fn begin_deflate(&mut self, agreement: &Agreement) {
        self.transport = Transport::Deflated(agreement.server_max_window_bits);
        if let Some(windows) = Windows::new(agreement, Role::Server) {
            let takeover = Takeover { decoder: Decoder::new(), windows };
            self.buffer = Buffer::Takeover(Box::new(takeover));
        }
    }

    /// Takes out what is kept for context takeover.
    pub(super) fn take_takeover(&mut self) -> Option<Box<Takeover>> {
        match std::mem::replace(&mut self.buffer, Buffer::Nothing) {
            Buffer::Takeover(takeover) => Some(takeover),
            other => {
                self.buffer = other;
                None
            }
        }
    }

    pub(super) fn on_websocket(&mut self, cx: &mut Context<'_>, input: &mut [u8]) {
        let (mut decoder, mut takeover) = match std::mem::replace(&mut self.buffer, Buffer::Nothing)
        {
            Buffer::WebSocket(decoder) => (decoder, None),
            Buffer::Takeover(mut takeover) => {
                (std::mem::take(&mut takeover.decoder), Some(takeover))
            }
            _ => (Decoder::new(), None),
        };
        let mut deflate = match self.transport {
            Transport::Deflated(_) => cx.deflate.take(),
            _ => None,
        };
        let inflation = deflate.as_deref_mut().map(|deflate| &mut deflate.inflater);
        let windows = takeover.as_deref_mut().map(|takeover| &mut takeover.windows);
        self.read_messages(cx, input, &mut decoder, inflation, windows);
        if deflate.is_some() {
            cx.deflate = deflate;
        }
        match (&mut self.buffer, takeover) {
            _ if self.phase == Phase::Ended => {}
            // What the decoder held was the login itself.
            (Buffer::Login(wait), takeover) => wait.takeover = takeover,
            (_, Some(mut takeover)) => {
                takeover.decoder = decoder;
                self.buffer = Buffer::Takeover(takeover);
            }
            (_, None) if !decoder.is_idle() => self.buffer = Buffer::WebSocket(decoder),
            _ => {}
        }
    }

    fn read_messages(
        &mut self,
        cx: &mut Context<'_>,
        mut input: &mut [u8],
        decoder: &mut Decoder,
        mut inflater: Option<&mut Inflater>,
        mut windows: Option<&mut Windows>,
    ) {
        let limits = &cx.rules.websocket;
        loop {
            let next = match inflater.as_deref_mut() {
                None => decoder.next(&mut input, Role::Server, limits),
                Some(inflater) => {
                    let windows = windows.as_deref_mut();
                    decoder.next_inflating(&mut input, Role::Server, limits, inflater, windows)
                }
            };
            match next {
                Ok(Some(event)) => self.on_websocket_event(cx, event),
                Ok(None) => return,
                Err(error) => {
                    return self.close_websocket(cx, error.close_code(), &error.to_string());
                }
            }
            match self.phase {
                Phase::Ended => return,
                Phase::LoggingIn => return self.hold(cx, input),
                _ => {}
            }
        }
    }

    /// Compresses what was written for this connection: the messages of `bytes` from `start` on.
    pub fn compress(&mut self, deflate: Option<&mut Deflate>, bytes: &mut Vec<u8>, start: usize) {
        let (Transport::Deflated(bits), Some(deflate)) = (self.transport, deflate) else { return };
        let takeover = match &mut self.buffer {
            Buffer::Takeover(takeover) => Some(takeover),
            Buffer::Login(wait) => wait.takeover.as_mut(),
            _ => None,
        };
        let windows = takeover.map(|takeover| &mut takeover.windows);
        deflate.deflater.compress_frames(bytes, start, bits, windows);
    }

    /// What was compressed once may be sent to this connection as well: it agreed on the full window and
    /// takes nothing over.
    #[must_use]
    pub fn shares_compressed(&self) -> bool {
        self.transport == Transport::Deflated(WindowBits::Fifteen)
            && !matches!(self.buffer, Buffer::Takeover(_))
    }
}
