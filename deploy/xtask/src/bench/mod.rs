//! `cargo xtask bench`: what the server costs beside its peers, as a ratio to a bare program in C
//! measured in the same minute.

mod candidates;
mod codec_cost;
mod echo;
mod embedded;
mod establish;
mod fanout;
mod host;
mod idle_memory;
mod instrument;
mod large_group;
mod link;
mod list;
mod peers;
mod ratio;
mod series;
mod slice_client;
mod slices;
mod smoke;

use std::process::ExitCode;

use clap::Parser;

use crate::interrupt::Interrupt;
use crate::repo::Repo;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Name the measurements, the candidates of each, and what is missing here to build them.
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Server CPU per echoed message, divided by that of a bare epoll echo in C.
    Echo(echo::Args),
    /// Server CPU per delivery of one sender to 10,000 receivers, divided by that of a bare send
    /// loop in C.
    Fanout(fanout::Args),
    /// User memory per idle WebSocket connection.
    IdleMemory(idle_memory::Args),
    /// Connections a second, upgrade and login included.
    Establish(establish::Args),
    /// The codec beside fastwebsockets and tungstenite: instructions and allocations a frame.
    Codec(codec_cost::Args),
    /// One group of 10,000 members on the cluster form, 2,000 of them online, while it is switched between the
    /// two ways of fan-out; every delivery is checked.
    LargeGroup(large_group::Args),
    /// Echo, fanout, idle-memory and establish, one after the other; each writes its own result.
    All(All),
    /// Every candidate of every measurement with small numbers: that they answer, not how fast.
    Smoke(smoke::Args),
}

/// Options of `bench all`.
#[derive(Debug, Clone, clap::Args)]
struct All {
    #[command(flatten)]
    common: Common,
    /// Measurements of each candidate; each measurement's own number when left out.
    #[arg(long)]
    rounds: Option<usize>,
}

/// Options every measurement has.
#[derive(Debug, Clone, clap::Args)]
struct Common {
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

/// How much is asked of an echo server.
#[derive(Debug, Clone, clap::Args)]
struct Load {
    /// Open connections.
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Messages under way at any time, each on its own connection.
    #[arg(long, default_value_t = 500)]
    outstanding: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 512)]
    payload: usize,
}

/// One measurement with its options, as on the command line.
#[derive(Debug, Parser)]
struct One {
    #[command(subcommand)]
    what: What,
}

/// Measures and writes the result.
///
/// # Errors
/// When something of ours does not build or start, or a server answers wrongly.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let repo = Repo::find()?;
    let interrupt = Interrupt::on_signals()?;
    match &args.what {
        Some(what) => measure(what, &repo, &interrupt),
        None => {
            eprint!("{}", list::text());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn measure(what: &What, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    match what {
        What::Echo(args) => echo::run(args, repo, interrupt)?,
        What::Fanout(args) => fanout::run(args, repo, interrupt)?,
        What::IdleMemory(args) => idle_memory::run(args, repo, interrupt)?,
        What::Establish(args) => establish::run(args, repo, interrupt)?,
        What::Codec(args) => codec_cost::run(args, repo, interrupt)?,
        What::LargeGroup(args) => large_group::run(args, repo, interrupt)?,
        What::All(args) => {
            for one in all(args)? {
                measure(&one, repo, interrupt)?;
            }
        }
        What::Smoke(args) => return smoke::run(args, repo, interrupt),
    }
    Ok(ExitCode::SUCCESS)
}

/// The measurements of `bench all`, in order.
fn all(args: &All) -> anyhow::Result<Vec<What>> {
    let Common { server_core, client_core, profile, dry_run } = &args.common;
    let mut options = vec![
        format!("--server-core={server_core}"),
        format!("--client-core={client_core}"),
        format!("--profile={profile}"),
    ];
    options.extend(dry_run.then(|| String::from("--dry-run")));
    options.extend(args.rounds.map(|rounds| format!("--rounds={rounds}")));
    let parse = |name: &str| {
        let line = ["bench", name].into_iter().map(String::from).chain(options.clone());
        Ok(One::try_parse_from(line)?.what)
    };
    ["echo", "fanout", "idle-memory", "establish"].into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_passes_its_options_on() {
        let line = ["bench", "all", "--rounds", "3", "--profile", "release", "--dry-run"];
        let What::All(args) = One::try_parse_from(line).unwrap().what else { panic!() };
        let all = all(&args).unwrap();
        assert_eq!(all.len(), 4);
        let What::Echo(echo) = &all[0] else { panic!("{:?}", all[0]) };
        assert!(echo.common.dry_run && echo.common.profile == "release" && echo.rounds == 3);
    }

    #[test]
    fn slices_are_many_and_short() {
        let echo = |more: &[&str]| {
            let line = [&["bench", "echo"], more].concat();
            let What::Echo(args) = One::try_parse_from(line).unwrap().what else { panic!() };
            (args.rounds, args.messages, args.warmup)
        };
        assert_eq!(echo(&[]), (7, 150_000, 30_000));
        assert_eq!(echo(&["--slices"]), (40, 30_000, 100_000));
        assert_eq!(echo(&["--slices", "--rounds=6", "--messages=9"]), (6, 9, 100_000));
        assert!(One::try_parse_from(["bench", "echo", "--slice-warmup", "9"]).is_err());
    }

    #[test]
    fn every_measurement_has_defaults() {
        use clap::CommandFactory;
        One::command().debug_assert();
        for name in ["echo", "fanout", "idle-memory", "establish", "large-group", "all", "smoke"] {
            One::try_parse_from(["bench", name]).unwrap();
        }
    }
}
