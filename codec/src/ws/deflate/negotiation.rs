//! The parameters of permessage-deflate (RFC 7692 section 7.1), offered and answered in
//! `Sec-WebSocket-Extensions` (RFC 6455 section 9.1).

use super::{Config, WindowBits};
use crate::role::Role;
use crate::ws::handshake::head::{is_token, trim};

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// What a client offers. The default asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The server must not take its context over.
    pub server_no_context_takeover: bool,
    /// The client will not take its context over.
    pub client_no_context_takeover: bool,
    /// The server must not use a larger window.
    pub server_max_window_bits: Option<WindowBits>,
    /// The client can be told the size of its window, which will not be larger than this. At least
    /// [`WindowBits::Nine`] when it is our client. `None`: it cannot be told.
    pub client_max_window_bits: Option<WindowBits>,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The server does not take its context over.
    pub server_no_context_takeover: bool,
    /// The client does not take its context over.
    pub client_no_context_takeover: bool,
    /// Largest window of the server's messages.
    pub server_max_window_bits: WindowBits,
    /// Largest window of the client's messages.
    pub client_max_window_bits: WindowBits,
    /// The answer names the server's window: it has to when the offer did, even the largest.
    name_server_bits: bool,
}

/// One direction of an agreement.
pub(super) struct Direction {
    pub(super) bits: WindowBits,
    pub(super) takeover: bool,
}

impl Agreement {
    /// Our direction and the peer's.
    pub(super) fn by_role(&self, role: Role) -> (Direction, Direction) {
        let server = Direction {
            bits: self.server_max_window_bits,
            takeover: !self.server_no_context_takeover,
        };
        let client = Direction {
            bits: self.client_max_window_bits,
            takeover: !self.client_no_context_takeover,
        };
        match role {
            Role::Server => (server, client),
            Role::Client => (client, server),
        }
    }

    /// Appends the value of the server's `Sec-WebSocket-Extensions`.
    pub(in crate::ws) fn write(&self, out: &mut Vec<u8>) {
        let (server_bits, client_bits) = (self.server_max_window_bits, self.client_max_window_bits);
        write_parameters(
            out,
            self.server_no_context_takeover,
            self.client_no_context_takeover,
            self.name_server_bits.then_some(server_bits),
            (client_bits != WindowBits::Fifteen).then_some(client_bits),
        );
    }
}

impl Config {
    /// What this configuration makes of an offer; `None` declines it. An offer of a window of 8 bits
    /// for the server is declined: the compressor has none so small.
    #[must_use]
    pub fn agree(&self, offer: &Offer) -> Option<Agreement> {
        let offered = offer.server_max_window_bits.unwrap_or(WindowBits::Fifteen);
        let server_max_window_bits = offered.min(self.server_max_window_bits.max(WindowBits::Nine));
        if server_max_window_bits == WindowBits::Eight {
            return None;
        }
        // A client that did not name the parameter must not be answered with it.
        let client_max_window_bits = match offer.client_max_window_bits {
            Some(bits) => bits.min(self.client_max_window_bits),
            None => WindowBits::Fifteen,
        };
        let too_wide_to_keep = client_max_window_bits > self.client_max_window_bits;
        Some(Agreement {
            server_no_context_takeover: offer.server_no_context_takeover
                || !self.server_context_takeover,
            client_no_context_takeover: offer.client_no_context_takeover
                || !self.client_context_takeover
                || too_wide_to_keep,
            server_max_window_bits,
            client_max_window_bits,
            name_server_bits: offer.server_max_window_bits.is_some()
                || server_max_window_bits != WindowBits::Fifteen,
        })
    }
}

impl Offer {
    /// Appends the value of the client's `Sec-WebSocket-Extensions`.
    pub(in crate::ws) fn write(&self, out: &mut Vec<u8>) {
        debug_assert_ne!(self.client_max_window_bits, Some(WindowBits::Eight));
        write_parameters(
            out,
            self.server_no_context_takeover,
            self.client_no_context_takeover,
            self.server_max_window_bits,
            self.client_max_window_bits.filter(|bits| *bits != WindowBits::Fifteen),
        );
        if self.client_max_window_bits == Some(WindowBits::Fifteen) {
            // Without a value: any the server likes.
            out.extend_from_slice(b"; ");
            out.extend_from_slice(CLIENT_MAX_WINDOW_BITS.as_bytes());
        }
    }

    /// Checks a server's answer to this offer.
    pub(in crate::ws) fn check(&self, answer: &Parameters) -> Result<Agreement, &'static str> {
        if self.server_no_context_takeover && !answer.server_no_context_takeover {
            return Err("permessage-deflate: server_no_context_takeover was not answered");
        }
        let server_max_window_bits =
            match (self.server_max_window_bits, answer.server_max_window_bits) {
                (Some(most), Some(bits)) if bits > most => {
                    return Err("permessage-deflate: the server's window is larger than allowed");
                }
                (Some(_), None) => {
                    return Err("permessage-deflate: server_max_window_bits was not answered");
                }
                (_, bits) => bits.unwrap_or(WindowBits::Fifteen),
            };
        let most = self.client_max_window_bits;
        let client_max_window_bits = match (most, answer.client_max_window_bits) {
            (None, Some(_)) => {
                return Err("permessage-deflate: client_max_window_bits was not offered");
            }
            (Some(most), Some(Some(bits))) if bits <= most && bits != WindowBits::Eight => bits,
            (_, Some(_)) => return Err("permessage-deflate: client_max_window_bits is wrong"),
            (most, None) => most.unwrap_or(WindowBits::Fifteen),
        };
        Ok(Agreement {
            server_no_context_takeover: answer.server_no_context_takeover,
            client_no_context_takeover: answer.client_no_context_takeover
                || self.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
            name_server_bits: answer.server_max_window_bits.is_some(),
        })
    }
}

