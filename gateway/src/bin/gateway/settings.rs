//! What can be set of the gateway in the cluster form.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cluster::settings::{Fault, Key, Kind, Outcome, Table, Values};
use cluster::{etcd, kafka};
use codec::ws::deflate::{Config, WindowBits};
use gateway::config::{GatewayConfig, IoChoice, cores};
use gateway::limits::{Admission, Limits};
use gateway::session::rules::{Access, Mode};

const fn whole(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

#[rustfmt::skip]
const OWN: &[Key] = &[
    Key::new("gateway_id", Kind::Text, "", "Name of this gateway, stable over restarts: letters, digits, . _ - (required)"),
    Key::new("listen", Kind::Address, "127.0.0.1:8080", "Address and port for clients; port 0 picks one"),
    Key::new("advertise", Kind::Endpoint, "", "Where others reach this gateway; empty: what it listens on"),
    Key::new("shards", whole(1, 1024), "", "Threads, one core each; empty: as many as there are cores"),
    Key::new("io", Kind::Choice(&["auto", "io_uring", "epoll", "glommio"]), "auto", "How shards do I/O"),
    Key::new("web_dir", Kind::Path, "", "Folder of the built web page served at /"),
    Key::new("log", Kind::Text, "info", "What is logged to stderr: error, warn, info, debug, or filters such as gateway=debug"),
    Key::new("metrics_listen", Kind::Address, "", "Address for Prometheus to scrape; empty: none"),
    Key::new("dev_login", Kind::Bool, "false", "Log in by mere name (ws://HOST/ws?user_id=NAME); loopback only"),
    Key::new("query_token", Kind::Bool, "false", "Accept the token as ?token= too"),
    Key::new("allowed_origins", Kind::List, "", "Origins that browser pages may come from; empty: any"),
    Key::new("calls_in_flight", whole(1, 256), "8", "Batches of requests that may be asked of the logic services at once"),
    Key::new("call_timeout", Kind::Duration { min_ms: 100, max_ms: 9_000 }, "5s", "How long an answer of the logic services is waited for"),
];

#[rustfmt::skip]
const SERVERS: &[Key] = &[
    Key::new("kafka", Kind::List, "127.0.0.1:9092", "Brokers to begin with"),
    Key::new("topic_prefix", Kind::Text, "", "Put before the name of every topic"),
    Key::new("upstream_partitions", whole(1, 10_000), "8", "Partitions of im-upstream, should it have to be made; must agree with the logic services' partitions"),
    Key::new("replication", whole(0, 100), "0", "Copies of topics that have to be made; 0: what Kafka has as its default"),
    Key::new("kafka_timeout", Kind::Duration { min_ms: 100, max_ms: 600_000 }, "5s", "After how long messages that Kafka does not take are refused"),
    Key::new("kafka_properties", Kind::List, "", "Further properties of librdkafka, NAME=VALUE each").secret(),
    Key::new("etcd", Kind::List, "http://127.0.0.1:2379", "URLs of etcd's members"),
    Key::new("etcd_root", Kind::Text, "/corelane", "What all keys in etcd begin with"),
    Key::new("lease_ttl_s", whole(1, 600), "5", "Seconds after which a gateway that does not answer is gone"),
];

#[rustfmt::skip]
const LIMITS: &[Key] = &[
    Key::new("max_connections", whole(0, 100_000_000), "0", "Connections in all; 0: as many as the open-file limit allows"),
    Key::new("max_connections_per_address", whole(0, 100_000_000), "0", "Connections of one address (IPv6: of one /64 network); 0: any number, right behind a proxy"),
    Key::new("connections_per_second", Kind::Number { min: 0.0, max: 1e6 }, "0", "New connections a second in the long run; 0: any number"),
    Key::new("connection_burst", whole(1, 1_000_000), "1000", "New connections at once after a pause"),
    Key::new("max_logins", whole(1, 1_000_000), "8192", "Logins that may be under way before others are sent away with a delay"),
    Key::new("heartbeat_ms", whole(100, 3_600_000), "30000", "How often a client has to send something"),
    Key::new("heartbeat_misses", whole(1, 100), "3", "Silent heartbeats after which a connection is closed"),
    Key::new("handshake_ms", whole(100, 600_000), "10000", "From connecting to being logged in, in total"),
    Key::new("messages_per_second", Kind::Number { min: 0.001, max: 1e6 }, "1", "Messages a connection may send in the long run; rate_per_second in the dynamic configuration wins"),
    Key::new("message_burst", whole(1, 1_000_000), "5", "Messages a connection may send at once; rate_burst in the dynamic configuration wins"),
    Key::new("requests_per_second", Kind::Number { min: 0.001, max: 1e6 }, "20", "Other requests a connection may make in the long run"),
    Key::new("request_burst", whole(1, 1_000_000), "100", "Other requests a connection may make at once"),
    Key::new("idle_frames_per_second", whole(1, 1_000), "50", "Pings, heartbeats and refused requests a connection may send in the long run"),
    Key::new("idle_frame_burst", whole(10, 65_000), "1000", "Such frames at once; at most 65 times the number a second"),
    Key::new("content_max_bytes", whole(1, 65_536), "4096", "Longest content of a message"),
    Key::new("max_message_bytes", whole(1_024, 67_108_864), "65536", "Largest WebSocket message or binary frame"),
    Key::new("max_fragments", whole(1, 1_000_000), "1024", "Fragments a WebSocket message may come in"),
    Key::new("max_head_bytes", whole(1_024, 65_536), "8192", "Largest HTTP head of a handshake"),
    Key::new("outbound_bytes", whole(4_096, 1_073_741_824), "262144", "Bytes that may wait for a connection that reads slowly"),
    Key::new("congestion_control", Kind::Text, "", "What paces connections, such as reno, cubic or bbr; empty: the system's"),
    Key::new("deflate", Kind::Bool, "false", "Agree to compressed WebSocket messages, permessage-deflate"),
    Key::new("deflate_window_bits", whole(9, 15), "15", "Largest window of compressed messages in bits, both directions"),
    Key::new("deflate_context_takeover", Kind::Bool, "false", "Compressed messages may refer to earlier ones: smaller, for up to two windows of memory a connection"),
    Key::new("deflate_level", whole(1, 9), "1", "Effort of the compressor, 1 (fast) to 9 (small)"),
    Key::new("deflate_min_bytes", whole(0, 67_108_864), "256", "Shortest message that is compressed"),
];

/// All settings with their types.
pub(crate) struct Settings {
    pub(crate) gateway_id: String,
    pub(crate) advertise: Option<String>,
    pub(crate) gateway: GatewayConfig,
    pub(crate) web_dir: Option<PathBuf>,
    pub(crate) log: String,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) dev_login: bool,
    pub(crate) calls_in_flight: usize,
    pub(crate) call_timeout: Duration,
    pub(crate) kafka: kafka::Settings,
    pub(crate) upstream_partitions: u32,
    pub(crate) replication: u32,
    pub(crate) etcd: etcd::Settings,
    /// Those that do not have their default, for the log.
    pub(crate) changed: Vec<String>,
}

