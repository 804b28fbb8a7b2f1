//! The messages that client, gateway and logic service exchange, and the ids they share.
//!
//! Knows: the `.proto` files under `im/v1`, ids and limits of the protocol.
//! Must not know: sockets, queues, databases, JSON.

pub mod error;
pub mod ids;
pub mod limits;

/// Generated from `proto/im/v1/*.proto`; the comments there are the documentation.
pub mod im {
    /// Version 1 of the messages.
    #[allow(missing_docs, clippy::all, clippy::large_enum_variant, clippy::too_many_lines)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/im.v1.rs"));
    }
}

pub use im::v1;

/// What gRPC reflection shows: the encoded descriptors of all `.proto` files.
#[cfg(feature = "grpc")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/im.v1.descriptors"));
