//! The only room that touches a database; presence lives here too, in the embedded form in memory.

#[cfg(test)]
mod appending;
#[cfg(feature = "cluster")]
pub(crate) mod mysql;
#[cfg(all(test, feature = "cluster"))]
mod own_port;
pub mod presence;
#[cfg(feature = "cluster")]
pub mod redis;
pub(crate) mod sqlite;

use proto::error::ErrorCode;
use proto::v1::Failure;

use crate::ports::StoreError;

/// The failure a client sees when the store failed; the details go to the log only.
#[must_use]
pub fn failure(error: &StoreError) -> Failure {
    tracing::warn!(%error, "a request failed in the store");
    match error {
        StoreError::Unavailable(_) => {
            ErrorCode::Busy.retry_after(1000, "the store is unavailable at the moment")
        }
        StoreError::Corrupt(_) | StoreError::Internal(_) => {
            ErrorCode::Internal.retry_after(1000, "the store failed")
        }
    }
}
