//! The header fields that matter to a handshake, gathered in one pass over the header lines.

use super::head::{is_token, list, list_has, trim};
use super::{HEADERS_MAX, OFFERS_MAX, PROTOCOLS_MAX};
use crate::ws::deflate::{Parameters, parse_extensions};

/// A field that may stand once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Once<'b> {
    #[default]
    Absent,
    Value(&'b [u8]),
    Repeated,
}

impl<'b> Once<'b> {
    fn add(&mut self, value: &'b [u8]) {
        *self = match self {
            Self::Absent => Self::Value(trim(value)),
            _ => Self::Repeated,
        };
    }

    pub(super) fn is_absent(self) -> bool {
        self == Self::Absent
    }
}

/// A field that is a list of tokens of which one matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Token {
    #[default]
    Absent,
    /// The field is there without the token.
    Other,
    /// The token is in it.
    Present,
}

impl Token {
    fn add(&mut self, value: &[u8], token: &[u8]) {
        if list_has(value, token) {
            *self = Self::Present;
        } else if *self == Self::Absent {
            *self = Self::Other;
        }
    }
}

/// The subprotocols that a peer named, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protocols<'b> {
    names: [&'b str; PROTOCOLS_MAX],
    len: usize,
    /// The list is not one: an element that is no token, or that stands twice, or too many.
    pub(super) bad: bool,
}

impl<'b> Protocols<'b> {
    fn add(&mut self, value: &'b [u8]) {
        for element in list(value) {
            let name = str::from_utf8(element).ok().filter(|name| is_token(name.as_bytes()));
            match name {
                Some(name) if self.len < PROTOCOLS_MAX && !self.names().contains(&name) => {
                    self.names[self.len] = name;
                    self.len += 1;
                }
                _ => {
                    self.bad = true;
                    return;
                }
            }
        }
    }

    pub(super) fn names(&self) -> &[&'b str] {
        &self.names[..self.len]
    }
}

/// The extensions that a peer named.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extensions {
    /// The field is there, whatever is in it.
    pub(super) present: bool,
    /// Elements that are not a good permessage-deflate, or one too many.
    pub(super) others: bool,
    offers: [Parameters; OFFERS_MAX],
    len: usize,
}

impl Extensions {
    fn add(&mut self, value: &[u8]) {
        self.present = true;
        for element in parse_extensions(value) {
            match element {
                Some(parameters) if self.len < OFFERS_MAX => {
                    self.offers[self.len] = parameters;
                    self.len += 1;
                }
                _ => self.others = true,
            }
        }
    }

    /// The good ones of permessage-deflate, in order.
    pub(super) fn deflate(&self) -> &[Parameters] {
        &self.offers[..self.len]
    }
}

/// What one head says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'b> {
    pub(super) host: Once<'b>,
    pub(super) origin: Once<'b>,
    pub(super) key: Once<'b>,
    pub(super) accept: Once<'b>,
    pub(super) version: Once<'b>,
    pub(super) content_length: Once<'b>,
    pub(super) transfer_encoding: Once<'b>,
    pub(super) upgrade: Token,
    pub(super) connection: Token,
    pub(super) protocols: Protocols<'b>,
    pub(super) extensions: Extensions,
    /// `Sec-WebSocket-Key1` or `-Key2`: the protocol before the RFC ("Hixie-76").
    pub(super) hixie: bool,
}

impl<'b> Fields<'b> {
    pub(super) fn gather(headers: &[httparse::Header<'b>]) -> Self {
        let mut fields = Self {
            host: Once::Absent,
            origin: Once::Absent,
            key: Once::Absent,
            accept: Once::Absent,
            version: Once::Absent,
            content_length: Once::Absent,
            transfer_encoding: Once::Absent,
            upgrade: Token::Absent,
            connection: Token::Absent,
            protocols: Protocols { names: [""; PROTOCOLS_MAX], len: 0, bad: false },
            extensions: Extensions::default(),
            hixie: false,
        };
        for header in headers {
            fields.add(header.name, header.value);
        }
        fields
    }

    fn add(&mut self, name: &str, value: &'b [u8]) {
        // The longest name of interest has 24 characters.
        let mut lower = [0; 24];
        let Some(lower) = lower.get_mut(..name.len()) else { return };
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        match &*lower {
            b"host" => self.host.add(value),
            b"origin" => self.origin.add(value),
            b"content-length" => self.content_length.add(value),
            b"transfer-encoding" => self.transfer_encoding.add(value),
            b"upgrade" => self.upgrade.add(value, b"websocket"),
            b"connection" => self.connection.add(value, b"upgrade"),
            b"sec-websocket-key" => self.key.add(value),
            b"sec-websocket-accept" => self.accept.add(value),
            b"sec-websocket-version" => self.version.add(value),
            b"sec-websocket-protocol" => self.protocols.add(value),
            b"sec-websocket-extensions" => self.extensions.add(value),
            b"sec-websocket-key1" | b"sec-websocket-key2" => self.hixie = true,
            _ => {}
        }
    }

    /// The head asks for a WebSocket, however badly.
    pub(super) fn ask_for_websocket(&self) -> bool {
        self.upgrade == Token::Present
            || !self.key.is_absent()
            || !self.version.is_absent()
            || self.extensions.present
            || self.hixie
            || self.protocols.bad
            || !self.protocols.names().is_empty()
    }
}

/// Room for the header lines of one head.
pub(super) fn header_room<'b>() -> [httparse::Header<'b>; HEADERS_MAX] {
    [httparse::EMPTY_HEADER; HEADERS_MAX]
}
