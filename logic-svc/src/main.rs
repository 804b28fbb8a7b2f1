//! `logic-svc --config FILE`: the logic service of the cluster form.

use std::process::ExitCode;

use logic_svc::service::{Asked, load, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings = match load() {
        Ok(Asked::Run(settings)) => settings,
        Ok(Asked::Print(text)) => {
            say(text.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(fault) => {
            eprintln!("logic-svc: {fault}");
            return ExitCode::from(2);
        }
    };
    match run(&settings, || say("logic-svc ready")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("logic-svc: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the ready line is what scripts wait for")]
fn say(line: &str) {
    println!("{line}");
}
