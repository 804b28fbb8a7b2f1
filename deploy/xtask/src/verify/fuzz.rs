//! A short run of each fuzz target; `cargo xtask fuzz` runs them longer.

use super::context::{Context, Verdict};
use crate::fuzz;

/// Seconds for each target.
const SECONDS: u64 = 10;

/// Fuzzes where nightly Rust and cargo-fuzz are. The same bodies run as tests everywhere.
///
/// # Errors
/// When a target does not build or fails.
pub(super) fn run(context: &mut Context) -> anyhow::Result<Verdict> {
    if let Some(missing) = fuzz::missing() {
        return Ok(Verdict::Skipped(format!("{missing} (the bodies ran as tests)")));
    }
    let (repo, interrupt) = (&context.repo, &context.interrupt);
    fuzz::fuzz(repo, &fuzz::TARGETS, SECONDS, interrupt, |line| context.say(line))?;
    Ok(Verdict::Done)
}
