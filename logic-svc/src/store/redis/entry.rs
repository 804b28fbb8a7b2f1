//! One connection as it lies in `user_session:{user}`: `gateway|epoch|shard|slot|generation|class|login_ms|seen_s`.
//! The times are the server's own.

use std::sync::Arc;

use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::gateways::{GatewayLife, Gateways};

/// A life that is not (or not yet) known to live is taken for dead after this time without a sign.
const DOUBT_S: u64 = 60;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// The gateway's id.
    pub gateway: &'a str,
    /// Its life.
    pub epoch: u64,
    /// Place of the connection at the gateway.
    pub shard: u32,
    /// Place of the connection at the gateway.
    pub slot: u32,
    /// Use of the slot.
    pub generation: u32,
    /// Class of the device.
    pub class: &'a str,
    /// When it logged in, in milliseconds since 1970.
    pub login_ms: u64,
    /// When its gateway last told of it, in seconds since 1970.
    pub seen_s: u64,
}

impl<'a> Entry<'a> {
    /// Reads a value; `None` if it is none.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.rsplitn(8, '|');
        let seen_s = parts.next()?.parse().ok()?;
        let login_ms = parts.next()?.parse().ok()?;
        let class = parts.next()?;
        let generation = parts.next()?.parse().ok()?;
        let slot = parts.next()?.parse().ok()?;
        let shard = parts.next()?.parse().ok()?;
        let epoch = parts.next()?.parse().ok()?;
        let gateway = parts.next()?;
        Some(Self { gateway, epoch, shard, slot, generation, class, login_ms, seen_s })
    }

    /// The connection, if its gateway has this number.
    pub(super) fn at(&self, gateway: GatewayNo) -> ConnectionId {
        let Self { shard, slot, generation, .. } = *self;
        ConnectionId { gateway, shard, slot, generation }
    }
}

/// What of a value names a connection of this gateway.
pub(super) fn name_of(life: &GatewayLife, connection: ConnectionId) -> String {
    let ConnectionId { shard, slot, generation, .. } = connection;
    format!("{}|{}|{shard}|{slot}|{generation}|", life.id, life.epoch)
}

/// The value without its times, and how much of it names the connection.
pub(super) fn value_of(
    life: &GatewayLife,
    connection: ConnectionId,
    class: &str,
) -> (String, usize) {
    let mut value = name_of(life, connection);
    let name = value.len();
    value.push_str(&class_of(class));
    (value, name)
}

/// The class as it stands in values.
pub(super) fn class_of(class: &str) -> String {
    class.chars().map(|c| if c == '|' || c.is_control() { '_' } else { c }).collect()
}

/// The field of a device. One without a name has its connection's, and so never another one's.
pub(super) fn field_of(device_id: &str, name: &str) -> String {
    if device_id.is_empty() { format!("c{name}") } else { format!("d{device_id}") }
}

/// Whether two epochs of a gateway are one life.
pub(super) fn is_same(one: u64, other: u64) -> bool {
    #[cfg(feature = "fault-injection")]
    if crate::config::Fault::AnyEpoch.is_asked_for() {
        return true;
    }
    one == other
}

/// Which gateways live, as of one moment.
pub(super) struct Lives {
    live: Vec<(Arc<str>, u64, GatewayNo)>,
    /// Lives whose registration went a moment ago.
    lingering: Vec<(Arc<str>, u64, GatewayNo)>,
    /// Highest epoch among them: this process knows what happened up to there.
    newest: u64,
}

impl Lives {
    /// Now.
    pub(super) fn of(gateways: &Gateways) -> Self {
        let life = |no| gateways.life(no).map(|GatewayLife { id, epoch }| (id, epoch, no));
        let live: Vec<_> = gateways.live().into_iter().filter_map(life).collect();
        let lingering = gateways.lingering().into_iter().filter_map(life).collect();
        let newest = live.iter().map(|&(_, epoch, _)| epoch).max().unwrap_or(0);
        Self { live, lingering, newest }
    }

    /// The connection of an entry whose gateway lives.
    pub(super) fn connection(&self, entry: &Entry<'_>) -> Option<ConnectionId> {
        self.number(entry.gateway, entry.epoch).map(|no| entry.at(no))
    }

