//! Where to connect: the addresses of the command line, and the guard that keeps the load on this machine.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};

/// One address under load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Resolved address.
    pub address: SocketAddr,
    /// Value of the `Host` header.
    pub host: String,
    /// Path of the WebSocket handshake, without query.
    pub path: String,
    /// Query of the address, without `?`; empty when there is none.
    pub query: String,
}

/// Why an address was refused; the sentence is meant for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

impl Target {
    /// Reads `ws://HOST:PORT/PATH` or `tcp://HOST:PORT`.
    ///
    /// # Errors
    /// Not such an address, a name that does not resolve, or a machine other than this one without
    /// `allow_remote`.
    pub fn parse(url: &str, allow_remote: bool) -> Result<Self, TargetError> {
        let refuse = |why: &str| TargetError(format!("--url {url}: {why}"));
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| refuse("expected ws://HOST:PORT/PATH or tcp://HOST:PORT"))?;
        let default_port = match scheme {
            "ws" => ":80",
            "tcp" => "",
            "wss" => return Err(refuse("TLS is not supported; use ws://")),
            _ => return Err(refuse("expected the scheme ws or tcp")),
        };
        let (host, path_and_query) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let with_port =
            if has_port(host) { host.to_owned() } else { format!("{host}{default_port}") };
        let address = resolve(&with_port).ok_or_else(|| refuse("host and port do not resolve"))?;
        if !allow_remote && !is_loopback(address.ip()) {
            return Err(refuse("not a loopback address; --allow-remote permits it"));
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { address, host: host.to_owned(), path: path.to_owned(), query: query.to_owned() })
    }

    /// Path and query of the handshake, with one more parameter when given.
    #[must_use]
    pub fn path_and_query(&self, parameter: Option<(&str, &str)>) -> String {
        let mut text = self.path.clone();
        let mut separator = '?';
        if !self.query.is_empty() {
            text.push(separator);
            text.push_str(&self.query);
            separator = '&';
        }
        if let Some((name, value)) = parameter {
            text.push(separator);
            text.push_str(name);
            text.push('=');
            text.push_str(value);
        }
        text
    }
}

fn has_port(host: &str) -> bool {
    let after_bracket = host.rsplit(']').next().unwrap_or(host);
    after_bracket.contains(':')
}

/// The first address, one of IPv4 if there is one.
fn resolve(host_and_port: &str) -> Option<SocketAddr> {
    let addresses: Vec<SocketAddr> = host_and_port.to_socket_addrs().ok()?.collect();
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_parts() {
        let target = Target::parse("ws://127.0.0.1:8080/ws?a=1", false).expect("valid");
        assert_eq!(target.address, "127.0.0.1:8080".parse().expect("an address"));
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1:8080", "/ws"));
        assert_eq!(target.path_and_query(None), "/ws?a=1");
        assert_eq!(target.path_and_query(Some(("user_id", "ann"))), "/ws?a=1&user_id=ann");
        let plain = Target::parse("ws://[::1]", false).expect("valid");
        assert_eq!(plain.address, "[::1]:80".parse().expect("an address"));
        assert_eq!(plain.path_and_query(Some(("user_id", "ann"))), "/?user_id=ann");
        assert!(Target::parse("tcp://localhost:9", false).is_ok());
    }

    #[test]
    fn only_this_machine_unless_allowed() {
        for url in
            ["ws://192.0.2.1:80/ws", "ws://10.0.0.1/", "ws://[2001:db8::1]:80/", "ws://0.0.0.0:80/"]
        {
            let error = Target::parse(url, false).expect_err(url);
            assert!(error.to_string().contains("loopback"), "{error}");
            assert!(Target::parse(url, true).is_ok(), "{url}");
        }
        assert!(Target::parse("ws://127.9.8.7:80/ws", false).is_ok());
        assert!(Target::parse("ws://[::ffff:127.0.0.1]:80/ws", false).is_ok());
    }

    #[test]
    fn nonsense_is_refused_with_the_address_in_the_sentence() {
        for url in [
            "",
            "localhost",
            "http://localhost/",
            "wss://localhost/",
            "tcp://127.0.0.1",
            "ws://127.0.0.1:99999/",
        ] {
            let error = Target::parse(url, false).expect_err(url);
            assert!(error.to_string().starts_with(&format!("--url {url}")), "{error}");
        }
    }
}
