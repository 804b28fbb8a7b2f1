//! The loads: which server, which client, how they are called.

use std::path::Path;
use std::process::Command;

use crate::build::{Binary, CORELANE, ECHO_CLIENT, GATEWAY, LOADGEN};

/// What the server does while it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// `gateway echo` under the bench's closed-loop client: one core each.
    Echo,
    /// The embedded server, pairs in direct conversations, as many messages as it takes.
    Chat,
    /// The embedded server, groups of 500, every message delivered to all.
    Fanout,
    /// The embedded server, logged-in connections that only send heartbeats.
    Idle,
    /// The embedded server, connections that come, log in and go.
    Establish,
}

impl Scenario {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Chat => "chat",
            Self::Fanout => "fanout",
            Self::Idle => "idle",
            Self::Establish => "establish",
        }
    }

    /// For the head of the picture.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Echo => "WebSocket echo",
            Self::Chat => "One to one, stored and delivered",
            Self::Fanout => "Groups of 500, all online",
            Self::Idle => "Heartbeats only",
            Self::Establish => "Connect, log in, leave",
        }
    }

    /// Connections unless told otherwise.
    pub(super) fn connections(self) -> u64 {
        match self {
            Self::Echo | Self::Idle => 15_000,
            Self::Chat | Self::Fanout => 1_000,
            Self::Establish => 2_000,
        }
    }

    /// The program that is recorded.
    pub(super) fn server(self) -> Binary {
        if self == Self::Echo { GATEWAY } else { CORELANE }
    }

    /// The program that makes the load.
    pub(super) fn client(self) -> Binary {
        if self == Self::Echo { ECHO_CLIENT } else { LOADGEN }
    }

    /// Whether the recording begins when all connections are there.
    pub(super) fn records_connected(self) -> bool {
        self != Self::Establish
    }

    /// Whether server and load have a core of their own, as in the bench.
    pub(super) fn one_core_each(self) -> bool {
        self == Self::Echo
    }
}

/// One recording.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    pub(super) connections: u64,
    pub(super) seconds: u64,
}

impl Plan {
    /// Options of the server, which keeps what it stores in `data`.
    pub(super) fn server_arguments(&self, data: &Path) -> Vec<String> {
        if self.scenario == Scenario::Echo {
            return words("echo --listen 127.0.0.1:0 --shards 1");
        }
        let mut arguments = words("--listen 127.0.0.1:0 --dev-login --data-dir");
        arguments.push(data.display().to_string());
        for limit in
            ["--messages-per-second", "--message-burst", "--requests-per-second", "--request-burst"]
        {
            arguments.extend([limit.to_owned(), String::from("1000000")]);
        }
        arguments.extend([String::from("--max-connections"), (self.connections + 100).to_string()]);
        arguments
    }

    /// The load, which goes on until it is ended.
    pub(super) fn client_command(&self, client: &Path, address: &str) -> Command {
        let address = address.strip_prefix("http://").unwrap_or(address);
        let connections = self.connections.to_string();
        let mut command = Command::new(client);
        let line = match self.scenario {
            Scenario::Echo => {
                let (pid, number) = (std::process::id(), u64::from(u32::MAX));
                command.args(["--connect", address, "--connections", &connections]);
                let outstanding = self.connections.min(500);
                format!(
                    "--protocol ws --outstanding {outstanding} --payload 512 --messages {number} \
                     --warmup 0 --settle-ms 0 --pid {pid}"
                )
            }
            Scenario::Chat => String::from("chat --rate max --window 8 --audit none"),
            Scenario::Fanout => format!(
                "chat --rate max --window 1 --audit none --group-size {}",
                self.connections.min(500)
            ),
            Scenario::Idle => String::from("idle --heartbeat 5s"),
            Scenario::Establish => {
                // One round after another: each connection logs in, holds, and goes.
                command = Command::new("sh");
                command.args(["-c", r#"while "$0" "$@" >&2; do :; done"#]).arg(client);
                String::from("idle --heartbeat 30s")
            }
        };
        command.args(words(&line));
        if self.scenario != Scenario::Echo {
            let round = self.scenario == Scenario::Establish;
            let duration = if round { "100ms" } else { "1h" };
            command.args(["--url", &format!("ws://{address}/ws"), "--connections", &connections]);
            command.args(["--duration", duration]);
        }
        command
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn plan(scenario: Scenario) -> Plan {
        Plan { scenario, connections: 40, seconds: 1 }
    }

    fn line(command: &Command) -> String {
        let program = command.get_program().to_string_lossy().into_owned();
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        [program].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_load_is_bound_to_loopback_and_its_connections() {
        for scenario in Scenario::value_variants() {
            assert_eq!(Scenario::from_str(scenario.name(), false), Ok(*scenario));
            let server = plan(*scenario).server_arguments(Path::new("/d")).join(" ");
            assert!(server.contains("--listen 127.0.0.1:0"), "{server}");
            let client = plan(*scenario).client_command(Path::new("/c"), "http://127.0.0.1:7");
            let client = line(&client);
            assert!(client.contains("127.0.0.1:7") && client.contains("--connections 40"));
            assert!(!client.contains("http:"), "{client}");
        }
    }

    #[test]
    fn more_messages_under_way_than_connections_are_not_asked_for() {
        let client = plan(Scenario::Echo).client_command(Path::new("/c"), "127.0.0.1:7");
        assert!(line(&client).contains("--outstanding 40 "));
        let client = plan(Scenario::Fanout).client_command(Path::new("/c"), "127.0.0.1:7");
        assert!(line(&client).contains("--group-size 40 "));
    }
}
