//! One sender, many receivers: drives a server and writes what a delivery cost as one JSON
//! document. CPU is that of the measured messages alone: of all that ran on the server's core, and
//! of the server as charged.

use std::io::Write;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::Context;
use bench::accounts::Accounts;
use bench::client::{Protocol, Target};
use bench::fanout::{Fanout, join_all};
use bench::machine;
use bench::process::Observed;
use clap::Parser;
use serde::Serialize;

/// How long nothing may come after the last delivery.
const QUIET: Duration = Duration::from_millis(100);

/// Fan-out client, pinned to one core.
#[derive(Debug, Parser)]
struct Args {
    /// Address of the server under test.
    #[arg(long)]
    connect: SocketAddrV4,
    /// Process id of the server, for its CPU time.
    #[arg(long)]
    pid: u32,
    /// How to speak to it.
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// Path of the WebSocket handshake; {n} becomes the connection's number, 0 for the sender.
    #[arg(long, default_value = "/")]
    path: String,
    /// The chat server's group; its members are the users of the path.
    #[arg(long, default_value = "fanout")]
    conversation: String,
    /// Only make members of all users, then end.
    #[arg(long)]
    join: bool,
    /// With --join: in another order than that in which they connect to receive.
    #[arg(long, requires = "join")]
    scattered: bool,
    /// Connections that receive, beside the one that sends.
    #[arg(long, default_value_t = 10_000)]
    receivers: usize,
    /// Bytes of each message.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Measured messages, each to all receivers.
    #[arg(long, default_value_t = 40)]
    messages: u64,
    /// Messages before the measured ones.
    #[arg(long, default_value_t = 5)]
    warmup: u64,
    /// Messages under way at any time.
    #[arg(long, default_value_t = 1)]
    window: u64,
    /// Quiet time between connecting and the first message.
    #[arg(long, default_value_t = 500)]
    settle_ms: u64,
    /// Seconds without any delivery after which one is missing.
    #[arg(long, default_value_t = 20)]
    patience_s: u64,
    /// Core to run on; the scheduler's choice when left out.
    #[arg(long)]
    core: Option<usize>,
    /// Core the server runs on, to count all that is done there.
    #[arg(long)]
    server_core: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Report {
    receivers: usize,
    payload_bytes: usize,
    messages: u64,
    deliveries: u64,
    wall_ms: f64,
    deliveries_per_s: f64,
    /// From a message out to its last delivery in.
    complete_p50_ms: f64,
    complete_p99_ms: f64,
    server_cpu_ns_per_delivery: f64,
    client_cpu_ns_per_delivery: f64,
    /// Share of a core each side kept busy, the server of the one that `--server-core` names.
    server_busy: f64,
    client_busy: f64,
    /// What was done on the server's core, by whomever, for one delivery; with `--server-core`.
    server_core_ns_per_delivery: Option<f64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(core) = args.core {
        machine::pin_to_core(core)?;
    }
    machine::reserve_descriptors(args.receivers + 1)?;
    let target = Target {
        address: args.connect,
        protocol: args.protocol,
        path: args.path.clone(),
        first_number: 0,
    };
    if args.join {
        return join_all(&target, args.receivers + 1, &args.conversation, args.scattered);
    }
    let report = serde_json::to_string_pretty(&measure(&args, &target)?)? + "\n";
    std::io::stdout().write_all(report.as_bytes()).context("cannot write the result")
}

fn measure(args: &Args, target: &Target) -> anyhow::Result<Report> {
    let server = Observed::new(args.pid);
    let mut fanout = Fanout::connect(target, args.receivers, args.payload, &args.conversation)?;
    std::thread::sleep(Duration::from_millis(args.settle_ms));
    let patience = Duration::from_secs(args.patience_s);
    if args.warmup > 0 {
        fanout.exchange(args.warmup, args.window, patience)?;
    }
    let before = Accounts::read(&server, args.server_core)?;
    let phase = fanout.exchange(args.messages, args.window, patience)?;
    let now = Accounts::read(&server, args.server_core)?;
    let cpu = before.spent(&now, phase.wall)?;
    let (server_ns, client_ns) = (cpu.server_ns as f64, cpu.client_ns as f64);
    fanout.stays_quiet(QUIET)?;
    let wall_ns = phase.wall.as_nanos() as f64;
    let deliveries = phase.deliveries.max(1) as f64;
    let ms = |quantile| phase.complete_ns.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Report {
        receivers: args.receivers,
        payload_bytes: args.payload,
        messages: phase.messages,
        deliveries: phase.deliveries,
        wall_ms: wall_ns / 1e6,
        deliveries_per_s: deliveries / wall_ns * 1e9,
        complete_p50_ms: ms(0.5),
        complete_p99_ms: ms(0.99),
        server_cpu_ns_per_delivery: server_ns / deliveries,
        client_cpu_ns_per_delivery: client_ns / deliveries,
        server_busy: cpu.core_ns.unwrap_or(cpu.server_ns) as f64 / wall_ns,
        client_busy: client_ns / wall_ns,
        server_core_ns_per_delivery: cpu.core_ns.map(|core| core as f64 / deliveries),
    })
}
