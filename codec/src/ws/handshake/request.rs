//! The server's side of the handshake (RFC 6455 section 4.2).

use super::fields::{Fields, Once, Token, header_room};
use super::head::{self, EndFault};
use super::{Limits, accept_value, target};
use crate::ws::deflate::{Agreement, Config};

/// What the bytes received so far are.
#[derive(Clone, Copy, Debug)]
// One of these lives on the stack for the length of a call; boxing it would allocate.
#[allow(clippy::large_enum_variant)]
pub enum Request<'b> {
    /// The blank line that ends the head has not come.
    NeedMore,
    /// A valid request for a WebSocket.
    Upgrade(Upgrade<'b>),
    /// A complete, well-formed head that asks for no WebSocket.
    Http,
}

/// A valid request for a WebSocket. Whether its path, origin and subprotocols are welcome is for the
/// caller to say.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'b> {
    /// Path, percent-encoded as it came, without dot segments.
    pub path: &'b str,
    /// What follows the `?`, percent-encoded as it came.
    pub query: Option<&'b str>,
    /// `Origin`, as browsers send it.
    pub origin: Option<&'b str>,
    /// `Host`.
    pub host: &'b str,
    /// Bytes of the head. Frames may already follow behind it.
    pub head_len: usize,
    key: &'b [u8],
    protocols: super::fields::Protocols<'b>,
    extensions: super::fields::Extensions,
}

impl<'b> Upgrade<'b> {
    /// The subprotocols the client named in `Sec-WebSocket-Protocol`, the most wanted first. All are
    /// tokens, none stands twice.
    pub fn protocols(&self) -> impl Iterator<Item = &'b str> + use<'_, 'b> {
        self.protocols.names().iter().copied()
    }

    /// What `config` makes of the client's offers of permessage-deflate: the first that it can agree
    /// to. Offers that are malformed are declined like those it does not like; `None`: no compression.
    #[must_use]
    pub fn agree_deflate(&self, config: &Config) -> Option<Agreement> {
        self.extensions.deflate().iter().find_map(|parameters| config.agree(&parameters.offer()))
    }

    /// Appends the 101 response without any extension, which declines every one that was offered
    /// (section 9.1). `protocol` must be one of [`Self::protocols`], or `None`.
    pub fn accept(&self, protocol: Option<&str>, out: &mut Vec<u8>) {
        self.accept_with(protocol, None, out);
    }

    /// As [`Self::accept`], with what [`Self::agree_deflate`] gave.
    pub fn accept_with(
        &self,
        protocol: Option<&str>,
        deflate: Option<&Agreement>,
        out: &mut Vec<u8>,
    ) {
        debug_assert!(protocol.is_none_or(|p| self.protocols().any(|named| named == p)));
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\n\
              Upgrade: websocket\r\n\
              Connection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&accept_value(self.key));
        if let Some(protocol) = protocol {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(protocol.as_bytes());
        }
        if let Some(agreement) = deflate {
            out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
            agreement.write(out);
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// A refused request: an HTTP status and a sentence for the developer who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Rejection {
    /// HTTP status code.
    pub status: u16,
    /// One sentence; becomes the body.
    pub reason: &'static str,
}

