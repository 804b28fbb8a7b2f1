//! What went wrong, and what that means for whoever asked.

use std::io::ErrorKind;

use mysql::error::DriverError;

use crate::ports::StoreError;

/// What ends a piece of work early.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(mysql::Error),
    Store(StoreError),
}

impl From<mysql::Error> for Fault {
    fn from(error: mysql::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A key that refused a second row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The primary key.
    Primary,
    /// Another unique key.
    Other,
}

const DUPLICATE_ENTRY: u16 = 1062;
const DEADLOCK: u16 = 1213;

/// Errors of the server that pass, by themselves or once somebody has made room.
const PASSING: &[u16] = &[
    1020, 1021, 1028, 1030, 1037, 1038, 1040, 1041, 1047, 1053, 1077, 1079, 1114, 1129, 1135, 1152,
    1158, 1159, 1160, 1161, 1180, 1184, 1203, 1205, DEADLOCK, 1226, 1290, 1317, 1614, 1836, 1927,
    1969, 2002, 2003, 2006, 2013, 2055, 3024, 3032, 3100, 3168, 3169, 4031,
];
/// After these the server has ended the connection, or is about to.
const CONNECTION_ENDS: &[u16] =
    &[1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 2055, 3169, 4031];
/// Tables or indexes whose bytes make no sense.
const DAMAGED: &[u16] = &[126, 127, 134, 144, 145, 1032, 1033, 1034, 1035, 1194, 1195, 1712, 1817];

impl Fault {
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Store(StoreError::Corrupt(what.into()))
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Sql(mysql::Error::MySqlError(error)) => Some(error.code),
            _ => None,
        }
    }

    /// Whether the whole transaction was rolled back in favour of another one and may simply be repeated.
    pub(super) fn is_deadlock(&self) -> bool {
        self.code() == Some(DEADLOCK)
    }

    /// Whether a unique key refused a row, and which. The server names the key last in its message: `PRIMARY`, or
    /// `messages.PRIMARY` in newer versions.
    pub(super) fn taken(&self) -> Option<Taken> {
        let Self::Sql(mysql::Error::MySqlError(error)) = self else { return None };
        let key = error.message.trim_end_matches(['\'', '`', '"', '.']);
        let primary = key.ends_with("PRIMARY");
        (error.code == DUPLICATE_ENTRY).then_some(if primary {
            Taken::Primary
        } else {
            Taken::Other
        })
    }

    /// Whether the connection is of no use any more.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Sql(mysql::Error::MySqlError(error)) => CONNECTION_ENDS.contains(&error.code),
            Self::Sql(error) => error.is_connectivity_error(),
            Self::Store(_) => false,
        }
    }

    /// Whether a time limit ended it: nothing to be gained by trying again at once.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::Sql(mysql::Error::IoError(error)) => {
                matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
            }
            Self::Sql(mysql::Error::DriverError(error)) => {
                matches!(error, DriverError::ConnectTimeout | DriverError::Timeout)
            }
            _ => false,
        }
    }

    /// Whether later writes will most likely fail too.
    pub(super) fn stops_writes(&self) -> bool {
        match self {
            Self::Store(error) => !matches!(error, StoreError::Internal(_)),
            Self::Sql(_) => {
                self.taken().is_none() && !self.is_deadlock() && self.class() != Class::Refused
            }
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Sql(mysql::Error::MySqlError(error)) if PASSING.contains(&error.code) => {
                Class::Passing
            }
            Self::Sql(mysql::Error::MySqlError(error)) if DAMAGED.contains(&error.code) => {
                Class::Damaged
            }
            Self::Sql(mysql::Error::FromValueError(_) | mysql::Error::FromRowError(_)) => {
                Class::Damaged
            }
            Self::Sql(mysql::Error::DriverError(error)) => driver_class(error),
            Self::Sql(error) if error.is_connectivity_error() => Class::Passing,
            _ => Class::Refused,
        }
    }

    pub(super) fn into_store_error(self) -> StoreError {
        let class = self.class();
        match self {
            Self::Store(error) => error,
            Self::Sql(error) => {
                let text = text(&error);
                match class {
                    Class::Passing => StoreError::Unavailable(text),
                    Class::Damaged => StoreError::Corrupt(text),
                    Class::Refused => StoreError::Internal(text),
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Passing,
    Damaged,
    Refused,
}

/// Some of the driver's own errors are matters of set-up, the rest are broken conversations.
fn driver_class(error: &DriverError) -> Class {
    use DriverError::{
        CleartextPluginDisabled, InvalidPoolConstraints, MismatchedStmtParams, MixedParams,
        OldMysqlPasswordDisabled, Params, TlsNotSupported, UnknownAuthPlugin, UnsupportedProtocol,
    };
    match error {
        MismatchedStmtParams(..)
        | MixedParams
        | Params(_)
        | InvalidPoolConstraints
        | TlsNotSupported
        | UnknownAuthPlugin(_)
        | OldMysqlPasswordDisabled
        | CleartextPluginDisabled
        | UnsupportedProtocol(_) => Class::Refused,
        _ => Class::Passing,
    }
}

/// In words, without what a row held.
fn text(error: &mysql::Error) -> String {
    match error {
        mysql::Error::MySqlError(error) => format!("{} (error {})", error.message, error.code),
        mysql::Error::IoError(error) => format!("the connection to the database: {error}"),
        mysql::Error::DriverError(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16, message: &str) -> Fault {
        let (state, message) = ("HY000".to_owned(), message.to_owned());
        Fault::Sql(mysql::Error::MySqlError(mysql::MySqlError { state, message, code }))
    }

    #[test]
    fn the_key_that_refused_is_told_apart() {
        for (message, want) in [
            ("Duplicate entry '1-1' for key 'PRIMARY'", Taken::Primary),
            ("Duplicate entry '1-1' for key 'messages.PRIMARY'", Taken::Primary),
            ("Duplicate entry 'x-1-1' for key 'sends'", Taken::Other),
            ("Duplicate entry 'PRIMARY-1-1' for key 'messages.sends'", Taken::Other),
        ] {
            assert_eq!(server(DUPLICATE_ENTRY, message).taken(), Some(want), "{message}");
        }
        assert_eq!(server(1205, "for key 'PRIMARY'").taken(), None);
    }

    #[test]
    fn what_passes_is_unavailable_and_the_rest_is_not() {
        for code in [1205, 1213, 1040, 1053, 1114, 1317, 1927] {
            let error = server(code, "x").into_store_error();
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        }
        for code in [1045, 1064, 1146, DUPLICATE_ENTRY, 1406] {
            let error = server(code, "x").into_store_error();
            assert!(matches!(error, StoreError::Internal(_)), "{error}");
        }
        assert!(matches!(server(1194, "x").into_store_error(), StoreError::Corrupt(_)));
        let io = std::io::Error::from(ErrorKind::WouldBlock);
        let io = Fault::Sql(mysql::Error::IoError(io));
        assert!(io.is_timeout() && io.ends_connection() && io.stops_writes());
        assert!(matches!(io.into_store_error(), StoreError::Unavailable(_)));
        assert!(server(1927, "killed").ends_connection() && !server(1213, "").ends_connection());
    }
}
