//! What can be set of the logic service in the cluster form.

use std::net::SocketAddr;
use std::time::Duration;

use cluster::settings::{Fault, Key, Kind, Outcome, Table, Values};
use cluster::{etcd, kafka};

use crate::config::Config;
use crate::domain::device::DevicePolicies;
use crate::tasks::Rule;

const fn whole(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn time(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

const ROLES: &[&str] = &["ingest", "rpc", "tasks"];

#[rustfmt::skip]
const OWN: &[Key] = &[
    Key::new("instance", Kind::Text, "", "Name of this service, no other has it: letters, digits, . _ - (required)"),
    Key::new("roles", Kind::Choices(ROLES), "ingest,rpc,tasks", "What it does: ingest stores and routes messages, rpc answers gateways and REST, tasks does work on nobody's path"),
    Key::new("grpc_listen", Kind::Address, "127.0.0.1:9090", "Address for gRPC of gateways and administrators; port 0 picks one"),
    Key::new("http_listen", Kind::Address, "127.0.0.1:9091", "Address for REST, /healthz and /readyz; port 0 picks one"),
    Key::new("advertise_host", Kind::Text, "", "Host under which gateways reach both; empty: the addresses listened on"),
    Key::new("admin_token", Kind::Text, "", "What administrators have to send on gRPC as authorization: Bearer TOKEN, 16 to 512 letters, digits and signs; empty: they are answered on this machine only").secret(),
    Key::new("metrics_listen", Kind::Address, "", "Address for Prometheus to scrape; empty: none"),
    Key::new("log", Kind::Text, "info", "What is logged to stderr: error, warn, info, debug, or filters such as logic_svc=debug").hot(),
    Key::new("rpc_threads", whole(1, 256), "8", "Batches of requests worked at the same time, and as many of logins"),
    Key::new("hash_threads", whole(1, 64), "2", "Password hashes computed at the same time"),
    Key::new("hash_memory_kib", whole(8, 1_048_576), "19456", "Memory of one password hash (argon2id)"),
    Key::new("start_timeout", time(1_000, 600_000), "60s", "How long servers that are not there yet are waited for at start"),
];

#[rustfmt::skip]
const SERVERS: &[Key] = &[
    Key::new("kafka", Kind::List, "127.0.0.1:9092", "Brokers to begin with"),
    Key::new("topic_prefix", Kind::Text, "", "Put before the name of every topic and group"),
    Key::new("partitions", whole(1, 10_000), "8", "Partitions of im-upstream, should it have to be made; must agree with the gateways' upstream_partitions"),
    Key::new("task_partitions", whole(1, 1_000), "4", "Partitions of im-tasks, should it have to be made"),
    Key::new("replication", whole(0, 100), "0", "Copies of topics that have to be made; 0: what Kafka has as its default"),
    Key::new("kafka_session_timeout", time(1_000, 1_800_000), "10s", "After how long of silence a service loses its partitions; within the broker's bounds"),
    Key::new("kafka_properties", Kind::List, "", "Further properties of librdkafka, NAME=VALUE each").secret(),
    Key::new("mysql", Kind::Url(&["mysql"]), "mysql://root@127.0.0.1:3306", "User and server of MySQL or MariaDB").secret(),
    Key::new("database", Kind::Text, "corelane", "Name of the database; made if it is missing and the user may"),
    Key::new("mysql_read_connections", whole(1, 256), "4", "Most connections for reading"),
    Key::new("mysql_write_connections", whole(1, 256), "2", "Most connections for the rare changes, besides the one for messages"),
    Key::new("redis", Kind::Url(&["redis", "redis+cluster", "sentinel"]), "redis://127.0.0.1:6379", "Redis: redis://HOST:PORT/DB, redis://A:P,B:P for a cluster, sentinel://A:P,B:P/NAME").secret(),
    Key::new("redis_prefix", Kind::Text, "", "Put before every key in Redis"),
    Key::new("redis_tick_timeout", time(1, 60_000), "100ms", "How long Redis may be silent while messages wait for where their receivers are; after that every gateway is asked for them, until Redis answers again"),
    Key::new("etcd", Kind::List, "http://127.0.0.1:2379", "URLs of etcd's members"),
    Key::new("etcd_root", Kind::Text, "/corelane", "What all keys in etcd begin with"),
    Key::new("lease_ttl_s", whole(1, 600), "5", "Seconds after which a service that does not answer is gone, and its worker id in doubt"),
];

#[rustfmt::skip]
const RULES: &[Key] = &[
    Key::new("dev_login", Kind::Bool, "false", "Log in by mere name, and groups come into being by being written to; for trying things out only"),
    Key::new("heartbeat_ms", whole(100, 3_600_000), "30000", "How often a client has to send something, told to it at login"),
    Key::new("content_max_bytes", whole(1, 1_048_576), "4096", "Longest content of a message"),
    Key::new("max_connections_per_user", whole(1, 1_000), "32", "Connections one user may have at the same time"),
    Key::new("device_policy", Kind::List, "", "How many devices of a class a user may have in, CLASS=POLICY each: allow (any number), kick_old (a newer one closes the older), refuse_new (a second one is refused)"),
    Key::new("event_members_max", whole(0, 1_000_000), "1000", "Joins and leaves are told to all members of conversations up to this size"),
    Key::new("fanout_switch_members", whole(2, 1_000_000), "500", "From so many members on a group is delivered by the gateways' member index; below 80 % of it member by member again").hot(),
    Key::new("access_token_s", whole(1, 31_536_000), "900", "Seconds an access token is good"),
    Key::new("refresh_token_s", whole(1, 315_360_000), "2592000", "Seconds a refresh token is good"),
    Key::new("issuer", Kind::Text, "corelane", "iss of access tokens"),
    Key::new("audience", Kind::Text, "corelane", "aud of access tokens"),
    Key::new("tick_max_messages", whole(1, 65_536), "4096", "Most messages one transaction takes, about"),
    Key::new("poll_records", whole(1, 10_000), "512", "Most records taken from Kafka at once"),
    Key::new("poison_attempts", whole(1, 100), "3", "How often a record that makes the handler fail alone is tried before it is set apart"),
    Key::new("store_patience", time(0, 60_000), "3s", "How long a database that is away is waited for before messages are refused"),
    Key::new("cached_conversations", whole(1, 100_000_000), "100000", "Most conversations whose members are kept in memory"),
    Key::new("cached_members", whole(1, 1_000_000_000), "2000000", "Most members kept in memory over all conversations"),
    Key::new("recent_sends", whole(0, 100_000_000), "65536", "Most recent sends kept in memory to answer retries"),
    Key::new("redis_sends", Kind::Bool, "false", "Whether sends of the last minute are noted in msg_dedup:{window} in Redis, for programs that read them there; Corelane itself finds retries in its memory and by the database's unique key"),
    Key::new("inbox_messages", whole(0, 1_000_000), "0", "Notes of last messages kept for each member of small conversations in im:inbox:{user} in Redis, about, for programs that read them there; 0: none, Corelane itself reads none"),
    Key::new("inbox_window", time(60_000, 31_536_000_000), "7d", "How long such notes are kept"),
    Key::new("retention", time(0, 315_360_000_000), "0s", "Messages older than this are deleted, for good, all but the last one of each conversation and what is younger than an hour; 0s: never"),
    Key::new("retention_messages", whole(0, 1_000_000_000), "0", "Messages of a conversation beyond so many are deleted, for good, the oldest first, once they are an hour old; 0: never"),
    Key::new("retention_every", time(1_000, 604_800_000), "1h", "How often all conversations are looked through for messages to delete"),
];

/// All settings with their types.
pub struct Settings {
    pub(super) instance: String,
    pub(super) roles: Vec<String>,
    pub(super) grpc_listen: SocketAddr,
    pub(super) http_listen: SocketAddr,
    pub(super) advertise_host: Option<String>,
    pub(super) admin_token: Option<String>,
    pub(super) metrics_listen: Option<SocketAddr>,
    pub(super) log: String,
    pub(super) rpc_threads: usize,
    pub(super) start_timeout: Duration,
    pub(super) kafka: kafka::Settings,
    pub(super) partitions: u32,
    pub(super) task_partitions: u32,
    pub(super) replication: u32,
    pub(super) mysql: String,
    pub(super) database: String,
    pub(super) mysql_read_connections: usize,
    pub(super) mysql_write_connections: usize,
    pub(super) redis: String,
    pub(super) redis_prefix: String,
    pub(super) redis_tick_timeout: Duration,
    pub(super) etcd: etcd::Settings,
    pub(super) config: Config,
    pub(super) fanout_switch_members: u32,
    pub(super) poll_records: usize,
    pub(super) poison_attempts: u32,
    pub(super) store_patience: Duration,
    pub(super) redis_sends: bool,
    pub(super) inbox_messages: u64,
    pub(super) inbox_window: Duration,
    pub(super) retention: Rule,
    /// As they were read, for dynamic ones to be laid over.
    pub(super) values: Values,
}

// URLs may hold passwords.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.values.fmt(f)
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// To run.
    Run(Box<Settings>),
    /// To print this and end.
    Print(String),
}

/// The table of all keys.
///
/// # Errors
/// A fault of the table itself.
pub fn table() -> Result<Table, Fault> {
    Table::new(
        "logic-svc",
        "Corelane's logic service, cluster form: stores messages and routes them back",
        &[OWN, SERVERS, RULES],
    )
}

/// Reads this process's command line, environment and file.
///
/// # Errors
/// One sentence for whoever started it.
pub fn load() -> Result<Asked, Fault> {
    match table()?.load_process()? {
        Outcome::Print(text) => Ok(Asked::Print(text)),
        Outcome::Run(values) => Ok(Asked::Run(Box::new(Settings::read(values)?))),
    }
}

impl Settings {
    pub(super) fn read(values: Values) -> Result<Self, Fault> {
        let instance = values.text("instance")?.to_owned();
        if !is_name(&instance) {
            return Err(Fault(format!(
                "instance is \"{}\" but must be 1 to 64 letters, digits, . _ -",
                instance.escape_debug()
            )));
        }
        let mut roles = values.list("roles")?;
        roles.sort();
        roles.dedup();
        let metrics_listen = match values.optional("metrics_listen")? {
            Some(_) => Some(values.address("metrics_listen")?),
            None => None,
        };
        Ok(Self {
            roles,
            grpc_listen: values.address("grpc_listen")?,
            http_listen: values.address("http_listen")?,
            advertise_host: values.optional("advertise_host")?.map(str::to_owned),
            admin_token: admin_token(&values)?,
            metrics_listen,
            log: values.text("log")?.to_owned(),
            rpc_threads: values.integer("rpc_threads")?,
            start_timeout: values.duration("start_timeout")?,
            kafka: kafka(&values, &instance)?,
            partitions: values.integer("partitions")?,
            task_partitions: values.integer("task_partitions")?,
            replication: values.integer("replication")?,
            mysql: values.text("mysql")?.to_owned(),
            database: values.text("database")?.to_owned(),
            mysql_read_connections: values.integer("mysql_read_connections")?,
            mysql_write_connections: values.integer("mysql_write_connections")?,
            redis: values.text("redis")?.to_owned(),
            redis_prefix: values.text("redis_prefix")?.to_owned(),
            redis_tick_timeout: values.duration("redis_tick_timeout")?,
            etcd: etcd(&values)?,
            config: config(&values)?,
            fanout_switch_members: values.integer("fanout_switch_members")?,
            poll_records: values.integer("poll_records")?,
            poison_attempts: values.integer("poison_attempts")?,
            store_patience: values.duration("store_patience")?,
            redis_sends: values.flag("redis_sends")?,
            inbox_messages: values.integer("inbox_messages")?,
            inbox_window: values.duration("inbox_window")?,
            retention: Rule {
                age: values.duration("retention")?,
                messages: values.integer("retention_messages")?,
                every: values.duration("retention_every")?,
            },
            instance,
            values,
        })
    }

    pub(super) fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A word that can stand in a header and is not guessed.
fn admin_token(values: &Values) -> Result<Option<String>, Fault> {
    let Some(token) = values.optional("admin_token")? else { return Ok(None) };
    if !(16..=512).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
        // The value stays out of the text.
        let must = "admin_token must be 16 to 512 letters, digits and signs, without blanks";
        return Err(Fault(must.to_owned()));
    }
    Ok(Some(token.to_owned()))
}

fn kafka(values: &Values, instance: &str) -> Result<kafka::Settings, Fault> {
    let session = values.duration("kafka_session_timeout")?;
    let property = |text: String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Fault("an entry of kafka_properties is not of the form NAME=VALUE".to_owned())),
    };
    Ok(kafka::Settings {
        brokers: values.list("kafka")?.join(","),
        topic_prefix: values.text("topic_prefix")?.to_owned(),
        session_timeout_ms: u32::try_from(session.as_millis()).unwrap_or(u32::MAX),
        client_id: format!("corelane-{instance}"),
        extra: values
            .list("kafka_properties")?
            .into_iter()
            .map(property)
            .collect::<Result<_, Fault>>()?,
        ..kafka::Settings::default()
    })
}

