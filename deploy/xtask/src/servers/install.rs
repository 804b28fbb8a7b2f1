//! What the servers need on this machine, installed when it is missing and we may.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::kind::Kind;
use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::on_path;

/// What is fetched for Kafka, and in which version.
const POM: &str = include_str!("../../../local/kafka/pom.xml");
/// Packages and jars come over the network.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Where servers are that are not on everybody's path.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// A program, the Debian package it comes from and the oldest version that will do.
struct Need {
    program: &'static str,
    packages: &'static [&'static str],
    oldest: Option<(u32, u32)>,
}

const JAVA: Need =
    Need { program: "java", packages: &["default-jre-headless"], oldest: Some((17, 0)) };
const MAVEN: Need = Need { program: "mvn", packages: &["maven"], oldest: None };
const MARIADB: [Need; 2] = [
    Need {
        program: "mariadbd",
        // Without the package that also sets up a service.
        packages: &["mariadb-server-core", "mariadb-client-core"],
        oldest: Some((10, 6)),
    },
    Need { program: "mariadb-install-db", packages: &["mariadb-server-core"], oldest: None },
];
const REDIS: Need =
    Need { program: "redis-server", packages: &["redis-server"], oldest: Some((6, 2)) };
const ETCD: Need = Need { program: "etcd", packages: &["etcd-server"], oldest: Some((3, 4)) };

/// Makes sure that these servers can be started. Returns the folder of Kafka's jars.
///
/// # Errors
/// When something is missing and cannot be installed, or is too old: with the command that helps.
pub(super) fn ensure(
    kinds: &[Kind],
    cache: &Path,
    interrupt: &Interrupt,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<PathBuf> {
    let jars = kafka_folder(cache);
    let with_kafka = kinds.contains(&Kind::Kafka);
    let fetch = with_kafka && !is_complete(&jars);
    let mut needs: Vec<&Need> = Vec::new();
    for kind in kinds {
        match kind {
            Kind::Kafka => needs.push(&JAVA),
            Kind::MariaDb => needs.extend(&MARIADB),
            Kind::Redis => needs.push(&REDIS),
            Kind::Etcd => needs.push(&ETCD),
        }
    }
    if fetch {
        needs.push(&MAVEN);
    }
    packages(&needs, interrupt, say)?;
    needs.iter().try_for_each(|need| check_version(need))?;
    if fetch {
        fetch_kafka(&jars, interrupt, say)?;
    }
    Ok(jars.join("libs"))
}

/// The folder of Kafka's jars, fetched or not.
pub(super) fn jars(cache: &Path) -> PathBuf {
    kafka_folder(cache).join("libs")
}

fn kafka_folder(cache: &Path) -> PathBuf {
    cache.join(format!("kafka-{}", kafka_version()))
}

/// A program on the path or among the system's servers.
///
/// # Errors
/// When it is nowhere.
pub(super) fn program(name: &str) -> anyhow::Result<PathBuf> {
    locate(name).with_context(|| format!("{name} is not installed"))
}

fn locate(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn packages(
    needs: &[&Need],
    interrupt: &Interrupt,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for need in needs.iter().filter(|need| locate(need.program).is_none()) {
        names.extend(need.packages.iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    if names.is_empty() {
        return Ok(());
    }
    let list = names.join(" ");
    if !rustix::process::geteuid().is_root() || !on_path("apt-get") {
        bail!(
            "missing on this machine: {list}; install with: \
             sudo apt-get install --no-install-recommends {list}"
        );
    }
    say(&format!("installing {list}"));
    let mut apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-q"]).args(arguments);
        run(&mut command, "apt-get", interrupt, say)
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], &names[..]].concat())
}

/// Runs a command; what it says is shown when it fails.
fn run(
    command: &mut Command,
    what: &str,
    interrupt: &Interrupt,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut said = Vec::new();
    let ending = job::run(command, LIMIT, interrupt, |line| {
        let (Line::Out(text) | Line::Err(text)) = line;
        said.push(text);
    })?;
    if !ending.success() {
        said.iter().for_each(|line| say(line));
    }
    ending.check(what)
}

fn check_version(need: &Need) -> anyhow::Result<()> {
    let Some(oldest) = need.oldest else { return Ok(()) };
    let path = program(need.program)?;
    // Some write it to standard error, Java only knows one dash.
    let option = if need.program == "java" { "-version" } else { "--version" };
    let output = Command::new(&path)
        .arg(option)
        .output()
        .with_context(|| format!("cannot start {}", path.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let version =
        version_in(&text).with_context(|| format!("{} names no version", path.display()))?;
    if version < oldest {
        bail!(
            "{} is version {}.{}, needed is {}.{} or newer (Debian: {})",
            path.display(),
            version.0,
            version.1,
            oldest.0,
            oldest.1,
            need.packages.join(" ")
        );
    }
    Ok(())
}

/// The first two numbers with a dot between them.
fn version_in(text: &str) -> Option<(u32, u32)> {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    words
        .filter_map(|word| {
            let mut numbers = word.split('.');
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        })
        .next()
}

/// The version that the recipe names.
fn kafka_version() -> &'static str {
    let after = POM.split_once("<kafka.version>").map_or("", |(_, after)| after);
    after.split_once('<').map_or("", |(version, _)| version)
}

/// The recipe is copied last: with it the folder is whole, and of this recipe.
fn is_complete(jars: &Path) -> bool {
    fs::read_to_string(jars.join("pom.xml")).is_ok_and(|recipe| recipe == POM)
}

fn fetch_kafka(
    jars: &Path,
    interrupt: &Interrupt,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let shown = jars.display();
    fs::create_dir_all(jars).with_context(|| format!("cannot make {shown}"))?;
    let lock = File::create(jars.join("lock")).context("cannot lock the folder of Kafka")?;
    lock.lock().context("cannot lock the folder of Kafka")?;
    if is_complete(jars) {
        return Ok(());
    }
    say(&format!("fetching Kafka {} from Maven Central (54 MB, once)", kafka_version()));
    let libs = jars.join("libs");
    if libs.exists() {
        fs::remove_dir_all(&libs).with_context(|| format!("cannot clear {shown}"))?;
    }
    let recipe = jars.join("recipe.xml");
    fs::write(&recipe, POM).with_context(|| format!("cannot write {}", recipe.display()))?;
    let mut command = Command::new("mvn");
    command
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(&recipe)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", libs.display()));
    run(&mut command, "fetching Kafka with mvn", interrupt, say)?;
    fs::rename(&recipe, jars.join("pom.xml")).context("cannot finish the folder of Kafka")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let samples = [
            ("mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu", (10, 11)),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", (7, 0)),
            ("etcd Version: 3.4.23\nGit SHA: 8abc1f5\nGo Version: go1.19.8", (3, 4)),
            ("openjdk version \"17.0.15\" 2025-04-15", (17, 0)),
        ];
        for (text, version) in samples {
            assert_eq!(version_in(text), Some(version), "{text}");
        }
        assert_eq!(version_in("command not found"), None);
    }

    #[test]
    fn the_recipe_names_kafka() {
        let numbers: Vec<u32> =
            kafka_version().split('.').map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 3, "{}", kafka_version());
        assert!(POM.contains("<version>${kafka.version}</version>"));
    }

    #[test]
    fn a_folder_counts_with_this_recipe_only() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_complete(folder.path()));
        fs::write(folder.path().join("pom.xml"), "<project/>").unwrap();
        assert!(!is_complete(folder.path()));
        fs::write(folder.path().join("pom.xml"), POM).unwrap();
        assert!(is_complete(folder.path()));
    }
}
