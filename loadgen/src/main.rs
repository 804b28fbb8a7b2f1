//! The command `loadgen`: see `loadgen --help`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use loadgen::{Error, Options, Report, Running, Stage, Workers};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == loadgen::WORKER_ARGUMENT) {
        return loadgen::worker_main();
    }
    let options = match Options::from_args(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    match run(&options) {
        Ok(report) => finish(&report, &options),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(if matches!(error, Error::Plan(_)) { 2 } else { 1 })
        }
    }
}

fn run(options: &Options) -> Result<Report, Error> {
    let program = std::env::current_exe().map_err(|error| Error::Run(error.to_string()))?;
    let running = Running::start(options, &Workers::Processes(program))?;
    watch(&running, options.until_input_ends.then(input_end), options.stages);
    running.wait()
}

/// Set once standard input has ended.
fn input_end() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    // Ends with the process at the latest: nobody waits for it.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        told.store(true, Ordering::Relaxed);
    });
    ended
}

/// Shows on a terminal how far the run has come, or only its `stages`; ends its load when told so.
fn watch(running: &Running, end: Option<Arc<AtomicBool>>, stages: bool) {
    let terminal = std::io::stderr().is_terminal();
    let begin = Instant::now();
    let mut next = Duration::from_secs(1);
    let mut stage = Stage::Setup;
    while !running.is_finished() {
        std::thread::sleep(Duration::from_millis(20));
        if end.as_ref().is_some_and(|end| end.load(Ordering::Relaxed)) {
            running.stop();
        }
        let now = running.progress().stage;
        if stages && now != stage {
            stage = now;
            complain(if now == Stage::Load { "stage: load" } else { "stage: finish" });
        }
        if terminal && begin.elapsed() >= next {
            next += Duration::from_secs(1);
            complain(&format!(
                "{:>4} s  {}",
                begin.elapsed().as_secs(),
                loadgen::progress_line(&running.progress())
            ));
        }
    }
}

fn finish(report: &Report, options: &Options) -> ExitCode {
    // A closed pipe must not hide the exit code.
    let _ = std::io::stdout().write_all(loadgen::summary(report).as_bytes());
    if let Some(file) = &options.json {
        let written = serde_json::to_vec_pretty(report)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(file, text));
        if let Err(error) = written {
            complain(&format!("--json {}: {error}", file.display()));
            return ExitCode::FAILURE;
        }
    }
    if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn complain(text: &str) {
    // Nowhere else to complain.
    let _ = writeln!(std::io::stderr(), "{text}");
}
