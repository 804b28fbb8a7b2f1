//! Processes that run already, recorded together: each stands under its name in the picture.

use std::collections::BTreeMap;

use anyhow::bail;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    name: String,
    pid: u32,
}

impl Process {
    /// Reads `NAME=PID`.
    ///
    /// # Errors
    /// It is written otherwise.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let Some((name, pid)) = text.split_once('=') else { bail!("not of the form NAME=PID") };
        let Ok(pid @ 1..) = pid.parse() else { bail!("{pid:?} is no process id") };
        if name.is_empty() {
            bail!("a process needs a name, as in gateway={pid}");
        }
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// Their ids, and their names by id.
pub(super) fn split(processes: &[Process]) -> (Vec<u32>, BTreeMap<u32, String>) {
    let pids = processes.iter().map(|one| one.pid).collect();
    (pids, processes.iter().map(|one| (one.pid, one.name.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_and_an_id() {
        let (pids, names) =
            split(&["kafka=42", "redis=7"].map(|text| Process::parse(text).unwrap()));
        assert_eq!(pids, [42, 7]);
        assert_eq!(names[&42], "kafka");
        for (bad, words) in
            [("42", "NAME=PID"), ("kafka=x", "\"x\""), ("kafka=0", "\"0\""), ("=4", "a name")]
        {
            let error = Process::parse(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
