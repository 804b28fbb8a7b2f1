//! Opens connections as fast as it can, upgrade and login included, and writes what each cost as
//! one JSON document.

use std::io::Write;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use bench::establish::{Established, Login, Requests, establish, fetch_tokens};
use bench::machine;
use bench::process::Observed;
use clap::{Parser, ValueEnum};
use serde::Serialize;

/// How connections log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Not at all: upgrades only.
    None,
    /// By name, under the chat server's development login.
    Name,
    /// By access token in the subprotocol.
    Token,
}

/// Connection generator.
#[derive(Debug, Parser)]
struct Args {
    /// Address of the server under test.
    #[arg(long)]
    connect: SocketAddrV4,
    /// Process id of the server, for its CPU time.
    #[arg(long)]
    pid: u32,
    /// How connections log in.
    #[arg(long, value_enum, default_value = "none")]
    by: By,
    /// File of access tokens, one a line. With --users it is written, without it is read.
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// Only register this many users over REST and write as many different tokens of theirs as
    /// there are --connections.
    #[arg(long)]
    users: Option<usize>,
    /// Connections to open.
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Threads that open them.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Connections of a thread that wait for their answer at any time.
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Core to run on; the scheduler's choice when left out.
    #[arg(long)]
    core: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: usize,
    wall_ms: f64,
    connections_per_s: f64,
    server_cpu_ns_per_connection: f64,
    client_cpu_ns_per_connection: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let (Some(users), Some(path)) = (args.users, &args.tokens) {
        let tokens = fetch_tokens(args.connect, users, args.connections)?.join("\n");
        return std::fs::write(path, tokens)
            .with_context(|| format!("cannot write {}", path.display()));
    }
    if args.users.is_some() || args.threads == 0 {
        bail!("--users needs --tokens, and there is at least one thread");
    }
    if let Some(core) = args.core {
        machine::pin_to_core(core)?;
    }
    machine::reserve_descriptors(args.connections)?;
    let requests = Requests::write(args.connect, &login(&args)?, args.connections)?;
    let report = serde_json::to_string_pretty(&measure(&args, &requests)?)? + "\n";
    std::io::stdout().write_all(report.as_bytes()).context("cannot write the result")
}

fn login(args: &Args) -> anyhow::Result<Login> {
    match (args.by, &args.tokens) {
        (By::None, _) => Ok(Login::None),
        (By::Name, _) => Ok(Login::Name),
        (By::Token, None) => bail!("--by token needs --tokens"),
        (By::Token, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Login::Tokens(text.lines().map(String::from).collect()))
        }
    }
}

fn measure(args: &Args, requests: &Requests) -> anyhow::Result<Report> {
    let server = Observed::new(args.pid);
    let (server_from_ns, client_from_ns) = (server.cpu_ns()?, own_cpu_ns());
    let started = Instant::now();
    let established = on_threads(args, requests)?;
    let wall_ns = started.elapsed().as_nanos() as f64;
    let client_ns = (own_cpu_ns() - client_from_ns) as f64;
    let spent = "a server thread ended while it was measured";
    let server_ns = server.cpu_ns()?.checked_sub(server_from_ns).context(spent)? as f64;
    let mut open = 0;
    for part in established {
        open += part.reset()?;
    }
    if open != args.connections {
        bail!("{open} connections were open at the end, not {}", args.connections);
    }
    let connections = open.max(1) as f64;
    Ok(Report {
        connections: open,
        wall_ms: wall_ns / 1e6,
        connections_per_s: connections / wall_ns * 1e9,
        server_cpu_ns_per_connection: server_ns / connections,
        client_cpu_ns_per_connection: client_ns / connections,
    })
}

fn on_threads(args: &Args, requests: &Requests) -> anyhow::Result<Vec<Established>> {
    let (count, threads) = (requests.count(), args.threads);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|at| {
                let range = count * at / threads..count * (at + 1) / threads;
                scope.spawn(move || establish(args.connect, requests, range, args.window))
            })
            .collect();
        let joined = workers.into_iter().map(|worker| {
            worker.join().map_err(|_| anyhow::anyhow!("a generator thread panicked"))?
        });
        joined.collect()
    })
}

/// CPU time of this process, threads that ended included.
fn own_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}
