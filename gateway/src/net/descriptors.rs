//! How the process's open files are shared out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{HTTP_CONNECTIONS, RESERVED_DESCRIPTORS};

/// Who gets how many of the open files that this process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The limit (RLIMIT_NOFILE), after it was raised as far as it may be.
    pub limit: usize,
    /// Kept free for stores, logs, listeners and the moments between accept and refusal.
    pub reserve: usize,
    /// Plain HTTP connections.
    pub http: usize,
    /// Client connections.
    pub connections: usize,
}

impl Budget {
    /// Raises the limit of this process as far as it may and shares it out. `wanted` connections at most;
    /// 0: as many as there is room for.
    #[must_use]
    pub fn of_this_process(wanted: usize) -> Self {
        let limit = getrlimit(Resource::Nofile);
        if limit.current < limit.maximum {
            let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
            if let Err(error) = setrlimit(Resource::Nofile, raised) {
                tracing::warn!(%error, "cannot raise the open-file limit");
            }
        }
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::split(usize::try_from(files).unwrap_or(usize::MAX), wanted)
    }

    fn split(limit: usize, wanted: usize) -> Self {
        let reserve = RESERVED_DESCRIPTORS.min(limit / 2);
        let room = limit - reserve;
        let http = (room / 8).clamp(1, HTTP_CONNECTIONS);
        let room = room.saturating_sub(http).max(1);
        let connections = if wanted == 0 { room } else { wanted.min(room) };
        Self { limit, reserve, http, connections }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_reserve_stay_below_the_limit() {
        for limit in [8, 64, 100, 256, 300, 1024, 20_000, 1 << 20] {
            for wanted in [0, 10, 1_000_000_000] {
                let budget = Budget::split(limit, wanted);
                assert!(budget.reserve + budget.http + budget.connections <= limit, "{budget:?}");
                assert!(budget.connections > 0 && budget.http > 0, "{budget:?}");
                assert!(wanted == 0 || budget.connections <= wanted);
            }
        }
        let usual = Budget::split(20_000, 0);
        assert_eq!((usual.reserve, usual.http, usual.connections), (256, 1024, 18_720));
    }
}
