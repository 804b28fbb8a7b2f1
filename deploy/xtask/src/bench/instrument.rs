//! One measurement: a fresh server on its core, the client on the other, one report.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::Common;
use crate::build::{self, ECHO_CLIENT};
use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::pinned::{on_core, with_small_pages};
use crate::repo::Repo;
use crate::server::Server;

/// Far beyond any run: connecting, 350,000 messages, quiet times.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What the client reports; the fields used here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Report {
    pub(super) server_cpu_ns_per_message: f64,
    pub(super) client_cpu_ns_per_message: f64,
    pub(super) messages_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) server_busy: f64,
    pub(super) client_busy: f64,
    pub(super) connect_ms: f64,
    pub(super) memory: Memory,
}

/// Memory as the client reports it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Memory {
    pub(super) start: Reading,
    pub(super) after: Reading,
    pub(super) idle_bytes_per_connection: f64,
    pub(super) after_bytes_per_connection: f64,
}

/// One reading of a server's memory.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reading {
    pub(super) rss_bytes: u64,
    pub(super) private_dirty_bytes: u64,
    pub(super) huge_page_bytes: u64,
}

/// The server side of a measurement.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// For tables.
    pub(super) name: String,
    /// Program and arguments; it announces its address as `NAME ready on ADDRESS`.
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Its environment, beside ours.
    pub(super) environment: Vec<(String, String)>,
    /// Options of the client that say how to speak to it.
    pub(super) client_options: Vec<String>,
    /// Whether it gets memory in pages of 4 KiB only.
    pub(super) small_pages: bool,
    /// Whether it handles SIGTERM, and must end well when asked.
    pub(super) stops_cleanly: bool,
}

/// The measuring client, built.
#[derive(Debug)]
pub(super) struct Instrument<'a> {
    client: PathBuf,
    common: &'a Common,
    interrupt: &'a Interrupt,
}

impl<'a> Instrument<'a> {
    /// Builds the client.
    ///
    /// # Errors
    /// When it does not build.
    pub(super) fn build(
        repo: &Repo,
        common: &'a Common,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let client = build::build(repo, ECHO_CLIENT, &common.profile, interrupt)?;
        Ok(Self { client, common, interrupt })
    }

    /// Starts the subject, runs the client against it, ends the subject.
    ///
    /// # Errors
    /// When the server does not start or stop as it should, or answers wrongly.
    pub(super) fn measure(&self, subject: &Subject, more: &[&str]) -> anyhow::Result<Report> {
        let mut server = on_core(self.common.server_core, || {
            let mut command = Command::new(&subject.program);
            command.args(&subject.arguments).envs(subject.environment.iter().cloned());
            with_small_pages(subject.small_pages, || {
                Server::start(&subject.name, &mut command, self.interrupt)
            })
        })?;
        let report = self.drive(&server, subject, more);
        let report = report.with_context(|| format!("{}{}", subject.name, server.tail()))?;
        if subject.stops_cleanly {
            server.stop()?;
        } else {
            server.kill();
        }
        Ok(report)
    }

    fn drive(&self, server: &Server, subject: &Subject, more: &[&str]) -> anyhow::Result<Report> {
        let address = server.address();
        let address = address.strip_prefix("http://").unwrap_or(address);
        let Common { connections, outstanding, payload, client_core, .. } = self.common;
        let numbers = [
            ("--pid", server.pid() as usize),
            ("--connections", *connections),
            ("--outstanding", *outstanding),
            ("--payload", *payload),
            ("--core", *client_core),
        ];
        let mut command = Command::new(&self.client);
        command.args(["--connect", address]);
        for (option, value) in numbers {
            command.args([option, &value.to_string()]);
        }
        command.args(&subject.client_options).args(more);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let (mut json, mut faults) = (String::new(), String::new());
        let ending = job::run(&mut command, LIMIT, self.interrupt, |line| match line {
            Line::Out(text) => json += &text,
            Line::Err(text) => faults += &format!("\n  {text}"),
        })?;
        ending.check("the measuring client").with_context(|| faults)?;
        serde_json::from_str(&json).context("the measuring client's report")
    }
}

/// Compiles the C unit and describes it.
///
/// # Errors
/// When there is no C compiler.
pub(super) fn unit(repo: &Repo, folder: &Path, interrupt: &Interrupt) -> anyhow::Result<Subject> {
    let program = folder.join("epoll_echo");
    let mut command = Command::new("cc");
    command.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(&program);
    command.arg(repo.path("bench/units/epoll_echo.c"));
    job::run(&mut command, LIMIT, interrupt, |_| {})?.check("compiling the unit")?;
    Ok(Subject {
        name: String::from("unit"),
        program,
        arguments: Vec::new(),
        environment: Vec::new(),
        client_options: vec![String::from("--protocol"), String::from("tcp")],
        small_pages: false,
        stops_cleanly: false,
    })
}

/// The gateway's echo mode with one shard, over WebSocket.
pub(super) fn gateway_echo(program: PathBuf) -> Subject {
    let words = |line: &str| line.split(' ').map(String::from).collect();
    Subject {
        name: String::from("gateway echo"),
        program,
        arguments: words("echo --listen 127.0.0.1:0 --shards 1"),
        environment: Vec::new(),
        client_options: words("--protocol ws"),
        small_pages: false,
        stops_cleanly: true,
    }
}
