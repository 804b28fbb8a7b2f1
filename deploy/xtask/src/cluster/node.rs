//! Our processes by name.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;

/// One process of ours; counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// Terminates connections.
    Gateway(u32),
    /// Stores and routes messages.
    Logic(u32),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(number) => write!(f, "gateway-{number}"),
            Self::Logic(number) => write!(f, "logic-{number}"),
        }
    }
}

impl FromStr for Node {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        let parts = name.split_once('-').and_then(|(kind, text)| Some((kind, number(text)?)));
        match parts {
            Some(("gateway", number)) => Ok(Self::Gateway(number)),
            Some(("logic", number)) => Ok(Self::Logic(number)),
            _ => bail!("{name:?} is no process of a cluster; they are called gateway-1, logic-1"),
        }
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Size {
    pub(crate) gateways: u32,
    pub(crate) logic: u32,
}

impl Size {
    /// All processes, in the order they are started: a gateway finds its logic services.
    pub(crate) fn nodes(self) -> Vec<Node> {
        let logic = (1..=self.logic).map(Node::Logic);
        logic.chain((1..=self.gateways).map(Node::Gateway)).collect()
    }

    /// All processes, in the order they are listed.
    pub(crate) fn listed(self) -> Vec<Node> {
        let mut nodes = self.nodes();
        nodes.sort();
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for node in (Size { gateways: 2, logic: 11 }).nodes() {
            assert_eq!(node.to_string().parse::<Node>().unwrap(), node);
        }
        for name in ["", "gateway", "gateway-", "gateway-0", "gateway--1", "logic-x", "kafka"] {
            assert!(name.parse::<Node>().is_err(), "{name}");
        }
    }

    #[test]
    fn gateways_are_listed_first_and_started_last() {
        let size = Size { gateways: 1, logic: 2 };
        let (gateway, first, second) = (Node::Gateway(1), Node::Logic(1), Node::Logic(2));
        assert_eq!(size.nodes(), [first, second, gateway]);
        assert_eq!(size.listed(), [gateway, first, second]);
    }
}
