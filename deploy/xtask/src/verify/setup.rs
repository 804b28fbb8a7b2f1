//! What the steps need on the machine, installed when it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::context::{Context, Verdict};
use crate::repo::on_path;
use crate::web;

/// The names Chromium goes by.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// The types that come with protoc, where Debian puts them.
const PROTOBUF_TYPES: &str = "/usr/include/google/protobuf/timestamp.proto";

/// A browser for the end-to-end tests.
pub(super) fn browser() -> Option<PathBuf> {
    let folders: Vec<_> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let in_folders =
        |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    BROWSERS.iter().find_map(|name| in_folders(name))
}

/// Installs what is missing: system packages when we may, npm packages always.
///
/// # Errors
/// When something is missing and cannot be installed.
pub(super) fn run(context: &mut Context) -> anyhow::Result<Verdict> {
    let mut packages = Vec::new();
    if !web::have_npm() {
        packages.extend(["nodejs", "npm"]);
    }
    if browser().is_none() {
        packages.push("chromium");
    }
    if !on_path("cc") {
        packages.push("build-essential");
    }
    if !on_path("protoc") || !Path::new(PROTOBUF_TYPES).is_file() {
        // The client of etcd compiles its messages with them.
        packages.extend(["protobuf-compiler", "libprotobuf-dev"]);
    }
    if !packages.is_empty() {
        install(context, &packages)?;
    }
    if context.repo.web().join("package.json").is_file() && web::needs_install(&context.repo.web())
    {
        context.run(context.npm(&["ci", "--no-audit", "--no-fund"]))?;
    }
    // The licence test asks offline about every crate, those of optional features included.
    context.run(context.cargo(&["fetch", "--locked", "--target", &host()?]))?;
    Ok(Verdict::Done)
}

/// The platform this compiler builds for by default.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn install(context: &mut Context, packages: &[&str]) -> anyhow::Result<()> {
    let names = packages.join(" ");
    if !rustix::process::geteuid().is_root() || !on_path("apt-get") {
        bail!("{names} missing; install with: sudo apt-get install {names}");
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q").args(arguments);
        command
    };
    context.run(apt(&["update"]))?;
    context.run(apt(&[&["install", "-y", "--no-install-recommends"], packages].concat()))
}
