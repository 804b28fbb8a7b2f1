//! `gateway --config FILE`: the gateway of the cluster form. `gateway echo`: the same acceptor, codec and
//! shards, sending every data message back.

mod echo;
#[cfg(feature = "cluster")]
mod serve;
#[cfg(feature = "cluster")]
mod settings;
#[cfg(feature = "cluster")]
mod start;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gateway::supervisor::use_small_pages();
    // `echo` is a command; everything else is a setting of the cluster form.
    match std::env::args_os().nth(1) {
        Some(first) if first == "echo" => echo::main(),
        first => cluster_form(first.is_none_or(|first| {
            ["-h", "--help", "-V", "--version", "help"].iter().any(|known| first == *known)
        })),
    }
}

#[cfg(feature = "cluster")]
fn cluster_form(_general: bool) -> ExitCode {
    serve::main()
}

/// Without the feature general questions are answered as those of `echo`.
#[cfg(not(feature = "cluster"))]
fn cluster_form(general: bool) -> ExitCode {
    if general {
        return echo::main();
    }
    eprintln!(
        "gateway: this build has no cluster form; build it with `cargo build -p gateway --features cluster`, or run `gateway echo`"
    );
    ExitCode::from(2)
}

#[allow(clippy::print_stdout, reason = "the ready line is what scripts wait for")]
fn announce(line: &str) {
    println!("{line}");
}
