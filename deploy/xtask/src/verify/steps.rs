//! The steps, cheap ones first.

use std::fs;

use super::context::{Context, Verdict};
use super::{cluster, conformance, e2e, fuzz, instructions, setup};
use crate::build::names_feature;
use crate::repo::on_path;

/// One check or one run of tests.
pub(super) struct Step {
    /// For `--only` and `--skip`.
    pub(super) name: &'static str,
    /// One line for the heading.
    pub(super) title: &'static str,
    /// Its time limit.
    pub(super) limit_minutes: u64,
    /// Whether its output says how many tests passed and failed.
    pub(super) counts_tests: bool,
    /// What it does.
    pub(super) run: fn(&mut Context) -> anyhow::Result<Verdict>,
}

const fn check(
    name: &'static str,
    title: &'static str,
    limit_minutes: u64,
    run: fn(&mut Context) -> anyhow::Result<Verdict>,
) -> Step {
    Step { name, title, limit_minutes, counts_tests: false, run }
}

const fn tests(
    name: &'static str,
    title: &'static str,
    limit_minutes: u64,
    run: fn(&mut Context) -> anyhow::Result<Verdict>,
) -> Step {
    Step { name, title, limit_minutes, counts_tests: true, run }
}

/// All steps in the order they run.
pub(super) const STEPS: &[Step] = &[
    check("setup", "what the steps need on this machine", 15, setup::run),
    check("fmt", "rustfmt leaves nothing to change", 2, fmt),
    check("clippy", "clippy has no warning, all targets", 30, clippy),
    check("deny", "cargo-deny: bans, licences, sources", 5, deny),
    check("web-types", "TypeScript types", 5, |context| npm_script(context, "typecheck")),
    tests("web-test", "browser SDK and app, unit tests", 10, |context| npm_script(context, "test")),
    check("web-build", "web page, production build", 5, |context| npm_script(context, "build")),
    check("build", "server and load generator, release build", 30, build),
    tests("test", "every Rust test; black-box tests run the release server", 40, test),
    tests("test-io", "the shard and the contract on every runtime and driver", 20, test_io),
    tests("test-faults", "Rust tests with fault injection compiled in", 20, test_faults),
    tests(
        "cluster",
        "Kafka, MySQL, Redis, etcd: their tests, and the contract in the cluster form",
        45,
        cluster::tests,
    ),
    check("chaos", "a few faults on a real cluster under load", 20, cluster::chaos),
    tests("autobahn", "Autobahn|Testsuite against gateway echo", 40, conformance::run),
    check("instructions", "user instructions against the baseline", 15, instructions::run),
    check("fuzz", "each fuzz target for some seconds", 60, fuzz::run),
    check("doc", "rustdoc has no warning", 15, doc),
    tests("e2e", "Chromium against a running server", 10, e2e::run),
];

/// Feature with crash points and the like, compiled into no release.
const FAULTS: &str = "fault-injection";

/// Feature with the gateway's second runtime.
const GLOMMIO: &str = "glommio";

fn fmt(context: &mut Context) -> anyhow::Result<Verdict> {
    run(context, &["fmt", "--all", "--check"])
}

fn clippy(context: &mut Context) -> anyhow::Result<Verdict> {
    const CLIPPY: [&str; 4] = ["clippy", "--locked", "--all-targets", "--quiet"];
    run(context, &[&CLIPPY[..], &["--workspace", "--", "-D", "warnings"]].concat())?;
    let with_cluster = ["--workspace", "--features", cluster::FEATURES, "--", "-D", "warnings"];
    run(context, &[&CLIPPY[..], &with_cluster].concat())?;
    let selection = ["--package", "gateway", "--features", GLOMMIO, "--", "-D", "warnings"];
    run(context, &[&CLIPPY[..], &selection].concat())?;
    for package in with_faults(context)? {
        let selection = ["--package", &package, "--features", FAULTS, "--", "-D", "warnings"];
        run(context, &[&CLIPPY[..], &selection].concat())?;
    }
    Ok(Verdict::Done)
}

fn deny(context: &mut Context) -> anyhow::Result<Verdict> {
    if !on_path("cargo-deny") {
        let stand_in = "cargo-deny is not installed (the lock-file test has the same rules)";
        return Ok(Verdict::Skipped(stand_in.into()));
    }
    run(context, &["deny", "--locked", "check", "bans", "licenses", "sources"])
}

fn npm_script(context: &mut Context, script: &str) -> anyhow::Result<Verdict> {
    let command = context.npm(&["run", script]);
    context.run(command)?;
    Ok(Verdict::Done)
}

fn build(context: &mut Context) -> anyhow::Result<Verdict> {
    context.corelane()?;
    run(context, &["build", "--locked", "--release", "--package", "loadgen"])
}

fn test(context: &mut Context) -> anyhow::Result<Verdict> {
    let corelane = context.corelane()?;
    let mut command = context.cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
    command.env("CORELANE_BIN", corelane);
    context.run(command)?;
    Ok(Verdict::Done)
}

/// The gateway's own tests go over all drivers by themselves; the server's are told which.
fn test_io(context: &mut Context) -> anyhow::Result<Verdict> {
    let test = ["test", "--locked", "--no-fail-fast", "--features", GLOMMIO];
    run(context, &[&test[..], &["--package", "gateway", "--lib"]].concat())?;
    for io in ["epoll", "auto", "glommio"] {
        let selection = ["--package", "standalone", "--test", "contract", "--test", "binary"];
        let mut command = context.cargo(&[&test[..], &selection].concat());
        command.env("CORELANE_TEST_IO", io);
        context.run(command)?;
    }
    Ok(Verdict::Done)
}

fn test_faults(context: &mut Context) -> anyhow::Result<Verdict> {
    let packages = with_faults(context)?;
    if packages.is_empty() {
        return Ok(Verdict::Skipped(format!("no crate has the feature {FAULTS}")));
    }
    let test = ["test", "--locked", "--no-fail-fast", "--features", FAULTS];
    for package in packages {
        run(context, &[&test[..], &["--package", &package]].concat())?;
    }
    Ok(Verdict::Done)
}

fn doc(context: &mut Context) -> anyhow::Result<Verdict> {
    let mut command = context.cargo(&["doc", "--locked", "--workspace", "--no-deps", "--quiet"]);
    // These pages are for readers of the source: links to private items serve them.
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    context.run(command)?;
    Ok(Verdict::Done)
}

fn run(context: &mut Context, arguments: &[&str]) -> anyhow::Result<Verdict> {
    let command = context.cargo(arguments);
    context.run(command)?;
    Ok(Verdict::Done)
}

/// Packages of the workspace that can be built with faults.
fn with_faults(context: &Context) -> anyhow::Result<Vec<String>> {
    const CRATES: [&str; 7] =
        ["codec", "proto", "gateway", "logic-svc", "loadgen", "bench", "deploy/standalone"];
    let mut packages = Vec::new();
    for folder in CRATES {
        let manifest = fs::read_to_string(context.repo.path(folder).join("Cargo.toml"))?;
        if names_feature(&manifest, FAULTS) {
            packages.push(folder.trim_start_matches("deploy/").to_owned());
        }
    }
    Ok(packages)
}
