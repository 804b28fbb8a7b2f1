//! Folders that go with their value.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// An empty folder of this process, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one; `purpose` names it, beside the number of this process.
    ///
    /// # Errors
    /// When it exists (left by a process that was killed) or cannot be made.
    pub(crate) fn create(purpose: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("corelane-{purpose}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_value() {
        let scratch = Scratch::create("scratch-test").unwrap();
        let path = scratch.path().to_path_buf();
        fs::write(path.join("file"), "x").unwrap();
        assert!(Scratch::create("scratch-test").is_err());
        drop(scratch);
        assert!(!path.exists());
    }
}
