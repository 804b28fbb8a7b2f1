//! Building binaries of this workspace and learning where cargo put them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::{Repo, cargo};

/// A cold build on one busy core stays well below.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// What to build.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binary {
    /// Its package.
    pub(crate) package: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
}

/// The embedded server.
pub(crate) const CORELANE: Binary = Binary { package: "standalone", name: "corelane" };
/// The gateway, here for its echo mode.
pub(crate) const GATEWAY: Binary = Binary { package: "gateway", name: "gateway" };
/// The logic service of the cluster form.
pub(crate) const LOGIC: Binary = Binary { package: "logic-svc", name: "logic-svc" };
/// The load generator.
pub(crate) const LOADGEN: Binary = Binary { package: "loadgen", name: "loadgen" };
/// The measuring client.
pub(crate) const ECHO_CLIENT: Binary = Binary { package: "bench", name: "echo_client" };

/// Work whose instructions are counted.
pub(crate) const INSTRUCTIONS: Binary = Binary { package: "instructions", name: "instructions" };

#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

/// Builds one binary in `profile`; compiler messages and progress go to standard error.
///
/// # Errors
/// When the build fails or is interrupted.
pub(crate) fn build(
    repo: &Repo,
    binary: Binary,
    profile: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<PathBuf> {
    run(command(repo, binary, profile), binary, interrupt)
}

/// Builds one binary with frame pointers, by which a profiler finds its way from a function to
/// its callers. In a profile of its own: what is built otherwise stays as it is.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_to_profile(
    repo: &Repo,
    binary: Binary,
    interrupt: &Interrupt,
) -> anyhow::Result<PathBuf> {
    let mut command = command(repo, binary, "profiling");
    for (variable, flag) in
        [("RUSTFLAGS", "-Cforce-frame-pointers=yes"), ("CFLAGS", "-fno-omit-frame-pointer")]
    {
        let flags = std::env::var(variable).unwrap_or_default();
        command.env(variable, format!("{flags} {flag}").trim());
    }
    run(command, binary, interrupt)
}

/// Builds one binary of a workspace of its own, whose manifest is given.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_apart(
    repo: &Repo,
    manifest: &str,
    binary: Binary,
    interrupt: &Interrupt,
) -> anyhow::Result<PathBuf> {
    let mut command = command(repo, binary, "release");
    command.arg("--manifest-path").arg(repo.path(manifest));
    run(command, binary, interrupt)
}

/// Builds several binaries (release) with these features in one go, so that what they share is
/// built once. Their paths, in the order given.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_together(
    repo: &Repo,
    binaries: &[Binary],
    features: &[&str],
    profile: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = Command::new(cargo());
    command
        .current_dir(repo.root())
        .args(["build", "--locked", "--profile", profile, "--features", &features.join(",")])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    for binary in binaries {
        command.args(["--package", binary.package, "--bin", binary.name]);
    }
    let mut built = vec![None; binaries.len()];
    let ending = job::run(&mut command, LIMIT, interrupt, |line| {
        let Line::Out(text) = line else { return };
        for (binary, path) in binaries.iter().zip(&mut built) {
            *path = executable(&text, binary.name).or(path.take());
        }
    })?;
    ending.check("building the cluster form")?;
    let found = |(binary, path): (&Binary, Option<PathBuf>)| {
        path.with_context(|| format!("cargo built no binary named {}", binary.name))
    };
    binaries.iter().zip(built).map(found).collect()
}

/// Whether a package of this workspace has a cargo feature.
///
/// # Errors
/// When its manifest cannot be read.
pub(crate) fn has_feature(repo: &Repo, package: &str, feature: &str) -> anyhow::Result<bool> {
    let path = repo.path(package).join("Cargo.toml");
    let manifest = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(names_feature(&manifest, feature))
}

/// Whether a manifest's section of features names this one.
pub(crate) fn names_feature(manifest: &str, feature: &str) -> bool {
    let section = manifest.split("\n[").find(|section| section.starts_with("features]"));
    section.is_some_and(|section| {
        section.lines().any(|line| line.split('=').next().is_some_and(|key| key.trim() == feature))
    })
}

fn command(repo: &Repo, binary: Binary, profile: &str) -> Command {
    let mut command = Command::new(cargo());
    command
        .current_dir(repo.root())
        .args(["build", "--locked", "--profile", profile])
        .args(["--package", binary.package, "--bin", binary.name])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

fn run(mut command: Command, binary: Binary, interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    let mut built = None;
    let ending = job::run(&mut command, LIMIT, interrupt, |line| {
        if let Line::Out(text) = line {
            built = executable(&text, binary.name).or(built.take());
        }
    })?;
    ending.check(&format!("building {}", binary.name))?;
    built.with_context(|| format!("cargo built no binary named {}", binary.name))
}

/// The path in one of cargo's messages, when it announces the binary called `name`.
fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(message).ok()?;
    let ours = message.reason == "compiler-artifact" && message.target?.name == name;
    if ours { message.executable } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_seen_in_its_section_only() {
        let manifest =
            "[package]\nname = \"x\"\n[features]\ncluster = [\"dep:y\"]\n[lints]\nz = 1\n";
        assert!(names_feature(manifest, "cluster"));
        assert!(!names_feature(manifest, "z"));
        assert!(!names_feature("[dependencies]\ncluster = \"1\"\n", "cluster"));
    }

    #[test]
    fn the_announced_binary_is_found() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"corelane","kind":["bin"]},
            "profile":{"opt_level":"3"},"executable":"/t/release/corelane","fresh":true}"#;
        assert_eq!(executable(line, "corelane"), Some(PathBuf::from("/t/release/corelane")));
        assert_eq!(executable(line, "gateway"), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#, "corelane"), None);
        assert_eq!(executable("not json", "corelane"), None);
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"corelane"},"executable":null}"#;
        assert_eq!(executable(library, "corelane"), None);
    }
}
