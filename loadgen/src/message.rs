//! What a message says about itself: its identity inside the `client_msg_id` (a UUIDv7) and its due time
//! and identity inside the content, so that any receiver can check and time it without a look-up.

use uuid::{Builder, Uuid, Variant, Version};

/// Bits of [`MessageKey::run`].
pub(crate) const RUN_BITS: u32 = 21;
/// Bits of [`MessageKey::sender`].
pub(crate) const SENDER_BITS: u32 = 21;
/// Bytes of a client message id in text form.
pub(crate) const ID_BYTES: usize = 36;
/// Bytes of the stamp at the front of every content; the smallest payload.
pub(crate) const STAMP_BYTES: usize = 32;

/// Identity of a message: which run, which connection sent it, and its number in its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKey {
    /// Number of the run; messages of another run are strangers. Below 2^21.
    pub run: u32,
    /// Index of the sending connection over all workers. Below 2^21.
    pub sender: u32,
    /// Number in its conversation, from 0.
    pub number: u32,
}

impl MessageKey {
    /// The `client_msg_id`: a UUIDv7 of the given time whose other 74 bits are this key. A retry computes
    /// the same id again.
    #[must_use]
    pub fn id(self, unix_ms: u64) -> [u8; ID_BYTES] {
        let bits =
            u128::from(self.run) << 53 | u128::from(self.sender) << 32 | u128::from(self.number);
        let rand_a = bits >> 62 & 0xfff;
        let rand_b = bits & ((1 << 62) - 1);
        let value = u128::from(unix_ms & 0xffff_ffff_ffff) << 80 | rand_a << 64 | rand_b;
        let id = Builder::from_u128(value)
            .with_version(Version::SortRand)
            .with_variant(Variant::RFC4122);
        let mut text = [0; ID_BYTES];
        id.into_uuid().hyphenated().encode_lower(&mut text);
        text
    }

    /// Reads a key back; `None` for anything that is no UUIDv7 in hyphenated form.
    #[must_use]
    pub fn from_id(id: &[u8]) -> Option<Self> {
        if id.len() != ID_BYTES {
            return None;
        }
        let id = Uuid::try_parse_ascii(id).ok()?;
        if id.get_version() != Some(Version::SortRand) || id.get_variant() != Variant::RFC4122 {
            return None;
        }
        let value = id.as_u128();
        let bits = (value >> 64 & 0xfff) << 62 | value & ((1 << 62) - 1);
        Some(Self {
            run: low32(bits >> 53),
            sender: low32(bits >> 32) & ((1 << SENDER_BITS) - 1),
            number: low32(bits),
        })
    }
}

fn low32(bits: u128) -> u32 {
    (bits & 0xffff_ffff) as u32
}

/// Writes and checks contents of one fixed length: a stamp (due time, sender, number in hexadecimal) and
/// a filler that is the same for the whole run.
#[derive(Clone, Debug)]
pub struct Contents {
    filler: Vec<u8>,
}

/// What a content says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When the message was due, on the machine's monotonic clock.
    pub due_ns: u64,
    /// As in [`MessageKey`].
    pub sender: u32,
    /// As in [`MessageKey`].
    pub number: u32,
}

impl Contents {
    /// Contents of `payload_bytes`, at least [`STAMP_BYTES`].
    #[must_use]
    pub fn new(payload_bytes: usize) -> Self {
        let filler =
            (b'a'..=b'z').cycle().take(payload_bytes.saturating_sub(STAMP_BYTES)).collect();
        Self { filler }
    }

    /// Length of every content in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        STAMP_BYTES + self.filler.len()
    }

    /// Whether contents are empty: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends the content of one message.
    pub fn write(&self, out: &mut Vec<u8>, stamp: Stamp) {
        out.extend_from_slice(&hex(stamp.due_ns));
        out.extend_from_slice(&hex(u64::from(stamp.sender) << 32 | u64::from(stamp.number)));
        out.extend_from_slice(&self.filler);
    }

    /// Reads a content; `None` when a single byte is not as it was written.
    #[must_use]
    pub fn read(&self, content: &[u8]) -> Option<Stamp> {
        let (stamp, filler) = content.split_first_chunk::<STAMP_BYTES>()?;
        if filler != self.filler {
            return None;
        }
        let (due, key) = stamp.split_at(16);
        let key = unhex(key)?;
        Some(Stamp { due_ns: unhex(due)?, sender: (key >> 32) as u32, number: key as u32 })
    }
}

fn hex(value: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (i, digit) in text.iter_mut().enumerate() {
        let nibble = (value >> (60 - 4 * i) & 0xf) as usize;
        *digit = b"0123456789abcdef"[nibble];
    }
    text
}

fn unhex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |value, &digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(nibble))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_survives_its_id(run in 0_u32..1 << RUN_BITS, sender in 0_u32..1 << SENDER_BITS, number: u32, ms in 0_u64..1 << 48) {
            let key = MessageKey { run, sender, number };
            let id = key.id(ms);
            prop_assert_eq!(MessageKey::from_id(&id), Some(key));
            let uuid = Uuid::try_parse_ascii(&id).expect("an id is a UUID");
            prop_assert_eq!(uuid.get_version_num(), 7);
            prop_assert_eq!(uuid.as_u128() >> 80, u128::from(ms));
        }

        #[test]
        fn a_changed_byte_is_noticed(due_ns: u64, sender: u32, number: u32, at in 0_usize..100, flip in 1_u8..=255) {
            let contents = Contents::new(100);
            let stamp = Stamp { due_ns, sender, number };
            let mut text = Vec::new();
            contents.write(&mut text, stamp);
            prop_assert_eq!(text.len(), 100);
            prop_assert_eq!(contents.read(&text), Some(stamp));
            text[at] ^= flip;
            prop_assert_ne!(contents.read(&text), Some(stamp));
        }
    }

    #[test]
    fn other_ids_are_no_keys() {
        for id in ["", "uuid-client-generated", "123e4567-e89b-42d3-a456-426614174000"] {
            assert_eq!(MessageKey::from_id(id.as_bytes()), None, "{id}");
        }
    }

    #[test]
    fn a_retry_has_the_same_id() {
        let key = MessageKey { run: 1, sender: 2, number: 3 };
        assert_eq!(key.id(1_700_000_000_000), key.id(1_700_000_000_000));
        assert_ne!(key.id(1), MessageKey { number: 4, ..key }.id(1));
    }
}