/// What the command line asks for.
pub(crate) enum Asked {
    /// To run.
    Run(Box<Settings>),
    /// To print this and end.
    Print(String),
}

/// The table of all keys.
pub(crate) fn table() -> Result<Table, Fault> {
    Table::new("gateway", "Corelane's connection gateway, cluster form", &[OWN, SERVERS, LIMITS])
}

/// Reads this process's command line, environment and file.
pub(crate) fn load() -> Result<Asked, Fault> {
    match table()?.load_process()? {
        Outcome::Print(text) => Ok(Asked::Print(text)),
        Outcome::Run(values) => Ok(Asked::Run(Box::new(Settings::read(&values)?))),
    }
}

impl Settings {
    pub(crate) fn read(values: &Values) -> Result<Self, Fault> {
        let gateway_id = values.text("gateway_id")?.to_owned();
        let gateway = gateway_config(values)?;
        let dev_login = values.flag("dev_login")?;
        check(&gateway_id, dev_login, &gateway)?;
        Ok(Self {
            advertise: values.optional("advertise")?.map(str::to_owned),
            web_dir: values.path("web_dir")?,
            log: log_filter(values.text("log")?)?,
            metrics_listen: match values.optional("metrics_listen")? {
                Some(_) => Some(values.address("metrics_listen")?),
                None => None,
            },
            dev_login,
            calls_in_flight: values.integer("calls_in_flight")?,
            call_timeout: values.duration("call_timeout")?,
            kafka: kafka_settings(values, &gateway_id)?,
            upstream_partitions: values.integer("upstream_partitions")?,
            replication: values.integer("replication")?,
            etcd: etcd::Settings {
                endpoints: values.list("etcd")?,
                root: values.text("etcd_root")?.to_owned(),
                lease_ttl_s: values.integer("lease_ttl_s")?,
                ..etcd::Settings::default()
            },
            changed: values.changed(),
            gateway_id,
            gateway,
        })
    }
}

