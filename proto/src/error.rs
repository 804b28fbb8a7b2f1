//! The named errors a client can get for a request. The same names and numbers travel in JSON, in the
//! binary protocol and in REST problem documents; `codec/PROTOCOL.md` lists them for client authors.

use crate::v1::Failure;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $temporary:literal;)*) => {
        /// A stable error of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// Every error, in the order of their numbers.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The number that travels as `code`.
            pub const fn code(self) -> u32 { match self { $(Self::$variant => $code,)* } }

            /// The name that travels as `name`; never changes.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }

            /// Whether the same request may succeed later.
            pub const fn temporary(self) -> bool { match self { $(Self::$variant => $temporary,)* } }
        }
    };
}

error_codes! {
    /// The bytes are not what the protocol asks for (bad JSON, wrong type, missing key).
    BadRequest = 400, "BAD_REQUEST", false;
    /// Not logged in yet, or the token was refused.
    Unauthenticated = 401, "UNAUTHENTICATED", false;
    /// Logged in, but not allowed to.
    Forbidden = 403, "FORBIDDEN", false;
    /// No such conversation, or none that this user may see.
    ConversationNotFound = 404, "CONVERSATION_NOT_FOUND", false;
    /// No such user.
    UserNotFound = 405, "USER_NOT_FOUND", false;
    /// The user is not a member of the conversation.
    NotAMember = 406, "NOT_A_MEMBER", false;
    /// The id or user name is taken.
    AlreadyExists = 409, "ALREADY_EXISTS", false;
    /// A field is longer than its limit.
    TooLarge = 413, "TOO_LARGE", false;
    /// The command number or frame kind is not known.
    UnknownCommand = 420, "UNKNOWN_COMMAND", false;
    /// More requests than the rate limit allows.
    RateLimited = 429, "RATE_LIMITED", true;
    /// The user has as many connections as a user may have.
    TooManyDevices = 430, "TOO_MANY_DEVICES", true;
    /// A fault on the server's side; the request had no effect that was acknowledged.
    Internal = 500, "INTERNAL", true;
    /// The server cannot take the request now.
    Busy = 503, "BUSY", true;
}

impl ErrorCode {
    /// A failure with this code and a sentence for the developer who reads it.
    #[must_use]
    pub fn failure(self, detail: impl Into<String>) -> Failure {
        Failure {
            name: self.name().to_owned(),
            code: self.code(),
            temporary: self.temporary(),
            retry_after_ms: 0,
            detail: detail.into(),
        }
    }

    /// A temporary failure that says after how many milliseconds to try again.
    #[must_use]
    pub fn retry_after(self, retry_after_ms: u32, detail: impl Into<String>) -> Failure {
        Failure { retry_after_ms, ..self.failure(detail) }
    }
}

/// Close codes of WebSocket close frames and of GOAWAY. The range alone tells the client what to do:
/// 4000-4099 reconnect now, 4100-4199 reconnect after the given delay, 4200-4299 authenticate anew,
/// 4900-4999 do not come back.
pub mod close_code {
    /// The server is stopping or moving the connection; come back at once.
    pub const GOING_AWAY: u16 = 4000;
    /// The server has no room; come back after the delay.
    pub const OVERLOADED: u16 = 4100;
    /// The connection did not read fast enough even for answers to its own requests.
    pub const SLOW_CONSUMER: u16 = 4101;
    /// Nothing was heard for three heartbeats.
    pub const HEARTBEAT_TIMEOUT: u16 = 4102;
    /// The connection sent too many frames without a purpose (pings, heartbeats, requests that are refused).
    pub const FLOODING: u16 = 4103;
    /// The user has as many connections as a user may have; one of them has to end first.
    pub const TOO_MANY_DEVICES: u16 = 4104;
    /// The token was refused, has expired, or did not come within the handshake deadline.
    pub const UNAUTHENTICATED: u16 = 4200;
    /// No login within the handshake deadline.
    pub const LOGIN_TIMEOUT: u16 = 4201;
    /// The same device logged in again elsewhere.
    pub const REPLACED: u16 = 4900;
    /// The client broke the protocol (a second login, a frame that is not the client's to send).
    pub const PROTOCOL_VIOLATION: u16 = 4901;
    /// A binary frame declared a body over its limit.
    pub const FRAME_TOO_LARGE: u16 = 4902;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique() {
        for (i, a) in ErrorCode::ALL.iter().enumerate() {
            for b in &ErrorCode::ALL[i + 1..] {
                assert_ne!(a.code(), b.code());
                assert_ne!(a.name(), b.name());
            }
        }
    }

    #[test]
    fn a_retry_delay_is_carried() {
        let failure = ErrorCode::RateLimited.retry_after(250, "slow down");
        assert!(failure.temporary);
        assert_eq!(failure.retry_after_ms, 250);
        assert_eq!(failure.name, "RATE_LIMITED");
    }
}
