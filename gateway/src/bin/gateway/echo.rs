//! `gateway echo`: the gateway's acceptor, codec and shards, sending every data message back.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use codec::ws::deflate::{Config, WindowBits};
use gateway::Gateway;
use gateway::config::{GatewayConfig, IoChoice, cores};
use gateway::control::signals::Signals;
use gateway::session::rules::Mode;

use crate::announce;

/// Corelane's connection gateway.
#[derive(Parser)]
#[command(
    name = "gateway",
    version,
    after_help = "`gateway --config FILE` runs the gateway of the cluster form, where it was built in."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send every WebSocket message back; no login, any path. For conformance suites and benchmarks.
    Echo(Echo),
}

#[derive(Args)]
struct Echo {
    /// Address to listen on; port 0 picks one.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Largest message in bytes.
    #[arg(long, default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..=67_108_864))]
    max_message: u32,
    /// Shards, one thread each; default: cores.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: Option<u16>,
    /// auto, io_uring, epoll or glommio.
    #[arg(long, default_value = "auto")]
    io: IoChoice,
    /// What paces connections, such as reno, cubic or bbr; default: the system's.
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,
    /// Agree to permessage-deflate.
    #[arg(long)]
    deflate: bool,
    #[command(flatten)]
    compression: Compression,
}

/// What `--deflate` agrees to.
#[derive(Args)]
struct Compression {
    /// Largest window in bits, 9 to 15, in both directions.
    #[arg(long = "deflate-window-bits", default_value_t = 15, requires = "deflate",
        value_parser = clap::value_parser!(u8).range(9..=15))]
    window_bits: u8,
    /// Let messages refer to earlier ones, in both directions: smaller, for up to two windows of memory
    /// a connection.
    #[arg(long = "deflate-context-takeover", requires = "deflate")]
    context_takeover: bool,
    /// Effort, 1 (fast) to 9 (small).
    #[arg(long = "deflate-level", default_value_t = 1, requires = "deflate",
        value_parser = clap::value_parser!(u8).range(1..=9))]
    level: u8,
    /// Shortest message that is compressed, in bytes.
    #[arg(long = "deflate-min-bytes", default_value_t = 256, requires = "deflate")]
    min_bytes: usize,
}

impl Compression {
    fn config(&self) -> Config {
        let bits = WindowBits::new(self.window_bits).unwrap_or(WindowBits::Fifteen);
        Config {
            server_context_takeover: self.context_takeover,
            client_context_takeover: self.context_takeover,
            server_max_window_bits: bits,
            client_max_window_bits: bits,
            level: self.level,
            min_bytes: self.min_bytes,
        }
    }
}

/// Runs until a signal comes.
pub(crate) fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    let Command::Echo(echo) = Arguments::parse().command;
    match run(&echo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(echo: &Echo) -> std::io::Result<()> {
    let mut config = GatewayConfig::new(echo.listen, Mode::Echo);
    config.shards = echo.shards.map_or_else(cores, usize::from);
    config.io = echo.io;
    config.congestion_control.clone_from(&echo.congestion_control);
    config.deflate = echo.deflate.then(|| echo.compression.config());
    config.limits.max_message_bytes = echo.max_message as usize;
    // Conformance suites send one message in very many fragments.
    config.limits.max_fragments = u32::MAX;
    // From here on a signal is ours: one that comes right behind the ready line is not lost.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let mut signals = Signals::new()?;
    let gateway = Gateway::start(&config)?;
    tracing::info!(driver = ?gateway.driver(), shards = config.shards, "serving");
    announce(&format!("gateway echo ready on {}", gateway.addr()));
    let alarm = gateway.alarm();
    runtime.block_on(async {
        tokio::select! {
            () = signals.next() => {}
            () = alarm.rang() => {}
        }
    });
    gateway.stop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_server_are_refused_by_name() {
        let parse = |option: &str, value: &str| {
            Arguments::try_parse_from(["gateway", "echo", option, value]).map(drop)
        };
        for (option, good, bad) in [
            ("--shards", ["1", "1024"], ["0", "1025"]),
            ("--max-message", ["1", "67108864"], ["0", "67108865"]),
        ] {
            for value in good {
                assert!(parse(option, value).is_ok(), "{option} {value}");
            }
            for value in bad {
                let error = parse(option, value).unwrap_err().to_string();
                assert!(error.contains(option) && error.contains(value), "{error}");
            }
        }
    }
}
