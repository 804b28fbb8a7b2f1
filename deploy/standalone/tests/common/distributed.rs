//! The cluster form of the same server: gateways and logic services of its own on real Kafka, MySQL, Redis and
//! etcd, kept apart from others by names made from the data folder. A second start with the same folder finds what
//! the first one stored.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The servers, as `cargo xtask servers env` names them.
struct Servers {
    kafka: String,
    mysql: String,
    redis: String,
    etcd: String,
}

/// Whether the tests run against the cluster form.
pub fn wanted() -> bool {
    std::env::var("CORELANE_TEST_FORM").is_ok_and(|form| form == "cluster")
}

fn servers() -> Servers {
    let named = |name: &str| {
        std::env::var(name)
            .unwrap_or_else(|_| panic!("{name} is not set: see `cargo xtask servers env`"))
    };
    Servers {
        kafka: named("CORELANE_TEST_KAFKA"),
        mysql: named("CORELANE_TEST_MYSQL"),
        redis: named("CORELANE_TEST_REDIS"),
        etcd: named("CORELANE_TEST_ETCD"),
    }
}

/// How many of each; three unless CORELANE_TEST_NODES says otherwise.
fn nodes() -> usize {
    std::env::var("CORELANE_TEST_NODES").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

/// The binary of this name, built with the feature `cluster`: in the folder that CORELANE_TEST_BINARIES names, else
/// beside `corelane`.
fn binary(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_corelane")).parent().unwrap().to_path_buf();
    let folder = std::env::var_os("CORELANE_TEST_BINARIES").map_or(beside, PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: cargo build -p {name} --features cluster",
        path.display()
    );
    path
}

/// Started processes, logic services first, and the gateways' addresses.
pub struct Started {
    pub processes: Vec<Child>,
    pub addrs: Vec<String>,
}

/// Starts a cluster for this data folder. `options` are those of `corelane`; each goes to whoever knows it.
pub fn start(data: &Path, options: &[&str]) -> Started {
    let name = data.file_name().unwrap().to_string_lossy();
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let (logic, gateway) = (Known::of("logic-svc"), Known::of("gateway"));
    // The first one makes database, topics and keys; the others find them.
    let mut processes = Vec::new();
    for n in 1..=nodes() {
        let mut command = Command::new(binary("logic-svc"));
        let instance = format!("logic-{n}");
        let own = [
            ("instance", instance.as_str()),
            ("grpc-listen", "127.0.0.1:0"),
            ("http-listen", "127.0.0.1:0"),
        ];
        logic.tell(&mut command, &name, &own, options);
        processes.push(spawn(command, data, &instance));
    }
    for process in &mut processes {
        ready(process, "logic-svc ready");
    }
    let mut gateways = Vec::new();
    for n in 1..=nodes() {
        let mut command = Command::new(binary("gateway"));
        let id = format!("gateway-{n}");
        let own = [("gateway-id", id.as_str()), ("listen", "127.0.0.1:0"), ("shards", "2")];
        gateway.tell(&mut command, &name, &own, options);
        gateways.push(spawn(command, data, &id));
    }
    let addrs =
        gateways.iter_mut().map(|gateway| ready(gateway, "gateway ready on http://")).collect();
    processes.append(&mut gateways);
    Started { processes, addrs }
}

/// What a binary takes.
struct Known(&'static str);

impl Known {
    fn of(name: &str) -> Self {
        static HELP: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
        let help = HELP[usize::from(name == "gateway")].get_or_init(|| {
            let output = Command::new(binary(name)).arg("--help").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        Self(help)
    }

    fn takes(&self, option: &str) -> bool {
        self.0.split_whitespace().any(|word| word.trim_matches(|c| c == ',' || c == ']') == option)
    }

    fn tell(&self, command: &mut Command, name: &str, own: &[(&str, &str)], options: &[&str]) {
        let servers = servers();
        let (database, topics) = (format!("corelane_test_{name}"), format!("{name}-"));
        let (keys, root) = (format!("{name}:"), format!("/corelane-test-{name}"));
        let shared = [
            ("kafka", servers.kafka.as_str()),
            ("topic-prefix", &topics),
            ("mysql", &servers.mysql),
            ("database", &database),
            ("redis", &servers.redis),
            ("redis-prefix", &keys),
            ("etcd", &servers.etcd),
            ("etcd-root", &root),
            ("lease-ttl-s", "3"),
            ("log", "debug"),
        ];
        for (option, value) in own.iter().chain(&shared) {
            let option = format!("--{option}");
            if self.takes(&option) {
                command.args([option.as_str(), value]);
            }
        }
        let mut rest = options.iter().peekable();
        while let Some(option) = rest.next() {
            let value = rest.next_if(|next| !next.starts_with("--"));
            if self.takes(option) {
                command.arg(option).args(value);
            }
        }
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("CORELANE_")) {
            command.env_remove(variable);
        }
    }
}

/// Starts it; what it logs lies in the data folder.
fn spawn(mut command: Command, data: &Path, name: &str) -> Child {
    std::fs::create_dir_all(data).unwrap();
    let log =
        std::fs::File::options().create(true).append(true).open(data.join(format!("{name}.log")));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.unwrap());
    command.spawn().unwrap_or_else(|error| panic!("{name} starts: {error}"))
}

/// Waits for the ready line; gives what stands behind its beginning.
fn ready(process: &mut Child, begins: &str) -> String {
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let rest = line.trim_end().strip_prefix(begins);
    rest.unwrap_or_else(|| panic!("not a ready line: {line:?}")).to_owned()
}
