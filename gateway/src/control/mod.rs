//! What runs beside the shards on a tokio thread.

pub mod http_handoff;
