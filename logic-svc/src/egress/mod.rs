//! Out of the pipeline and back to the gateways.

#[cfg(feature = "cluster")]
pub mod cluster;
pub(crate) mod local;
pub mod router;
