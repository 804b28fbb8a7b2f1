//! Records that nobody can read, put among those of the gateways by Kafka's own producer.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::panics;
use super::rows::{Act, Row};
use crate::cluster::Cluster;
use crate::interrupt::Interrupt;
use crate::servers::Kind;

/// Short records of one helping, each with a key of its own: they go to several partitions.
const SHORT: u64 = 5;
/// Bytes of the long one: below what Kafka takes, above what anybody sends.
const LONG_BYTES: usize = 900_000;
/// The producer starts a virtual machine of its own.
const LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);

/// How many records a row's script sends that cannot be worked.
pub(super) fn sent(row: &Row) -> u64 {
    fn count(acts: &[Act]) -> u64 {
        acts.iter()
            .map(|act| match act {
                Act::Poison => SHORT + 1,
                Act::Panic => panics::SENT,
                Act::Times(times, acts) => u64::from(*times) * count(acts),
                _ => 0,
            })
            .sum()
    }
    count(row.script)
}

/// Sends one helping.
///
/// # Errors
/// When the producer fails.
pub(super) fn send(cluster: &mut Cluster, interrupt: &Interrupt) -> anyhow::Result<()> {
    let servers = cluster.servers();
    let mut child = Command::new("java")
        .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(servers.kafka_jars().join("*"))
        .arg("org.apache.kafka.tools.ConsoleProducer")
        .args(["--bootstrap-server", &servers.address(Kind::Kafka)?])
        .args(["--topic", "im-upstream"])
        .args(["--reader-property", "parse.key=true", "--reader-property", "key.separator=|"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start Kafka's producer")?;
    let mut input = child.stdin.take().context("a producer without standard input")?;
    for number in 0..SHORT {
        writeln!(input, "key-{number}|\u{7f}not a record {number}")?;
    }
    writeln!(input, "long|{}", "\u{7f}".repeat(LONG_BYTES))?;
    drop(input);
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for Kafka's producer")? {
            if !status.success() {
                bail!("Kafka's producer failed ({status})");
            }
            return Ok(());
        }
        if interrupt.raised() || Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("Kafka's producer was stopped");
        }
        thread::sleep(TICK);
    }
}

/// Rows in the table of dead letters.
///
/// # Errors
/// When the database does not answer.
pub(super) fn dead_letters(cluster: &mut Cluster) -> anyhow::Result<u64> {
    let port = cluster.servers().port(Kind::MariaDb).context("MariaDB was never started")?;
    let output = Command::new("mariadb")
        .args(["--no-defaults", "--host=127.0.0.1", "--user=root", "--batch"])
        .args(["--skip-column-names", &format!("--port={port}"), "--execute"])
        .arg("SELECT COUNT(*) FROM corelane.dead_letters")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the client of MariaDB")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("MariaDB counted {text:?} dead letters"))
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::*;

    #[test]
    fn what_a_script_sends_is_counted() {
        let row = ROWS.iter().find(|row| row.id == "F17").unwrap();
        assert_eq!(sent(row), 2 * (SHORT + 1 + panics::SENT));
        assert_eq!(sent(&ROWS[0]), 0);
    }
}
