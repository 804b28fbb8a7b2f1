//! Corelane's binary protocol: a preface, then frames of kind, length and body.
//!
//! On raw TCP the client sends [`PREFACE`] first and a [`Decoder`] reads the stream. Inside WebSocket
//! there is no preface, and [`next_in_message`] reads the whole frames of one binary message. Bodies
//! are views: what is in them is not this crate's to know.

mod error;
mod frame;
mod header;
mod kind;
mod preface;

pub use crate::role::Role;
pub use error::Error;
pub use frame::{Decoder, Frame, encode, encode_delimited, encode_heartbeat, next_in_message};
pub use header::{BODY_LEN_MAX, HEADER_MAX_BYTES, encode_header, encoded_len};
pub use kind::{Direction, Kind};
pub use preface::{PREFACE, Preface, read_preface};

/// Limits of one frame, checked on its header before anything is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Our side of the connection: decides which kinds may come.
    pub role: Role,
    /// Most bytes of one body. The limit of the kind ([`Kind::max_body_bytes`]) applies as well.
    pub max_body_bytes: usize,
}

impl Limits {
    /// The limits of the kinds alone.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { role, max_body_bytes: BODY_LEN_MAX }
    }
}
