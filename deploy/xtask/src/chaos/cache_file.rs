//! Redis loses what it had, or comes back with what it had long ago.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::servers::{Kind, Servers, ask};

/// Where the copy is kept, beside the data.
const COPY: &str = "data-of-old";

/// Everything is gone from its memory.
///
/// # Errors
/// When it does not say that it did.
pub(super) fn flush(servers: &Servers) -> anyhow::Result<()> {
    let port = servers.port(Kind::Redis).context("Redis was never started")?;
    let answer = ask(port, b"FLUSHALL\r\n").context("cannot reach Redis")?;
    if !answer.starts_with("+OK") {
        bail!("Redis answered {answer:?} to FLUSHALL");
    }
    Ok(())
}

/// Copies its files as they are: what a backup would have caught.
///
/// # Errors
/// When they cannot be copied.
pub(super) fn keep(servers: &Servers) -> anyhow::Result<()> {
    let (data, copy) = folders(servers);
    if copy.exists() {
        fs::remove_dir_all(&copy).context("cannot remove an older copy")?;
    }
    copy_folder(&data, &copy)
}

/// Puts the copy in the place of its files; it must be down.
///
/// # Errors
/// When there is no copy.
pub(super) fn bring_back(servers: &Servers) -> anyhow::Result<()> {
    let (data, copy) = folders(servers);
    fs::remove_dir_all(&data).context("cannot remove the data of Redis")?;
    copy_folder(&copy, &data)
}

fn folders(servers: &Servers) -> (PathBuf, PathBuf) {
    let folder = servers.folder().join(Kind::Redis.name());
    (folder.join("data"), folder.join(COPY))
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    let shown = from.display();
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {shown}"))? {
        let entry = entry.with_context(|| format!("cannot read {shown}"))?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target).with_context(|| format!("cannot copy {shown}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_with_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        fs::create_dir_all(from.join("inner")).unwrap();
        fs::write(from.join("inner/file"), "x").unwrap();
        copy_folder(&from, &folder.path().join("to")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("to/inner/file")).unwrap(), "x");
        assert!(copy_folder(&folder.path().join("none"), &folder.path().join("to")).is_err());
    }
}
