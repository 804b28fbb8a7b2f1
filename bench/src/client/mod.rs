//! A closed-loop client on one thread: N connections, K messages outstanding on random ones.
//!
//! Every answer is compared byte by byte with what was sent, so a server that is fast because
//! it is wrong does not pass. One connection carries at most one message at a time; the next
//! message goes out, on a connection drawn at random, the moment an answer is complete.

mod closed_loop;
mod connect;
mod slice;
mod wire;

pub(crate) use closed_loop::send_all;
pub use closed_loop::{Client, Order, Phase};
pub use connect::Target;
pub(crate) use connect::{open_with, receive};
pub use slice::{Slice, Window};
pub use wire::{Protocol, SMALLEST_PAYLOAD_BYTES};

/// A small generator of pseudo-random numbers (xorshift64*): the load needs speed and
/// repeatability, not secrecy.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // A zero state would stay zero forever.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which must not be 0. The high half is used: it is the better one.
    fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 32) as usize) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn draws_reach_every_connection_and_repeat_by_seed() {
        let mut seen = [0u32; 100];
        let (mut random, mut again) = (Random::new(7), Random::new(7));
        for _ in 0..100_000 {
            let drawn = random.below(100);
            assert_eq!(drawn, again.below(100));
            seen[drawn] += 1;
        }
        assert!(seen.iter().all(|&count| (700..1_300).contains(&count)), "{seen:?}");
    }
}
