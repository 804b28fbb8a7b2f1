//! Which partition a key belongs to.

/// The partition that Kafka's default partitioner gives to `key`: murmur2 without its sign, modulo
/// the number of partitions. Producers in other languages agree with it. Of no partitions it is 0.
#[must_use]
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    if partitions == 0 {
        return 0;
    }
    (murmur2(key.as_bytes()) & 0x7fff_ffff) % partitions
}

/// MurmurHash2, 32 bit, with the seed that Kafka's Java client uses.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Records are far below 4 GiB; the hash only mixes the length in.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_like_the_java_client() {
        // The cases of the Java client's own test of this function.
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn the_sign_is_dropped_before_the_modulus() {
        // -973932308 & 0x7fffffff = 1173551340
        assert_eq!(partition_of("21", 7), 1_173_551_340 % 7);
        assert_eq!(partition_of("foobar", 1000), ((-790_332_482_i32) & 0x7fff_ffff) as u32 % 1000);
    }

    #[test]
    fn no_partition_is_no_panic() {
        assert_eq!(partition_of("anything", 0), 0);
        assert_eq!(partition_of("", 1), 0);
    }
}
