//! What a status tells of the way a call went.

use std::error::Error as _;

use tonic::{ConnectError, Status};

/// Whether a call has certainly not left this process: there was no connection, or it closed
/// before the request was written.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        source = error.source();
    }
    false
}