fn etcd(values: &Values) -> Result<etcd::Settings, Fault> {
    Ok(etcd::Settings {
        endpoints: values.list("etcd")?,
        root: values.text("etcd_root")?.to_owned(),
        lease_ttl_s: values.integer("lease_ttl_s")?,
        ..etcd::Settings::default()
    })
}

fn config(values: &Values) -> Result<Config, Fault> {
    Ok(Config {
        dev_login: values.flag("dev_login")?,
        heartbeat_ms: values.integer("heartbeat_ms")?,
        content_max_bytes: values.integer("content_max_bytes")?,
        max_connections_per_user: values.integer("max_connections_per_user")?,
        device_policy: device_policy(values)?,
        tick_max_messages: values.integer("tick_max_messages")?,
        access_token_s: values.integer("access_token_s")?,
        refresh_token_s: values.integer("refresh_token_s")?,
        issuer: values.text("issuer")?.to_owned(),
        audience: values.text("audience")?.to_owned(),
        cached_conversations: values.integer("cached_conversations")?,
        cached_members: values.integer("cached_members")?,
        recent_sends: values.integer("recent_sends")?,
        hash_threads: values.integer("hash_threads")?,
        hash_memory_kib: values.integer("hash_memory_kib")?,
        event_members_max: values.integer("event_members_max")?,
        #[cfg(feature = "fault-injection")]
        fault: fault()?,
        ..Config::default()
    })
}