    /// The life to which a message for a connection at this gateway goes. Where nobody is there to read it, that costs
    /// a record; where somebody is, a message that was not sent is missed until the next one. So this is also a life
    /// whose registration went a moment ago, and one that began after everything this process has heard of.
    pub(super) fn reached(
        &self,
        gateway: &str,
        epoch: u64,
        gateways: &Gateways,
    ) -> Option<GatewayNo> {
        let is =
            |(id, of, _): &&(Arc<str>, u64, GatewayNo)| is_same(*of, epoch) && **id == *gateway;
        let known = self.live.iter().chain(&self.lingering).find(is).map(|&(_, _, no)| no);
        known.or_else(|| (epoch > self.newest).then(|| gateways.number_of(gateway, epoch)))
    }

    /// The number of a life that goes on.
    pub(super) fn number(&self, gateway: &str, epoch: u64) -> Option<GatewayNo> {
        let found = self.live.iter().find(|(id, of, _)| is_same(*of, epoch) && **id == *gateway);
        found.map(|&(_, _, no)| no)
    }

    /// Whether the gateway of an entry is gone for certain, at this time of the server. One that began after
    /// everything known here may only not have been heard of yet.
    pub(super) fn is_dead(&self, entry: &Entry<'_>, now_s: u64) -> bool {
        self.number(entry.gateway, entry.epoch).is_none()
            && (entry.epoch < self.newest || entry.seen_s + DOUBT_S < now_s)
    }

    /// Highest epoch among them.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// All of them.
    pub(super) fn all(&self) -> &[(Arc<str>, u64, GatewayNo)] {
        &self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry<'_> = Entry {
        gateway: "gw|1",
        epoch: 77,
        shard: 3,
        slot: 9,
        generation: 2,
        class: "web",
        login_ms: 1_700_000_000_123,
        seen_s: 1_700_000_000,
    };

    #[test]
    fn values_read_back() {
        let life = GatewayLife { id: "gw|1".into(), epoch: 77 };
        let whole = |class| {
            let (value, name) = value_of(&life, ENTRY.at(5), class);
            assert_eq!(&value[..name], name_of(&life, ENTRY.at(5)));
            format!("{value}|1700000000123|1700000000")
        };
        assert_eq!(whole("web"), "gw|1|77|3|9|2|web|1700000000123|1700000000");
        assert_eq!(Entry::parse(whole("web").as_bytes()), Some(ENTRY));
        let sly = whole("a|b\n");
        assert_eq!(Entry::parse(sly.as_bytes()), Some(Entry { class: "a_b_", ..ENTRY }));
        for bad in ["", "gw", "gw|77|3|9|2|web|1", "gw|x|3|9|2|web|1|2", "gw|77|3|9|-2|web|1|2"] {
            assert_eq!(Entry::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_gateway_not_heard_of_yet_is_in_doubt_and_no_route() {
        let gateways = Gateways::default();
        gateways.set_live([("gw-1".to_owned(), 5), ("gw-2".to_owned(), 8)]);
        let lives = Lives::of(&gateways);
        let of = |gateway, epoch, seen_s| Entry { gateway, epoch, seen_s, ..ENTRY };
        let on = lives.connection(&of("gw-1", 5, 1_000));
        assert_eq!(on, Some(ENTRY.at(gateways.number_of("gw-1", 5))));
        for (entry, dead) in [
            (of("gw-1", 5, 0), false),
            (of("gw-1", 4, 1_000), true),
            (of("gw-3", 7, 1_000), true),
            (of("gw-3", 9, 1_000), false),
            (of("gw-3", 9, 900), true),
        ] {
            assert_eq!(lives.is_dead(&entry, 1_000), dead, "{entry:?}");
        }
        assert_eq!(lives.connection(&of("gw-3", 9, 1_000)), None);
    }

    #[test]
    fn messages_go_wherever_somebody_may_read_them() {
        let gateways = Gateways::default();
        gateways.set_live([("gw-1".to_owned(), 5), ("gw-2".to_owned(), 8)]);
        let gone = gateways.number_of("gw-1", 5);
        gateways.set_live([("gw-2".to_owned(), 8)]);
        let lives = Lives::of(&gateways);
        let reached = |gateway, epoch| lives.reached(gateway, epoch, &gateways);
        assert_eq!(reached("gw-2", 8), Some(gateways.number_of("gw-2", 8)));
        assert_eq!(reached("gw-1", 5), Some(gone), "it may have lost its lease only");
        assert_eq!(reached("gw-1", 4), None);
        assert_eq!(reached("gw-2", 7), None);
        // Whoever logged in there did so before this process heard of the gateway.
        assert_eq!(reached("gw-3", 9), Some(gateways.number_of("gw-3", 9)));
    }
}
