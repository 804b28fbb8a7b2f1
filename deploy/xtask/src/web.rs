//! The web page: installing its packages and building it, when it is older than its sources.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};

use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::{Repo, on_path};

/// An npm command that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Folders below web that npm and the build write.
const GENERATED: [&str; 5] = ["node_modules", "dist", "coverage", "test-results", ".vite"];

/// Whether Node and npm are installed.
pub(crate) fn have_npm() -> bool {
    on_path("node") && on_path("npm")
}

/// Brings the built page up to date; `say` gets a line before each thing that takes time.
///
/// # Errors
/// When Node is missing or a step fails. The server runs without the page.
pub(crate) fn refresh(
    repo: &Repo,
    interrupt: &Interrupt,
    mut say: impl FnMut(&str),
) -> anyhow::Result<()> {
    let web = repo.web();
    if !web.join("package.json").is_file() {
        bail!("web/package.json is missing");
    }
    let built = modified(&repo.web_dist().join("index.html"));
    if built.is_some() && built >= newest_source(&web)? {
        return Ok(());
    }
    if !have_npm() {
        bail!("Node.js and npm are not installed");
    }
    if needs_install(&web) {
        say("installing the web page's packages (npm ci)");
        npm(&web, &["ci", "--no-audit", "--no-fund"], interrupt)?;
    }
    say("building the web page (npm run build)");
    npm(&web, &["run", "build"], interrupt)
}

/// Whether `npm ci` has to run: never did, or the lock file changed since.
pub(crate) fn needs_install(web: &Path) -> bool {
    let installed = modified(&web.join("node_modules/.package-lock.json"));
    installed.is_none() || installed < modified(&web.join("package-lock.json"))
}

fn npm(web: &Path, arguments: &[&str], interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut command = Command::new("npm");
    command.current_dir(web).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Of interest only when it fails, then all of it.
    let mut lines = Vec::new();
    let ending = job::run(&mut command, LIMIT, interrupt, |line| {
        let (Line::Out(text) | Line::Err(text)) = line;
        lines.push(text);
    })?;
    if !ending.success() {
        lines.iter().for_each(|line| eprintln!("{line}"));
    }
    ending.check(&format!("npm {}", arguments.join(" ")))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When the newest source below `folder` was written.
fn newest_source(folder: &Path) -> anyhow::Result<Option<SystemTime>> {
    let mut newest = None;
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let generated = GENERATED.iter().any(|name| entry.file_name() == *name);
        let time = match entry.file_type()? {
            _ if generated => continue,
            kind if kind.is_dir() => newest_source(&entry.path())?,
            _ => modified(&entry.path()),
        };
        newest = newest.max(time);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn write(path: &Path, seconds: u64) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::create(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn the_newest_source_counts_and_generated_files_do_not() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("app/src/main.ts"), 20);
        write(&folder.path().join("package.json"), 10);
        write(&folder.path().join("app/dist/index.html"), 30);
        write(&folder.path().join("node_modules/x/index.js"), 40);
        let newest = newest_source(folder.path()).unwrap().unwrap();
        assert_eq!(newest, SystemTime::UNIX_EPOCH + Duration::from_secs(20));
    }

    #[test]
    fn packages_are_installed_once_per_lock_file() {
        let folder = tempfile::tempdir().unwrap();
        let web = folder.path();
        write(&web.join("package-lock.json"), 10);
        assert!(needs_install(web));
        write(&web.join("node_modules/.package-lock.json"), 20);
        assert!(!needs_install(web));
        write(&web.join("package-lock.json"), 30);
        assert!(needs_install(web));
    }
}
