//! The name of a connection inside one gateway.

/// A connection: the shard that owns it, its slot in that shard's table, and the generation that tells
/// it from earlier connections in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Index of the owning shard.
    pub shard: u32,
    /// Slot in the shard's connection table.
    pub slot: u32,
    /// Counts the connections that have used the slot.
    pub generation: u32,
}
