//! What a result must say about where it comes from, and the file it goes to.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::repo::Repo;

/// The head of a result file: commit, machine, command.
pub(super) fn head(title: &str, repo: &Repo) -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "# {title}\n\n| what | value |\n|---|---|\n| date | {} |\n| commit | {} |\n| kernel | {} |\n\
         | CPU | {} |\n| load at the end (this run alone: 2) | {} |\n| command | `cargo xtask {}` |\n",
        today(),
        commit(repo),
        first_line("/proc/sys/kernel/osrelease"),
        cpu(),
        first_line("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        words.join(" "),
    )
}

/// Prints a result and, unless this is a `dry_run`, writes it next to the earlier ones.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn publish(repo: &Repo, name: &str, text: &str, dry_run: bool) -> anyhow::Result<()> {
    eprint!("{text}");
    if !dry_run {
        eprintln!("written to {}", write(repo, name, text)?.display());
    }
    Ok(())
}

fn write(repo: &Repo, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let folder = repo.path("bench/results");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let date = today();
    let path = (1..)
        .map(|number| match number {
            1 => folder.join(format!("{name}-{date}.md")),
            _ => folder.join(format!("{name}-{date}-{number}.md")),
        })
        .find(|path| !path.exists())
        .context("no free file name")?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn commit(repo: &Repo) -> String {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").current_dir(repo.root()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return String::from("unknown");
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + " with local changes",
    }
}

fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores")
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
}

/// The date in UTC, as 2026-11-21.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(mut day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    (year, 12, 31)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(20_818), (2026, 12, 31));
        assert_eq!(civil(20_819), (2027, 1, 1));
    }
}
