//! One measurement: a fresh server, a client, one report.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Common;
use super::link::Link;
use crate::build::{self, Binary};
use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::pinned::{on_core, with_small_pages};
use crate::repo::Repo;
use crate::server::Server;

/// Far beyond any run.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What the echo client reports; the fields used here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Report {
    pub(super) server_cpu_ns_per_message: f64,
    pub(super) client_cpu_ns_per_message: f64,
    pub(super) messages_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) server_busy: f64,
    pub(super) client_busy: f64,
    /// What was done on the server's core, by whomever; where that was asked for.
    pub(super) server_core_ns_per_message: Option<f64>,
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
    pub(super) anonymous_bytes: u64,
    pub(super) huge_page_bytes: u64,
}

/// The server side of a measurement.
#[derive(Debug, Clone, Default)]
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

/// A measuring client, built, and the cores of a measurement.
#[derive(Debug)]
pub(super) struct Instrument<'a> {
    client: PathBuf,
    /// Server and client; the scheduler's choice when left out.
    cores: Option<(usize, usize)>,
    /// Between server and client; they share the loopback device when left out.
    link: Option<Link>,
    interrupt: &'a Interrupt,
}

impl<'a> Instrument<'a> {
    /// Builds the client.
    ///
    /// # Errors
    /// When it does not build.
    pub(super) fn build(
        repo: &Repo,
        client: Binary,
        common: &Common,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let client = build::build(repo, client, &common.profile, interrupt)?;
        let cores = Some((common.server_core, common.client_core));
        Ok(Self { client, cores, link: None, interrupt })
    }

    /// The same with a link between server and client, each on its core.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn over_link(self) -> anyhow::Result<Self> {
        let (server, client) = self.cores.context("a link is between two cores")?;
        Ok(Self { link: Some(Link::create(server, client)?), ..self })
    }

    /// The same with server and client on any core.
    pub(super) fn unpinned(self) -> Self {
        Self { cores: None, ..self }
    }

    /// The client's program.
    pub(super) fn client(&self) -> &Path {
        &self.client
    }

    /// A command at an end of the link, if there is one.
    fn command(&self, program: &Path, at_end: fn(&Link, &Path) -> Command) -> Command {
        self.link.as_ref().map_or_else(|| Command::new(program), |link| at_end(link, program))
    }

    /// Starts the subject, runs the client against it, ends the subject.
    ///
    /// # Errors
    /// When the server does not start or stop as it should, or answers wrongly.
    pub(super) fn measure<R: DeserializeOwned>(
        &self,
        subject: &Subject,
        options: &[String],
    ) -> anyhow::Result<R> {
        self.with_server(subject, |server| self.drive(server, subject, options))
    }

    /// Whether the subject starts here at all.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn try_start(&self, subject: &Subject) -> anyhow::Result<()> {
        // Ended without ceremony: it may not even have got to handling signals.
        let subject = Subject { stops_cleanly: false, ..subject.clone() };
        self.with_server(&subject, |_| Ok(()))
    }

    /// Starts the subject, uses it, ends it.
    ///
    /// # Errors
    /// When it does not start or stop as it should, or `work` fails (then with its log).
    pub(super) fn with_server<T>(
        &self,
        subject: &Subject,
        work: impl FnOnce(&Server) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut server = self.start(subject)?;
        let outcome = work(&server);
        let outcome = outcome.with_context(|| format!("{}{}", subject.name, server.tail()))?;
        end(server, subject)?;
        Ok(outcome)
    }

    /// Starts the subject on its core.
    ///
    /// # Errors
    /// When it does not start as it should.
    pub(super) fn start(&self, subject: &Subject) -> anyhow::Result<Server> {
        let start = || {
            let mut command = self.command(&subject.program, Link::at_server);
            command.args(&subject.arguments).envs(subject.environment.iter().cloned());
            with_small_pages(subject.small_pages, || {
                Server::start(&subject.name, &mut command, self.interrupt)
            })
        };
        match self.cores {
            Some((core, _)) => on_core(core, start),
            None => start(),
        }
    }

    /// Does something with this thread on the client's core, if it has one: nothing of it is done on the server's, nor
    /// by threads started meanwhile.
    ///
    /// # Errors
    /// When the core is not for us, or `work` fails.
    pub(super) fn on_client_core<T>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match self.cores {
            Some((_, core)) => on_core(core, work),
            None => work(),
        }
    }

    /// Runs the client against a server and reads its report.
    ///
    /// # Errors
    /// When it fails or writes something else.
    pub(super) fn drive<R: DeserializeOwned>(
        &self,
        server: &Server,
        subject: &Subject,
        options: &[String],
    ) -> anyhow::Result<R> {
        let json = self.run_client(server, subject, options)?;
        serde_json::from_str(&json).context("the measuring client's report")
    }

    /// Runs the client against a server; what it writes.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn run_client(
        &self,
        server: &Server,
        subject: &Subject,
        options: &[String],
    ) -> anyhow::Result<String> {
        let mut command = self.client_command(server, subject, options);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let (mut output, mut faults) = (String::new(), String::new());
        let ending = job::run(&mut command, LIMIT, self.interrupt, |line| match line {
            Line::Out(text) => output += &text,
            Line::Err(text) => faults += &format!("\n  {text}"),
        })?;
        ending.check("the measuring client").with_context(|| faults)?;
        Ok(output)
    }

    /// The client's command line against a server.
    pub(super) fn client_command(
        &self,
        server: &Server,
        subject: &Subject,
        options: &[String],
    ) -> Command {
        let address = server.address();
        let address = address.strip_prefix("http://").unwrap_or(address);
        let mut command = self.command(&self.client, Link::at_client);
        command.args(["--connect", address, "--pid", &server.pid().to_string()]);
        if let Some((server_core, core)) = self.cores {
            command.args(["--core", &core.to_string(), "--server-core", &server_core.to_string()]);
        }
        command.args(&subject.client_options).args(options);
        // The message is enough; where in the client it arose is not the reader's business.
        command.env("RUST_BACKTRACE", "0");
        command
    }
}

