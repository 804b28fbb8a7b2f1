//! The log, whose filter may change while the gateway runs.

use std::io::IsTerminal;

use gateway::control::dynamic::SetFilter;
use tracing_subscriber::EnvFilter;

/// Begins to log to stderr.
pub(crate) fn begin(filter: &str) -> SetFilter {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(filter))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    Box::new(move |filter| {
        let filter: EnvFilter = filter.parse().map_err(|error| format!("{error}"))?;
        handle.reload(filter).map_err(|error| error.to_string())
    })
}
