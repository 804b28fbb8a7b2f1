//! Everything that can be set, in one table: as an option, as an environment variable, in the file.
//! An option wins over the environment, the environment over the file, the file over the default.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};
use codec::ws::deflate::{Config, WindowBits};
use gateway::config::{IoChoice, cores};
use gateway::limits::{Admission, Limits};
use logic_svc::domain::device::DevicePolicies;

/// All settings with their types.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) shards: usize,
    pub(crate) dev_login: bool,
    pub(crate) io: IoChoice,
    pub(crate) web_dir: Option<PathBuf>,
    pub(crate) log: String,
    pub(crate) admission: Admission,
    pub(crate) max_connections_per_user: usize,
    pub(crate) device_policy: DevicePolicies,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) query_token: bool,
    pub(crate) access_token_s: u64,
    pub(crate) refresh_token_s: u64,
    #[cfg(feature = "fault-injection")]
    pub(crate) fault: Option<logic_svc::config::Fault>,
    pub(crate) limits: Limits,
    /// `None`: the system's.
    pub(crate) congestion_control: Option<String>,
    pub(crate) deflate: bool,
    /// What is agreed to under `deflate`.
    pub(crate) compression: Config,
}

impl Default for Settings {
    fn default() -> Self {
        let logic = logic_svc::config::Config::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data_dir: PathBuf::from(".corelane"),
            shards: cores(),
            dev_login: false,
            io: IoChoice::Auto,
            web_dir: None,
            log: "info".to_owned(),
            admission: Admission::default(),
            max_connections_per_user: logic.max_connections_per_user,
            device_policy: DevicePolicies::default(),
            allowed_origins: Vec::new(),
            query_token: false,
            access_token_s: logic.access_token_s,
            refresh_token_s: logic.refresh_token_s,
            #[cfg(feature = "fault-injection")]
            fault: None,
            limits: Limits::default(),
            congestion_control: None,
            deflate: false,
            compression: Config::DEFAULT,
        }
    }
}

/// One setting: its key in the file; the option and the variable follow from it.
struct Setting {
    key: &'static str,
    help: &'static str,
    /// Completes "... must be".
    allowed: &'static str,
    flag: bool,
    /// Takes the text in; `None` when it is not allowed.
    set: fn(&mut Settings, &str) -> Option<()>,
}

fn within<T: std::str::FromStr + PartialOrd>(text: &str, low: T, high: T) -> Option<T> {
    text.parse().ok().filter(|value| (low..=high).contains(value))
}

macro_rules! number {
    ($key:literal, $help:literal, $allowed:literal, $low:literal..=$high:literal, $($field:ident).+) => {
        Setting {
            key: $key, help: $help, allowed: $allowed, flag: false,
            set: |settings, text| { settings.$($field).+ = within(text, $low, $high)?; Some(()) },
        }
    };
}

macro_rules! setting {
    ($key:literal, $help:literal, $allowed:literal, $flag:literal, $set:expr) => {
        Setting { key: $key, help: $help, allowed: $allowed, flag: $flag, set: $set }
    };
}

