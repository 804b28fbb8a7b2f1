//! Masking (RFC 6455 section 5.3): payload byte `i` is XORed with key byte `i % 4`. The same operation
//! masks and unmasks.

use crate::payload;

/// A masking key that remembers how far into the payload it has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    key: [u8; 4],
}

impl Mask {
    pub(super) fn new(key: [u8; 4]) -> Self {
        Self { key }
    }

    /// Applies the key to the next bytes of the payload.
    pub(super) fn apply(&mut self, next: &mut [u8]) {
        apply_mask(next, self.key);
        self.key.rotate_left(next.len() % 4);
    }
}

/// Masks or unmasks a whole payload in place.
#[inline]
pub fn apply_mask(payload: &mut [u8], key: [u8; 4]) {
    payload::mask(payload, key);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    #[test]
    fn pieces_equal_the_whole() {
        let source: Vec<u8> = (0..100).collect();
        let mut whole = source.clone();
        apply_mask(&mut whole, KEY);
        for a in 0..source.len() {
            let mut pieces = source.clone();
            let mut mask = Mask::new(KEY);
            let (first, rest) = pieces.split_at_mut(a);
            let (second, third) = rest.split_at_mut(rest.len() / 3);
            mask.apply(first);
            mask.apply(second);
            mask.apply(third);
            assert_eq!(pieces, whole, "split at {a}");
        }
    }
}
