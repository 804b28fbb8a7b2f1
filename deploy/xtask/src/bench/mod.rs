//! `cargo xtask bench`: what the server costs, as a ratio to a bare echo in C measured in the
//! same minute.

mod host;
mod idle_memory;
mod instrument;
mod ratio;
mod rounds;

use std::process::ExitCode;

use crate::interrupt::Interrupt;
use crate::repo::Repo;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Server CPU per echoed message, divided by that of a bare epoll echo in C.
    Echo(rounds::Args),
    /// User memory per idle WebSocket connection.
    IdleMemory(idle_memory::Args),
}

/// Options every measurement has.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// Open connections.
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Messages under way at any time, each on its own connection.
    #[arg(long, default_value_t = 500)]
    outstanding: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 512)]
    payload: usize,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the client.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Cargo profile of what is measured.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Write no result file.
    #[arg(long)]
    dry_run: bool,
}

/// Measures and writes the result.
///
/// # Errors
/// When something does not build or start, or a server answers wrongly.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let repo = Repo::find()?;
    let interrupt = Interrupt::on_signals()?;
    match &args.what {
        What::Echo(args) => rounds::run(args, &repo, &interrupt)?,
        What::IdleMemory(args) => idle_memory::run(args, &repo, &interrupt)?,
    }
    Ok(ExitCode::SUCCESS)
}
