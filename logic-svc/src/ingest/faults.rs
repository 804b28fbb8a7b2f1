//! Points at which a test build ends itself, and content on which it panics. Nothing of it is in product builds.

/// A point of a tick was reached. With the feature `fault-injection`, `CORELANE_CRASH_AT` names the point at which
/// the process aborts, and `CORELANE_CRASH_AFTER` (1 unless given) the how many-th time.
#[cfg(not(feature = "fault-injection"))]
pub(super) fn reached(_point: &'static str) {}

/// Panics if a message holds what `CORELANE_PANIC_ON` says. With the feature `fault-injection` only.
#[cfg(not(feature = "fault-injection"))]
pub(super) fn look_at(_batch: &proto::v1::UpstreamBatch) {}

#[cfg(feature = "fault-injection")]
pub(super) use injected::{look_at, reached};

#[cfg(feature = "fault-injection")]
mod injected {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CRASH_AT: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("CORELANE_CRASH_AT").ok());
    static CRASH_AFTER: LazyLock<u64> = LazyLock::new(|| {
        let after = std::env::var("CORELANE_CRASH_AFTER").ok().and_then(|after| after.parse().ok());
        after.unwrap_or(1)
    });
    static PANIC_ON: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("CORELANE_PANIC_ON").ok());
    static REACHED: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn reached(point: &'static str) {
        if CRASH_AT.as_deref() == Some(point)
            && REACHED.fetch_add(1, Ordering::Relaxed) + 1 >= *CRASH_AFTER
        {
            std::process::abort();
        }
    }

    pub(crate) fn look_at(batch: &proto::v1::UpstreamBatch) {
        let Some(poison) = PANIC_ON.as_deref() else { return };
        let sends = batch.frames.iter().filter_map(|frame| frame.send.as_ref());
        for send in sends {
            assert!(
                send.content != poison.as_bytes(),
                "a message holds what CORELANE_PANIC_ON says"
            );
        }
    }
}
