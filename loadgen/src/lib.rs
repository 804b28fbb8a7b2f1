//! Load generator with an oracle: drives many connections against a server and checks every message.
//!
//! [`run`] does a whole run and returns its [`Report`]; [`Running`] is the same for a caller that wants to
//! watch it, end it early, or do something to the server meanwhile (such as killing it).
//!
//! ```no_run
//! let options = loadgen::Options::from_args(["chat", "--connections", "20", "--duration", "5s"])?;
//! let report = loadgen::run(&options)?;
//! assert!(report.passed, "{:?}", report.failures);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod args;
mod chat;
mod churn;
pub mod client;
pub mod clock;
mod coordinator;
mod echo;
mod establish;
mod fanout;
mod hostile;
mod message;
mod net;
pub mod oracle;
mod pace;
mod parts;
pub mod plan;
mod process;
pub mod procfs;
pub mod report;
mod rest;
mod rng;
mod scenario;
pub mod schedule;
pub mod stats;
mod stress;
pub mod stress_report;
mod stress_summary;
mod summary;
mod summary_line;
mod swarm;
mod talk;
pub mod target;
mod worker;

pub use args::{Audit, Login, Options, Scenario};
pub use coordinator::{Error, Progress, Running, Stage, Workers};
pub use message::{Contents, MessageKey, Stamp};
pub use process::{WORKER_ARGUMENT, worker_main};
pub use report::Report;
pub use rng::Rng;
pub use stress::{SlowBaseline, StressOptions};
pub use summary::{progress_line, summary};

/// A whole run, its workers as threads of this process.
///
/// # Errors
/// The options are wrong, or the run broke off. A run that came to its end but did not pass is no error:
/// see [`Report::passed`].
pub fn run(options: &Options) -> Result<Report, Error> {
    Running::start(options, &Workers::Threads)?.wait()
}
