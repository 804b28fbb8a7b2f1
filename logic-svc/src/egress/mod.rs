//! Out of the pipeline and back to the gateways.

pub mod router;
