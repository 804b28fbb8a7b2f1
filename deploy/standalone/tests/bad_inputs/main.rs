//! Inputs that no client of ours would send, against a running `corelane`: each gets the answer that
//! `codec/PROTOCOL.md` promises, costs nothing that stays, and harms nobody else.

#![allow(clippy::print_stdout, reason = "what was measured is worth seeing")]

#[path = "../common/mod.rs"]
mod common;

mod binary;
mod crowds;
mod descriptors;
mod frames;
mod handshake;
mod peer;
mod process;
mod requests;
mod table;