impl Rejection {
    /// Appends a complete HTTP/1.1 response after which the connection is to be closed.
    pub fn write(&self, out: &mut Vec<u8>) {
        let extra = match self.status {
            // RFC 9110 section 15.5.6.
            405 => "Connection: close\r\nAllow: GET\r\n",
            // RFC 9110 section 15.5.22, RFC 6455 section 4.4.
            426 => {
                "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            }
            // RFC 9110 section 15.6.4: in seconds.
            503 => "Connection: close\r\nRetry-After: 5\r\n",
            _ => "Connection: close\r\n",
        };
        let answer = format!(
            "HTTP/1.1 {} {}\r\n{extra}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n{}\n",
            self.status,
            status_phrase(self.status),
            self.reason.len() + 1,
            self.reason,
        );
        out.extend_from_slice(answer.as_bytes());
    }
}

fn status_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

const fn reject(status: u16, reason: &'static str) -> Rejection {
    Rejection { status, reason }
}

const fn bad(reason: &'static str) -> Rejection {
    reject(400, reason)
}

/// Reads a request head from all bytes received so far. Nothing is consumed: see
/// [`Upgrade::head_len`].
///
/// Until the blank line is there only line ends are searched, so a call is cheap; to search each byte
/// once where a head comes in very small pieces, call [`read_request_from`].
///
/// # Errors
/// The answer to send before the connection is closed. Limits are enforced before anything is parsed.
pub fn read_request<'b>(bytes: &'b [u8], limits: &Limits) -> Result<Request<'b>, Rejection> {
    read_request_from(bytes, 0, limits)
}

/// As [`read_request`], where the first `seen` bytes were there at an earlier call that answered
/// [`Request::NeedMore`].
///
/// # Errors
/// As [`read_request`].
pub fn read_request_from<'b>(
    bytes: &'b [u8],
    seen: usize,
    limits: &Limits,
) -> Result<Request<'b>, Rejection> {
    let Some(head_len) = head::find_end(bytes, seen, limits.max_head_bytes)? else {
        return Ok(Request::NeedMore);
    };
    let bytes = &bytes[..head_len];
    let mut room = header_room();
    let room_len = limits.max_headers.min(room.len());
    let mut parsed = httparse::Request::new(&mut room[..room_len]);
    let status = parsed.parse(bytes).map_err(|e| parse_fault(e, bytes))?;
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(bad("the request line is not complete"));
    };
    if status != httparse::Status::Complete(head_len) {
        return Err(bad("the head is not a request"));
    }
    let fields = Fields::gather(parsed.headers);
    let host = check_framing(minor, &fields)?;
    if !fields.ask_for_websocket() {
        return check_plain_target(method, target, host).map(|()| Request::Http);
    }
    let key = check_upgrade(method, minor, &fields)?;
    let (path, query) = target::split(target, host).map_err(bad)?;
    let origin = check_origin(fields.origin)?;
    let Fields { protocols, extensions, .. } = fields;
    Ok(Request::Upgrade(Upgrade {
        path,
        query,
        origin,
        host,
        head_len,
        key,
        protocols,
        extensions,
    }))
}

impl From<EndFault> for Rejection {
    fn from(fault: EndFault) -> Self {
        match fault {
            EndFault::BareLineFeed => bad("a line ends without a carriage return"),
            EndFault::FirstLineTooLong => reject(414, "the request line is too long"),
            EndFault::TooLong => reject(431, "the request head is too long"),
        }
    }
}

fn parse_fault(error: httparse::Error, head: &[u8]) -> Rejection {
    match error {
        httparse::Error::TooManyHeaders => reject(431, "the request has too many header lines"),
        httparse::Error::Version if names_http(head) => reject(505, "only HTTP/1.1 is spoken here"),
        httparse::Error::HeaderName => bad("a header name has a character that is not allowed"),
        httparse::Error::HeaderValue => bad("a header value has a character that is not allowed"),
        _ => bad("the request line is malformed"),
    }
}

/// The request line ends in `HTTP/digit.digit`: a version of HTTP, only not one of ours.
fn names_http(head: &[u8]) -> bool {
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    match line.last_chunk() {
        Some([b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]) => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

/// Rules that hold for every request (RFC 9112 sections 3.2 and 6.3): who is asked, and how long the
/// body is, must have one meaning. Returns the host (empty in HTTP/1.0 without one).
fn check_framing<'b>(minor: u8, fields: &Fields<'b>) -> Result<&'b str, Rejection> {
    let host = match fields.host {
        Once::Value(host) => host_str(host).ok_or(bad("the Host header is malformed"))?,
        Once::Absent if minor == 0 => "",
        Once::Absent => return Err(bad("the Host header is missing")),
        Once::Repeated => return Err(bad("there is more than one Host header")),
    };
    match fields.content_length {
        Once::Absent => {}
        Once::Value(value) if is_content_length(value) => {}
        _ => return Err(bad("Content-Length is not one number")),
    }
    match (fields.transfer_encoding, fields.content_length) {
        (Once::Absent, _) | (Once::Value(_), Once::Absent) => Ok(host),
        (Once::Repeated, _) => Err(bad("there is more than one Transfer-Encoding header")),
        _ => Err(bad("Content-Length and Transfer-Encoding exclude each other")),
    }
}

