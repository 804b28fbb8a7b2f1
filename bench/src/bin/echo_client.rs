//! Drives an echo server in a closed loop and writes what it cost as one JSON document.
//!
//! Phases: memory at the start; the warm connections and their exchanges; the other connections,
//! memory around each step; warm-up and measured exchanges, memory after. CPU is that of the
//! measured exchanges alone: of all that ran on the server's core, and of the server as charged.
//!
//! With `--slices` it connects, warms up, writes one line and then waits for turns on standard input; each is a slice of
//! messages and gets one line of JSON. So many servers can be measured side by side, each with a client of its own.

use std::fs;
use std::io::Write;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bench::accounts::{Accounts, Cpu};
use bench::client::{Client, Order, Protocol, Slice, Target};
use bench::growth::{self, Reading};
use bench::machine::{self, IdleSource};
use bench::process::{Memory, Observed};
use bench::turns;
use clap::Parser;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Closed-loop echo client, pinned to one core.
#[derive(Debug, Parser)]
struct Args {
    /// Address of the server under test.
    #[arg(long)]
    connect: SocketAddrV4,
    /// Process id of the server, for its CPU time and memory.
    #[arg(long)]
    pid: u32,
    /// How to speak to it.
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// Path of the WebSocket handshake; {n} becomes the connection's number.
    #[arg(long, default_value = "/")]
    path: String,
    /// Open connections.
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Connections, part of --connections, opened and used before the reading that growth is
    /// counted from: what a server makes once, at first use, is no cost of a connection.
    #[arg(long, default_value_t = 0)]
    warm_connections: usize,
    /// Messages exchanged on the warm connections.
    #[arg(long, default_value_t = 0)]
    warm_messages: u64,
    /// The other connections are opened in this many steps, with a memory reading after each.
    #[arg(long, default_value_t = 1)]
    steps: usize,
    /// Messages under way at any time, each on its own connection.
    #[arg(long, default_value_t = 500)]
    outstanding: usize,
    /// Bytes of each message (not for the heartbeat of --protocol corelane).
    #[arg(long, default_value_t = 512)]
    payload: usize,
    /// Measured messages.
    #[arg(long, default_value_t = 300_000)]
    messages: u64,
    /// Messages before the measured ones.
    #[arg(long, default_value_t = 50_000)]
    warmup: u64,
    /// Which connection carries the next message.
    #[arg(long, value_enum, default_value = "random")]
    order: Order,
    /// Quiet time before memory is read.
    #[arg(long, default_value_t = 1_000)]
    settle_ms: u64,
    /// Core to run on; the scheduler's choice when left out.
    #[arg(long)]
    core: Option<usize>,
    /// Core the server runs on, to count all that is done there.
    #[arg(long)]
    server_core: Option<usize>,
    /// File for the result; standard output when left out.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Number of the first connection. Clients that run at the same time need ranges of their own: from the number
    /// follows which of this machine's addresses a connection comes from.
    #[arg(long, default_value_t = 0)]
    first_number: usize,
    /// Measure when told to: a line of standard input is the number of messages of a slice. Memory is not measured.
    #[arg(long, conflicts_with_all = ["messages", "warm_connections", "steps", "settle_ms", "json"])]
    slices: bool,
    /// Messages at the start of each slice that are not counted.
    #[arg(long, default_value_t = 2_000, requires = "slices")]
    slice_warmup: u64,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    start: Memory,
    idle: Memory,
    after: Memory,
    /// From the warm connections to all of them.
    steps: Vec<Reading>,
    /// Bytes per connection while they were opened.
    idle_bytes_per_connection: f64,
    /// The same and what the exchanges added, spread over all connections; less when the server
    /// gave pages back.
    after_bytes_per_connection: f64,
}

/// What some messages showed and cost.
#[derive(Debug, Serialize)]
struct Figures {
    messages: u64,
    wall_ms: f64,
    messages_per_s: f64,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    server_cpu_ns_per_message: f64,
    client_cpu_ns_per_message: f64,
    /// Share of a core each side kept busy: the server should be near 1, or the client was
    /// the slower one.
    server_busy: f64,
    client_busy: f64,
    /// What was done on the server's core, by whomever, for one message; with `--server-core`.
    server_core_ns_per_message: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    protocol: String,
    connections: usize,
    outstanding: usize,
    payload_bytes: usize,
    connect_ms: f64,
    #[serde(flatten)]
    figures: Figures,
    memory: MemoryReport,
}

/// The first line with `--slices`.
#[derive(Debug, Serialize)]
struct Ready {
    connect_ms: f64,
    /// The step in which the idle time of the server's core is told; with `--server-core`.
    idle_step_ns: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.slices {
        return slices(&args);
    }
    let report = serde_json::to_string_pretty(&run(&args)?)? + "\n";
    match &args.json {
        Some(path) => {
            fs::write(path, report).with_context(|| format!("cannot write {}", path.display()))
        }
        None => std::io::stdout().write_all(report.as_bytes()).context("cannot write the result"),
    }
}

/// A client without connections, on its core, and where it is to connect.
fn prepare(args: &Args) -> anyhow::Result<(Client, Target)> {
    if let Some(core) = args.core {
        machine::pin_to_core(core)?;
    }
    machine::reserve_descriptors(args.connections)?;
    let target = Target {
        address: args.connect,
        protocol: args.protocol,
        path: args.path.clone(),
        first_number: args.first_number,
    };
    Ok((Client::new(&target, args.payload, args.order)?, target))
}

