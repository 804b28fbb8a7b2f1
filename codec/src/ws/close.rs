//! Close frames (RFC 6455 sections 5.5.1 and 7.4).

use super::header::{CONTROL_MAX_BYTES, encode_fragment};
use super::{Error, Opcode};

/// Longest close reason in bytes: a control frame less the code.
pub const CLOSE_REASON_MAX_BYTES: usize = CONTROL_MAX_BYTES - 2;

/// The body of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// A code that may be sent (see [`is_valid_close_code`]).
    pub code: u16,
    /// Words for a developer; may be empty.
    pub reason: &'a str,
}

/// Whether a close code may stand in a close frame: 1000-1003 and 1007-1014 as registered, 3000-3999
/// for libraries, 4000-4999 for applications (section 7.4).
#[must_use]
pub const fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Reads the body of a close frame; an empty one has no code.
pub(super) fn parse(payload: &[u8]) -> Result<Option<CloseFrame<'_>>, Error> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Error::BadCloseBody) };
    };
    let code = u16::from_be_bytes(code);
    if !is_valid_close_code(code) {
        return Err(Error::BadCloseCode(code));
    }
    let reason = str::from_utf8(reason).map_err(|_| Error::BadUtf8)?;
    Ok(Some(CloseFrame { code, reason }))
}

/// Appends an unmasked close frame: the server's role. A reason that does not fit is cut between two
/// characters.
pub fn encode_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    encode(out, code, reason, None);
}

/// Appends a masked close frame: the client's role. A reason that does not fit is cut between two
/// characters.
pub fn encode_close_masked(out: &mut Vec<u8>, code: u16, reason: &str, key: [u8; 4]) {
    encode(out, code, reason, Some(key));
}

fn encode(out: &mut Vec<u8>, code: u16, reason: &str, key: Option<[u8; 4]>) {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_MAX_BYTES)];
    let mut body = [0; CONTROL_MAX_BYTES];
    body[..2].copy_from_slice(&code.to_be_bytes());
    body[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    encode_fragment(out, Opcode::Close, true, &body[..2 + reason.len()], key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valid_codes_are_these() {
        let bad = [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
        for code in bad {
            assert!(!is_valid_close_code(code), "{code}");
            let body = code.to_be_bytes();
            assert_eq!(parse(&body), Err(Error::BadCloseCode(code)));
        }
        for code in [1000_u16, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
            let body = code.to_be_bytes();
            assert_eq!(parse(&body), Ok(Some(CloseFrame { code, reason: "" })));
        }
    }

    #[test]
    fn odd_bodies_are_refused() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[3]), Err(Error::BadCloseBody));
        assert_eq!(parse(&[3, 0xE8, 0xC3]), Err(Error::BadUtf8));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        encode_close(&mut out, 4000, &"ä".repeat(100));
        // 123 bytes would end inside a character, so 122 are used.
        assert_eq!(&out[..4], [0x88, 124, 0x0F, 0xA0]);
        let frame = parse(&out[2..]).unwrap().unwrap();
        assert_eq!(frame.reason, "ä".repeat(61));
        out.clear();
        encode_close(&mut out, 1000, &"x".repeat(200));
        assert_eq!(out.len(), 2 + 125);
    }
}
