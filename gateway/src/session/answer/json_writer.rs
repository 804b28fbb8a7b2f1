//! How a JSON frame is written, whatever stands in it.

use std::cell::RefCell;

use codec::ws::{Opcode, encode_frame};
use serde::Serialize;
use serde::ser::Serializer;

/// Hands out an empty buffer that is kept from call to call.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local!(static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        work(scratch)
    })
}

/// Writes one text message.
pub(super) fn write(out: &mut Vec<u8>, frame: &impl Serialize) {
    with_scratch(|scratch| {
        // Neither our frames nor a Vec can fail to serialise.
        let written = serde_json::to_writer(&mut *scratch, frame);
        debug_assert!(written.is_ok());
        encode_frame(out, Opcode::Text, scratch);
    });
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
pub(super) fn is_zero(id: &u32) -> bool {
    *id == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
pub(super) fn as_text<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