fn run(args: &Args) -> anyhow::Result<Report> {
    if args.warm_connections >= args.connections {
        bail!("--warm-connections must be below --connections");
    }
    let (mut client, target) = prepare(args)?;
    let server = Observed::new(args.pid);
    let start = server.memory()?;
    warm_up(args, &mut client, &target)?;
    let (steps, connecting) = open(args, &mut client, &target, &server)?;
    let idle = server.memory()?;

    if args.warmup > 0 {
        client.exchange(args.warmup, args.outstanding)?;
    }
    let before = Accounts::read(&server, args.server_core)?;
    let phase = client.exchange(args.messages, args.outstanding)?;
    let now = Accounts::read(&server, args.server_core)?;
    let cpu = before.spent(&now, phase.wall)?;
    sleep(Duration::from_millis(args.settle_ms));
    let after = server.memory()?;
    let idle_bytes_per_connection = growth::per_connection(&steps);
    let added = after.anonymous_bytes as f64 - idle.anonymous_bytes as f64;
    let after_bytes_per_connection = idle_bytes_per_connection + added / args.connections as f64;
    let memory = MemoryReport {
        start,
        idle,
        after,
        steps,
        idle_bytes_per_connection,
        after_bytes_per_connection,
    };
    Ok(Report {
        protocol: format!("{:?}", args.protocol).to_lowercase(),
        connections: args.connections,
        outstanding: args.outstanding,
        payload_bytes: args.payload,
        connect_ms: connecting.as_secs_f64() * 1e3,
        figures: figures(&phase.latency_ns, phase.wall, &cpu),
        memory,
    })
}

/// Connects, warms up, says so, and takes its turns.
fn slices(args: &Args) -> anyhow::Result<()> {
    let (mut client, target) = prepare(args)?;
    let server = Observed::new(args.pid);
    let started = Instant::now();
    client.connect(&target, args.connections)?;
    let connect_ms = started.elapsed().as_secs_f64() * 1e3;
    if args.warmup > 0 {
        client.exchange(args.warmup, args.outstanding)?;
    }
    let core = args.server_core.map(|core| (IdleSource::finest(core), core));
    let mut output = std::io::stdout().lock();
    let idle_step_ns = core.map(|(source, _)| source.step_ns());
    turns::say(&mut output, &Ready { connect_ms, idle_step_ns })?;
    turns::take(std::io::stdin().lock(), output, |messages| {
        let (warmup, outstanding) = (args.slice_warmup, args.outstanding);
        let slice = Slice { warmup, messages, outstanding };
        let window = client.slice(slice, || Accounts::read_from(&server, core))?;
        let wall = window.before.until(&window.after);
        let cpu = window.before.spent(&window.after, wall)?;
        Ok(figures(&window.latency_ns, wall, &cpu))
    })
}

fn warm_up(args: &Args, client: &mut Client, target: &Target) -> anyhow::Result<()> {
    client.connect(target, args.warm_connections)?;
    if args.warm_messages > 0 {
        client.exchange(args.warm_messages, args.outstanding.min(args.warm_connections))?;
    }
    sleep(Duration::from_millis(args.settle_ms));
    Ok(())
}

/// Opens the connections that are not warm; returns the memory around each step and the time
/// that connecting took.
fn open(
    args: &Args,
    client: &mut Client,
    target: &Target,
    server: &Observed,
) -> anyhow::Result<(Vec<Reading>, Duration)> {
    let mut connections = args.warm_connections;
    let mut connecting = Duration::ZERO;
    let read = |connections| -> anyhow::Result<Reading> {
        let anonymous_bytes = server.memory()?.anonymous_bytes;
        Ok(Reading { connections, anonymous_bytes })
    };
    let mut readings = vec![read(connections)?];
    for part in growth::parts(args.connections - args.warm_connections, args.steps) {
        let started = Instant::now();
        client.connect(target, part)?;
        connecting += started.elapsed();
        sleep(Duration::from_millis(args.settle_ms));
        connections += part;
        readings.push(read(connections)?);
    }
    Ok((readings, connecting))
}

/// What the messages in `latency_ns` cost, answered within `wall`.
fn figures(latency_ns: &Histogram<u64>, wall: Duration, cpu: &Cpu) -> Figures {
    let wall_ns = wall.as_nanos() as f64;
    let messages = latency_ns.len() as f64;
    let us = |ns: u64| ns as f64 / 1e3;
    Figures {
        messages: latency_ns.len(),
        wall_ms: wall_ns / 1e6,
        messages_per_s: messages / wall_ns * 1e9,
        mean_us: latency_ns.mean() / 1e3,
        p50_us: us(latency_ns.value_at_quantile(0.5)),
        p99_us: us(latency_ns.value_at_quantile(0.99)),
        max_us: us(latency_ns.max()),
        server_cpu_ns_per_message: cpu.server_ns as f64 / messages,
        client_cpu_ns_per_message: cpu.client_ns as f64 / messages,
        server_busy: cpu.core_ns.unwrap_or(cpu.server_ns) as f64 / wall_ns,
        client_busy: cpu.client_ns as f64 / wall_ns,
        server_core_ns_per_message: cpu.core_ns.map(|core| core as f64 / messages),
    }
}