#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    setting!("listen", "Address and port for clients; port 0 picks one [127.0.0.1:8080]", "an address and a port such as 127.0.0.1:8080", false,
        |s, text| { s.listen = text.parse().ok()?; Some(()) }),
    setting!("data_dir", "Folder of the database and keys, made at first start [.corelane]", "a path", false,
        |s, text| { s.data_dir = non_empty(text)?; Some(()) }),
    number!("shards", "Gateway threads, one core each [cores]", "a number from 1 to 1024", 1..=1024, shards),
    setting!("dev_login", "Log in by mere name (ws://HOST/ws?user_id=NAME); loopback only [false]", "true or false", true,
        |s, text| { s.dev_login = text.parse().ok()?; Some(()) }),
    setting!("io", "How shards do I/O: auto, io_uring, epoll, glommio [auto]", "auto, io_uring, epoll or glommio", false,
        |s, text| { s.io = text.parse().ok()?; Some(()) }),
    setting!("web_dir", "Folder of the built web page served at / [none]", "a path", false,
        |s, text| { s.web_dir = Some(non_empty(text)?); Some(()) }),
    setting!("log", "What is logged to stderr: error, warn, info, debug, or filters such as gateway=debug [info]", "a level or a list of filters", false,
        |s, text| { text.parse::<tracing_subscriber::EnvFilter>().ok()?; text.clone_into(&mut s.log); Some(()) }),
    number!("max_connections", "Connections in all; 0: as many as the open-file limit allows [0]", "a number from 0 to 100000000", 0..=100_000_000, admission.max_connections),
    number!("max_connections_per_address", "Connections of one address (IPv6: of one /64 network); 0: any number, right behind a proxy [0]", "a number from 0 to 100000000", 0..=100_000_000, admission.max_per_address),
    number!("max_connections_per_user", "Connections of one user; the same device takes its old place [32]", "a number from 1 to 1000000", 1..=1_000_000, max_connections_per_user),
    setting!("device_policy", "Devices of a class a user may have in, CLASS=POLICY separated by commas: allow, kick_old (a newer one closes the older), refuse_new (a second one is refused) [empty]", "CLASS=allow, CLASS=kick_old or CLASS=refuse_new, separated by commas, each class once", false,
        |s, text| { s.device_policy = DevicePolicies::parse(text.split(','))?; Some(()) }),
    number!("connections_per_second", "New connections a second in the long run; 0: any number [0]", "a number from 0 to 1000000", 0.0..=1e6, admission.connections_per_second),
    number!("connection_burst", "New connections at once after a pause [1000]", "a number from 1 to 1000000", 1..=1_000_000, admission.connection_burst),
    number!("max_logins", "Logins that may be under way before others are sent away with a delay [8192]", "a number from 1 to 1000000", 1..=1_000_000, admission.max_logins),
    setting!("allowed_origins", "Origins that browser pages may come from, separated by commas; empty: any [empty]", "origins such as https://chat.example.org, separated by commas", false,
        |s, text| { s.allowed_origins = origins(text)?; Some(()) }),
    setting!("query_token", "Accept the token as ?token= too [false]", "true or false", true,
        |s, text| { s.query_token = text.parse().ok()?; Some(()) }),
    number!("access_token_s", "Lifetime of an access token in seconds [900]", "a number from 10 to 86400", 10..=86_400, access_token_s),
    number!("refresh_token_s", "Lifetime of a refresh token in seconds [2592000]", "a number from 60 to 31536000", 60..=31_536_000, refresh_token_s),
    number!("heartbeat_ms", "How often a client has to send something [30000]", "a number from 100 to 3600000", 100..=3_600_000, limits.heartbeat_ms),
    number!("heartbeat_misses", "Silent heartbeats after which a connection is closed [3]", "a number from 1 to 100", 1..=100, limits.heartbeat_misses),
    number!("handshake_ms", "From connecting to being logged in, in total [10000]", "a number from 100 to 600000", 100..=600_000, limits.handshake_ms),
    number!("messages_per_second", "Messages a connection may send in the long run [1]", "a number from 0.001 to 1000000", 0.001..=1e6, limits.messages_per_second),
    number!("message_burst", "Messages a connection may send at once [5]", "a number from 1 to 1000000", 1..=1_000_000, limits.message_burst),
    number!("requests_per_second", "Other requests a connection may make in the long run [20]", "a number from 0.001 to 1000000", 0.001..=1e6, limits.requests_per_second),
    number!("request_burst", "Other requests a connection may make at once [100]", "a number from 1 to 1000000", 1..=1_000_000, limits.request_burst),
    number!("idle_frames_per_second", "Pings, heartbeats and refused requests a connection may send in the long run [50]", "a number from 1 to 1000", 1..=1_000, limits.idle_frames_per_second),
    number!("idle_frame_burst", "Such frames at once; at most 65 times the number a second [1000]", "a number from 10 to 65000", 10..=65_000, limits.idle_frame_burst),
    number!("content_max_bytes", "Longest content of a message [4096]", "a number from 1 to 65536", 1..=65_536, limits.content_max_bytes),
    number!("max_message_bytes", "Largest WebSocket message or binary frame [65536]", "a number from 1024 to 67108864", 1024..=67_108_864, limits.max_message_bytes),
    number!("max_fragments", "Fragments a WebSocket message may come in [1024]", "a number from 1 to 1000000", 1..=1_000_000, limits.max_fragments),
    number!("max_head_bytes", "Largest HTTP head of a handshake [8192]", "a number from 1024 to 65536", 1024..=65_536, limits.max_head_bytes),
    number!("outbound_bytes", "Bytes that may wait for a connection that reads slowly [262144]", "a number from 4096 to 1073741824", 4096..=1_073_741_824, limits.outbound_bytes),
    setting!("congestion_control", "What paces connections, such as reno, cubic or bbr; empty: the system's [empty]", "the name of an algorithm that the kernel has", false,
        |s, text| { s.congestion_control = Some(text.to_owned()).filter(|name| !name.is_empty()); Some(()) }),
    setting!("deflate", "Agree to compressed WebSocket messages, permessage-deflate [false]", "true or false", true,
        |s, text| { s.deflate = text.parse().ok()?; Some(()) }),
    setting!("deflate_window_bits", "Largest window of compressed messages in bits, both directions [15]", "a number from 9 to 15", false, |s, text| {
        let bits = WindowBits::new(within(text, 9, 15)?)?;
        (s.compression.server_max_window_bits, s.compression.client_max_window_bits) = (bits, bits);
        Some(())
    }),
    setting!("deflate_context_takeover", "Compressed messages may refer to earlier ones: smaller, for up to two windows of memory a connection [false]", "true or false", true, |s, text| {
        let on = text.parse().ok()?;
        (s.compression.server_context_takeover, s.compression.client_context_takeover) = (on, on);
        Some(())
    }),
    number!("deflate_level", "Effort of the compressor, 1 (fast) to 9 (small) [1]", "a number from 1 to 9", 1..=9, compression.level),
    number!("deflate_min_bytes", "Shortest message that is compressed [256]", "a number from 0 to 67108864", 0..=67_108_864, compression.min_bytes),
    #[cfg(feature = "fault-injection")]
    setting!("fault", "Tests only: no_unique_key or ack_before_commit", "no_unique_key or ack_before_commit", false, |s, text| {
        s.fault = Some(match text {
            "no_unique_key" => logic_svc::config::Fault::NoUniqueKey,
            "ack_before_commit" => logic_svc::config::Fault::AckBeforeCommit,
            _ => return None,
        });
        Some(())
    }),
];

