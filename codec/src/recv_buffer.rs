//! Growth of the buffers that hold an incomplete frame or message.
//!
//! A peer may declare any length; memory follows what it really sent. The capacity at least doubles
//! when it must grow, so that arrival of one byte at a time costs linear work, and it stops at the
//! length at which the buffer is known to be complete, so that nothing is wasted.

/// First capacity of a buffer, in bytes.
const FIRST_CAPACITY: usize = 64;

/// The capacity a buffer should have to hold `needed` bytes when it has `capacity` now and never needs
/// more than `complete` (ignored where `needed` is more).
pub(crate) fn next_capacity(capacity: usize, needed: usize, complete: usize) -> usize {
    if needed <= capacity {
        return capacity;
    }
    let doubled = capacity.saturating_mul(2).max(FIRST_CAPACITY);
    doubled.min(complete).max(needed)
}

/// Appends `chunk`, growing as [`next_capacity`] says.
pub(crate) fn append(buffer: &mut Vec<u8>, chunk: &[u8], complete: usize) {
    let needed = buffer.len() + chunk.len();
    let capacity = next_capacity(buffer.capacity(), needed, complete);
    buffer.reserve_exact(capacity - buffer.len());
    buffer.extend_from_slice(chunk);
}

/// Appends `chunk`, growing as [`next_capacity`] says.
pub(crate) fn append_str(buffer: &mut String, chunk: &str, complete: usize) {
    let needed = buffer.len() + chunk.len();
    let capacity = next_capacity(buffer.capacity(), needed, complete);
    buffer.reserve_exact(capacity - buffer.len());
    buffer.push_str(chunk);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_the_bytes_that_came() {
        let declared = 1 << 20;
        let mut buffer = Vec::new();
        for sent in 1..=5000 {
            append(&mut buffer, b"x", declared);
            assert!(buffer.capacity() <= FIRST_CAPACITY.max(2 * sent), "{sent}");
        }
    }

    #[test]
    fn growth_is_geometric() {
        let mut buffer = Vec::new();
        let mut moves = 0;
        for _ in 0..100_000 {
            let before = buffer.capacity();
            append(&mut buffer, b"x", usize::MAX);
            moves += usize::from(buffer.capacity() != before);
        }
        assert!(moves <= 12, "{moves}");
    }

    #[test]
    fn a_known_end_is_not_overshot() {
        assert_eq!(next_capacity(0, 3, 10), 10);
        assert_eq!(next_capacity(64, 65, 100), 100);
        assert_eq!(next_capacity(64, 101, 100), 101);
        assert_eq!(next_capacity(64, 64, 100), 64);
    }
}
