//! What a process says to stderr, with a filter that may change while it runs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Sets another filter; says why not, if it cannot be.
pub type SetFilter = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// Begins to log to stderr.
#[must_use]
pub fn begin(filter: &str) -> SetFilter {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(filter))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    if let Err(error) = builder.try_init() {
        tracing::warn!(%error, "the log was begun by somebody else");
    }
    Box::new(move |filter| {
        let filter: EnvFilter = filter.parse().map_err(|error| format!("{error}"))?;
        handle.reload(filter).map_err(|error| error.to_string())
    })
}