fn non_empty(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn origins(text: &str) -> Option<Vec<String>> {
    let list = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    list.map(|origin| origin.contains("://").then(|| origin.to_owned())).collect()
}

/// A setting that cannot be; one sentence that names the key, the value and what is allowed.
#[derive(Debug, PartialEq)]
pub(crate) struct Invalid(pub(crate) String);

impl Settings {
    /// Reads options, environment and file. Ends the process for `--help`, `--version` and bad options,
    /// as command line programs do.
    pub(crate) fn load() -> Result<Self, Invalid> {
        let matches = command().get_matches();
        let option = |key: &str| matches.get_one::<String>(key).cloned();
        Self::merge(option, |name| std::env::var_os(name))
    }

    fn merge(
        option: impl Fn(&str) -> Option<String>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Invalid> {
        let mut settings = Self::default();
        let variable = |key: &str| {
            let name = variable_of(key);
            let Some(value) = variable(&name) else { return Ok(None) };
            value.into_string().map(Some).map_err(|_| Invalid(format!("{name} is not UTF-8")))
        };
        if let Some(path) =
            option("config").map_or_else(|| variable("config"), |path| Ok(Some(path)))?
        {
            settings.read_file(&path)?;
        }
        for setting in SETTINGS {
            if let Some(value) = variable(setting.key)? {
                settings.apply(
                    setting,
                    &value,
                    &format!("the environment's {}", variable_of(setting.key)),
                )?;
            }
            if let Some(value) = option(setting.key) {
                settings.apply(setting, &value, &format!("--{}", setting.key.replace('_', "-")))?;
            }
        }
        settings.check()
    }

    fn apply(&mut self, setting: &Setting, value: &str, place: &str) -> Result<(), Invalid> {
        (setting.set)(self, value).ok_or_else(|| {
            Invalid(format!("{place} is \"{value}\" but must be {}", setting.allowed))
        })
    }

    fn read_file(&mut self, path: &str) -> Result<(), Invalid> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Invalid(format!("the configuration file {path} cannot be read: {error}"))
        })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            Invalid(format!("the configuration file {path} is not TOML: {}", error.message()))
        })?;
        for (key, value) in &table {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                return Err(Invalid(format!(
                    "{path} sets \"{key}\", which is no setting (see corelane --help)"
                )));
            };
            let value = text_of(value)
                .ok_or_else(|| Invalid(format!("{key} in {path} must be {}", setting.allowed)))?;
            self.apply(setting, &value, &format!("{key} in {path}"))?;
        }
        Ok(())
    }

    /// What must hold between settings.
    fn check(self) -> Result<Self, Invalid> {
        if self.dev_login && !self.listen.ip().is_loopback() {
            return Err(Invalid(format!(
                "dev_login is true but listen is {}: logging in by mere name is allowed only on a loopback address such as 127.0.0.1:8080",
                self.listen
            )));
        }
        if self.limits.max_message_bytes < self.limits.content_max_bytes {
            return Err(Invalid(format!(
                "max_message_bytes is {} but must be at least content_max_bytes, which is {}",
                self.limits.max_message_bytes, self.limits.content_max_bytes
            )));
        }
        if self.limits.idle_frame_burst > 65 * self.limits.idle_frames_per_second {
            return Err(Invalid(format!(
                "idle_frame_burst is {} but must be at most 65 times idle_frames_per_second, which is {}",
                self.limits.idle_frame_burst, self.limits.idle_frames_per_second
            )));
        }
        Ok(self)
    }
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
            Some(value.to_string())
        }
        toml::Value::Array(list) => list
            .iter()
            .map(toml::Value::as_str)
            .collect::<Option<Vec<_>>>()
            .map(|list| list.join(",")),
        _ => None,
    }
}

