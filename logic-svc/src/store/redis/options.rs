//! Where Redis is, and how long it may take.

use std::fmt;
use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// What the clients of Redis are told at start.
#[derive(Clone)]
pub struct Options {
    /// Where it is.
    pub(super) servers: Servers,
    /// Begins every key, so that several systems share a server.
    pub key_prefix: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence of the server while it owes answers to a login, a report or an operation.
    pub batch_timeout: Duration,
    /// Longest silence of the server while it owes answers to a tick of the pipeline.
    pub tick_timeout: Duration,
    /// After a failure nothing is tried for this long; doubled up to `pause_max` while failures go on.
    pub pause: Duration,
    /// Longest time without a try.
    pub pause_max: Duration,
}

/// The servers of one Redis.
#[derive(Clone)]
pub(super) enum Servers {
    /// One server.
    Single(ConnectionInfo),
    /// Some nodes of a cluster; the others are learned from them.
    Cluster(Vec<ConnectionInfo>),
    /// Sentinels, which know the master of this name.
    Sentinel { sentinels: Vec<ConnectionInfo>, name: String, node: RedisConnectionInfo },
}

/// An address of Redis that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "{address:?} is no address of Redis ({reason}); redis://HOST:PORT/DB, redis://HOST:PORT,HOST:PORT for a \
     cluster (redis+cluster://HOST:PORT with one node) and sentinel://HOST:PORT,HOST:PORT/NAME are"
)]
pub struct BadAddress {
    /// The address, without its credentials.
    address: String,
    /// What is wrong.
    reason: String,
}

impl Options {
    /// The defaults for the servers at `address`: `redis://host:port/db`, a list of nodes
    /// (`redis://a:1,b:2`, or `redis+cluster://a:1`) or `sentinel://a:1,b:2/name`; each may carry `user:password@`.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(address: &str, key_prefix: &str) -> Result<Self, BadAddress> {
        Ok(Self {
            servers: servers(address)?,
            key_prefix: key_prefix.to_owned(),
            connect_timeout: Duration::from_millis(500),
            batch_timeout: Duration::from_secs(1),
            tick_timeout: Duration::from_millis(100),
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(1),
        })
    }
}

// Addresses may carry passwords.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("key_prefix", &self.key_prefix).finish_non_exhaustive()
    }
}

/// The parts of `scheme://user:password@hosts/path`.
struct Parts<'a> {
    scheme: &'a str,
    credentials: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
}

fn servers(address: &str) -> Result<Servers, BadAddress> {
    let parts = parts(address)?;
    let database = if parts.scheme == "sentinel" { "" } else { parts.path };
    let infos: Result<Vec<ConnectionInfo>, BadAddress> =
        parts.hosts.iter().map(|host| info(&parts, host, database)).collect();
    let mut infos = infos?;
    match parts.scheme {
        "redis+cluster" => Ok(Servers::Cluster(infos)),
        "redis" if infos.len() > 1 => Ok(Servers::Cluster(infos)),
        "redis" => infos.pop().map(Servers::Single).ok_or_else(|| bad(&parts, "no host")),
        "sentinel" if parts.path.is_empty() => Err(bad(&parts, "no name of a master")),
        "sentinel" => {
            let node = infos[0].redis_settings().clone();
            // Credentials are those of the master; the sentinels themselves are asked without.
            let open =
                |info: ConnectionInfo| info.set_redis_settings(RedisConnectionInfo::default());
            let sentinels = infos.into_iter().map(open).collect();
            Ok(Servers::Sentinel { sentinels, name: parts.path.to_owned(), node })
        }
        _ => Err(bad(&parts, "unknown scheme")),
    }
}

fn parts(address: &str) -> Result<Parts<'_>, BadAddress> {
    let malformed = |reason: &str| BadAddress { address: String::new(), reason: reason.to_owned() };
    let (scheme, rest) = address.split_once("://").ok_or_else(|| malformed("no scheme"))?;
    let (rest, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, hosts) = rest.rsplit_once('@').unwrap_or(("", rest));
    let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
    let parts = Parts { scheme, credentials, hosts, path };
    match parts.hosts.iter().any(|host| host.is_empty()) {
        true => Err(bad(&parts, "an empty host")),
        false => Ok(parts),
    }
}

fn info(parts: &Parts<'_>, host: &str, database: &str) -> Result<ConnectionInfo, BadAddress> {
    let at = if parts.credentials.is_empty() { "" } else { "@" };
    let url = format!("redis://{}{at}{host}/{database}", parts.credentials);
    let info = url.as_str().into_connection_info().map_err(|error| bad(parts, error))?;
    // One round trip less for each connection.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

fn bad(parts: &Parts<'_>, reason: impl fmt::Display) -> BadAddress {
    let address = format!("{}://{}/{}", parts.scheme, parts.hosts.join(","), parts.path);
    BadAddress { address, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(address: &str) -> String {
        match servers(address) {
            Ok(Servers::Single(info)) => {
                format!("single {} {}", info.addr(), info.redis_settings().db())
            }
            Ok(Servers::Cluster(infos)) => {
                let nodes: Vec<String> = infos.iter().map(|info| info.addr().to_string()).collect();
                format!("cluster {}", nodes.join(" "))
            }
            Ok(Servers::Sentinel { sentinels, name, node }) => {
                assert!(sentinels.iter().all(|info| info.redis_settings().password().is_none()));
                format!("sentinel {} {name} {:?}", sentinels.len(), node.password())
            }
            Err(error) => error.reason,
        }
    }

    #[test]
    fn every_form_of_address_is_understood() {
        assert_eq!(shape("redis://127.0.0.1:7/3"), "single 127.0.0.1:7 3");
        assert_eq!(shape("redis://h"), "single h:6379 0");
        assert_eq!(shape("redis://a:1,b:2"), "cluster a:1 b:2");
        assert_eq!(shape("redis+cluster://a:1"), "cluster a:1");
        assert_eq!(shape("sentinel://u:p%40x@a:1,b:2/main"), "sentinel 2 main Some(\"p@x\")");
    }

    #[test]
    fn what_is_no_address_is_refused_without_telling_the_password() {
        for (address, reason) in [
            ("127.0.0.1:6379", "no scheme"),
            ("redis://a,,b", "an empty host"),
            ("http://a", "unknown scheme"),
            ("sentinel://a:1", "no name of a master"),
        ] {
            assert_eq!(shape(address), reason);
        }
        let error = servers("kafka://me:secret@host").err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("host") && !text.contains("secret")));
        assert!(servers("redis://h:99999").is_err());
        assert!(servers("redis://h/x").is_err());
    }
}
