//! How each server is prepared once and started: options, files, memory.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::install::program;
use super::kind::Kind;
use crate::daemon::{Mark, Program};
use crate::interrupt::Interrupt;
use crate::job::{self, Line};

const KAFKA_PROPERTIES: &str = include_str!("../../../local/kafka/server.properties");
const KAFKA_LOGGING: &str = include_str!("../../../local/kafka/log4j2.properties");
/// Written last: with it the data folder is whole.
const PREPARED: &str = "prepared";
/// What a server says goes to this file of its folder.
pub(super) const LOG: &str = "log";
/// Preparing takes seconds; a busy machine may be slower.
const LIMIT: Duration = Duration::from_secs(180);

/// One server of a set: where it keeps its files and which ports it has.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// A folder of its own.
    pub(super) folder: PathBuf,
    pub(super) ports: Vec<u16>,
    /// The port it names to clients, where it does so.
    pub(super) advertised: u16,
    /// Further options.
    pub(super) options: Vec<OsString>,
    /// Where Kafka's jars are.
    pub(super) jars: PathBuf,
    /// By which tools that prepare the data folder are found when we were killed meanwhile.
    pub(super) tools: Mark,
}

impl Place {
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// MariaDB deletes what it finds in its folder for temporary files when it starts: in one of the whole machine
    /// that may be the tables with which another one is being prepared.
    fn temporary(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    fn port(&self, at: usize) -> u16 {
        self.ports.get(at).copied().unwrap_or_default()
    }

    /// Writes its configuration, and makes its data folder at the first start. What an
    /// interrupted preparation left is thrown away.
    ///
    /// # Errors
    /// When files cannot be written or the server's own tool fails.
    pub(super) fn prepare(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let data = self.data();
        let prepared = self.folder.join(PREPARED);
        if !prepared.exists() && self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot clear {}", self.folder.display()))?;
        }
        for folder in [data, self.temporary()] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        for (name, content) in self.files() {
            let path = self.folder.join(name);
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if prepared.exists() {
            return Ok(());
        }
        match self.kind {
            Kind::Kafka => self.format_kafka(interrupt)?,
            Kind::MariaDb => self.install_mariadb(interrupt)?,
            Kind::Redis | Kind::Etcd => {}
        }
        fs::write(&prepared, "").context("cannot finish a data folder")
    }

    /// What to run.
    ///
    /// # Errors
    /// When its program is not installed.
    pub(super) fn program(&self) -> anyhow::Result<Program> {
        let (name, mut arguments) = match self.kind {
            Kind::Kafka => ("java", self.kafka()),
            Kind::MariaDb => ("mariadbd", self.mariadb()),
            Kind::Redis => ("redis-server", vec![self.folder.join("server.conf").into()]),
            Kind::Etcd => ("etcd", self.etcd()),
        };
        arguments.extend(self.options.iter().cloned());
        Ok(Program {
            path: program(name)?,
            arguments,
            environment: Vec::new(),
            folder: self.folder.clone(),
            log: self.log(),
        })
    }

    fn files(&self) -> Vec<(&'static str, String)> {
        match self.kind {
            Kind::Kafka => {
                let text = KAFKA_PROPERTIES
                    .replace("{PORT}", &self.port(0).to_string())
                    .replace("{ADVERTISED_PORT}", &self.advertised.to_string())
                    .replace("{CONTROLLER_PORT}", &self.port(1).to_string())
                    .replace("{DATA}", &self.data().display().to_string());
                vec![("server.properties", text), ("log4j2.properties", KAFKA_LOGGING.into())]
            }
            Kind::Redis => vec![("server.conf", self.redis_conf())],
            Kind::MariaDb | Kind::Etcd => Vec::new(),
        }
    }

    /// `-Xmx512m`: the JVM takes about 400 MB in all under our loads. Without its optimising compiler, which takes up to
    /// a fifth of two cores in the first minutes: servers of this kind seldom live longer.
    fn kafka(&self) -> Vec<OsString> {
        let mut arguments = words(
            "-Xms256m -Xmx512m -XX:+UseG1GC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError",
        );
        arguments.push("-Dlog4j2.configurationFile=log4j2.properties".into());
        arguments.push("-cp".into());
        arguments.push(self.jars.join("*").into());
        arguments.extend(words("kafka.Kafka server.properties"));
        arguments
    }

    fn mariadb(&self) -> Vec<OsString> {
        let mut arguments = words("--no-defaults --bind-address=127.0.0.1 --skip-log-bin");
        arguments.extend(as_root());
        arguments.push(option("--datadir", &self.data()));
        arguments.push(option("--tmpdir", &self.temporary()));
        // Beside its data, which is its current folder: full paths may be too long for a socket.
        arguments.push("--socket=mariadb.sock".into());
        arguments.push(format!("--port={}", self.port(0)).into());
        // Durable at every commit: that is what an acknowledgement means.
        arguments.extend(words(
            "--innodb-flush-log-at-trx-commit=1 --innodb-buffer-pool-size=256M \
             --max-connections=300 --character-set-server=utf8mb4 \
             --collation-server=utf8mb4_bin --skip-name-resolve --performance-schema=OFF",
        ));
        arguments
    }

    /// A full memory is an error to the writer: routes must not vanish unseen. Kept in a log
    /// synced every second, so that a killed server comes back with what it had.
    fn redis_conf(&self) -> String {
        let lines = [
            ("bind", "127.0.0.1"),
            ("protected-mode", "yes"),
            ("port", &self.port(0).to_string()),
            ("dir", &format!("\"{}\"", self.data().display())),
            ("maxmemory", "256mb"),
            ("maxmemory-policy", "noeviction"),
            ("save", "\"\""),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("daemonize", "no"),
            // Its title would overwrite the environment by which it is found again.
            ("set-proc-title", "no"),
        ];
        lines.iter().fold(String::new(), |mut text, (key, value)| {
            let _ = writeln!(text, "{key} {value}");
            text
        })
    }

    fn etcd(&self) -> Vec<OsString> {
        let clients = format!("http://127.0.0.1:{}", self.port(0));
        let peers = format!("http://127.0.0.1:{}", self.port(1));
        let mut arguments =
            words("--name default --logger zap --log-level warn --quota-backend-bytes 536870912");
        arguments.extend([OsString::from("--data-dir"), self.data().into()]);
        for name in ["--listen-client-urls", "--advertise-client-urls"] {
            arguments.extend([name, &clients].map(OsString::from));
        }
        for name in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            arguments.extend([name, &peers].map(OsString::from));
        }
        arguments.extend(["--initial-cluster", &format!("default={peers}")].map(OsString::from));
        arguments
    }

