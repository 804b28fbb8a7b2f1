//! Tells those who want to know of users who came or went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::parts::Parts;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(100);
/// Wait while Redis is away.
const AWAY: Duration = Duration::from_secs(1);

/// Looks and tells until stopped.
pub(super) fn news_loop(
    parts: &Arc<Parts>,
    stop: &Arc<AtomicBool>,
) -> impl FnOnce() + Send + 'static + use<> {
    let (parts, stop) = (Arc::clone(parts), Arc::clone(stop));
    move || {
        while !stop.load(Ordering::Relaxed) {
            match parts.sessions.turned() {
                Ok(turned) => {
                    parts.operations.tell_presence(turned);
                    std::thread::sleep(EVERY);
                }
                Err(error) => {
                    tracing::debug!(%error, "nobody is told who comes and goes");
                    std::thread::sleep(AWAY);
                }
            }
        }
    }
}
