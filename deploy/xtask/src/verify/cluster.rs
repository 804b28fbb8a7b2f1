//! The cluster form: tests against real Kafka, MySQL, Redis and etcd, the contract's tests once more against
//! gateways and logic services, and a short selection of faults.

use std::process::Command;

use anyhow::Context as _;

use super::context::{Context, Verdict};
use crate::build::{self, LOADGEN};
use crate::cluster::Binaries;
use crate::scratch::Scratch;
use crate::servers::{self, Kind, Servers};

/// What the cluster form is built with.
pub(super) const FEATURES: &str = "gateway/cluster,logic-svc/cluster";

/// Tests that need the servers, and the contract in the other form.
///
/// # Errors
/// When a server does not start, or a test fails.
pub(super) fn tests(context: &mut Context) -> anyhow::Result<Verdict> {
    let kept = Scratch::create("verify-cluster")?;
    let built = Binaries::build_for_tests(&context.repo, &context.interrupt)?;
    // The tests below build the same names with other features.
    built.keep(kept.path())?;
    let mut say = |line: &str| eprintln!("{line}");
    let set = Servers::private("verify", &Kind::ALL, &context.interrupt, &mut say)?;
    let environment = servers::test_environment(&set)?;
    let told = |mut command: Command| {
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command
    };
    let test = ["test", "--locked", "--no-fail-fast"];
    let crates = ["--package", "cluster", "--package", "gateway", "--package", "logic-svc"];
    // Those that print figures are no checks, and are for an optimised build.
    let ignored = ["--include-ignored", "--skip", "measure::"];
    let with = [&["--features", FEATURES, "--"], &ignored[..], &["--test-threads", "4"]].concat();
    context.run(told(context.cargo(&[&test[..], &crates, &with].concat())))?;
    let contract = ["--package", "standalone", "--test", "contract", "--test", "binary"];
    let more = ["--test", "resume", "--test", "presence", "--", "--test-threads", "2"];
    let mut command = told(context.cargo(&[&test[..], &contract, &more].concat()));
    command.env("CORELANE_TEST_FORM", "cluster").env("CORELANE_TEST_BINARIES", kept.path());
    context.run(command)?;
    Ok(Verdict::Done)
}

/// One trial of a few faults.
///
/// # Errors
/// When a promise is broken.
pub(super) fn chaos(context: &mut Context) -> anyhow::Result<Verdict> {
    let kept = Scratch::create("verify-chaos")?;
    // Without optimisation: a second build of all clients in release would cost more than the trials.
    Binaries::build_for_tests(&context.repo, &context.interrupt)?.keep(kept.path())?;
    let loadgen = build::build(&context.repo, LOADGEN, "release", &context.interrupt)?;
    std::fs::copy(&loadgen, kept.path().join(LOADGEN.name)).context("cannot copy loadgen")?;
    // Not this very program: it was built anew by the tests, and the file it was started from is gone.
    let chaos = ["run", "--locked", "--quiet", "--package", "xtask", "--", "chaos", "--short"];
    let mut command = context.cargo(&chaos);
    command.env("CORELANE_CLUSTER_BINARIES", kept.path());
    context.run(command)?;
    Ok(Verdict::Done)
}
