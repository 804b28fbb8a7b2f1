//! What a broken trial leaves behind: what every process and server said since it began.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cluster::Cluster;
use crate::servers::Kind;

/// A folder with one folder for each broken trial. Made with the first of them.
pub(super) struct Evidence {
    folder: PathBuf,
    kept: usize,
}

/// A log, and how long it was when the trial began.
struct Log {
    name: String,
    path: PathBuf,
    begins: u64,
}

/// The logs of a cluster at one moment.
pub(super) struct Logs(Vec<Log>);

impl Logs {
    /// As they are now.
    pub(super) fn of(cluster: &mut Cluster) -> Self {
        let mut logs = Vec::new();
        for node in cluster.nodes() {
            logs.push((node.to_string(), cluster.log(node)));
        }
        for kind in Kind::ALL {
            logs.push((kind.name().to_owned(), cluster.servers().log(kind)));
        }
        let begins = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        Self(
            logs.into_iter()
                .map(|(name, path)| Log { name, begins: begins(&path), path })
                .collect(),
        )
    }
}

impl Evidence {
    /// Beside the file of results, if there is one, else where temporary files go.
    pub(super) fn beside(results: Option<&Path>) -> Self {
        let folder = results.map_or_else(
            || std::env::temp_dir().join(format!("corelane-chaos-logs-{}", std::process::id())),
            |path| path.with_extension("logs"),
        );
        Self { folder, kept: 0 }
    }

    /// Copies what was said since `logs` were looked at, and the files of the load.
    ///
    /// # Errors
    /// When something cannot be written. A log that is not there is left out.
    pub(super) fn keep(&mut self, trial: &str, logs: &Logs, load: &Path) -> anyhow::Result<()> {
        let folder = self.folder.join(trial);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        self.kept += 1;
        for log in &logs.0 {
            copy(&log.path, log.begins, &folder.join(format!("{}.log", log.name)))?;
        }
        for name in ["load.json", "load.log"] {
            copy(&load.join(name), 0, &folder.join(name))?;
        }
        Ok(())
    }

    /// Where everything is, if there is anything.
    pub(super) fn folder(&self) -> Option<&Path> {
        (self.kept > 0).then_some(self.folder.as_path())
    }
}

fn copy(from: &Path, begins: u64, to: &Path) -> anyhow::Result<()> {
    let Ok(mut source) = File::open(from) else { return Ok(()) };
    let copied = source
        .seek(SeekFrom::Start(begins))
        .and_then(|_| File::create(to))
        .and_then(|mut target| io::copy(&mut source, &mut target));
    copied.map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn only_what_was_said_since_is_kept() {
        let scratch = Scratch::create("chaos-evidence").unwrap();
        let path = scratch.path().join("log");
        fs::write(&path, "before, since").unwrap();
        let mut evidence = Evidence::beside(Some(&scratch.path().join("chaos.json")));
        assert_eq!(evidence.folder(), None);
        let gone = Log { name: "gone".into(), path: scratch.path().join("none"), begins: 0 };
        let logs = Logs(vec![Log { name: "logic-1".into(), path, begins: 8 }, gone]);
        evidence.keep("F8 7", &logs, scratch.path()).unwrap();
        let folder = evidence.folder().unwrap().join("F8 7");
        assert_eq!(folder, scratch.path().join("chaos.logs").join("F8 7"));
        assert_eq!(fs::read_to_string(folder.join("logic-1.log")).unwrap(), "since");
        assert!(!folder.join("gone.log").exists());
    }
}
