//! Sockets: listening, readiness, receiving and sending. The only room of this crate with system calls
//! on connections, and the only one with `unsafe` (in `send_ring`).

pub mod capacity;
pub mod descriptors;
pub mod listener;
pub mod poll_set;
#[allow(unsafe_code)]
mod send_ring;
pub mod sends;
pub mod sockets;
