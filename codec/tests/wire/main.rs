//! The codec's promises about the wire, each kept in one file.

mod bad_inputs;
mod binary;
mod close_and_limits;
mod deflate;
mod handshake;
mod negotiation;
mod oracle;
mod protocol_document;
mod round_trip;
mod support;
mod vectors;
