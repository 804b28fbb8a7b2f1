//! permessage-deflate (RFC 7692) as this client offers it: no message refers to earlier ones, so that a connection keeps
//! nothing, and one compressor and one inflater serve all of them.

use codec::ws::Opcode;
use codec::ws::deflate::{Config, Deflater, Inflater, Offer, WindowBits};

/// What is offered.
pub(super) const OFFER: Offer = Offer {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: None,
    client_max_window_bits: None,
};

/// Whatever is shorter for it is compressed, as browsers do.
const CONFIG: Config = Config { min_bytes: 1, ..Config::DEFAULT };

/// Both directions of all connections.
pub(super) struct Deflate {
    /// Lent out while a connection is read.
    pub(super) inflater: Option<Box<Inflater>>,
    deflater: Deflater,
}

impl Deflate {
    pub(super) fn new() -> Self {
        Self { inflater: Some(Box::default()), deflater: Deflater::new(&CONFIG) }
    }

    /// Appends one message, masked.
    pub(super) fn write(
        &mut self,
        out: &mut Vec<u8>,
        opcode: Opcode,
        payload: &[u8],
        mask: [u8; 4],
    ) {
        // The client's window was not offered to be bounded.
        self.deflater.encode(out, opcode, payload, WindowBits::Fifteen, None, Some(mask));
    }
}
