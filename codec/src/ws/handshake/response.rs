//! The client's side of the handshake (RFC 6455 section 4.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fields::{Fields, Once, Token, header_room};
use super::{Limits, accept_value, head};
use crate::ws::deflate::{Agreement, Offer};

/// Length of a `Sec-WebSocket-Key` value: base64 of 16 bytes.
const KEY_LEN: usize = 24;

/// A valid 101 response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'b> {
    /// Bytes of the head. Frames may already follow behind it.
    pub head_len: usize,
    /// The subprotocol the server chose; the caller checks that it asked for it.
    pub protocol: Option<&'b str>,
    /// What became of an offer of permessage-deflate.
    pub deflate: Option<Agreement>,
}

/// Why a response opens no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The server answered with another status than 101.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// The head is longer than 8 KiB or has more than 64 lines.
    #[error("the response head is too long")]
    TooLong,
    /// The bytes are no HTTP/1.1 response.
    #[error("the response is malformed: {0}")]
    Malformed(&'static str),
    /// `Upgrade`, `Connection` or `Sec-WebSocket-Accept` is missing or wrong.
    #[error("the response does not accept the WebSocket: {0}")]
    NotAccepted(&'static str),
}

/// Appends the request that opens a WebSocket. The `nonce` is 16 random bytes, new for each connection.
///
/// `host`, `path_and_query` and `protocols` go into the head as they are: they must be in their encoded
/// form, without white space.
pub fn write_client_request(
    out: &mut Vec<u8>,
    host: &str,
    path_and_query: &str,
    protocols: &[&str],
    nonce: [u8; 16],
) {
    write_client_request_offering(out, host, path_and_query, protocols, None, nonce);
}

/// As [`write_client_request`], with an offer of permessage-deflate. The answer is for
/// [`read_response_to`].
pub fn write_client_request_offering(
    out: &mut Vec<u8>,
    host: &str,
    path_and_query: &str,
    protocols: &[&str],
    offer: Option<&Offer>,
    nonce: [u8; 16],
) {
    let is_clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    debug_assert!(is_clean(host) && is_clean(path_and_query));
    debug_assert!(protocols.iter().all(|p| head::is_token(p.as_bytes())));
    for part in ["GET ", path_and_query, " HTTP/1.1\r\nHost: ", host] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(
        b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
    );
    out.extend_from_slice(&key_value(nonce));
    for (i, protocol) in protocols.iter().enumerate() {
        let separator = if i == 0 { "\r\nSec-WebSocket-Protocol: " } else { ", " };
        out.extend_from_slice(separator.as_bytes());
        out.extend_from_slice(protocol.as_bytes());
    }
    if let Some(offer) = offer {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        offer.write(out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

fn key_value(nonce: [u8; 16]) -> [u8; KEY_LEN] {
    let mut value = [0; KEY_LEN];
    // 16 bytes are 24 characters: the slice always fits.
    let written = STANDARD.encode_slice(nonce, &mut value);
    debug_assert_eq!(written, Ok(KEY_LEN));
    value
}

/// Reads the response from all bytes received so far; `None` while the blank line that ends its head
/// has not come. Nothing is consumed: see [`Response::head_len`].
///
/// # Errors
/// The server refused, or its answer proves nothing: close the connection.
pub fn read_response(bytes: &[u8], nonce: [u8; 16]) -> Result<Option<Response<'_>>, ResponseError> {
    read_response_to(bytes, None, nonce)
}

/// As [`read_response`], to a request with this offer of permessage-deflate.
///
/// # Errors
/// As [`read_response`]; also an answer that the offer does not allow.
pub fn read_response_to<'b>(
    bytes: &'b [u8],
    offer: Option<&Offer>,
    nonce: [u8; 16],
) -> Result<Option<Response<'b>>, ResponseError> {
    let end = head::find_end(bytes, 0, Limits::DEFAULT.max_head_bytes).map_err(|e| match e {
        head::EndFault::BareLineFeed => ResponseError::Malformed("a bare line feed"),
        head::EndFault::FirstLineTooLong | head::EndFault::TooLong => ResponseError::TooLong,
    })?;
    let Some(head_len) = end else { return Ok(None) };
    let mut room = header_room();
    let mut parsed = httparse::Response::new(&mut room[..Limits::DEFAULT.max_headers]);
    match parsed.parse(&bytes[..head_len]) {
        Ok(httparse::Status::Complete(len)) if len == head_len => {}
        Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::TooLong),
        _ => return Err(ResponseError::Malformed("not a response head")),
    }
    match (parsed.version, parsed.code) {
        (Some(1), Some(101)) => {}
        (_, Some(101)) => return Err(ResponseError::Malformed("not HTTP/1.1")),
        (_, status) => return Err(ResponseError::Status(status.unwrap_or_default())),
    }
    let fields = Fields::gather(parsed.headers);
    check_accepted(&fields, nonce)?;
    let deflate = check_extensions(&fields, offer).map_err(ResponseError::NotAccepted)?;
    let protocol = fields.protocols.names().first().copied();
    Ok(Some(Response { head_len, protocol, deflate }))
}

fn check_accepted(fields: &Fields<'_>, nonce: [u8; 16]) -> Result<(), ResponseError> {
    let expected = accept_value(&key_value(nonce));
    let faults = [
        (fields.upgrade != Token::Present, "Upgrade: websocket is missing"),
        (fields.connection != Token::Present, "Connection: Upgrade is missing"),
        (fields.accept != Once::Value(&expected), "Sec-WebSocket-Accept is wrong"),
        (fields.protocols.bad || fields.protocols.names().len() > 1, "more than one subprotocol"),
    ];
    match faults.iter().find(|(is_fault, _)| *is_fault) {
        Some((_, reason)) => Err(ResponseError::NotAccepted(reason)),
        None => Ok(()),
    }
}

/// The server may name permessage-deflate once, if it was offered, and nothing else.
fn check_extensions(
    fields: &Fields<'_>,
    offer: Option<&Offer>,
) -> Result<Option<Agreement>, &'static str> {
    let extensions = &fields.extensions;
    match (extensions.deflate(), offer) {
        _ if !extensions.present => Ok(None),
        ([answer], Some(offer)) if !extensions.others => offer.check(answer).map(Some),
        _ => Err("an extension that was not offered"),
    }
}