fn variable_of(key: &str) -> String {
    format!("CORELANE_{}", key.to_uppercase())
}

fn command() -> Command {
    let command = Command::new("corelane")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Chat backend in one process: gateway, logic service and store")
        .after_help("Every option is also an environment variable (CORELANE_LISTEN, ...) and a key of the file (listen = ..., with underscores).")
        .arg(Arg::new("config").long("config").value_name("FILE").help("TOML file with these settings"));
    SETTINGS.iter().fold(command, |command, setting| {
        let arg = Arg::new(setting.key)
            .long(setting.key.replace('_', "-"))
            .help(setting.help)
            .action(ArgAction::Set);
        command.arg(if setting.flag {
            arg.num_args(0..=1)
                .default_missing_value("true")
                .require_equals(true)
                .value_name("BOOL")
        } else {
            arg.value_name("VALUE").allow_hyphen_values(true)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn merged(options: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Settings, Invalid> {
        let map = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (options, variables) = (map(options), map(variables));
        Settings::merge(
            |key| options.get(key).cloned(),
            |name| variables.get(name).map(OsString::from),
        )
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
        let matches = command()
            .try_get_matches_from(["corelane", "--dev-login", "--listen", "127.0.0.1:0"])
            .unwrap();
        assert_eq!(matches.get_one::<String>("dev_login").unwrap(), "true");
    }

    #[test]
    fn option_wins_over_environment_over_file() {
        let file = file(
            "shards = 3\nheartbeat_ms = 1000\nlog = \"warn\"\nallowed_origins = [\"https://a.b\", \"http://c\"]\n",
        );
        let path = file.path().to_str().unwrap();
        let settings = merged(
            &[("config", path), ("shards", "5")],
            &[("CORELANE_SHARDS", "4"), ("CORELANE_HEARTBEAT_MS", "2000")],
        )
        .unwrap();
        assert_eq!(
            (settings.shards, settings.limits.heartbeat_ms, settings.log.as_str()),
            (5, 2000, "warn")
        );
        assert_eq!(settings.allowed_origins, ["https://a.b", "http://c"]);
    }

    #[test]
    fn a_fault_names_key_value_and_what_is_allowed() {
        for (options, variables, parts) in [
            (vec![("listen", "nowhere")], vec![], ["--listen", "nowhere", "address and a port"]),
            (
                vec![],
                vec![("CORELANE_SHARDS", "0")],
                ["CORELANE_SHARDS", "\"0\"", "from 1 to 1024"],
            ),
            (
                vec![("io", "kqueue")],
                vec![],
                ["--io", "kqueue", "auto, io_uring, epoll or glommio"],
            ),
            (
                vec![("dev_login", "true"), ("listen", "0.0.0.0:80")],
                vec![],
                ["dev_login", "0.0.0.0:80", "loopback"],
            ),
            (
                vec![("messages_per_second", "NaN")],
                vec![],
                ["--messages-per-second", "NaN", "0.001"],
            ),
        ] {
            let Invalid(sentence) = merged(&options, &variables).unwrap_err();
            assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }

    #[test]
    fn faults_in_the_file_name_the_file() {
        for (text, part) in [
            ("shards = 0", "from 1 to 1024"),
            ("shard = 2", "no setting"),
            ("shards = [", "not TOML"),
            ("[shards]\nx = 1", "from 1 to 1024"),
        ] {
            let file = file(text);
            let path = file.path().to_str().unwrap();
            let Invalid(sentence) = merged(&[("config", path)], &[]).unwrap_err();
            assert!(
                sentence.contains(path) && sentence.contains(part) && !sentence.contains('\n'),
                "{sentence}"
            );
        }
        assert!(
            merged(&[("config", "/no/such/file")], &[]).unwrap_err().0.contains("/no/such/file")
        );
    }

    /// What the help says in brackets is what holds.
    #[test]
    fn the_defaults_in_the_help_are_the_defaults() {
        for setting in SETTINGS {
            let Some((_, default)) = setting.help.rsplit_once('[') else { continue };
            let default = default.trim_end_matches(']');
            if ["cores", "none", "empty"].contains(&default) {
                continue;
            }
            let mut changed = Settings::default();
            assert_eq!((setting.set)(&mut changed, default), Some(()), "{}", setting.key);
            assert_eq!(changed, Settings::default(), "{}", setting.key);
        }
    }
}