fn write_parameters(
    out: &mut Vec<u8>,
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_bits: Option<WindowBits>,
    client_bits: Option<WindowBits>,
) {
    out.extend_from_slice(NAME.as_bytes());
    let flags = [
        (SERVER_NO_CONTEXT_TAKEOVER, server_no_context_takeover),
        (CLIENT_NO_CONTEXT_TAKEOVER, client_no_context_takeover),
    ];
    for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(name.as_bytes());
    }
    let windows = [(SERVER_MAX_WINDOW_BITS, server_bits), (CLIENT_MAX_WINDOW_BITS, client_bits)];
    for (name, bits) in windows {
        let Some(bits) = bits.map(WindowBits::get) else { continue };
        out.extend_from_slice(b"; ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        if bits >= 10 {
            out.push(b'1');
        }
        out.push(b'0' + bits % 10);
    }
}

/// Well-formed parameters of one permessage-deflate element, in an offer or an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ws) struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<WindowBits>,
    /// The inner one: the value, which an offer may leave out.
    client_max_window_bits: Option<Option<WindowBits>>,
}

impl Parameters {
    /// The offer these parameters are.
    pub(in crate::ws) fn offer(&self) -> Offer {
        Offer {
            server_no_context_takeover: self.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover,
            server_max_window_bits: self.server_max_window_bits,
            client_max_window_bits: self
                .client_max_window_bits
                .map(|bits| bits.unwrap_or(WindowBits::Fifteen)),
        }
    }

    /// Adds one parameter. `None`: it is unknown, malformed, or stands twice.
    fn add(&mut self, parameter: &[u8]) -> Option<()> {
        let (name, value) = match parameter.iter().position(|&b| b == b'=') {
            Some(at) => (trim(&parameter[..at]), Some(trim(&parameter[at + 1..]))),
            None => (trim(parameter), None),
        };
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is(SERVER_NO_CONTEXT_TAKEOVER) {
            set_flag(&mut self.server_no_context_takeover, value)
        } else if is(CLIENT_NO_CONTEXT_TAKEOVER) {
            set_flag(&mut self.client_no_context_takeover, value)
        } else if is(SERVER_MAX_WINDOW_BITS) {
            let bits = window_bits(value?)?;
            self.server_max_window_bits.replace(bits).is_none().then_some(())
        } else if is(CLIENT_MAX_WINDOW_BITS) {
            let bits = match value {
                Some(value) => Some(window_bits(value)?),
                None => None,
            };
            self.client_max_window_bits.replace(bits).is_none().then_some(())
        } else {
            None
        }
    }
}

/// A parameter without a value, once.
fn set_flag(flag: &mut bool, value: Option<&[u8]>) -> Option<()> {
    (value.is_none() && !std::mem::replace(flag, true)).then_some(())
}

/// 8 to 15 without a leading zero, as a token or a quoted string.
fn window_bits(value: &[u8]) -> Option<WindowBits> {
    let digits = match value {
        [b'"', inner @ .., b'"'] => inner,
        token => token,
    };
    // Nothing that needs an escape is a digit, so none is looked for.
    let bits = match digits {
        [ones @ b'8'..=b'9'] => ones - b'0',
        [b'1', ones @ b'0'..=b'5'] => 10 + ones - b'0',
        _ => return None,
    };
    WindowBits::new(bits)
}

/// One element of `Sec-WebSocket-Extensions`: permessage-deflate with good parameters, or something
/// else, which is to be declined.
pub(in crate::ws) fn parse_extensions(value: &[u8]) -> impl Iterator<Item = Option<Parameters>> {
    split_unquoted(value, b',').map(trim).filter(|element| !element.is_empty()).map(parse_element)
}

fn parse_element(element: &[u8]) -> Option<Parameters> {
    let mut parts = split_unquoted(element, b';').map(trim);
    let name = parts.next().filter(|name| is_token(name))?;
    if !name.eq_ignore_ascii_case(NAME.as_bytes()) {
        return None;
    }
    let mut parameters = Parameters::default();
    for part in parts {
        parameters.add(part)?;
    }
    Some(parameters)
}

/// Splits at a separator that stands outside of quoted strings.
fn split_unquoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest.take()?;
        let (mut quoted, mut escaped) = (false, false);
        for (i, &byte) in value.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if byte == separator && !quoted => {
                    rest = Some(&value[i + 1..]);
                    return Some(&value[..i]);
                }
                _ => {}
            }
        }
        Some(value)
    })
}
