//! `cargo xtask servers`: real Kafka, MariaDB, Redis and etcd on loopback.

mod install;
mod kind;
mod probe;
mod recipe;
mod set;
#[cfg(test)]
mod tests;

use std::io::{Write, stdout};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

pub(crate) use kind::Kind;
pub(crate) use probe::ask;
pub(crate) use set::Servers;

use crate::interrupt::Interrupt;
use crate::job::{self, Ending};

/// Nobody waits longer for tests.
const RUN_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// What to do with the servers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Start those that do not run; they stay until `down`.
    Up,
    /// End all. Data and ports stay for the next `up`.
    Down {
        /// Throw data and ports away.
        #[arg(long)]
        forget: bool,
    },
    /// One line each: `kafka pid N port P`, or `kafka down`.
    Status,
    /// Bring back one that ended, on the same port and data.
    Start {
        /// Which.
        name: Kind,
    },
    /// Lines for a shell: where tests find the servers.
    Env,
    /// Run a command with a fresh set of servers of its own, whose addresses are in its
    /// environment as `env` names them. The set ends with it.
    Run {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

/// Does it.
///
/// # Errors
/// When something is missing on the machine, or a server does not start or end.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::on_signals()?;
    if let Action::Run { command } = &args.action {
        return run_with_own(command, &interrupt);
    }
    let mut servers = Servers::shared()?;
    let begun = Instant::now();
    let mut say = |line: &str| eprintln!("{line}");
    match &args.action {
        Action::Up => {
            let _lock = servers.lock(&interrupt)?;
            let started = servers.up(&interrupt, &mut say)?;
            if !started.is_empty() {
                eprintln!("{} started in {:.1} s", started.len(), begun.elapsed().as_secs_f64());
            }
            print(&status(&servers)?)?;
        }
        Action::Down { forget } => {
            let _lock = servers.lock(&interrupt)?;
            servers.down(&Kind::ALL)?;
            if *forget {
                servers.forget()?;
            }
        }
        Action::Status => print(&status(&servers)?)?,
        Action::Start { name } => {
            let _lock = servers.lock(&interrupt)?;
            servers.start(*name, &interrupt, &mut say)?;
            print(&[status_line(&servers, *name)?])?;
        }
        Action::Env => print(&exports(&servers)?)?,
        Action::Run { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command beside a private set.
fn run_with_own(command: &[String], interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    let mut say = |line: &str| eprintln!("{line}");
    let servers = Servers::private("servers-run", &Kind::ALL, interrupt, &mut say)?;
    run_command(command, &test_environment(&servers)?, interrupt)
}

/// Where tests find these servers, as variables of their environment.
///
/// # Errors
/// When one was never started.
pub(crate) fn test_environment(servers: &Servers) -> anyhow::Result<Vec<(&'static str, String)>> {
    Kind::ALL.into_iter().map(|kind| Ok((kind.test_variable(), servers.address(kind)?))).collect()
}

/// Runs a command with further variables; its output is ours, and so is its exit code.
///
/// # Errors
/// When it cannot be started or is interrupted.
pub(crate) fn run_command(
    command: &[String],
    environment: &[(&'static str, String)],
    interrupt: &Interrupt,
) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context("which command?")?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    match job::run(&mut command, RUN_LIMIT, interrupt, |_| {})? {
        Ending::Exited(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        ending => ending.check(program).map(|()| ExitCode::FAILURE),
    }
}

/// One line for each server.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn status(servers: &Servers) -> anyhow::Result<Vec<String>> {
    Kind::ALL.into_iter().map(|kind| status_line(servers, kind)).collect()
}

fn status_line(servers: &Servers, kind: Kind) -> anyhow::Result<String> {
    let name = kind.name();
    if !servers.kinds().contains(&kind) {
        return Ok(format!("{name} not ours, {} names it", kind.variable()));
    }
    Ok(match (servers.running(kind)?, servers.port(kind)) {
        (Some(daemon), Some(port)) => format!("{name} pid {} port {port}", daemon.pid()),
        _ => format!("{name} down"),
    })
}

fn exports(servers: &Servers) -> anyhow::Result<Vec<String>> {
    let line = |(name, address): (&str, String)| format!("export {name}={}", quoted(&address));
    Ok(test_environment(servers)?.into_iter().map(line).collect())
}

/// As one word of a shell; what needs no quotes has none.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":/@._-,".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}
