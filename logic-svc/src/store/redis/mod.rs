//! The shared cache in Redis: who is connected where, what was said lately, locks. All of it may vanish at any moment:
//! then routes are registered anew, and meanwhile every gateway is asked.
//!
//! Knows: the ports. Must not know: who asks.

mod batch;
mod cached;
mod client;
mod entry;
mod hot;
mod link;
mod lock;
mod names;
mod news;
mod notes;
mod options;
mod reports;
mod scripts;
mod sessions;
mod slots;
mod sweep;
mod value;
mod warm;
mod watches;

pub use cached::Cached;
pub use client::{Client, Counters, Standing};
pub use lock::Lock;
pub use options::{BadAddress, Options};
pub use sessions::{RouteSettings, SessionTable};
pub use warm::{SendId, Warm, WarmSettings};

#[cfg(test)]
pub(crate) mod tests;
