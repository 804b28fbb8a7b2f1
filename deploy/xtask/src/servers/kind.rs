//! The four servers by name.

use serde::{Deserialize, Serialize};

/// One of the servers that the cluster form needs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub(crate) enum Kind {
    /// The log between gateways and logic services.
    Kafka,
    /// The database.
    MariaDb,
    /// Routes and caches.
    Redis,
    /// Who is there.
    Etcd,
}

impl Kind {
    /// All of them, in the order they are listed.
    pub(crate) const ALL: [Self; 4] = [Self::Kafka, Self::MariaDb, Self::Redis, Self::Etcd];

    /// Its name on the command line and in `status`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::MariaDb => "mariadb",
            Self::Redis => "redis",
            Self::Etcd => "etcd",
        }
    }

    /// The variable that names a server to use instead of one of ours.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Kafka => "CORELANE_KAFKA",
            Self::MariaDb => "CORELANE_MYSQL",
            Self::Redis => "CORELANE_REDIS",
            Self::Etcd => "CORELANE_ETCD",
        }
    }

    /// The variable by which tests are told its address.
    pub(crate) fn test_variable(self) -> &'static str {
        match self {
            Self::Kafka => "CORELANE_TEST_KAFKA",
            Self::MariaDb => "CORELANE_TEST_MYSQL",
            Self::Redis => "CORELANE_TEST_REDIS",
            Self::Etcd => "CORELANE_TEST_ETCD",
        }
    }

    /// How many ports it listens on; the first is the one clients use.
    pub(crate) fn ports(self) -> usize {
        match self {
            // The controller's.
            Self::Kafka => 2,
            Self::MariaDb | Self::Redis => 1,
            // Its peers'.
            Self::Etcd => 2,
        }
    }

    /// The address of ours on a port, in the form its clients take.
    pub(crate) fn address(self, port: u16) -> String {
        match self {
            Self::Kafka => format!("127.0.0.1:{port}"),
            Self::MariaDb => format!("mysql://root@127.0.0.1:{port}"),
            Self::Redis => format!("redis://127.0.0.1:{port}"),
            Self::Etcd => format!("http://127.0.0.1:{port}"),
        }
    }

    /// The address in the environment, if somebody named a server of their own.
    pub(crate) fn external(self) -> Option<String> {
        std::env::var(self.variable()).ok().filter(|address| !address.trim().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        use clap::ValueEnum;
        for kind in Kind::ALL {
            let spelled = kind.to_possible_value().unwrap();
            assert_eq!(spelled.get_name(), kind.name());
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
        }
    }
}
