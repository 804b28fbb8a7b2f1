//! The members of one conversation as the pipeline needs them: who is in, in a form that is small for
//! two and fast for a hundred thousand.

use smallvec::SmallVec;

use super::UserId;

/// Sorted user ids; two fit without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberSet(SmallVec<[UserId; 2]>);

impl MemberSet {
    /// Takes ids in any order.
    #[must_use]
    pub fn new(ids: impl IntoIterator<Item = UserId>) -> Self {
        let mut ids: SmallVec<[UserId; 2]> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.shrink_to_fit();
        Self(ids)
    }

    /// Whether `user` is in.
    #[must_use]
    pub fn contains(&self, user: UserId) -> bool {
        if self.0.len() <= 8 { self.0.contains(&user) } else { self.0.binary_search(&user).is_ok() }
    }

    /// Takes `user` in; false if already in.
    pub fn insert(&mut self, user: UserId) -> bool {
        match self.0.binary_search(&user) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, user);
                true
            }
        }
    }

    /// Takes `user` out; false if not in.
    pub fn remove(&mut self, user: UserId) -> bool {
        self.0.binary_search(&user).map(|at| self.0.remove(at)).is_ok()
    }

    /// All ids, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[UserId] {
        &self.0
    }

    /// How many are in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(start in prop::collection::vec(0u64..40, 0..30), ops in prop::collection::vec((any::<bool>(), 0u64..40), 0..60)) {
            let mut model: BTreeSet<u64> = start.iter().copied().collect();
            let mut set = MemberSet::new(start);
            for (insert, user) in ops {
                if insert {
                    prop_assert_eq!(set.insert(user), model.insert(user));
                } else {
                    prop_assert_eq!(set.remove(user), model.remove(&user));
                }
                prop_assert_eq!(set.contains(user), model.contains(&user));
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert!(set.as_slice().iter().eq(model.iter()));
            prop_assert_eq!(set.is_empty(), model.is_empty());
        }
    }
}
