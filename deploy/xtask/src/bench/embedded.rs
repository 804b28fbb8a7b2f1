//! The embedded server as a subject.

use std::path::{Path, PathBuf};

use super::instrument::{Subject, words};

/// Every limit that a load test would meet, out of the way.
const NO_LIMITS: &str = "--messages-per-second 1000000 --message-burst 1000000 \
                         --requests-per-second 1000000 --request-burst 1000000 \
                         --max-connections-per-user 1000000";

/// `corelane` on an existing data folder; `--dev-login` and the options `more`.
pub(super) fn corelane(program: PathBuf, data: &Path, more: &str) -> Subject {
    let mut arguments = words("--listen 127.0.0.1:0 --dev-login --log warn");
    arguments.extend(words(NO_LIMITS));
    arguments.extend(words(more));
    arguments.extend([String::from("--data-dir"), data.display().to_string()]);
    Subject {
        name: String::from("corelane"),
        program,
        arguments,
        stops_cleanly: true,
        ..Subject::default()
    }
}
