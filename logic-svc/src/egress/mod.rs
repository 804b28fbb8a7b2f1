//! Out of the pipeline and back to the gateways.

pub(crate) mod local;
pub mod router;
