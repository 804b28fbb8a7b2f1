//! The WebSocket conformance suite, at the limits of production, and small compressed cases.

use super::context::{Context, Verdict};
use crate::autobahn::{Bench, Profile, Suite};
use crate::build::{self, GATEWAY};

/// Runs the suite where it is ready or can be built.
///
/// # Errors
/// When a suite was named that is none, when the gateway does not build, start or stop as it
/// should, or when the suite does not run to its end. Cases that fail are counted.
pub(super) fn run(context: &mut Context) -> anyhow::Result<Verdict> {
    let named = std::env::var_os("AUTOBAHN");
    let suite = match Suite::find(named.as_deref().map(std::path::Path::new))? {
        Some(suite) => suite,
        None => match Suite::build(&context.interrupt, |line| context.say(line)) {
            Ok(suite) => suite,
            Err(error) if context.interrupt.raised() => return Err(error),
            Err(error) => return Ok(Verdict::Skipped(format!("{error:#}"))),
        },
    };
    let gateway = build::build(&context.repo, GATEWAY, "release", &context.interrupt)?;
    let interrupt = context.interrupt.clone();
    let limit = context.time_left();
    let bench = Bench {
        suite: &suite,
        gateway: &gateway,
        server_options: &[],
        interrupt: &interrupt,
        limit,
    };
    conduct(context, &bench, Profile::Quick)?;
    if bench.deflates()? {
        conduct(context, &bench, Profile::Deflate)?;
    } else {
        context.say("no compressed cases: this gateway has no --deflate");
    }
    Ok(Verdict::Done)
}

fn conduct(context: &mut Context, bench: &Bench<'_>, profile: Profile) -> anyhow::Result<()> {
    let report = bench.run(profile, None, |line| context.say(line))?;
    report.lines().iter().for_each(|line| context.report(line));
    Ok(())
}
