//! Bytes to frames and back: WebSocket (RFC 6455) and Corelane's binary protocol, without I/O.
//!
//! Knows: the wire. Bytes and limits go in, borrowed views come out; the caller owns the memory.
//! Must not know: sockets, runtimes, clocks, JSON, protobuf messages, what a session may do.
//!
//! A frame that lies whole in the caller's receive buffer is read in place: nothing is copied and
//! nothing allocated. Only a frame or message of which a part is missing is kept inside a decoder,
//! and that copy never grows past a small multiple of the bytes that really came.
//!
//! `PROTOCOL.md` beside this crate is the reference for authors of clients.

mod payload;
mod recv_buffer;
mod role;

pub mod binary;
pub mod detect;
pub mod ws;

pub use role::Role;
