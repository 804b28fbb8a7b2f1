//! A ready suite: found, or built once and kept outside the checkout.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::python;
use crate::interrupt::Interrupt;
use crate::job::{self, Line};

/// The suite's last version.
const VERSION: &str = "25.10.1";
/// Written when everything is installed.
const READY: &str = "ready";
/// Compiling the extensions of old packages takes most of a minute.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What makes an environment of its own for the packages below.
const VIRTUALENV: &str = "virtualenv==20.15.1";
/// The last versions for Python 2.7 that work together, installed in this order: what a line
/// names has to be there before the next is built.
const PACKAGES: [&[&str]; 4] = [
    &["pip==20.3.4", "setuptools==44.0.0", "wheel==0.36.2"],
    &["incremental==16.10.1", "pyOpenSSL==19.1.0", "cryptography==3.3.2"],
    &["--no-build-isolation", "Twisted==19.10.0"],
    &["--no-build-isolation", "autobahntestsuite==25.10.1"],
];

/// An installed suite.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The folder with `python` and `wstest`.
    programs: PathBuf,
}

impl Suite {
    /// The suite in the folder named, or else the one built earlier; none when nothing was.
    ///
    /// # Errors
    /// When a folder is named that has no suite.
    pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<Option<Self>> {
        if let Some(folder) = named {
            let suite = Self::within(folder);
            let fault = || format!("{} has no bin/wstest with its Python", folder.display());
            return Ok(Some(suite.with_context(fault)?));
        }
        let folder = kept()?;
        Ok(if folder.join(READY).is_file() { Self::within(&folder) } else { None })
    }

    fn within(folder: &Path) -> Option<Self> {
        let places = [folder.join("bin"), folder.join("venv/bin")];
        let whole =
            |place: &PathBuf| place.join("wstest").is_file() && place.join("python").is_file();
        places.into_iter().find(whole).map(|programs| Self { programs })
    }

    /// Builds the suite from the Python package index into the user's cache folder. `say` gets
    /// a line before each thing that takes time.
    ///
    /// # Errors
    /// When there is no Python 2.7, or something cannot be installed.
    pub(crate) fn build(interrupt: &Interrupt, mut say: impl FnMut(&str)) -> anyhow::Result<Self> {
        let folder = kept()?;
        let python = python::find()?;
        let parent = folder.parent().context("the cache folder has no parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        // Two at once would build into the same folder. The lock goes with the file's value.
        let lock = File::create(folder.with_extension("lock")).context("cannot make a lock")?;
        lock.lock().context("cannot lock the cache folder")?;
        if let Some(built_meanwhile) = Self::find(None)? {
            return Ok(built_meanwhile);
        }
        say(&format!("building Autobahn|Testsuite {VERSION} in {} (once)", folder.display()));
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        install(&python, &folder, interrupt, &mut say)?;
        let suite = Self::within(&folder).context("the installation has no wstest")?;
        fs::write(folder.join(READY), VERSION).context("cannot mark the suite as ready")?;
        Ok(suite)
    }

    /// A command that runs the suite; its arguments are to be added.
    pub(super) fn wstest(&self) -> Command {
        let mut command = bare(&self.programs.join("python"));
        command.arg(self.programs.join("wstest"));
        command
    }
}

/// Where a suite built by us is kept.
fn kept() -> anyhow::Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = cache.or_else(home).context("neither HOME nor XDG_CACHE_HOME is set")?;
    Ok(cache.join("corelane").join(format!("autobahn-{VERSION}")))
}

fn install(
    python: &Path,
    folder: &Path,
    interrupt: &Interrupt,
    say: &mut impl FnMut(&str),
) -> anyhow::Result<()> {
    let bootstrap = folder.join("bootstrap");
    let mut pip = bare(python);
    pip.args(["-m", "pip", "install", "--target"]).arg(&bootstrap).arg(VIRTUALENV);
    step(pip, VIRTUALENV, interrupt, say)?;
    let mut virtualenv = bare(python);
    virtualenv.env("PYTHONPATH", &bootstrap).args(["-m", "virtualenv", "--no-download"]);
    virtualenv.arg("--python").arg(python).arg(folder.join("venv"));
    step(virtualenv, "an environment for them", interrupt, say)?;
    for packages in PACKAGES {
        let mut pip = bare(&folder.join("venv/bin/python"));
        pip.args(["-m", "pip", "install"]).args(packages);
        step(pip, &packages.join(" "), interrupt, say)?;
    }
    Ok(())
}

/// A Python that sees only what it was given.
fn bare(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.env_remove("PYTHONPATH").env_remove("PYTHONHOME");
    command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PIP_NO_INPUT", "1");
    command
}

fn step(
    mut command: Command,
    what: &str,
    interrupt: &Interrupt,
    say: &mut impl FnMut(&str),
) -> anyhow::Result<()> {
    say(&format!("  {what}"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut lines = Vec::new();
    let ending = job::run(&mut command, LIMIT, interrupt, |line| {
        let (Line::Out(text) | Line::Err(text)) = line;
        lines.push(text);
    })?;
    if let Err(error) = ending.check(&format!("installing {what}")) {
        let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
        bail!("{error}\n  {last}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_must_hold_a_suite() {
        let folder = tempfile::tempdir().unwrap();
        let error = Suite::find(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("wstest"), "{error}");
        for place in ["venv/bin", "bin"] {
            let programs = folder.path().join(place);
            fs::create_dir_all(&programs).unwrap();
            fs::write(programs.join("wstest"), "").unwrap();
            fs::write(programs.join("python"), "").unwrap();
            let suite = Suite::find(Some(folder.path())).unwrap().unwrap();
            assert_eq!(suite.programs, programs);
        }
    }

    #[test]
    fn a_failed_installation_shows_its_last_lines() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason >&2; exit 1"]);
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        let error = step(command, "it", &Interrupt::default(), &mut say).unwrap_err().to_string();
        assert!(error.contains("installing it") && error.contains("the reason"), "{error}");
        assert_eq!(said, ["  it"]);
    }
}
