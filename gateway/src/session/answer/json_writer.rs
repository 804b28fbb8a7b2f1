//! How a JSON frame is written, whatever stands in it.

use codec::ws::{Opcode, encode_frame_around};
use serde::Serialize;
use serde::ser::Serializer;

/// Most of our frames have between 126 and 65,535 bytes.
const USUAL_BYTES: usize = 256;

/// Writes one text message.
pub(super) fn write(out: &mut Vec<u8>, frame: &impl Serialize) {
    write_about(out, USUAL_BYTES, frame);
}

/// The same for one of about `expected_len` bytes: as long as that is near enough, nothing of it is moved once it is
/// written.
// Put into its callers it makes those dearer that write the binary form: a heartbeat's answer by 15 instructions.
#[inline(never)]
pub(super) fn write_about(out: &mut Vec<u8>, expected_len: usize, frame: &impl Serialize) {
    // Neither our frames nor a Vec can fail to serialise.
    let written = encode_frame_around(out, Opcode::Text, expected_len, |out| {
        serde_json::to_writer(out, frame)
    });
    debug_assert!(written.is_ok());
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
pub(super) fn is_zero(id: &u32) -> bool {
    *id == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
pub(super) fn as_text<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