fn device_policy(values: &Values) -> Result<DevicePolicies, Fault> {
    let list = values.list("device_policy")?;
    DevicePolicies::parse(list.iter().map(String::as_str)).ok_or_else(|| {
        Fault("device_policy must be entries of the form CLASS=allow, CLASS=kick_old or CLASS=refuse_new, each class once".to_owned())
    })
}

/// The safety that a control run switches off: `CORELANE_FAULT`.
#[cfg(feature = "fault-injection")]
fn fault() -> Result<Option<crate::config::Fault>, Fault> {
    use crate::config::Fault as Off;
    let asked = std::env::var("CORELANE_FAULT").unwrap_or_default();
    match Off::named(&asked) {
        Some(off) => Ok(Some(off)),
        None if asked.is_empty() => Ok(None),
        None => {
            let names: Vec<&str> = Off::NAMED.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            Err(Fault(format!("CORELANE_FAULT is \"{asked}\" but must be one of {names}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings, Fault> {
        let arguments = arguments.iter().map(Into::into);
        match table()?.load(arguments, |_| None)? {
            Outcome::Run(values) => Settings::read(values),
            Outcome::Print(text) => panic!("{text}"),
        }
    }

    #[test]
    fn the_documented_file_is_the_table() {
        // Where it runs, not where it was built.
        let here = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        let path = format!("{here}/../deploy/config/logic-svc.toml");
        let file = std::fs::read_to_string(&path).expect("deploy/config/logic-svc.toml");
        let document = table().and_then(|table| table.document(&[])).expect("a good table");
        assert!(file == document, "write it anew: logic-svc --print-config > {path}");
    }

    #[test]
    fn defaults_are_those_of_the_embedded_form_where_both_have_them() {
        let settings = read(&["--instance", "a"]).unwrap();
        let (ours, theirs) = (settings.config, Config::default());
        assert_eq!(ours.access_token_s, theirs.access_token_s);
        assert_eq!(ours.refresh_token_s, theirs.refresh_token_s);
        assert_eq!(ours.content_max_bytes, theirs.content_max_bytes);
        assert_eq!(ours.max_connections_per_user, theirs.max_connections_per_user);
        assert_eq!(ours.hash_memory_kib, theirs.hash_memory_kib);
        assert_eq!(ours.tick_max_messages, theirs.tick_max_messages);
        assert_eq!(settings.roles, ["ingest", "rpc", "tasks"]);
        let redis = crate::store::redis::Options::new(&settings.redis, "").unwrap();
        assert_eq!(settings.redis_tick_timeout, redis.tick_timeout);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (arguments, named) in [
            (&["--instance", ""][..], "instance"),
            (&["--instance", "a b"], "instance"),
            (&["--instance", "a", "--roles", "ingest,cook"], "roles"),
            (&["--instance", "a", "--kafka-properties", "x"], "kafka_properties"),
            (&["--instance", "a", "--mysql", "postgres://h"], "mysql"),
            (&["--instance", "a", "--device-policy", "tv=kick"], "device_policy"),
            (&["--instance", "a", "--admin-token", "too short"], "admin_token"),
            (&["--instance", "a", "--admin-token", "long enough, but blanks"], "admin_token"),
        ] {
            let error = read(arguments).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let settings = read(&["--instance", "a", "--mysql", "mysql://u:hunter2@h:1"]).unwrap();
        assert!(!format!("{:?}", settings.values).contains("hunter2"));
        let settings =
            read(&["--instance", "a", "--admin-token", "hunter2hunter2hunter2"]).unwrap();
        assert_eq!(settings.admin_token.as_deref(), Some("hunter2hunter2hunter2"));
        assert!(!format!("{settings:?}").contains("hunter2"));
        let error = read(&["--instance", "a", "--admin-token", "hunter2"]).expect_err("too short");
        assert!(!error.to_string().contains("hunter2"));
    }
}
