//! permessage-deflate (RFC 7692): negotiation, inflating and compressing of messages.
//!
//! DEFLATE state is large, so it is never a connection's own: [`Inflater`] and [`Deflater`] serve all
//! connections of a thread, one message at a time. Without context takeover a connection keeps nothing.
//! With it, it keeps [`Windows`]: the last bytes of each direction, from which a message's state is
//! made again; what that saves in memory it costs in work, so it is for those who ask for it.

mod compress;
mod inflate;
mod negotiation;
mod window;

pub use compress::Deflater;
pub use inflate::Inflater;
pub use negotiation::{Agreement, Offer};
pub(super) use negotiation::{Parameters, parse_extensions};
pub use window::{WindowBits, Windows};

/// What a server is ready to agree to. The default holds no memory for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server's messages may refer to its earlier ones, where the client allows it.
    pub server_context_takeover: bool,
    /// The client's messages may refer to its earlier ones.
    pub client_context_takeover: bool,
    /// Largest window of the server's messages, at least [`WindowBits::Nine`].
    pub server_max_window_bits: WindowBits,
    /// Largest window of the client's messages. Larger ones are taken from a client that cannot be
    /// told (it did not name the parameter), but without context takeover.
    pub client_max_window_bits: WindowBits,
    /// Effort of the compressor, 1 (fast) to 9 (small).
    pub level: u8,
    /// Messages of fewer bytes are sent as they are.
    pub min_bytes: usize,
}

impl Config {
    /// No context takeover, full windows, the fastest level, messages from 256 bytes up.
    pub const DEFAULT: Self = Self {
        server_context_takeover: false,
        client_context_takeover: false,
        server_max_window_bits: WindowBits::Fifteen,
        client_max_window_bits: WindowBits::Fifteen,
        level: 1,
        min_bytes: 256,
    };
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}
