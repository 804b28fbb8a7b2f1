//! The embedded bus: the consumer takes straight from the uplink's lanes.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::{Call, UpstreamBatch};

use crate::uplink::Uplink;

/// What a wait for the uplink brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Something.
    Some,
    /// Nothing within the timeout.
    Nothing,
    /// The gateway has ended and everything was taken.
    Closed,
}

impl From<Option<bool>> for Taken {
    fn from(any: Option<bool>) -> Self {
        match any {
            Some(true) => Self::Some,
            Some(false) => Self::Nothing,
            None => Self::Closed,
        }
    }
}

/// The messages of all shards. For one thread.
pub struct Messages(pub Arc<Uplink>);

impl Messages {
    /// Takes everything that waits, waiting for the first at most `timeout`.
    pub fn take(&mut self, into: &mut Vec<UpstreamBatch>, timeout: Duration) -> Taken {
        self.0.messages.take_all(timeout, |batch| into.push(batch)).into()
    }
}

/// The requests of all shards. For one thread.
pub struct Calls(pub Arc<Uplink>);

impl Calls {
    /// Takes everything that waits, waiting for the first at most `timeout`.
    pub fn take(&mut self, into: &mut Vec<Call>, timeout: Duration) -> Taken {
        self.0.calls.take_all(timeout, |mut calls| into.append(&mut calls)).into()
    }
}
