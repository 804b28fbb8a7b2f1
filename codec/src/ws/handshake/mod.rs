//! The opening handshake (RFC 6455 section 4) over HTTP/1.1 heads (RFC 9112).
//!
//! A server calls [`read_request`] with all bytes received so far until it is not
//! [`Request::NeedMore`]; a client calls [`write_client_request`] and then [`read_response`].
//! Requests that ask for no WebSocket are [`Request::Http`]: another part of the server answers them.

mod fields;
pub(super) mod head;
mod request;
mod response;
mod target;

pub use request::{Rejection, Request, Upgrade, read_request, read_request_from};
pub use response::{Response, ResponseError, read_response, read_response_to};
pub use response::{write_client_request, write_client_request_offering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Limits of an HTTP head. They bound the work as well as the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes from the first of the request to the end of the blank line.
    pub max_head_bytes: usize,
    /// Most header lines, at most [`HEADERS_MAX`].
    pub max_headers: usize,
}

impl Limits {
    /// 8 KiB and 64 header lines.
    pub const DEFAULT: Self = Self { max_head_bytes: 8192, max_headers: 64 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Upper bound of [`Limits::max_headers`]: header lines are listed on the stack.
pub const HEADERS_MAX: usize = 128;

/// Most names in the lists of `Sec-WebSocket-Protocol`.
pub const PROTOCOLS_MAX: usize = 32;

/// Most offers of permessage-deflate that are looked at; those behind them are declined.
pub const OFFERS_MAX: usize = 8;

/// Length of a `Sec-WebSocket-Accept` value: base64 of a SHA-1 digest.
const ACCEPT_LEN: usize = 28;

/// Appended to the key before it is hashed (section 1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` that proves that a server read the key (section 4.2.2).
fn accept_value(key: &[u8]) -> [u8; ACCEPT_LEN] {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_GUID);
    let mut value = [0; ACCEPT_LEN];
    // 20 bytes are 28 characters: the slice always fits.
    let written = STANDARD.encode_slice(hash.digest().bytes(), &mut value);
    debug_assert_eq!(written, Ok(ACCEPT_LEN));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_of_the_rfc() {
        assert_eq!(&accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
