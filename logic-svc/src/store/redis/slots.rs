//! Which node of a Redis cluster holds which keys.

/// How many slots there are.
const SLOTS: u16 = 16384;

/// The slot of a key: of what is between its first `{` and the next `}`, if that is not empty.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|&byte| byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, by half bytes.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 16] = {
        let mut table = [0; 16];
        let mut at = 0;
        while at < 16 {
            let mut crc = (at as u16) << 12;
            let mut bit = 0;
            while bit < 4 {
                crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
                bit += 1;
            }
            table[at] = crc;
            at += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc: u16, &byte| {
        let crc = (crc << 4) ^ TABLE[usize::from((crc >> 12) ^ u16::from(byte >> 4))];
        (crc << 4) ^ TABLE[usize::from((crc >> 12) ^ u16::from(byte & 15))]
    })
}

/// Slot ranges and the index of the node that holds each.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotMap(Vec<(u16, u16, usize)>);

impl SlotMap {
    /// Takes ranges `first..=last` with their nodes, in any order.
    pub(super) fn new(mut ranges: Vec<(u16, u16, usize)>) -> Self {
        ranges.sort_unstable();
        Self(ranges)
    }

    /// The node of a slot; `None`: nobody holds it at the moment.
    pub(super) fn node(&self, slot: u16) -> Option<usize> {
        let after = self.0.partition_point(|&(first, ..)| first <= slot);
        let &(_, last, node) = self.0.get(after.checked_sub(1)?)?;
        (slot <= last).then_some(node)
    }
}

/// A tag (see [`slot_of`]) of six digits whose slot is at `node`.
pub(super) fn tag_at(map: &SlotMap, node: usize) -> Option<[u8; 6]> {
    let mut tag = [b'0'; 6];
    for number in 0..1_000_000_u32 {
        let mut rest = number;
        for digit in tag.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        if map.node(crc16(&tag) % SLOTS) == Some(node) {
            return Some(tag);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From the specification of Redis Cluster, and from `CLUSTER KEYSLOT`.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [
            (&b"foo"[..], 12182),
            (b"user_session:1", 10859),
            (b"{user1000}.following", 3443),
            (b"{user1000}.followers", 3443),
            (b"foo{}{bar}", 8363),
            (b"foo{{bar}}zap", 4015),
            (b"", 0),
        ] {
            assert_eq!(slot_of(key), slot, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_slot_has_the_node_of_its_range_and_every_node_its_tag() {
        let map = SlotMap::new(vec![(10_000, 16_383, 2), (0, 4_999, 0), (5_000, 9_998, 1)]);
        for (slot, node) in [
            (0, Some(0)),
            (4_999, Some(0)),
            (5_000, Some(1)),
            (9_999, None),
            (10_000, Some(2)),
            (16_383, Some(2)),
        ] {
            assert_eq!(map.node(slot), node);
        }
        for node in 0..3 {
            let tag = tag_at(&map, node).unwrap();
            assert_eq!(map.node(slot_of(&tag)), Some(node));
        }
        assert_eq!(tag_at(&map, 3), None);
        assert_eq!(SlotMap::default().node(7), None);
    }
}
