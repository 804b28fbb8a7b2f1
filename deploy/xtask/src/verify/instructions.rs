//! User instructions against the committed baseline.

use anyhow::bail;

use super::context::{Context, Verdict};
use crate::instructions::{self, Outcome};

/// Counts and compares, where valgrind is.
///
/// # Errors
/// When something costs more than it did, or cannot be counted.
pub(super) fn run(context: &mut Context) -> anyhow::Result<Verdict> {
    let outcome = instructions::check(&context.repo, &context.interrupt, |line| context.say(line))?;
    match outcome {
        Outcome::Good => Ok(Verdict::Done),
        Outcome::Bad(reason) => bail!(reason),
        Outcome::Silent(reason) => Ok(Verdict::Skipped(reason)),
    }
}
