//! What holds for every session of a shard.

use crate::limits::Limits;
use crate::session::bucket::Rate;

/// What the gateway does with what it receives.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// Serves the chat protocol.
    Serve(Access),
    /// Sends every data message back; no login, any path. For conformance suites and benchmarks.
    Echo,
}

/// Who may connect, and how they may log in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// `?user_id=NAME` logs in by name, without a password. Only on loopback.
    pub dev_login: bool,
    /// `?token=` is accepted. Off by default: addresses end up in logs.
    pub query_token: bool,
    /// Origins that browsers may come from, such as `https://chat.example.org`. Empty: any, as a login
    /// needs a token that only the right page has; under `dev_login` the page's own host and loopback.
    pub allowed_origins: Vec<String>,
}

/// Limits and access in the form the session needs them.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What the gateway does.
    pub mode: Mode,
    /// All limits.
    pub limits: Limits,
    /// The codec's share, WebSocket.
    pub websocket: codec::ws::Limits,
    /// What may be agreed on about compression; `None` declines it.
    pub deflate: Option<codec::ws::deflate::Config>,
    /// The codec's share, HTTP head.
    pub head: codec::ws::handshake::Limits,
    /// The codec's share, binary protocol.
    pub binary: codec::binary::Limits,
    /// For messages.
    pub message_rate: Rate,
    /// For all other requests.
    pub request_rate: Rate,
    /// What one frame without a purpose costs: milliseconds until it is forgiven.
    pub idle_frame_ms: u32,
    /// Debt that ends a connection.
    pub max_debt_ms: u32,
}

impl Rules {
    /// Rules of a mode under limits, without compression.
    #[must_use]
    pub fn new(mode: Mode, limits: Limits) -> Self {
        Self {
            mode,
            websocket: limits.websocket(),
            deflate: None,
            head: codec::ws::handshake::Limits {
                max_head_bytes: limits.max_head_bytes,
                ..Default::default()
            },
            binary: limits.binary(),
            message_rate: Rate::new(limits.messages_per_second, limits.message_burst),
            request_rate: Rate::new(limits.requests_per_second, limits.request_burst),
            idle_frame_ms: idle_frame_ms(&limits),
            // A connection keeps its debt in 16 bits.
            max_debt_ms: idle_frame_ms(&limits)
                .saturating_mul(limits.idle_frame_burst)
                .min(u32::from(u16::MAX)),
            limits,
        }
    }
}

fn idle_frame_ms(limits: &Limits) -> u32 {
    (1_000 / limits.idle_frames_per_second.max(1)).max(1)
}

impl Access {
    /// Whether a browser page of `origin` may connect to a server that it addressed as `host`.
    #[must_use]
    pub fn allows_origin(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        if !self.allowed_origins.is_empty() {
            return self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
        }
        !self.dev_login || is_local_origin(origin, host)
    }
}

/// Logging in by name must not be open to any page that the developer's browser happens to visit.
fn is_local_origin(origin: &str, host: &str) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    authority.eq_ignore_ascii_case(host)
        || name.eq_ignore_ascii_case("localhost")
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_origins_is_exact() {
        let access = Access {
            allowed_origins: vec!["https://chat.example.org".into()],
            ..Access::default()
        };
        assert!(access.allows_origin(None, "h"));
        assert!(access.allows_origin(Some("https://chat.example.org"), "h"));
        for origin in [
            "https://chat.example.org.evil.net",
            "http://chat.example.org",
            "null",
            "https://evilchat.example.org",
        ] {
            assert!(!access.allows_origin(Some(origin), "h"), "{origin}");
        }
    }

    #[test]
    fn login_by_name_is_closed_to_foreign_pages() {
        let access = Access { dev_login: true, ..Access::default() };
        for origin in [
            "http://127.0.0.1:8080",
            "http://localhost:5173",
            "http://[::1]:8080",
            "http://corelane.test:8080",
        ] {
            assert!(access.allows_origin(Some(origin), "corelane.test:8080"), "{origin}");
        }
        for origin in [
            "http://evil.net",
            "http://localhost.evil.net",
            "http://127.0.0.1.evil.net",
            "null",
            "",
        ] {
            assert!(!access.allows_origin(Some(origin), "corelane.test:8080"), "{origin}");
        }
        assert!(Access::default().allows_origin(Some("http://any.where"), "h"));
    }
}
