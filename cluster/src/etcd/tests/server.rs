//! An etcd of a test's own.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::own_address::own_address;

/// A child process that is killed when the test ends, however it ends.
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub(super) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One member with its data in a folder that goes with it.
pub(super) struct Server {
    folder: tempfile::TempDir,
    client: String,
    peer: String,
    pub(super) process: Process,
}

impl Server {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (client, peer) = (own_url(), own_url());
        let process = spawn(&folder, &client, &peer);
        Self { folder, client, peer, process }
    }

    /// `http://...`
    pub(super) fn url(&self) -> String {
        self.client.clone()
    }

    /// `IP:PORT`
    pub(super) fn address(&self) -> &str {
        self.client.trim_start_matches("http://")
    }

    /// With the data it had.
    pub(super) fn start_again(&mut self) {
        self.process = spawn(&self.folder, &self.client, &self.peer);
    }

    /// With no data.
    pub(super) fn start_empty(&mut self) {
        self.folder = tempfile::tempdir().unwrap();
        self.start_again();
    }

    /// Connects, waiting for it to be ready.
    pub(super) async fn connect(&self, settings: &super::Settings) -> super::Etcd {
        let connecting = async {
            loop {
                match super::Etcd::connect(settings).await {
                    Ok(etcd) => return etcd,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        };
        super::soon("etcd answers", connecting).await
    }
}

fn own_url() -> String {
    format!("http://{}", own_address())
}

fn spawn(folder: &tempfile::TempDir, client: &str, peer: &str) -> Process {
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program etcd must be installed (Debian: etcd-server)");
    Process(child)
}
