//! Building our processes, and keeping what a running cluster was started from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::node::Node;
use crate::build::{self, GATEWAY, LOGIC};
use crate::interrupt::Interrupt;
use crate::repo::Repo;

/// Feature with crash points and switched off safeguards, compiled into no release.
const FAULTS: &str = "fault-injection";

/// Names a folder with both programs, built with their feature `cluster`.
const FOLDER_VARIABLE: &str = "CORELANE_CLUSTER_BINARIES";

/// The folder in it with those that have fault injection.
const FAULTY: &str = "faulty";

/// The two programs of the cluster form.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    gateway: PathBuf,
    logic: PathBuf,
}

impl Binaries {
    /// Builds both (release); `faults` compiles fault injection in. Those in the folder that
    /// `CORELANE_CLUSTER_BINARIES` names, say of a debug build, are taken as they are; with faults
    /// those in its folder `faulty`, if it has one.
    ///
    /// # Errors
    /// When the build fails or is interrupted.
    pub(crate) fn build(repo: &Repo, faults: bool, interrupt: &Interrupt) -> anyhow::Result<Self> {
        match std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from) {
            Some(folder) if !faults => return Ok(Self::kept_in(&folder)),
            Some(folder) if folder.join(FAULTY).is_dir() => {
                return Ok(Self::kept_in(&folder.join(FAULTY)));
            }
            _ => {}
        }
        Self::build_as("release", repo, faults, interrupt)
    }

    /// Builds both without optimisation, from what the tests are built from.
    ///
    /// # Errors
    /// When the build fails or is interrupted.
    pub(crate) fn build_for_tests(repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<Self> {
        Self::build_as("dev", repo, false, interrupt)
    }

    fn build_as(
        profile: &str,
        repo: &Repo,
        faults: bool,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let mut features = Vec::new();
        for package in [GATEWAY.package, LOGIC.package] {
            features.push(format!("{package}/cluster"));
            if faults && build::has_feature(repo, package, FAULTS)? {
                features.push(format!("{package}/{FAULTS}"));
            }
        }
        let features: Vec<&str> = features.iter().map(String::as_str).collect();
        let built = build::build_together(repo, &[GATEWAY, LOGIC], &features, profile, interrupt)?;
        let [gateway, logic] = <[PathBuf; 2]>::try_from(built)
            .map_err(|built| anyhow::anyhow!("cargo built {} binaries, not two", built.len()))?;
        Ok(Self { gateway, logic })
    }

    /// Another program that the named folder has, such as the load generator.
    pub(crate) fn also_kept(name: &str) -> Option<PathBuf> {
        let path = Path::new(&std::env::var_os(FOLDER_VARIABLE)?).join(name);
        path.is_file().then_some(path)
    }

    /// The copies in `folder`.
    pub(crate) fn kept_in(folder: &Path) -> Self {
        Self { gateway: folder.join(GATEWAY.name), logic: folder.join(LOGIC.name) }
    }

    /// Copies both into `folder`: other builds put other features under the same names.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub(crate) fn keep(&self, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let kept = Self::kept_in(folder);
        for (from, to) in [(&self.gateway, &kept.gateway), (&self.logic, &kept.logic)] {
            // A program that runs cannot be written to, but its name can go to another one.
            let fresh = to.with_extension("new");
            fs::copy(from, &fresh)
                .and_then(|_| fs::rename(&fresh, to))
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        Ok(kept)
    }

    /// What a process runs.
    pub(crate) fn of(&self, node: Node) -> &Path {
        match node {
            Node::Gateway(_) => &self.gateway,
            Node::Logic(_) => &self.logic,
        }
    }
}
