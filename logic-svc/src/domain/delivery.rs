//! Who gets a message: every connection of every member, except the one that sent it.

/// A gateway in one of its lives, numbered by whoever holds the number; 0 where there is only one.
pub type GatewayNo = u32;

/// A shard of a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId {
    /// The gateway.
    pub gateway: GatewayNo,
    /// Its shard.
    pub shard: u32,
}

/// A client connection of a gateway: valid until the generation of its slot moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The gateway.
    pub gateway: GatewayNo,
    /// Shard of the gateway.
    pub shard: u32,
    /// Slot in the shard's connection table.
    pub slot: u32,
    /// Counts the uses of the slot, so that a late answer never reaches its next owner.
    pub generation: u32,
}

impl ConnectionId {
    /// Whether a message sent on `origin` goes to this connection: the sender's other devices get it,
    /// the sending connection has its acknowledgement instead.
    #[must_use]
    pub fn receives_from(self, origin: ConnectionId) -> bool {
        self != origin
    }

    /// The shard it is on.
    #[must_use]
    pub fn shard_id(self) -> ShardId {
        ShardId { gateway: self.gateway, shard: self.shard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sending_connection_is_left_out() {
        let origin = ConnectionId { gateway: 0, shard: 1, slot: 2, generation: 3 };
        assert!(!origin.receives_from(origin));
        for other in [
            ConnectionId { gateway: 7, ..origin },
            ConnectionId { shard: 0, ..origin },
            ConnectionId { slot: 9, ..origin },
            ConnectionId { generation: 4, ..origin },
        ] {
            assert!(other.receives_from(origin), "{other:?}");
        }
    }
}
