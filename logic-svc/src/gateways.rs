//! The gateways of a cluster, each life of each one under a number that fits into a [`ConnectionId`].
//!
//! [`ConnectionId`]: crate::domain::delivery::ConnectionId

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::{HashMap, HashSet};

use crate::domain::delivery::GatewayNo;

/// One life of one gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayLife {
    /// Stable name; names its push topic.
    pub id: Arc<str>,
    /// Revision of its registration: higher with every life.
    pub epoch: u64,
}

/// Numbers for gateways, and which of them live. One entry is kept for each life ever seen: some 100 bytes a restart
/// of a gateway.
#[derive(Debug, Default)]
pub struct Gateways(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    /// At `number - 1`; 0 is the gateway of the embedded form.
    lives: Vec<GatewayLife>,
    numbers: HashMap<GatewayLife, GatewayNo>,
    live: HashSet<GatewayNo>,
}

impl Gateways {
    /// The number of this life.
    pub fn number_of(&self, id: &str, epoch: u64) -> GatewayNo {
        let life = GatewayLife { id: id.into(), epoch };
        let known =
            self.0.read().unwrap_or_else(PoisonError::into_inner).numbers.get(&life).copied();
        known.unwrap_or_else(|| self.0.write().unwrap_or_else(PoisonError::into_inner).number(life))
    }

    /// The life of this number.
    #[must_use]
    pub fn life(&self, no: GatewayNo) -> Option<GatewayLife> {
        let at = (no as usize).checked_sub(1)?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).lives.get(at).cloned()
    }

    /// These live, no others.
    pub fn set_live(&self, lives: impl IntoIterator<Item = (String, u64)>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let lives = lives.into_iter().map(|(id, epoch)| GatewayLife { id: id.into(), epoch });
        let live = lives.map(|life| known.number(life)).collect();
        known.live = live;
    }

    /// Whether this life goes on; what is addressed to another one is void.
    #[must_use]
    pub fn is_live(&self, no: GatewayNo) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).live.contains(&no)
    }

    /// All that live, in the order of their numbers.
    #[must_use]
    pub fn live(&self) -> Vec<GatewayNo> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut live: Vec<GatewayNo> = known.live.iter().copied().collect();
        live.sort_unstable();
        live
    }
}

impl Known {
    fn number(&mut self, life: GatewayLife) -> GatewayNo {
        if let Some(&no) = self.numbers.get(&life) {
            return no;
        }
        self.lives.push(life.clone());
        let no = GatewayNo::try_from(self.lives.len()).unwrap_or(GatewayNo::MAX);
        self.numbers.insert(life, no);
        no
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_has_its_number_and_only_the_last_one_lives() {
        let gateways = Gateways::default();
        let old = gateways.number_of("gw-1", 5);
        assert!(old > 0 && !gateways.is_live(old));
        gateways.set_live([("gw-1".to_owned(), 5), ("gw-2".to_owned(), 6)]);
        assert!(gateways.is_live(old));
        gateways.set_live([("gw-1".to_owned(), 9), ("gw-2".to_owned(), 6)]);
        let new = gateways.number_of("gw-1", 9);
        assert!(gateways.is_live(new) && !gateways.is_live(old) && new != old);
        assert_eq!(gateways.number_of("gw-1", 5), old);
        assert_eq!(gateways.life(old), Some(GatewayLife { id: "gw-1".into(), epoch: 5 }));
        assert_eq!(gateways.live(), [gateways.number_of("gw-2", 6), new]);
        assert_eq!((gateways.life(0), gateways.life(99)), (None, None));
    }
}
