//! The ways in which a connection comes and goes.

/// One way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP connects, and the client closes.
    #[default]
    Connect,
    /// Half a handshake, and the client closes.
    HalfHandshake,
    /// Handshake without login, close frame 1000; the server closes TCP first.
    Upgrade,
    /// The same with a login.
    Login,
    /// The client breaks off with a reset: right after connecting ...
    ResetConnected,
    /// ... with the login's answer on its way ...
    ResetLoggingIn,
    /// ... or logged in.
    ResetLoggedIn,
}

impl Kind {
    /// Kinds by turns; a third of the resets each, so that five kinds have equal parts.
    pub(super) fn of(number: u64) -> Self {
        match number % 5 {
            0 => Self::Connect,
            1 => Self::HalfHandshake,
            2 => Self::Upgrade,
            3 => Self::Login,
            _ => match number / 5 % 3 {
                0 => Self::ResetConnected,
                1 => Self::ResetLoggingIn,
                _ => Self::ResetLoggedIn,
            },
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect_close",
            Self::HalfHandshake => "half_handshake_close",
            Self::Upgrade => "upgrade_close",
            Self::Login => "login_close",
            Self::ResetConnected => "reset_connected",
            Self::ResetLoggingIn => "reset_logging_in",
            Self::ResetLoggedIn => "reset_logged_in",
        }
    }

    /// Whether everything is done once the first bytes are out.
    pub(super) fn ends_when_sent(self) -> bool {
        use Kind::{Connect, HalfHandshake, ResetConnected, ResetLoggingIn};
        matches!(self, Connect | HalfHandshake | ResetConnected | ResetLoggingIn)
    }

    /// Whether it ends with a reset.
    pub(super) fn is_abrupt(self) -> bool {
        matches!(self, Self::ResetConnected | Self::ResetLoggingIn | Self::ResetLoggedIn)
    }

    /// Whether it logs in.
    pub(super) fn logs_in(self) -> bool {
        matches!(self, Self::Login | Self::ResetLoggingIn | Self::ResetLoggedIn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_equal_parts_and_resets_come_at_every_stage() {
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..1500 {
            *counts.entry(Kind::of(number).name()).or_insert(0) += 1;
        }
        let expected = [
            ("connect_close", 300),
            ("half_handshake_close", 300),
            ("login_close", 300),
            ("reset_connected", 100),
            ("reset_logged_in", 100),
            ("reset_logging_in", 100),
            ("upgrade_close", 300),
        ];
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
    }
}
