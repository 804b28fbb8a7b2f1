//! Finding a CPython 2.7: the suite was never moved on.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{anyhow, bail};

/// Names it has on the path. `python` may be anything, `pypy` speaks 2.7 where it is installed.
const NAMES: [&str; 4] = ["python2.7", "python2", "pypy", "pypy2"];
/// Says its version and shows that it can install packages.
const PROBE: &str = "import sys, pip; print('%d.%d' % sys.version_info[:2])";

/// A Python 2.7 with pip.
///
/// # Errors
/// When there is none; says what to install.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os("PYTHON2") {
        let named = PathBuf::from(named);
        if !serves(&named) {
            bail!("PYTHON2 names {}, which is no Python 2.7 with pip", named.display());
        }
        return Ok(named);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    on_path.chain(pyenv()).find(|program| serves(program)).ok_or_else(|| {
        anyhow!(
            "Autobahn|Testsuite needs Python 2.7 with pip, and there is none on the path or in \
             ~/.pyenv. Install one with pyenv (`pyenv install 2.7.18`) or name it in PYTHON2; or \
             name a folder with a ready suite by --suite or in AUTOBAHN"
        )
    })
}

/// Versions that pyenv keeps, newest first.
fn pyenv() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv"));
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from).or(home);
    root.map(|root| versions(&root.join("versions"))).unwrap_or_default()
}

fn versions(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_two = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("2.7"));
    let mut folders: Vec<PathBuf> = of_two.map(|entry| entry.path()).collect();
    folders.sort();
    folders.into_iter().rev().map(|folder| folder.join("bin/python2.7")).collect()
}

/// Whether the program is there and is what we need. Names of pyenv on the path lead to a
/// version only when one is chosen.
fn serves(program: &Path) -> bool {
    if !program.is_file() {
        return false;
    }
    let mut command = Command::new(program);
    command.args(["-c", PROBE]).env_remove("PYTHONPATH").env_remove("PYTHONHOME");
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command.output().is_ok_and(|output| output.status.success() && output.stdout == b"2.7\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn program(path: &Path, answer: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\n{answer}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn only_a_working_2_7_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("python");
        assert!(!serves(&path));
        for (answer, expected) in
            [("echo 2.7", true), ("echo 3.13", false), ("echo 2.7; exit 1", false)]
        {
            program(&path, answer);
            assert_eq!(serves(&path), expected, "{answer}");
        }
    }

    #[test]
    fn the_newest_2_7_of_pyenv_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["3.12.1", "2.7.17", "2.7.18", "2.6.9"] {
            fs::create_dir_all(folder.path().join(version)).unwrap();
        }
        let found = versions(folder.path());
        let expected = ["2.7.18", "2.7.17"];
        let expected = expected.map(|version| folder.path().join(version).join("bin/python2.7"));
        assert_eq!(found, expected);
        assert!(versions(&folder.path().join("nothing")).is_empty());
    }
}
