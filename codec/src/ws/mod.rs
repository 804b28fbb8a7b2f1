//! WebSocket (RFC 6455) for both roles: frames, messages, the closing handshake, the opening one, and
//! compressed messages (RFC 7692).

pub mod deflate;
mod error;
pub mod handshake;

mod close;
mod decoder;
mod header;
mod mask;
mod message;
mod opcode;

pub use crate::role::Role;
pub use close::is_valid_close_code;
pub use close::{CLOSE_REASON_MAX_BYTES, CloseFrame, encode_close, encode_close_masked};
pub use decoder::Decoder;
pub use error::Error;
pub use header::{CONTROL_MAX_BYTES, HEADER_MAX_BYTES};
pub use header::{
    encode_fragment, encode_frame, encode_frame_around, encode_frame_masked, encode_header,
    header_len,
};
pub use mask::apply_mask;
pub use message::Event;
pub use opcode::Opcode;

/// Limits of one message, checked on frame headers before anything is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most payload bytes of one message, all its fragments together.
    pub max_message_bytes: usize,
    /// Most frames of one message. Caps endless empty fragments, which the byte limit does not see.
    pub max_fragments: u32,
}

impl Limits {
    /// 64 KiB and 1024 fragments.
    pub const DEFAULT: Self = Self { max_message_bytes: 64 * 1024, max_fragments: 1024 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
