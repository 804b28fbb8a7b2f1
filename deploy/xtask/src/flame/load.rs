//! The load as a child that goes on until it is ended.

use std::fs;
use std::process::{Child, Command};
use std::sync::mpsc::Receiver;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use crate::interrupt::Interrupt;
use crate::job::{Group, Line, read_lines, spawn_piped};

/// How often the connections are counted. The kernel's list of them is long.
const LOOK: Duration = Duration::from_millis(250);
/// Far beyond what connecting and logging in takes.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);
/// From the last connection to the recording: logins, conversations, full windows.
const SETTLE: Duration = Duration::from_secs(2);
/// Lines of the load shown when it ends early.
const LAST_LINES: usize = 10;

/// A running load. Ends with its value.
pub(super) struct Load {
    child: Child,
    group: Group,
    lines: Receiver<Line>,
}

impl Load {
    /// Starts it.
    ///
    /// # Errors
    /// When the program does not start.
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = spawn_piped(command)?;
        let (lines, group) = (read_lines(&mut child), Group::of(&child));
        Ok(Self { child, group, lines })
    }

    /// Waits until the server at `address` has this many connections and they are at work.
    ///
    /// # Errors
    /// When the load ends, or two minutes were not enough.
    pub(super) fn wait_connected(
        &self,
        address: &str,
        connections: u64,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let port = port(address).with_context(|| format!("no port in {address:?}"))?;
        let deadline = Instant::now() + CONNECT_LIMIT;
        let mut there = 0;
        while there < connections {
            if Instant::now() >= deadline {
                let seconds = CONNECT_LIMIT.as_secs();
                bail!("only {there} of {connections} connections within {seconds} s");
            }
            self.pause(LOOK, interrupt)?;
            let table = fs::read_to_string("/proc/net/tcp").context("/proc/net/tcp")?;
            there = established(&table, port);
        }
        self.pause(SETTLE, interrupt)
    }

    fn pause(&self, time: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
        sleep(time);
        if interrupt.raised() {
            bail!("interrupted");
        }
        self.check()
    }

    /// An error when it has ended.
    fn check(&self) -> anyhow::Result<()> {
        if !self.group.leader_ended()? {
            return Ok(());
        }
        let lines: Vec<String> = self
            .lines
            .try_iter()
            .map(|(Line::Out(text) | Line::Err(text))| format!("\n  {text}"))
            .collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].concat();
        Err(anyhow!("the load ended by itself{last}"))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it had ended by itself: what was recorded is not what was wanted.
    pub(super) fn end(self) -> anyhow::Result<()> {
        self.check()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.group.signal(rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

fn port(address: &str) -> Option<u16> {
    address.rsplit(':').next()?.parse().ok()
}

/// Connections of the server that listens on `port`, in the kernel's table: local address, remote
/// address, state (1: established), numbers in hexadecimal.
fn established(table: &str, port: u16) -> u64 {
    let local = format!(":{port:04X}");
    let ours = |line: &&str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let ends_here = words.next().is_some_and(|address| address.ends_with(&local));
        ends_here && words.nth(1) == Some("01")
    };
    table.lines().filter(ours).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_port_are_counted() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000\n\
            2: 0100007F:9C40 0100007F:1F90 01 00000000:00000000\n\
            3: 0100007F:1F90 0100007F:9C41 06 00000000:00000000\n\
            4: 0100007F:1F90 0100007F:9C42 01 00000000:00000000\n";
        assert_eq!(established(table, 8080), 2);
        assert_eq!(established(table, 80), 0);
        assert_eq!(port("127.0.0.1:8080"), Some(8080));
        assert_eq!(port("http://127.0.0.1:8080"), Some(8080));
        assert_eq!(port("nothing"), None);
    }

    #[test]
    fn real_connections_are_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _here = std::net::TcpStream::connect(address).unwrap();
        let _there = listener.accept().unwrap();
        let load = Load::start(Command::new("sleep").arg("1000")).unwrap();
        load.wait_connected(&address.to_string(), 1, &Interrupt::default()).unwrap();
        load.end().unwrap();
    }

    #[test]
    fn a_load_that_ends_early_is_an_error_with_its_words() {
        let load = Load::start(Command::new("sh").args(["-c", "echo the reason; exit 1"])).unwrap();
        let outcome = load.wait_connected("127.0.0.1:1", 1, &Interrupt::default());
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("the reason"), "{error}");
    }
}
