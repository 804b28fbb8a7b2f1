//! gRPC channels: who is there, who is asked, how often, and when nobody is asked any more.
//!
//! Knows: endpoints, channels, deadlines, retries, circuit breakers.
//! Must not know: which calls are made, where the endpoints come from.
//!
//! Why not a balanced channel of the library: it goes on picking endpoints that are dead. Here
//! every endpoint has one channel, one prober and one circuit breaker, and whoever does not
//! answer is left out within a second.

mod backoff;
mod breaker;
mod call;
mod endpoints;
mod liveness;
mod prober;
mod settings;
mod status;
#[cfg(test)]
mod tests;

pub use breaker::{BreakerSettings, BreakerState};
pub use call::{CallError, CallOptions};
pub use endpoints::{EndpointView, Endpoints, EndpointsError};
pub use liveness::Liveness;
pub use settings::EndpointsSettings;
