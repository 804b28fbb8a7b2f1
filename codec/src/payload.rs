//! The passes over every payload, as few instructions a byte as can be had: masking (RFC 6455 section
//! 5.3), telling that text is UTF-8, and copying it behind a header. The only room of this crate with
//! `unsafe`.
//!
//! Most text is ASCII, and whether it is can be seen while unmasking, for one instruction a word. Such
//! text needs no second pass.

/// Whether every byte of a payload is known to be ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IsAscii(bool);

impl IsAscii {
    /// Nobody has looked.
    pub(crate) const UNKNOWN: Self = Self(false);
}

/// Below this the wider instructions gain nothing over asking whether they are there.
#[cfg(target_arch = "x86_64")]
const WIDE_FROM_BYTES: usize = 128;

/// Masks or unmasks a payload in place: byte `i` is XORed with key byte `i % 4`.
#[inline]
#[allow(unsafe_code)]
pub(crate) fn mask(payload: &mut [u8], key: [u8; 4]) -> IsAscii {
    #[cfg(target_arch = "x86_64")]
    if payload.len() >= WIDE_FROM_BYTES && is_x86_feature_detected!("avx2") {
        // SAFETY: the function needs AVX2 and nothing else, and the processor was just asked for it.
        // Tested by `equals_the_definition_at_every_length_and_alignment`.
        return unsafe { mask_avx2(payload, key) };
    }
    mask_words(payload, key)
}

/// The same loop, compiled for registers of 32 bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn mask_avx2(payload: &mut [u8], key: [u8; 4]) -> IsAscii {
    mask_words(payload, key)
}

#[inline(always)]
fn mask_words(payload: &mut [u8], key: [u8; 4]) -> IsAscii {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut seen = 0;
    // Words of eight bytes: the compiler turns this loop into vector instructions.
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        let clear = u64::from_ne_bytes(*word) ^ wide;
        *word = clear.to_ne_bytes();
        seen |= clear;
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
        seen |= u64::from(*byte);
    }
    IsAscii(seen & 0x8080_8080_8080_8080 == 0)
}

/// The text of a payload, about which [`mask`] may have told something; `None` when it is not UTF-8.
#[inline]
#[allow(unsafe_code)]
pub(crate) fn text(payload: &[u8], is_ascii: IsAscii) -> Option<&str> {
    debug_assert!(!is_ascii.0 || payload.is_ascii());
    if is_ascii.0 {
        // SAFETY: ASCII is UTF-8, and `mask` has seen every byte of this payload. `IsAscii` is made
        // nowhere else; its callers pass it on with the payload it is about, which the assertion checks
        // in every test. Tested by `text_is_what_the_standard_library_says`.
        return Some(unsafe { std::str::from_utf8_unchecked(payload) });
    }
    simdutf8::basic::from_utf8(payload).ok()
}

/// Appends a header and what is to lie behind it. There is one look at the room there is, at most one
/// growth, to what is needed or by the usual factor, and every byte is written once.
#[inline]
#[allow(unsafe_code)]
pub(crate) fn append<const HEAD: usize>(out: &mut Vec<u8>, head: [u8; HEAD], behind: &[u8]) {
    let added = HEAD + behind.len();
    out.reserve(added);
    let len = out.len();
    // SAFETY: `reserve` has made room for `added` bytes behind the first `len`, or panicked. `head` and
    // `behind` do not lie there: the one is a copy of its own, the other is borrowed while `out` is
    // borrowed for writing. All `added` bytes are written before they count. Tested by
    // `a_header_and_a_payload_are_appended_whatever_room_there_is`.
    unsafe {
        let end = out.as_mut_ptr().add(len);
        end.cast::<[u8; HEAD]>().write_unaligned(head);
        end.add(HEAD).copy_from_nonoverlapping(behind.as_ptr(), behind.len());
        out.set_len(len + added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    fn by_the_book(payload: &mut [u8]) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= KEY[i % 4];
        }
    }

    #[test]
    fn equals_the_definition_at_every_length_and_alignment() {
        let source: Vec<u8> = (0..400).map(|i| (i * 7) as u8).collect();
        for start in 0..33 {
            for end in start..source.len() {
                let mut book = source.clone();
                by_the_book(&mut book[start..end]);
                let mut ours = source.clone();
                assert_eq!(mask(&mut ours[start..end], KEY).0, book[start..end].is_ascii());
                assert_eq!(ours, book, "{start}..{end}");
                let mut narrow = source.clone();
                assert_eq!(mask_words(&mut narrow[start..end], KEY).0, book[start..end].is_ascii());
                assert_eq!(narrow, book, "{start}..{end}");
            }
        }
    }

    #[test]
    fn a_header_and_a_payload_are_appended_whatever_room_there_is() {
        let payload: Vec<u8> = (0..70).collect();
        for before in [0, 1, 9] {
            for spare in 0..85 {
                for len in [0, 1, 15, 16, 64, 70] {
                    let mut out = Vec::with_capacity(before + spare);
                    out.resize(before, 0xEE);
                    let room = out.capacity();
                    append(&mut out, [1, 2, 3, 4], &payload[..len]);
                    append(&mut out, [5; 10], &[]);
                    let expected =
                        [&vec![0xEE; before][..], &[1, 2, 3, 4], &payload[..len], &[5; 10]];
                    assert_eq!(out, expected.concat(), "{before} {spare} {len}");
                    if before + 14 + len <= room {
                        assert_eq!(out.capacity(), room, "what fits does not grow");
                    }
                }
            }
        }
    }

    /// One byte that is not ASCII, at every place of payloads of every length.
    #[test]
    fn text_is_what_the_standard_library_says() {
        for len in 0..300 {
            for bad in (0..=len).step_by(if len < 40 { 1 } else { 7 }) {
                let mut clear = vec![b'x'; len];
                if let Some(byte) = clear.get_mut(bad) {
                    *byte = 0xC3;
                }
                if let Some(byte) = clear.get_mut(bad + 1) {
                    *byte = 0xA9;
                }
                let mut payload = clear.clone();
                by_the_book(&mut payload);
                let is_ascii = mask(&mut payload, KEY);
                assert_eq!(
                    text(&payload, is_ascii),
                    std::str::from_utf8(&clear).ok(),
                    "{len} {bad}"
                );
            }
        }
    }
}