fn gateway_config(values: &Values) -> Result<GatewayConfig, Fault> {
    let access = Access {
        dev_login: values.flag("dev_login")?,
        query_token: values.flag("query_token")?,
        allowed_origins: origins(values.list("allowed_origins")?)?,
    };
    let mut config = GatewayConfig::new(values.address("listen")?, Mode::Serve(access));
    config.shards = match values.optional("shards")? {
        Some(_) => values.integer("shards")?,
        None => cores(),
    };
    config.io = match values.text("io")?.parse::<IoChoice>() {
        Ok(io) => io,
        Err(allowed) => return Err(Fault(format!("io must be {allowed}"))),
    };
    config.limits = limits(values)?;
    config.admission = Admission {
        max_connections: values.integer("max_connections")?,
        max_per_address: values.integer("max_connections_per_address")?,
        connections_per_second: values.number("connections_per_second")?,
        connection_burst: values.integer("connection_burst")?,
        max_logins: values.integer("max_logins")?,
    };
    config.congestion_control =
        Some(values.text("congestion_control")?.to_owned()).filter(|name| !name.is_empty());
    config.deflate = deflate(values)?;
    Ok(config)
}

fn limits(values: &Values) -> Result<Limits, Fault> {
    Ok(Limits {
        max_message_bytes: values.integer("max_message_bytes")?,
        max_fragments: values.integer("max_fragments")?,
        max_head_bytes: values.integer("max_head_bytes")?,
        content_max_bytes: values.integer("content_max_bytes")?,
        handshake_ms: values.integer("handshake_ms")?,
        heartbeat_ms: values.integer("heartbeat_ms")?,
        heartbeat_misses: values.integer("heartbeat_misses")?,
        messages_per_second: values.number("messages_per_second")?,
        message_burst: values.integer("message_burst")?,
        requests_per_second: values.number("requests_per_second")?,
        request_burst: values.integer("request_burst")?,
        outbound_bytes: values.integer("outbound_bytes")?,
        idle_frames_per_second: values.integer("idle_frames_per_second")?,
        idle_frame_burst: values.integer("idle_frame_burst")?,
    })
}

fn deflate(values: &Values) -> Result<Option<Config>, Fault> {
    let bits =
        WindowBits::new(values.integer("deflate_window_bits")?).unwrap_or(WindowBits::Fifteen);
    let takeover = values.flag("deflate_context_takeover")?;
    let config = Config {
        server_context_takeover: takeover,
        client_context_takeover: takeover,
        server_max_window_bits: bits,
        client_max_window_bits: bits,
        level: values.integer("deflate_level")?,
        min_bytes: values.integer("deflate_min_bytes")?,
    };
    Ok(values.flag("deflate")?.then_some(config))
}

fn kafka_settings(values: &Values, gateway_id: &str) -> Result<kafka::Settings, Fault> {
    let property = |text: String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        // The text may hold a password.
        None => {
            Err(Fault("an entry of kafka_properties must be of the form NAME=VALUE".to_owned()))
        }
    };
    let timeout_ms = values.duration("kafka_timeout")?.as_millis();
    Ok(kafka::Settings {
        brokers: values.list("kafka")?.join(","),
        topic_prefix: values.text("topic_prefix")?.to_owned(),
        message_timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
        client_id: gateway_id.to_owned(),
        extra: values
            .list("kafka_properties")?
            .into_iter()
            .map(property)
            .collect::<Result<_, _>>()?,
        ..kafka::Settings::default()
    })
}

fn log_filter(text: &str) -> Result<String, Fault> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Fault(format!(
            "log is \"{}\" but must be a level or a list of filters",
            text.escape_debug()
        ))),
    }
}

