//! Drives an echo server in a closed loop and writes what it cost as one JSON document.
//!
//! Phases: memory at the start; the warm connections and their exchanges, memory before; the
//! other connections, memory idle; warm-up and measured exchanges, memory after. CPU is the
//! server's own account over the measured exchanges alone.

use std::fs;
use std::io::Write;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use bench::client::{Client, Order, Phase, Protocol, Target};
use bench::machine;
use bench::process::{Memory, Observed};
use clap::Parser;
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
    /// File for the result; standard output when left out.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    start: Memory,
    before: Memory,
    idle: Memory,
    after: Memory,
    /// Growth since `before` of private dirty pages per connection; negative when the server gave pages back.
    idle_bytes_per_connection: f64,
    after_bytes_per_connection: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    protocol: String,
    connections: usize,
    outstanding: usize,
    payload_bytes: usize,
    connect_ms: f64,
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
    memory: MemoryReport,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let report = serde_json::to_string_pretty(&run(&args)?)? + "\n";
    match &args.json {
        Some(path) => {
            fs::write(path, report).with_context(|| format!("cannot write {}", path.display()))
        }
        None => std::io::stdout().write_all(report.as_bytes()).context("cannot write the result"),
    }
}

fn run(args: &Args) -> anyhow::Result<Report> {
    let warm = args.warm_connections;
    let measured = args
        .connections
        .checked_sub(warm)
        .filter(|&measured| measured > 0)
        .context("--warm-connections must be below --connections")?;
    if let Some(core) = args.core {
        machine::pin_to_core(core)?;
    }
    machine::reserve_descriptors(args.connections)?;
    let target = Target {
        address: args.connect,
        protocol: args.protocol,
        path: args.path.clone(),
        first_number: 0,
    };
    let settle = Duration::from_millis(args.settle_ms);
    let server = Observed::new(args.pid);
    let mut client = Client::new(&target, args.payload, args.order)?;
    let start = server.memory()?;
    if warm > 0 {
        client.connect(&target, warm)?;
        if args.warm_messages > 0 {
            client.exchange(args.warm_messages, args.outstanding.min(warm))?;
        }
        sleep(settle);
    }
    let before = server.memory()?;
    let connecting = Instant::now();
    client.connect(&target, measured)?;
    let connect_ms = connecting.elapsed().as_secs_f64() * 1e3;
    sleep(settle);
    let idle = server.memory()?;

    if args.warmup > 0 {
        client.exchange(args.warmup, args.outstanding)?;
    }
    let (server_from_ns, client_from_ns) = (server.cpu_ns()?, Observed::this().cpu_ns()?);
    let phase = client.exchange(args.messages, args.outstanding)?;
    let spent = "a server thread ended while it was measured";
    let server_ns = server.cpu_ns()?.checked_sub(server_from_ns).context(spent)?;
    let client_ns = Observed::this().cpu_ns()?.saturating_sub(client_from_ns);
    sleep(settle);
    let after = server.memory()?;
    let memory = compare([start, before, idle, after], measured);
    Ok(report(args, connect_ms, &phase, (server_ns, client_ns), memory))
}

fn compare([start, before, idle, after]: [Memory; 4], connections: usize) -> MemoryReport {
    let grown = |now: Memory| {
        (now.private_dirty_bytes as f64 - before.private_dirty_bytes as f64) / connections as f64
    };
    MemoryReport {
        start,
        before,
        idle,
        after,
        idle_bytes_per_connection: grown(idle),
        after_bytes_per_connection: grown(after),
    }
}

fn report(
    args: &Args,
    connect_ms: f64,
    phase: &Phase,
    (server_ns, client_ns): (u64, u64),
    memory: MemoryReport,
) -> Report {
    let wall_ns = phase.wall.as_nanos() as f64;
    let messages = phase.messages as f64;
    let us = |ns: u64| ns as f64 / 1e3;
    Report {
        protocol: format!("{:?}", args.protocol).to_lowercase(),
        connections: args.connections,
        outstanding: args.outstanding,
        payload_bytes: args.payload,
        connect_ms,
        messages: phase.messages,
        wall_ms: wall_ns / 1e6,
        messages_per_s: messages / wall_ns * 1e9,
        mean_us: phase.latency_ns.mean() / 1e3,
        p50_us: us(phase.latency_ns.value_at_quantile(0.5)),
        p99_us: us(phase.latency_ns.value_at_quantile(0.99)),
        max_us: us(phase.latency_ns.max()),
        server_cpu_ns_per_message: server_ns as f64 / messages,
        client_cpu_ns_per_message: client_ns as f64 / messages,
        server_busy: server_ns as f64 / wall_ns,
        client_busy: client_ns as f64 / wall_ns,
        memory,
    }
}
