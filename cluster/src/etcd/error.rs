//! What can go wrong with etcd.

use etcd_client::Error;
use tonic::Code;

/// Why etcd did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// Settings or names that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// No answer in time, or none from a majority. It may or may not have been done.
    #[error("etcd is not available while {what}: {reason}")]
    Unavailable {
        /// What was being done.
        what: &'static str,
        /// What was heard, if anything.
        reason: String,
    },
    /// etcd answered that it will not.
    #[error("etcd refused {what}: {reason}")]
    Refused {
        /// What was being done.
        what: &'static str,
        /// Its words.
        reason: String,
    },
    /// Somebody else holds the key.
    #[error("{key} is held by another: {holder}")]
    Taken {
        /// The key.
        key: String,
        /// Its value.
        holder: String,
    },
    /// Every worker id up to the largest allowed is held.
    #[error("all worker ids from 0 to {max} are held")]
    NoWorkerFree {
        /// The largest allowed.
        max: u16,
    },
}

impl EtcdError {
    /// Whether the same may go well later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::Invalid(_) | Self::Refused { .. })
    }

    /// What `error` means for a request.
    pub(super) fn of(what: &'static str, error: &Error) -> Self {
        let reason = error.to_string();
        match error {
            Error::GRpcStatus(status) if final_word(status.code()) => {
                Self::Refused { what, reason }
            }
            Error::InvalidArgs(_) | Error::InvalidUri(_) => Self::Refused { what, reason },
            _ => Self::Unavailable { what, reason },
        }
    }
}

/// Codes by which a server that is well says no; the rest may be cured by time or by another member.
fn final_word(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_time_may_cure_is_temporary() {
        let of = |code| EtcdError::of("testing", &Error::GRpcStatus(tonic::Status::new(code, "x")));
        for code in [Code::Unavailable, Code::Unknown, Code::DeadlineExceeded, Code::Cancelled] {
            assert!(of(code).is_temporary(), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unimplemented] {
            assert!(!of(code).is_temporary(), "{code:?}");
        }
        assert!(EtcdError::NoWorkerFree { max: 3 }.is_temporary());
    }
}
