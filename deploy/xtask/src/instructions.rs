//! `cargo xtask instructions`: what the codec, the session and the turn cost in user instructions,
//! compared with the committed baseline. Instructions do not depend on how busy a machine is.

mod baseline;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::build::{self, INSTRUCTIONS};
use crate::callgrind::{self, Counts};
use crate::interrupt::Interrupt;
use crate::repo::Repo;
use baseline::{Baseline, Judgement};

/// Where the baseline is.
const BASELINE: &str = "bench/instructions/baseline.toml";
/// The profile of the checks: `cargo verify` has built most of it already.
const PROFILE: &str = "release";
/// The function that the program calls between its pieces of work.
const MARK: &str = "instructions::mark";
/// Threads interleave a little differently each time. What is worse is counted again, and the least
/// stands: a real loss stays.
const ATTEMPTS: usize = 3;

/// What to do with the counts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the counts as the new baseline.
    #[arg(long)]
    accept: bool,
}

/// What a check came to.
pub(crate) enum Outcome {
    /// Within the limits.
    Good,
    /// Something costs more, or is not in the baseline.
    Bad(String),
    /// Nothing can be said here, for this reason.
    Silent(String),
}

/// Counts and compares, or counts and accepts.
///
/// # Errors
/// When valgrind is missing, or the program does not build or run.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (repo, interrupt) = (Repo::find()?, Interrupt::on_signals()?);
    if args.accept {
        return accept(&repo, &interrupt);
    }
    match check(&repo, &interrupt, |line| eprintln!("{line}"))? {
        Outcome::Good => Ok(ExitCode::SUCCESS),
        Outcome::Bad(reason) | Outcome::Silent(reason) => bail!(reason),
    }
}

fn accept(repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    if let Some(missing) = callgrind::missing() {
        bail!("{missing}");
    }
    let program = build::build(repo, INSTRUCTIONS, PROFILE, interrupt)?;
    let mut counts = count(&program, interrupt)?;
    for _ in 1..ATTEMPTS {
        keep_least(&mut counts, count(&program, interrupt)?);
    }
    let baseline = Baseline { rustc: rustc()?, machine: machine(), counts };
    let path = repo.path(BASELINE);
    fs::write(&path, baseline.to_toml())
        .with_context(|| format!("cannot write {}", path.display()))?;
    baseline.counts.iter().for_each(|(name, count)| eprintln!("{count:>10.1}  {name}"));
    eprintln!("{BASELINE} is written");
    Ok(ExitCode::SUCCESS)
}

/// Counts and compares with the baseline; `say` gets one line for each piece of work.
///
/// # Errors
/// When the program does not build or run, or the baseline cannot be read.
pub(crate) fn check(
    repo: &Repo,
    interrupt: &Interrupt,
    mut say: impl FnMut(&str),
) -> anyhow::Result<Outcome> {
    if let Some(missing) = callgrind::missing() {
        return Ok(Outcome::Silent(missing.to_owned()));
    }
    let text = fs::read_to_string(repo.path(BASELINE))
        .with_context(|| format!("cannot read {BASELINE}"))?;
    let baseline = Baseline::parse(&text).with_context(|| String::from(BASELINE))?;
    let program = build::build(repo, INSTRUCTIONS, PROFILE, interrupt)?;
    let mut counts = count(&program, interrupt)?;
    let comparable = baseline.rustc == rustc()? && baseline.machine == machine();
    for _ in 1..ATTEMPTS {
        if !comparable || !baseline.judge(&counts).iter().any(Judgement::is_bad) {
            break;
        }
        keep_least(&mut counts, count(&program, interrupt)?);
    }
    let judgements = baseline.judge(&counts);
    judgements.iter().for_each(|judgement| say(&judgement.line()));
    if !comparable {
        return Ok(Outcome::Silent(format!(
            "the baseline is of rustc {} on {}; this is rustc {} on {}, so nothing is judged",
            baseline.rustc,
            baseline.machine,
            rustc()?,
            machine()
        )));
    }
    let bad: Vec<_> =
        judgements.iter().filter(|judgement| judgement.is_bad()).map(Judgement::line).collect();
    if !bad.is_empty() {
        let reasons = bad.join("\n");
        let how = "cargo xtask instructions --accept makes these the baseline";
        return Ok(Outcome::Bad(format!("{reasons}\n{how}")));
    }
    if judgements.iter().any(|judgement| matches!(judgement, Judgement::Better { .. })) {
        say("better than the baseline: renew it with cargo xtask instructions --accept");
    }
    Ok(Outcome::Good)
}

fn count(program: &Path, interrupt: &Interrupt) -> anyhow::Result<Counts> {
    callgrind::count(program, &[], MARK, interrupt)
}

fn keep_least(counts: &mut Counts, again: Counts) {
    for (name, count) in again {
        counts.entry(name).and_modify(|least| *least = least.min(count)).or_insert(count);
    }
}

/// The compiler that cargo uses, as `1.95.0 (59807616e 2026-04-14)`.
fn rustc() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-V").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(text.strip_prefix("rustc ").unwrap_or(&text).to_owned())
}

/// What the choice of code at run time depends on.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let wide = flags.split(' ').any(|flag| flag == "avx2");
    format!("{}{}", std::env::consts::ARCH, if wide { " with avx2" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_several_counts_stands() {
        let counts = |pairs: &[(&str, f64)]| -> Counts {
            pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let mut least = counts(&[("a", 5.0), ("b", 7.0)]);
        keep_least(&mut least, counts(&[("a", 6.0), ("b", 3.0), ("c", 1.0)]));
        assert_eq!(least, counts(&[("a", 5.0), ("b", 3.0), ("c", 1.0)]));
    }

    #[test]
    fn the_committed_baseline_is_read() {
        let text = fs::read_to_string(Repo::find().unwrap().path(BASELINE)).unwrap();
        let baseline = Baseline::parse(&text).unwrap();
        assert!(baseline.counts.len() > 10, "{}", baseline.counts.len());
        assert_eq!(baseline.to_toml(), text, "the file is as it would be written");
    }
}
