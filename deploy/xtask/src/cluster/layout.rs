//! What was started, in a file beside it: for whoever comes later, or after a kill.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::config::{Scope, string};
use super::node::Size;
use super::set::Plan;
use crate::servers::{Kind, Servers};

const FILE: &str = "layout.json";

/// A cluster that was started and not yet ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layout {
    pub(super) size: Size,
    pub(super) dev_login: bool,
    /// The built web page, if there is one.
    pub(super) web_dir: Option<PathBuf>,
    /// The servers that were started for it and end with it.
    pub(super) servers: Vec<Kind>,
}

/// Where the shared cluster keeps its files.
pub(super) fn folder(servers: &Servers) -> PathBuf {
    servers.folder().join("cluster")
}

impl Layout {
    pub(super) fn plan(&self) -> Plan {
        let page = self.web_dir.as_ref().map(|page| string(&page.display().to_string()));
        let page = page.map(|page| (Scope::Gateways, String::from("web_dir"), page));
        let settings = page.into_iter().collect();
        Plan { size: self.size, dev_login: self.dev_login, settings }
    }

    /// None when there is no cluster.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub(super) fn load(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged; remove it", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Written beside it and renamed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(FILE);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_string_pretty(self)? + "\n")
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets the cluster.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(super) fn remove(folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Layout::load(folder.path()).unwrap(), None);
        let size = Size { gateways: 3, logic: 2 };
        let servers = vec![Kind::Kafka, Kind::Etcd];
        let layout = Layout { size, dev_login: true, web_dir: Some("/page".into()), servers };
        assert_eq!(layout.plan().settings.len(), 1);
        layout.save(folder.path()).unwrap();
        assert_eq!(Layout::load(folder.path()).unwrap(), Some(layout));
        fs::write(folder.path().join(FILE), "{\"size\":1}").unwrap();
        let error = format!("{:#}", Layout::load(folder.path()).unwrap_err());
        assert!(error.contains(FILE), "{error}");
        Layout::remove(folder.path()).unwrap();
        Layout::remove(folder.path()).unwrap();
        assert_eq!(Layout::load(folder.path()).unwrap(), None);
    }
}
