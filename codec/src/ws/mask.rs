//! Masking (RFC 6455 section 5.3): payload byte `i` is XORed with key byte `i % 4`. The same operation
//! masks and unmasks.

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
pub fn apply_mask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Words of eight bytes: the compiler turns this loop into vector instructions.
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (i, byte) in tail.iter_mut().enumerate() {
        *byte ^= key[i % 4];
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
        let source: Vec<u8> = (0..200).map(|i| (i * 7) as u8).collect();
        for start in 0..9 {
            for end in start..source.len() {
                let mut ours = source.clone();
                let mut book = source.clone();
                apply_mask(&mut ours[start..end], KEY);
                by_the_book(&mut book[start..end]);
                assert_eq!(ours, book, "{start}..{end}");
            }
        }
    }

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
