//! The gateways of a cluster, each life of each one under a number that fits into a [`ConnectionId`].
//!
//! [`ConnectionId`]: crate::domain::delivery::ConnectionId

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use crate::domain::delivery::GatewayNo;

/// How long a gateway whose registration is gone is still spoken to: it may have lost no more than its lease. It reads
/// what is addressed to this life also when it is registered anew; if it is dead, nobody does.
pub(crate) const LINGERS: Duration = Duration::from_secs(15);

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
    /// Lives whose registration went without another life of the same gateway, and when.
    lingering: Vec<(GatewayNo, Instant)>,
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
        known.replace_live(live, Instant::now());
    }

    /// Whether this life goes on; what is addressed to another one is void.
    #[must_use]
    pub fn is_live(&self, no: GatewayNo) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).live.contains(&no)
    }

    /// Those that do not live as far as is known, but did so a moment ago.
    #[must_use]
    pub fn lingering(&self) -> Vec<GatewayNo> {
        #[cfg(feature = "fault-injection")]
        if crate::config::Fault::NoLingering.is_asked_for() {
            return Vec::new();
        }
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let recent = known.lingering.iter().filter(|(_, since)| since.elapsed() < LINGERS);
        recent.map(|&(no, _)| no).collect()
    }

    /// All that may be there to read what they are sent: those that live, and those that did so a moment ago.
    #[must_use]
    pub fn reachable(&self) -> Vec<GatewayNo> {
        let mut all = self.live();
        all.extend(self.lingering());
        all
    }

    /// Whether this life may be there to read what it is sent.
    #[must_use]
    pub fn is_reachable(&self, no: GatewayNo) -> bool {
        self.is_live(no) || self.lingering().contains(&no)
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
    fn replace_live(&mut self, live: HashSet<GatewayNo>, now: Instant) {
        let mut lingering = std::mem::take(&mut self.lingering);
        lingering.extend(self.live.iter().map(|&no| (no, now)));
        let id = |no: GatewayNo| &self.lives[no as usize - 1].id;
        let ids: HashSet<&Arc<str>> = live.iter().map(|&no| id(no)).collect();
        // Another life of the same gateway: whatever is still there is told to that one.
        lingering.retain(|&(no, since)| {
            !ids.contains(id(no)) && now.saturating_duration_since(since) < LINGERS
        });
        self.lingering = lingering;
        self.live = live;
    }

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

    /// A gateway whose lease ran out goes on serving its connections until it is registered anew.
    #[test]
    fn a_gateway_that_lost_its_registration_is_still_spoken_to_for_a_while() {
        let gateways = Gateways::default();
        let both = [("gw-1".to_owned(), 5), ("gw-2".to_owned(), 6)];
        gateways.set_live(both.clone());
        let (one, two) = (gateways.number_of("gw-1", 5), gateways.number_of("gw-2", 6));
        gateways.set_live([both[1].clone()]);
        gateways.set_live([both[1].clone()]);
        assert!(!gateways.is_live(one) && gateways.is_reachable(one));
        assert_eq!((gateways.live(), gateways.reachable()), (vec![two], vec![two, one]));
        // Back in another life: only that one counts.
        gateways.set_live([("gw-1".to_owned(), 9), both[1].clone()]);
        assert!(!gateways.is_reachable(one) && gateways.lingering().is_empty());
        // Back in the same one.
        gateways.set_live([both[1].clone()]);
        gateways.set_live([("gw-1".to_owned(), 9), both[1].clone()]);
        assert!(gateways.lingering().is_empty());
        // Not for ever.
        let live = std::collections::HashSet::<GatewayNo>::new();
        let mut known = gateways.0.write().unwrap();
        let begun = Instant::now();
        known.replace_live(live.iter().copied().collect(), begun);
        assert_eq!(known.lingering.len(), 2);
        known.replace_live(live.iter().copied().collect(), begun + LINGERS);
        assert!(known.lingering.is_empty());
    }
}
