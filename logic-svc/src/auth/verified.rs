//! Access tokens that were found good, so that showing one again costs a hash and no signature.
//!
//! A token is remembered under a keyed hash and cannot be read back. Only good tokens get in, so nobody without one
//! takes room here. Whether its time is over and whether its user logged out is asked every time it is shown.

use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use super::SetUpError;
use super::grant::{Grant, Identity};

/// Tokens of one generation: what a table of 32,768 places takes without growing. Both generations together are
/// about 2.7 MB.
const GENERATION_MAX: usize = 28_672;

/// What stands for a token: SHA-256 of a secret and the token, cut to 128 bits. Who does not know the secret can
/// only guess, and one guess hits one of all remembered tokens with a chance below 2^-112.
pub(super) type Name = [u8; 16];

/// The remembered tokens; bounded.
pub(super) struct Verified {
    /// Drawn at every start.
    secret: [u8; 32],
    generations: Mutex<Generations>,
}

/// When the young generation is full it becomes the old one, and what was old is forgotten; what is asked for
/// becomes young again.
#[derive(Default)]
struct Generations {
    young: HashMap<Name, Kept>,
    old: HashMap<Name, Kept>,
}

/// A [`Grant`] in less room.
#[derive(Clone, Copy)]
struct Kept {
    user: u64,
    epoch: u32,
    from_s: u32,
    until_s: u32,
}

impl Verified {
    /// None remembered yet.
    pub(super) fn new() -> Result<Self, SetUpError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| SetUpError::Randomness)?;
        Ok(Self { secret, generations: Mutex::default() })
    }

    /// What stands for the token.
    pub(super) fn name(&self, token: &str) -> Name {
        let hash = Sha256::new().chain_update(self.secret).chain_update(token).finalize();
        let mut name = Name::default();
        let len = name.len();
        name.copy_from_slice(&hash[..len]);
        name
    }

    /// What is known about each of these tokens.
    pub(super) fn look_up(&self, names: &[Option<Name>]) -> Vec<Option<Grant>> {
        let mut generations = self.lock();
        names.iter().map(|name| generations.get((*name)?).map(Kept::grant)).collect()
    }

    /// Remembers good tokens.
    pub(super) fn remember(&self, good: impl IntoIterator<Item = (Name, Grant)>) {
        let mut generations = self.lock();
        for (name, grant) in good {
            if let Some(kept) = Kept::of(&grant) {
                generations.put(name, kept);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn get(&mut self, name: Name) -> Option<Kept> {
        if let Some(kept) = self.young.get(&name) {
            return Some(*kept);
        }
        let kept = self.old.remove(&name)?;
        self.put(name, kept);
        Some(kept)
    }

    fn put(&mut self, name: Name, kept: Kept) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, kept);
    }
}

impl Kept {
    /// Nothing of ours is beyond these ranges before the year 2106; what is beyond is checked anew each time.
    fn of(grant: &Grant) -> Option<Self> {
        Some(Self {
            user: grant.identity.user,
            epoch: u32::try_from(grant.identity.epoch).ok()?,
            from_s: u32::try_from(grant.from_s).ok()?,
            until_s: u32::try_from(grant.until_s).ok()?,
        })
    }

    fn grant(self) -> Grant {
        Grant {
            identity: Identity { user: self.user, epoch: self.epoch.into() },
            from_s: self.from_s.into(),
            until_s: self.until_s.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(user: u64) -> Grant {
        Grant { identity: Identity { user, epoch: 3 }, from_s: 10, until_s: 20 }
    }

    fn known(verified: &Verified, token: &str) -> Option<Grant> {
        verified.look_up(&[Some(verified.name(token))])[0]
    }

    #[test]
    fn what_was_remembered_is_known_and_nothing_else() {
        let verified = Verified::new().unwrap();
        verified.remember([(verified.name("a"), grant(1)), (verified.name("b"), grant(2))]);
        assert_eq!(known(&verified, "a"), Some(grant(1)));
        let names = [Some(verified.name("b")), None, Some(verified.name("c"))];
        assert_eq!(verified.look_up(&names), [Some(grant(2)), None, None]);
    }

    #[test]
    fn the_same_token_has_another_name_in_another_process() {
        let (one, two) = (Verified::new().unwrap(), Verified::new().unwrap());
        assert_ne!(one.name("a"), two.name("a"));
        assert_eq!(one.name("a"), one.name("a"));
    }

    #[test]
    fn what_does_not_fit_is_not_cut_but_left_out() {
        let verified = Verified::new().unwrap();
        let far = Grant { until_s: 1 << 40, ..grant(1) };
        verified.remember([(verified.name("a"), far)]);
        assert_eq!(known(&verified, "a"), None);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let verified = Verified::new().unwrap();
        verified.remember([(verified.name("mine"), grant(1))]);
        for round in 0..3 {
            let others = (0..GENERATION_MAX as u64)
                .map(|n| (verified.name(&format!("{round}-{n}")), grant(n)));
            verified.remember(others);
            assert_eq!(known(&verified, "mine"), Some(grant(1)), "round {round}");
        }
        let generations = verified.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
        drop(generations);
        assert_eq!(known(&verified, "0-0"), None, "never asked for again");
    }
}