/// Ends a server: asked, if it listens.
///
/// # Errors
/// When it was asked and does not end well.
pub(super) fn end(server: Server, subject: &Subject) -> anyhow::Result<()> {
    if subject.stops_cleanly {
        return server.stop();
    }
    server.kill();
    Ok(())
}

/// Compiles a C unit and describes it.
///
/// # Errors
/// When there is no C compiler.
pub(super) fn unit(
    name: &str,
    repo: &Repo,
    folder: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Subject> {
    let program = folder.join(name);
    let mut command = Command::new("cc");
    command.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(&program);
    command.arg(repo.path(&format!("bench/units/{name}.c")));
    job::run(&mut command, LIMIT, interrupt, |_| {})?.check("compiling the unit")?;
    Ok(Subject {
        name: String::from("unit"),
        program,
        client_options: vec![String::from("--protocol=tcp")],
        ..Subject::default()
    })
}

/// The gateway's echo mode with one shard, over WebSocket, with the driver named or the one it
/// chooses.
pub(super) fn gateway_echo(program: PathBuf, driver: Option<&str>) -> Subject {
    let mut arguments = words("echo --listen 127.0.0.1:0 --shards 1");
    let mut name = String::from("gateway echo");
    if let Some(driver) = driver {
        arguments.push(format!("--io={driver}"));
        name += &format!(", {driver}");
    }
    let client_options = words("--protocol=ws");
    Subject { name, program, arguments, client_options, stops_cleanly: true, ..Subject::default() }
}

/// The same with this congestion control instead of the system's.
pub(super) fn gateway_paced(program: PathBuf, algorithm: &str) -> Subject {
    let mut subject = gateway_echo(program, None);
    subject.name += &format!(", {algorithm}");
    subject.arguments.push(format!("--congestion-control={algorithm}"));
    subject
}

/// The words of a command line without quotes.
pub(super) fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(String::from).collect()
}
