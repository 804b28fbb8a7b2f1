//! A Redis of a test's own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::store::own_port::own_port;

/// A server that ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(super) port: u16,
    pub(super) dir: TempDir,
}

impl Server {
    /// Starts one with these further arguments and waits until it answers.
    pub(crate) fn start(more: &[&str]) -> Self {
        // The port of the cluster bus may be somebody else's.
        (0..5).find_map(|_| Self::try_start(new_dir(), port(), more)).expect("a server")
    }

    /// The same in a folder and on a port used before.
    pub(super) fn start_in(dir: TempDir, port: u16, more: &[&str]) -> Self {
        Self::try_start(dir, port, more).expect("a server on this port")
    }

    fn try_start(dir: TempDir, port: u16, more: &[&str]) -> Option<Self> {
        let text = port.to_string();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &text, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
            .args(["--dir", dir.path().to_str().expect("a path of text")])
            .args(more);
        Self::spawn(command, dir, port)
    }

    /// A sentinel with this configuration.
    pub(super) fn sentinel(dir: TempDir, port: u16, file: &Path) -> Option<Self> {
        let mut command = Command::new("redis-server");
        command.arg(file).args(["--sentinel", "--port", &port.to_string(), "--bind", "127.0.0.1"]);
        Self::spawn(command, dir, port)
    }

    fn spawn(mut command: Command, dir: TempDir, port: u16) -> Option<Self> {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let mut server = Self { child, port, dir };
        let since = Instant::now();
        while !server.answers() {
            let ended = !matches!(server.child.try_wait(), Ok(None));
            if ended || since.elapsed() > Duration::from_secs(60) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    pub(crate) fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is this one that answers at its port.
    fn answers(&self) -> bool {
        let own = format!("process_id:{}\r", self.pid());
        self.query::<String>(&["INFO", "server"]).is_ok_and(|info| info.contains(&own))
    }

    /// The answer to a command, past the code under test.
    pub(crate) fn query<T: ::redis::FromRedisValue>(
        &self,
        words: &[&str],
    ) -> ::redis::RedisResult<T> {
        let client = ::redis::Client::open(self.address())?;
        let wait = super::PATIENCE;
        let mut connection = client.get_connection_with_timeout(wait)?;
        connection.set_read_timeout(Some(wait))?;
        let mut command = ::redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut connection)
    }

    /// Stops it from doing anything, or lets it go on.
    pub(super) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([format!("-{name}"), pid]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Kills it; gives its folder and its port.
    pub(super) fn kill(mut self) -> (TempDir, u16) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        (std::mem::replace(&mut self.dir, new_dir()), self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn new_dir() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A port of our own whose cluster bus port is in range, too.
pub(super) fn port() -> u16 {
    let in_range = |port: &u16| *port < 55_000;
    (0..100).map(|_| own_port()).find(in_range).expect("a port below 55000")
}
