//! Who logged out lately: closes the gap between looking a token's user up and registering the connection.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::UserId;

/// Most that are remembered. A login under way while more than these log out has to be tried again.
const RECENT_MAX: usize = 1024;

/// The last users who logged out.
#[derive(Default)]
pub(super) struct Logouts(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    users: VecDeque<UserId>,
    /// How many there were in all.
    count: u64,
}

/// A moment.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

/// What is known about those who logged out after a moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// These did.
    Users(Vec<UserId>),
    /// Too many to remember.
    Unknown,
}

impl Since {
    /// Nobody did.
    pub(super) fn none() -> Self {
        Self::Users(Vec::new())
    }
}

impl Logouts {
    /// Now. Whoever logs out later is in [`Logouts::since`].
    pub(super) fn mark(&self) -> Mark {
        Mark(self.lock().count)
    }

    /// A user's tokens are void from now on.
    pub(super) fn note(&self, user: UserId) {
        let mut recent = self.lock();
        if recent.users.len() >= RECENT_MAX {
            recent.users.pop_front();
        }
        recent.users.push_back(user);
        recent.count += 1;
    }

    /// Who logged out since then.
    pub(super) fn since(&self, Mark(mark): Mark) -> Since {
        let recent = self.lock();
        let later = usize::try_from(recent.count - mark).unwrap_or(usize::MAX);
        match recent.users.len().checked_sub(later) {
            Some(before) => Since::Users(recent.users.range(before..).copied().collect()),
            None => Since::Unknown,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_after_the_mark_are_named_and_too_many_are_not_forgotten_in_silence() {
        let logouts = Logouts::default();
        logouts.note(1);
        let mark = logouts.mark();
        assert_eq!(logouts.since(mark), Since::Users(vec![]));
        logouts.note(2);
        logouts.note(3);
        assert_eq!(logouts.since(mark), Since::Users(vec![2, 3]));
        (0..RECENT_MAX as u64 - 2).for_each(|user| logouts.note(user));
        assert!(matches!(logouts.since(mark), Since::Users(users) if users.len() == RECENT_MAX));
        logouts.note(9);
        assert_eq!(logouts.since(mark), Since::Unknown);
        assert_eq!(logouts.since(logouts.mark()), Since::Users(vec![]));
    }
}
