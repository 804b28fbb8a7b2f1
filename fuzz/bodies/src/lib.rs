//! What the fuzz targets check. Each body takes any bytes, reads a case from them, and compares what
//! our code makes of it with what must hold; it panics when it does not hold.
//!
//! The same bodies run under libFuzzer (`fuzz/`, nightly Rust) and under proptest (`tests/`, stable).
//! A case can be written as the bytes it is read from, which is how the seeds are made.

pub mod binary;
pub mod deflate;
pub mod handshake;
pub mod input;
pub mod json;
pub mod seeds;
pub mod session;
pub mod websocket;

/// A fuzz target: its name, and its body.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As the binary in `fuzz/` is called.
    pub name: &'static str,
    /// Reads a case from any bytes and checks it.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "handshake", run: handshake::run },
    Target { name: "websocket", run: websocket::run },
    Target { name: "deflate", run: deflate::run },
    Target { name: "binary", run: binary::run },
    Target { name: "json", run: json::run },
    Target { name: "session", run: session::run },
];