/// Digits that fit in 64 bits.
fn is_content_length(value: &[u8]) -> bool {
    !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit)
}

/// `host[:port]` without white space, user, path or list; may be empty.
fn host_str(value: &[u8]) -> Option<&str> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(b);
    value.iter().all(allowed).then(|| str::from_utf8(value).ok()).flatten()
}

fn check_plain_target(method: &str, target: &str, host: &str) -> Result<(), Rejection> {
    match method {
        // Their targets are no paths (RFC 9112 sections 3.2.3 and 3.2.4).
        "CONNECT" => Ok(()),
        "OPTIONS" if target == "*" => Ok(()),
        _ => target::split(target, host).map(|_| ()).map_err(bad),
    }
}

/// Rules of an upgrade (section 4.2.1). Returns the key.
fn check_upgrade<'b>(method: &str, minor: u8, fields: &Fields<'b>) -> Result<&'b [u8], Rejection> {
    if method != "GET" {
        return Err(reject(405, "a WebSocket is opened with GET"));
    }
    if minor == 0 {
        return Err(bad("a WebSocket needs HTTP/1.1"));
    }
    match fields.upgrade {
        Token::Present => {}
        Token::Absent => return Err(reject(426, "Upgrade: websocket is missing")),
        Token::Other => return Err(bad("Upgrade does not name websocket")),
    }
    if fields.hixie {
        return Err(bad("this draft of WebSocket is not spoken here"));
    }
    if fields.connection != Token::Present {
        return Err(bad("Connection: Upgrade is missing"));
    }
    match fields.version {
        Once::Value(b"13") => {}
        Once::Value(_) => return Err(reject(426, "only WebSocket version 13 is spoken here")),
        _ => return Err(bad("Sec-WebSocket-Version must stand once")),
    }
    if !matches!(fields.content_length, Once::Absent | Once::Value(b"0")) {
        return Err(bad("a request for a WebSocket has no body"));
    }
    if !fields.transfer_encoding.is_absent() {
        return Err(bad("a request for a WebSocket has no body"));
    }
    if fields.protocols.bad {
        return Err(bad("Sec-WebSocket-Protocol must be a list of different tokens"));
    }
    match (fields.key, fields.host) {
        (_, Once::Value(b"")) => Err(bad("the Host header is empty")),
        (Once::Value(key), _) if is_key(key) => Ok(key),
        (Once::Value(_), _) => Err(bad("Sec-WebSocket-Key is not 16 bytes in base64")),
        _ => Err(bad("Sec-WebSocket-Key must stand once")),
    }
}

/// Base64 of 16 bytes: 22 characters and two of padding. The bits that padding leaves over are not
/// looked at, for the value is only ever hashed as it stands.
fn is_key(value: &[u8]) -> bool {
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    matches!(value.strip_suffix(b"=="), Some(data) if data.len() == 22 && data.iter().all(is_base64))
}

/// An origin is visible ASCII (RFC 6454 section 7); whether it is welcome is not ours to say.
fn check_origin(origin: Once<'_>) -> Result<Option<&str>, Rejection> {
    match origin {
        Once::Absent => Ok(None),
        Once::Value(value) if value.iter().all(u8::is_ascii_graphic) => {
            Ok(str::from_utf8(value).ok())
        }
        Once::Value(_) => Err(bad("the Origin header is malformed")),
        Once::Repeated => Err(bad("there is more than one Origin header")),
    }
}
