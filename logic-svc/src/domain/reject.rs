//! Why a request is refused, small enough to be copied around; turned into a [`Failure`] at the edge.

use proto::error::ErrorCode;
use proto::v1::Failure;

/// A refusal: the stable error and a fixed sentence for the client's developer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The stable error.
    pub code: ErrorCode,
    /// What is wrong, for the developer who reads it.
    pub detail: &'static str,
}

impl Reject {
    /// A refusal with this error and sentence.
    #[must_use]
    pub const fn new(code: ErrorCode, detail: &'static str) -> Self {
        Self { code, detail }
    }

    /// The refusal as it travels. Temporary ones carry a delay after which trying again makes sense.
    #[must_use]
    pub fn failure(self) -> Failure {
        if self.code.temporary() {
            self.code.retry_after(RETRY_AFTER_MS, self.detail)
        } else {
            self.code.failure(self.detail)
        }
    }
}

/// What a client is told to wait before it repeats a request that failed for a temporary reason.
const RETRY_AFTER_MS: u32 = 1000;

/// The conversation does not exist or is none of the user's.
pub const NOT_FOUND: Reject = Reject::new(ErrorCode::ConversationNotFound, "no such conversation");
/// The conversation exists, but the user is not in it.
pub const NOT_A_MEMBER: Reject =
    Reject::new(ErrorCode::NotAMember, "not a member of this conversation");
/// The store cannot write now.
pub const STORE_BUSY: Reject =
    Reject::new(ErrorCode::Busy, "the store cannot take writes at the moment");
/// The store failed in a way that is the server's fault.
pub const STORE_FAULT: Reject =
    Reject::new(ErrorCode::Internal, "the store failed; the message was not stored");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_refusals_ask_to_come_back() {
        assert_eq!(NOT_A_MEMBER.failure().retry_after_ms, 0);
        assert!(!NOT_A_MEMBER.failure().temporary);
        assert_eq!(STORE_BUSY.failure().retry_after_ms, RETRY_AFTER_MS);
        assert!(STORE_BUSY.failure().temporary);
    }
}
