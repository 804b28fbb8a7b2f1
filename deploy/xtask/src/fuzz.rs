//! `cargo xtask fuzz`: libFuzzer on the targets of `fuzz/`, where nightly Rust and cargo-fuzz are.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::{Repo, cargo, on_path};

/// The targets, as the binaries in `fuzz/Cargo.toml` are called.
pub(crate) const TARGETS: [&str; 6] =
    ["handshake", "websocket", "deflate", "binary", "json", "session"];
/// A cold build with instrumentation, on a busy machine.
const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);
/// Beyond the seconds asked for: starting, and reading what was found before.
const RUN_MARGIN: Duration = Duration::from_secs(5 * 60);
/// Longest input, in bytes: two of the longest WebSocket messages are longer than anything that matters.
const INPUT_MAX_BYTES: u32 = 1 << 17;

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One target; all of them, one after the other, when none is named.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Fuzzes.
///
/// # Errors
/// When something is missing, or a target failed: the input is in `fuzz/artifacts`.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (repo, interrupt) = (Repo::find()?, Interrupt::on_signals()?);
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    let targets: Vec<&str> = match &args.target {
        Some(target) => vec![target],
        None => TARGETS.to_vec(),
    };
    fuzz(&repo, &targets, args.seconds, &interrupt, |line| eprintln!("{line}"))?;
    Ok(ExitCode::SUCCESS)
}

/// What is missing to fuzz, as a sentence; `None` when nothing is.
pub(crate) fn missing() -> Option<String> {
    let nightly = Command::new("cargo")
        .args(["+nightly", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut missing = Vec::new();
    if !nightly {
        missing.push("nightly Rust is not installed (rustup toolchain install nightly)");
    }
    if !on_path("cargo-fuzz") {
        missing.push("cargo-fuzz is not installed (cargo install cargo-fuzz)");
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// Builds all targets, writes their seeds, and runs those named for some seconds each.
///
/// # Errors
/// When a build or a target fails.
pub(crate) fn fuzz(
    repo: &Repo,
    targets: &[&str],
    seconds: u64,
    interrupt: &Interrupt,
    mut say: impl FnMut(&str),
) -> anyhow::Result<()> {
    let mut step = |command: &mut Command, limit, what: &str| -> anyhow::Result<()> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let ending = job::run(command, limit, interrupt, |line| {
            let (Line::Out(text) | Line::Err(text)) = line;
            say(&text);
        })?;
        ending.check(what)
    };
    let mut seeds = Command::new(cargo());
    seeds.current_dir(repo.root());
    seeds.args(["run", "--locked", "--quiet", "--package", "fuzz-bodies"]);
    seeds.args(["--example", "write_seeds", "--"]).arg(corpus(repo));
    step(&mut seeds, BUILD_LIMIT, "writing the seeds")?;
    step(cargo_fuzz(repo).arg("build"), BUILD_LIMIT, "building the targets")?;
    for target in targets {
        let mut run = cargo_fuzz(repo);
        run.args(["run", target, "--"]);
        run.args([format!("-max_total_time={seconds}"), format!("-max_len={INPUT_MAX_BYTES}")]);
        run.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        let limit = Duration::from_secs(seconds) + RUN_MARGIN;
        step(&mut run, limit, &format!("target {target}"))
            .with_context(|| format!("see fuzz/artifacts/{target} and fuzz/README.md"))?;
    }
    Ok(())
}

/// Where libFuzzer keeps what it finds worth keeping.
fn corpus(repo: &Repo) -> PathBuf {
    repo.path("fuzz/corpus")
}

/// cargo-fuzz under nightly Rust, whatever cargo started us.
fn cargo_fuzz(repo: &Repo) -> Command {
    let mut command = Command::new("cargo");
    // The cargo that runs us says which toolchain it is; this one is to choose for itself.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    command.current_dir(repo.path("fuzz")).args(["+nightly", "fuzz"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_binary_and_its_body() {
        let repo = Repo::find().unwrap();
        let read = |path| std::fs::read_to_string(repo.path(path)).unwrap();
        let (manifest, bodies) = (read("fuzz/Cargo.toml"), read("fuzz/bodies/src/lib.rs"));
        for target in TARGETS {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            assert!(bodies.contains(&format!("name: \"{target}\"")), "{target}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }
}
