//! How messages come to the pipeline.

pub(crate) mod direct;
#[cfg(feature = "cluster")]
mod faults;
#[cfg(feature = "cluster")]
pub(crate) mod kafka;
#[cfg(feature = "cluster")]
pub(crate) mod patience;