    fn format_kafka(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let mut command = Command::new(program("java")?);
        command
            .current_dir(&self.folder)
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1"])
            .args(["-Dlog4j2.configurationFile=log4j2.properties", "-cp"])
            .arg(self.jars.join("*"))
            .args(["kafka.tools.StorageTool", "format", "--standalone"])
            .args(["-c", "server.properties", "-t", &cluster_id()?]);
        self.run(&mut command, "formatting Kafka's data folder", interrupt)
    }

    fn install_mariadb(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let mut command = Command::new(program("mariadb-install-db")?);
        self.tell_install(&mut command);
        self.run(&mut command, "mariadb-install-db", interrupt)
    }

    fn tell_install(&self, command: &mut Command) {
        command
            .current_dir(&self.folder)
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .args(as_root())
            .arg(option("--datadir", &self.data()))
            // It does not pass on the option.
            .env("TMPDIR", self.temporary());
    }

    fn run(&self, command: &mut Command, what: &str, interrupt: &Interrupt) -> anyhow::Result<()> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.tools.put_on(command);
        let mut said = String::new();
        let ending = job::run(command, LIMIT, interrupt, |line| {
            let (Line::Out(text) | Line::Err(text)) = line;
            said.push_str("\n  ");
            said.push_str(&text);
        })?;
        ending.check(what).map_err(|error| anyhow!("{error}{said}"))
    }
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push("=");
    option.push(path);
    option
}

/// MariaDB runs as root only when told so.
fn as_root() -> Vec<OsString> {
    if rustix::process::geteuid().is_root() { words("--user=root") } else { Vec::new() }
}

/// Sixteen random bytes in base64 for URLs, as Kafka's own tool would choose them.
fn cluster_id() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(url_base64(&bytes))
}

fn url_base64(bytes: &[u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = u128::from_be_bytes(*bytes);
    // 22 digits of six bits; the last one holds two bits and four zeros.
    let digit = |at: u32| {
        let value = if at < 21 { number >> (122 - 6 * at) } else { number << 4 } & 63;
        char::from(DIGITS[usize::try_from(value).unwrap_or_default()])
    };
    let text: String = (0..22).map(digit).collect();
    // A first dash would be taken for an option.
    if let Some(rest) = text.strip_prefix('-') { format!("A{rest}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(kind: Kind) -> Place {
        let ports = vec![21_001, 21_002];
        let tools = Mark::new(Path::new("/"), "tools").unwrap();
        let (advertised, options) = (21_003, vec!["--more".into()]);
        let (folder, jars) = ("/f".into(), "/jars".into());
        Place { kind, folder, ports, advertised, options, jars, tools }
    }

    #[test]
    fn templates_are_filled_in() {
        for kind in Kind::ALL {
            for (name, content) in place(kind).files() {
                let left = content.lines().any(|line| !line.starts_with('#') && line.contains('{'));
                assert!(!left || name.contains("log4j"), "{name}: {content}");
            }
        }
        let (_, properties) = place(Kind::Kafka).files().remove(0);
        for (key, port) in [("\nlisteners", 21001), ("\nadvertised.listeners", 21003)] {
            let line = format!("{key}=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:21002");
            assert!(properties.contains(&line), "{line} in {properties}");
        }
        assert!(properties.contains("log.dirs=/f/data\n"));
    }

    #[test]
    fn every_server_stays_on_loopback_and_in_its_folder() {
        for kind in [Kind::MariaDb, Kind::Etcd] {
            let place = place(kind);
            let arguments = if kind == Kind::Etcd { place.etcd() } else { place.mariadb() };
            let line: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
            let line = line.join(" ");
            assert!(line.contains("127.0.0.1") && line.contains("21001"), "{line}");
            assert!(line.contains("/f/data") && !line.contains("=/tmp"), "{line}");
        }
        let line = place(Kind::MariaDb).mariadb();
        assert!(line.contains(&"--tmpdir=/f/tmp".into()), "{line:?}");
        let mut install = Command::new("mariadb-install-db");
        place(Kind::MariaDb).tell_install(&mut install);
        let variables: Vec<_> = install.get_envs().collect();
        assert_eq!(variables, [("TMPDIR".as_ref(), Some("/f/tmp".as_ref()))]);
        let conf = place(Kind::Redis).redis_conf();
        assert!(conf.contains("bind 127.0.0.1\n") && conf.contains("port 21001\n"), "{conf}");
    }

    #[test]
    fn cluster_ids_are_base64_for_urls() {
        assert_eq!(url_base64(&[0; 16]), "A".repeat(22));
        assert_eq!(url_base64(&[0xff; 16]), format!("{}w", "_".repeat(21)));
        let counted: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(url_base64(&counted), "AAECAwQFBgcICQoLDA0ODw");
        assert_ne!(cluster_id().unwrap(), cluster_id().unwrap());
    }
}
