//! Where things are in this checkout.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// This checkout.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    root: PathBuf,
}

impl Repo {
    /// The checkout this command was built from. Cargo names the crate's folder when it runs
    /// us; the folder of the build serves when the program is started by hand.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
        let root = Path::new(&crate_folder)
            .ancestors()
            .nth(2)
            .filter(|root| root.join("Cargo.lock").is_file())
            .context("run this through cargo, inside the repository")?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// A file or folder of the checkout.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The npm workspace.
    pub(crate) fn web(&self) -> PathBuf {
        self.path("web")
    }

    /// The built web page.
    pub(crate) fn web_dist(&self) -> PathBuf {
        self.path("web/app/dist")
    }
}

/// The cargo that runs us, or the one on the path.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

/// Whether a program of this name is on the path.
pub(crate) fn on_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_lock_file() {
        assert!(Repo::find().unwrap().path("Cargo.lock").is_file());
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program-here"));
    }
}
