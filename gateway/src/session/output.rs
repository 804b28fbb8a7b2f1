//! What comes out of a session.

use std::ops::Range;

use codec::ws::{Opcode, encode_frame, encode_header};
use proto::v1::{Call, UpstreamFrame};

use crate::limits::LEFT_IN_PLACE_BYTES;

/// What becomes of the connection after an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    #[default]
    Stay,
    /// It is closed once its bytes are out.
    Close,
    /// It is plain HTTP: the socket and `Outputs::handed_over` go to the control thread.
    HandOver,
}

/// Why a session ended its connection, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was no room for one more client.
    NoRoom,
    /// Too many frames without a purpose.
    Flood,
    /// Its login was sent away, as too many were under way.
    LoginShed,
}

/// A piece of what was received that is sent back from where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InPlace {
    /// Where among `Outputs::bytes` it belongs: before the byte of this index.
    pub before: usize,
    /// Which bytes of the receive buffer.
    pub received: Range<usize>,
}

/// Collects the outputs of all sessions of a turn. The shard owns it and empties it.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Bytes for the connection, appended; the shard notes where they start.
    pub bytes: Vec<u8>,
    /// Messages for the log.
    pub messages: Vec<UpstreamFrame>,
    /// Requests for the logic service.
    pub calls: Vec<Call>,
    /// Pieces of what was received that go out from where they lie, between what is appended to `bytes`; in order.
    pub in_place: Vec<InPlace>,
    /// The addresses of the shard's receive buffer: what a session is given out of it can be left in place.
    pub receive_buffer: Range<usize>,
    /// Bytes already read of a connection that is handed over.
    pub handed_over: Vec<u8>,
    /// What the connection owes for frames without a purpose: milliseconds until all of it is forgiven.
    /// The shard sets it before each input and keeps it after.
    pub debt_ms: u32,
    /// Whoever says now that it is a client has to be told that there is no room.
    pub no_room: bool,
    /// When not 0, a login is sent away with this delay instead of being asked for.
    pub login_delay_ms: u32,
    /// Why the connection ends, where somebody counts it; reset by the shard.
    pub cause: Option<Cause>,
    /// What becomes of the connection; reset by the shard before each input.
    pub verdict: Verdict,
}

impl Outputs {
    /// Appends a frame. A long payload out of the receive buffer goes out from there; any other is copied.
    #[inline]
    pub(super) fn send_back(&mut self, opcode: Opcode, payload: &[u8]) {
        if payload.len() < LEFT_IN_PLACE_BYTES {
            encode_frame(&mut self.bytes, opcode, payload);
        } else {
            self.send_back_long(opcode, payload);
        }
    }

    fn send_back_long(&mut self, opcode: Opcode, payload: &[u8]) {
        let Some(received) = self.in_receive_buffer(payload) else {
            return encode_frame(&mut self.bytes, opcode, payload);
        };
        encode_header(&mut self.bytes, opcode, true, payload.len(), None);
        self.in_place.push(InPlace { before: self.bytes.len(), received });
    }

    fn in_receive_buffer(&self, payload: &[u8]) -> Option<Range<usize>> {
        let start = payload.as_ptr().addr().checked_sub(self.receive_buffer.start)?;
        let range = start..start + payload.len();
        (range.end <= self.receive_buffer.len()).then_some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_payloads_out_of_the_receive_buffer_are_left_in_place() {
        let buffer: Vec<u8> = (0..4_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let start = buffer.as_ptr().addr();
        let mut out = Outputs { receive_buffer: start..start + buffer.len(), ..Outputs::default() };
        let elsewhere = vec![7; 2_000];
        out.send_back(Opcode::Binary, &buffer[10..2_010]);
        out.send_back(Opcode::Binary, &buffer[..LEFT_IN_PLACE_BYTES - 1]);
        out.send_back(Opcode::Text, &elsewhere);
        out.send_back(Opcode::Text, &buffer[4_000 - LEFT_IN_PLACE_BYTES..]);
        let copied = 4 + 4 + LEFT_IN_PLACE_BYTES - 1 + 4 + 2_000 + 4;
        assert_eq!(
            out.in_place,
            [
                InPlace { before: 4, received: 10..2_010 },
                InPlace { before: copied, received: 4_000 - LEFT_IN_PLACE_BYTES..4_000 },
            ]
        );
        assert_eq!(out.bytes.len(), copied);
        assert_eq!(out.bytes[..4], [0x82, 126, 7, 208]);
    }

    /// Where nobody says what the receive buffer is, all is copied.
    #[test]
    fn without_a_receive_buffer_all_is_copied() {
        let mut out = Outputs::default();
        out.send_back(Opcode::Binary, &[7; 2_000]);
        assert_eq!((out.bytes.len(), out.in_place.len()), (2_004, 0));
    }
}
