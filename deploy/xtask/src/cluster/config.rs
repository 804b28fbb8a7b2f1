//! The configuration file of each process.

use std::fmt::Write as _;

use super::node::Node;

/// What all processes of a cluster are told.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) kafka: String,
    pub(super) database: String,
    pub(super) cache: String,
    pub(super) etcd: String,
    /// How many logic services there are.
    pub(super) logic: u32,
    /// Logins by mere name.
    pub(super) dev_login: bool,
    /// Further keys and values, as they stand in the file, and whom they are for.
    pub(super) more: Vec<(Scope, String, String)>,
}

/// Whom a further setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every gateway.
    Gateways,
    /// Every logic service.
    Logic,
}

impl Scope {
    /// Whether it is for this process.
    pub(crate) fn holds(self, node: Node) -> bool {
        match self {
            Self::Gateways => matches!(node, Node::Gateway(_)),
            Self::Logic => matches!(node, Node::Logic(_)),
        }
    }
}

/// Partitions of the topic that all gateways write to: at least so many, and one for each logic service.
/// Few, since each costs a record a tick of a gateway, and Kafka as much as many messages.
const PARTITIONS_MIN: u32 = 4;

/// Which of its ports answers `/readyz`.
pub(super) fn health_port(node: Node) -> usize {
    match node {
        Node::Gateway(_) => 0,
        Node::Logic(_) => 1,
    }
}

/// How many ports a process listens on.
pub(super) fn ports(node: Node) -> usize {
    match node {
        // Clients; metrics.
        Node::Gateway(_) => 2,
        // gRPC; REST and health; metrics.
        Node::Logic(_) => 3,
    }
}

/// The file of one process on these ports.
pub(super) fn text(common: &Common, node: Node, ports: &[u16]) -> String {
    let partitions = common.logic.max(PARTITIONS_MIN);
    let address = |at: usize| format!("127.0.0.1:{}", ports.get(at).copied().unwrap_or_default());
    let mut settings = match node {
        Node::Gateway(_) => vec![
            ("gateway_id", string(&node.to_string())),
            ("listen", string(&address(0))),
            ("metrics_listen", string(&address(1))),
            ("upstream_partitions", partitions.to_string()),
        ],
        Node::Logic(_) => vec![
            ("instance", string(&node.to_string())),
            ("grpc_listen", string(&address(0))),
            ("http_listen", string(&address(1))),
            ("metrics_listen", string(&address(2))),
            ("partitions", partitions.to_string()),
            ("mysql", string(&common.database)),
            ("redis", string(&common.cache)),
        ],
    };
    settings.push(("kafka", string(&common.kafka)));
    settings.push(("etcd", string(&common.etcd)));
    if common.dev_login {
        settings.push(("dev_login", String::from("true")));
    }
    for (_, key, value) in common.more.iter().filter(|(scope, ..)| scope.holds(node)) {
        settings.retain(|(known, _)| known != key);
        settings.push((key, value.clone()));
    }
    settings.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key} = {value}");
        text
    })
}

/// `gateway.KEY=VALUE` or `logic.KEY=VALUE`, the value as TOML. Which keys there are, and what their
/// values may be, is known to the processes themselves.
pub(super) fn setting(text: &str) -> Result<(Scope, String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is SCOPE.KEY=VALUE")?;
    let scope = match name.split_once('.') {
        Some(("gateway", key)) => (Scope::Gateways, key),
        Some(("logic", key)) => (Scope::Logic, key),
        _ => return Err(format!("{name:?} begins neither with \"gateway.\" nor with \"logic.\"")),
    };
    if scope.1.is_empty() || value.is_empty() || text.contains('\n') {
        return Err("a setting is SCOPE.KEY=VALUE, on one line".into());
    }
    Ok((scope.0, scope.1.to_owned(), value.to_owned()))
}

/// The ready line of a process begins so.
pub(super) fn ready_line(node: Node) -> &'static str {
    match node {
        Node::Gateway(_) => "gateway ready on ",
        Node::Logic(_) => "logic-svc ready",
    }
}

/// A basic string of TOML.
pub(crate) fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_toml_and_hold_what_was_said() {
        let common = Common {
            kafka: "127.0.0.1:1".into(),
            database: "mysql://a:b\"\\c\u{7f}@h".into(),
            cache: "redis://h".into(),
            etcd: "http://h".into(),
            logic: 9,
            dev_login: true,
            more: vec![
                (Scope::Logic, "log".into(), string("debug")),
                (Scope::Logic, "content_max_bytes".into(), "7".into()),
            ],
        };
        let parse = |node| text(&common, node, &[7, 8, 9]).parse::<toml::Table>().unwrap();
        let gateway = parse(Node::Gateway(2));
        assert_eq!(gateway["gateway_id"].as_str(), Some("gateway-2"));
        assert_eq!(gateway["listen"].as_str(), Some("127.0.0.1:7"));
        assert_eq!(gateway["dev_login"].as_bool(), Some(true));
        assert!(!gateway.contains_key("content_max_bytes"));
        let logic = parse(Node::Logic(1));
        assert_eq!(logic["mysql"].as_str(), Some(common.database.as_str()));
        assert_eq!(logic["content_max_bytes"].as_integer(), Some(7));
        assert_eq!(logic["log"].as_str(), Some("debug"));
        assert_eq!(logic["partitions"].as_integer(), Some(9));
        assert_eq!(gateway["upstream_partitions"].as_integer(), Some(9));
    }

    #[test]
    fn settings_are_taken_as_toml_and_win() {
        let mut common = Common {
            kafka: "k".into(),
            database: "d".into(),
            cache: "c".into(),
            etcd: "e".into(),
            logic: 3,
            dev_login: false,
            more: vec![setting("gateway.upstream_partitions=3").unwrap()],
        };
        common.more.push(setting("logic.log=\"debug\"").unwrap());
        let parse = |node| text(&common, node, &[7, 8, 9]).parse::<toml::Table>().unwrap();
        assert_eq!(parse(Node::Gateway(1))["upstream_partitions"].as_integer(), Some(3));
        assert_eq!(parse(Node::Logic(1))["log"].as_str(), Some("debug"));
        assert_eq!(parse(Node::Logic(1))["partitions"].as_integer(), Some(4));
        for bad in
            ["", "log", "linger_ms=1", "logic.log", "logic.log=", "other.x=1", "logic.a=1\nb=2"]
        {
            assert!(setting(bad).is_err(), "{bad:?}");
        }
    }
}
