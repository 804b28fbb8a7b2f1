//! Development commands behind the cargo aliases: `cargo start`, `cargo verify`, `cargo xtask`.

mod autobahn;
mod bench;
mod build;
mod callgrind;
mod chaos;
mod cluster;
mod daemon;
mod flame;
mod fuzz;
mod instructions;
mod interrupt;
mod job;
mod pinned;
mod ports;
mod procfs;
mod repo;
mod scratch;
mod server;
mod servers;
mod start;
mod verify;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development commands of this repository")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build everything and run the server (`cargo start -- --help` lists the server's options).
    Start {
        /// Options of the server, passed on as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        options: Vec<String>,
    },
    /// Run every check and test; ends non-zero when one fails.
    Verify(verify::Args),
    /// Run the WebSocket conformance suite Autobahn|Testsuite against `gateway echo`.
    Autobahn(autobahn::Args),
    /// Record where a server's CPU time goes under load and draw it (needs Linux perf).
    Flame(flame::Args),
    /// Fuzz the decoders and the rules of a connection (needs nightly Rust and cargo-fuzz).
    Fuzz(fuzz::Args),
    /// Count user instructions and compare them with the baseline (needs valgrind).
    Instructions(instructions::Args),
    /// Measure, in interleaved rounds, and write the result to bench/results.
    Bench(bench::Args),
    /// Real Kafka, MariaDB, Redis and etcd on loopback, for the cluster form and its tests.
    Servers(servers::Args),
    /// The cluster form on this machine: servers, gateways and logic services.
    Cluster(cluster::Args),
    /// Kill and hinder real processes and servers under load, and let the oracle judge.
    Chaos(chaos::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(without_separator(std::env::args().collect()));
    let outcome = match cli.command {
        Command::Start { options } => start::run(&options),
        Command::Verify(args) => verify::run(&args),
        Command::Autobahn(args) => autobahn::run(&args),
        Command::Flame(args) => flame::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Servers(args) => servers::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Chaos(args) => chaos::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// `cargo verify -- --only fmt` reaches us as `verify -- --only fmt`: that first `--` says
/// nothing and is dropped. It stays where options of a server follow: `cargo start -- --help`
/// asks the server.
fn without_separator(mut args: Vec<String>) -> Vec<String> {
    let separated = args.get(2).is_some_and(|arg| arg == "--");
    if separated && !["start", "autobahn"].contains(&args[1].as_str()) {
        args.remove(2);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Cli {
        let args = line.split(' ').map(String::from).collect();
        Cli::try_parse_from(without_separator(args)).unwrap()
    }

    #[test]
    fn server_options_pass_with_and_without_separator() {
        for line in
            ["xtask start -- --listen 127.0.0.1:0 -x", "xtask start --listen 127.0.0.1:0 -x"]
        {
            let Command::Start { options } = parse(line).command else { panic!("{line}") };
            assert_eq!(options, ["--listen", "127.0.0.1:0", "-x"], "{line}");
        }
        let Command::Start { options } = parse("xtask start -- --help").command else { panic!() };
        assert_eq!(options, ["--help"]);
    }

    #[test]
    fn gateway_options_need_the_separator() {
        let command = parse("xtask autobahn -- --shards 2").command;
        assert!(matches!(command, Command::Autobahn(_)));
        let line = ["xtask", "autobahn", "--shards", "2"].map(String::from).to_vec();
        assert!(Cli::try_parse_from(without_separator(line)).is_err());
    }

    #[test]
    fn verify_takes_its_options_either_way() {
        for line in ["xtask verify --only fmt", "xtask verify -- --only fmt"] {
            assert!(matches!(parse(line).command, Command::Verify(_)), "{line}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