fn origins(list: Vec<String>) -> Result<Vec<String>, Fault> {
    match list.iter().find(|origin| !origin.contains("://")) {
        Some(origin) => Err(Fault(format!(
            "allowed_origins holds \"{}\" but must hold origins such as https://chat.example.org",
            origin.escape_debug()
        ))),
        None => Ok(list),
    }
}

/// What must hold between settings.
fn check(gateway_id: &str, dev_login: bool, config: &GatewayConfig) -> Result<(), Fault> {
    let is_name = |id: &str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if !is_name(gateway_id) {
        return Err(Fault(format!(
            "gateway_id is \"{}\" but must be 1 to 64 letters, digits, . _ or -",
            gateway_id.escape_debug()
        )));
    }
    if dev_login && !config.listen.ip().is_loopback() {
        return Err(Fault(format!(
            "dev_login is true but listen is {}: logging in by mere name is allowed only on a loopback address such as 127.0.0.1:8080",
            config.listen
        )));
    }
    let limits = &config.limits;
    if limits.max_message_bytes < limits.content_max_bytes {
        return Err(Fault(format!(
            "max_message_bytes is {} but must be at least content_max_bytes, which is {}",
            limits.max_message_bytes, limits.content_max_bytes
        )));
    }
    if limits.idle_frame_burst > 65 * limits.idle_frames_per_second {
        return Err(Fault(format!(
            "idle_frame_burst is {} but must be at most 65 times idle_frames_per_second, which is {}",
            limits.idle_frame_burst, limits.idle_frames_per_second
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings, Fault> {
        let arguments = arguments.iter().map(|text| (*text).into());
        match table()?.load(arguments, |_| None)? {
            Outcome::Run(values) => Settings::read(&values),
            Outcome::Print(text) => Err(Fault(text)),
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_embedded_form() {
        let settings = read(&["--gateway-id", "g1"]).unwrap();
        assert_eq!(settings.gateway.limits, Limits::default());
        assert_eq!(settings.gateway.admission, Admission::default());
        assert_eq!(settings.gateway.shards, cores());
        assert_eq!(settings.gateway.deflate, None);
        assert!(settings.metrics_listen.is_none() && settings.web_dir.is_none());
        let on = read(&["--gateway-id", "g1", "--deflate"]).unwrap();
        assert_eq!(on.gateway.deflate, Some(Config::DEFAULT));
    }

    #[test]
    fn a_fault_names_key_value_and_what_is_allowed() {
        let with_id = |more: &[&'static str]| -> Vec<&'static str> {
            [&["--gateway-id", "g1"], more].concat()
        };
        for (arguments, parts) in [
            (vec![], ["gateway_id", "\"\"", "letters"]),
            (vec!["--gateway-id", "a/b"], ["gateway_id", "a/b", "letters"]),
            (
                with_id(&["--dev-login", "--listen", "0.0.0.0:80"]),
                ["dev_login", "0.0.0.0:80", "loopback"],
            ),
            (
                with_id(&["--allowed-origins", "nowhere"]),
                ["allowed_origins", "nowhere", "https://"],
            ),
            (with_id(&["--log", "a=b=c=d"]), ["log", "a=b=c=d", "filters"]),
            (with_id(&["--shards", "0"]), ["shards", "\"0\"", "1 to 1024"]),
        ] {
            let Err(Fault(sentence)) = read(&arguments) else { panic!("{arguments:?}") };
            assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }

    /// `gateway --print-config > deploy/config/gateway.toml` brings it up to date.
    #[test]
    fn the_sample_file_shows_every_key() {
        let Err(Fault(text)) = read(&["--print-config"]) else { panic!("it runs") };
        let sample = include_str!("../../../../deploy/config/gateway.toml");
        assert_eq!(text.trim_end(), sample.trim_end());
    }

    #[test]
    fn properties_are_taken_apart_and_not_shown() {
        let settings =
            read(&["--gateway-id", "g1", "--kafka-properties", "sasl.password=a=b"]).unwrap();
        assert_eq!(settings.kafka.extra, [("sasl.password".to_owned(), "a=b".to_owned())]);
        assert!(settings.changed.iter().all(|line| !line.contains("a=b")));
    }
}
