//! Ports of loopback that stay the same from one start to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// Ports are taken from here: below the range the kernel hands out to clients, so that none of
/// their connections sits on a port of ours while its server is down.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// How long a port is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The form of the file.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    ports: BTreeMap<String, Vec<u16>>,
}

/// Names and their ports, kept in a file.
#[derive(Debug)]
pub(crate) struct Ports {
    path: PathBuf,
    ports: BTreeMap<String, Vec<u16>>,
}

impl Ports {
    /// Reads the file; none yet is none chosen yet.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let ports = match fs::read_to_string(path) {
            Ok(text) => {
                let content: Content = serde_json::from_str(&text)
                    .with_context(|| format!("{shown} is damaged; remove it"))?;
                if content.version != VERSION {
                    bail!("{shown} has version {}, this is for {VERSION}", content.version);
                }
                content.ports
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        Ok(Self { path: path.to_path_buf(), ports })
    }

    /// The ports of a name, if they were chosen.
    pub(crate) fn get(&self, name: &str) -> Option<&[u16]> {
        self.ports.get(name).map(Vec::as_slice)
    }

    /// The ports of a name, chosen among the free ones and written down at first sight.
    ///
    /// # Errors
    /// When no port is free or the file cannot be written.
    pub(crate) fn choose(&mut self, name: &str, count: usize) -> anyhow::Result<Vec<u16>> {
        if let Some(known) = self.get(name).filter(|known| known.len() == count) {
            return Ok(known.to_vec());
        }
        let taken: BTreeSet<u16> = self.ports.values().flatten().copied().collect();
        let chosen = free_ports(count, &taken)?;
        self.ports.insert(name.to_owned(), chosen.clone());
        self.save()?;
        Ok(chosen)
    }

    /// Written beside it and renamed: whoever is killed leaves the old file or the new one.
    fn save(&self) -> anyhow::Result<()> {
        let content = Content { version: VERSION, ports: self.ports.clone() };
        let text = serde_json::to_string_pretty(&content)?;
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, text + "\n")
            .and_then(|()| fs::rename(&fresh, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// The first of these ports that somebody else keeps. A process that was killed a moment ago may
/// hold its own a little longer.
pub(crate) fn first_taken(ports: &[u16]) -> Option<u16> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let taken = ports.iter().copied().find(|port| !is_free(*port))?;
        if Instant::now() >= deadline {
            return Some(taken);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether nobody listens on a port of loopback.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_ports(count: usize, taken: &BTreeSet<u16>) -> anyhow::Result<Vec<u16>> {
    let span = u64::from(RANGE.end - RANGE.start);
    // Others may choose at the same moment: everybody begins somewhere else.
    let offset = RandomState::new().hash_one(0_u8) % span;
    let candidates = (0..span).filter_map(|step| {
        let port = RANGE.start + u16::try_from((offset + step) % span).ok()?;
        (!taken.contains(&port) && is_free(port)).then_some(port)
    });
    let ports: Vec<u16> = candidates.take(count).collect();
    if ports.len() < count {
        bail!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_remembered_and_differ() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports.json");
        let mut ports = Ports::open(&path).unwrap();
        let one = ports.choose("one", 2).unwrap();
        let two = ports.choose("two", 1).unwrap();
        assert!(!one.contains(&two[0]) && one[0] != one[1]);
        assert!(one.iter().chain(&two).all(|port| RANGE.contains(port)));
        let mut again = Ports::open(&path).unwrap();
        assert_eq!(again.choose("one", 2).unwrap(), one);
        assert_eq!(again.get("two"), Some(&two[..]));
        assert_eq!(again.get("three"), None);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports.json");
        for text in [
            "",
            "{",
            "{\"version\":1}",
            "{\"version\":2,\"ports\":{}}",
            "{\"version\":1,\"ports\":{\"a\":[70000]}}",
        ] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", Ports::open(&path).unwrap_err());
            assert!(error.contains("ports.json"), "{text}: {error}");
        }
    }

    #[test]
    fn a_taken_port_is_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        // It comes free while it is waited for.
        let holder = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(listener);
        });
        assert_eq!(first_taken(&[port]), None);
        holder.join().unwrap();
    }
}
