//! Window sizes, and what a connection with context takeover keeps.

use super::Agreement;
use crate::role::Role;

/// The base-2 logarithm of a window's size in bytes (RFC 7692 section 7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum WindowBits {
    /// 256 bytes. Our compressor cannot be bound to it.
    Eight = 8,
    /// 512 bytes.
    Nine,
    /// 1 KiB.
    Ten,
    /// 2 KiB.
    Eleven,
    /// 4 KiB.
    Twelve,
    /// 8 KiB.
    Thirteen,
    /// 16 KiB.
    Fourteen,
    /// 32 KiB, the most there is.
    Fifteen,
}

impl WindowBits {
    /// All of them, from the smallest.
    pub const ALL: [Self; 8] = [
        Self::Eight,
        Self::Nine,
        Self::Ten,
        Self::Eleven,
        Self::Twelve,
        Self::Thirteen,
        Self::Fourteen,
        Self::Fifteen,
    ];

    /// The window of this number of bits; `None` below 8 and above 15.
    #[must_use]
    pub fn new(bits: u8) -> Option<Self> {
        Self::ALL.get(usize::from(bits.checked_sub(8)?)).copied()
    }

    /// The number of bits, 8 to 15.
    #[must_use]
    pub const fn get(self) -> u8 {
        self as u8
    }

    /// The size of the window in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self as u8
    }
}

impl std::str::FromStr for WindowBits {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().and_then(Self::new).ok_or("a number from 8 to 15")
    }
}

/// The last bytes of one direction.
#[derive(Clone, Debug)]
pub(super) struct Window {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl Window {
    fn new(max_bytes: usize) -> Self {
        Self { bytes: Vec::new(), max_bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A message went by.
    pub(super) fn slide(&mut self, message: &[u8]) {
        let message = &message[message.len().saturating_sub(self.max_bytes)..];
        let kept = (self.max_bytes - message.len()).min(self.bytes.len());
        self.bytes.drain(..self.bytes.len() - kept);
        self.bytes.reserve_exact(message.len());
        self.bytes.extend_from_slice(message);
    }
}

/// What a connection with context takeover keeps from message to message: at most the agreed window of
/// each direction that takes its context over, and no more than was really sent.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Of the messages we compressed.
    pub(super) sent: Option<Window>,
    /// Of the compressed messages we received.
    pub(super) received: Option<Window>,
}

impl Windows {
    /// Empty windows for our side of an agreement; `None` when neither direction takes its context
    /// over, and there is nothing to keep.
    #[must_use]
    pub fn new(agreement: &Agreement, role: Role) -> Option<Self> {
        let (ours, theirs) = agreement.by_role(role);
        // Some compressors that are told 8 use a window of 9 bits.
        let received_bytes = theirs.bits.max(WindowBits::Nine).bytes();
        let sent = ours.takeover.then(|| Window::new(ours.bits.bytes()));
        let received = theirs.takeover.then(|| Window::new(received_bytes));
        (sent.is_some() || received.is_some()).then_some(Self { sent, received })
    }

    /// Bytes held for both directions.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let held = |window: &Option<Window>| window.as_ref().map_or(0, |w| w.bytes.capacity());
        held(&self.sent) + held(&self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_8_to_15() {
        for bits in 0..=u8::MAX {
            assert_eq!(
                WindowBits::new(bits).map(WindowBits::get),
                (8..=15).contains(&bits).then_some(bits)
            );
        }
        assert_eq!(WindowBits::Fifteen.bytes(), 32 * 1024);
        assert_eq!("9".parse(), Ok(WindowBits::Nine));
        for text in ["", "7", "16", "x", "256"] {
            assert!(text.parse::<WindowBits>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_window_is_the_end_of_what_went_by() {
        let mut window = Window::new(8);
        let mut all = Vec::new();
        for len in [3, 0, 4, 1, 8, 2, 9, 20, 7] {
            let message: Vec<u8> = (0..len).map(|i| (all.len() + i) as u8).collect();
            window.slide(&message);
            all.extend(message);
            assert_eq!(window.bytes(), &all[all.len().saturating_sub(8)..]);
            assert!(window.bytes.capacity() <= 16);
        }
    }
}
