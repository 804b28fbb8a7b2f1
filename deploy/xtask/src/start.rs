//! `cargo start`: build what is old, then become the server.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::build::{self, CORELANE};
use crate::interrupt::Interrupt;
use crate::repo::Repo;
use crate::web;

/// Where the server keeps its data unless told otherwise.
const DATA_DIR: &str = "CORELANE_DATA_DIR";
/// Where the server finds the web page.
const WEB_DIR: &str = "CORELANE_WEB_DIR";
/// A configuration file may name a data folder; then ours must not speak over it.
const CONFIG: &str = "CORELANE_CONFIG";

/// Builds the web page and the server, then replaces this process with the server: its signals,
/// its exit code and its standard output are the caller's.
///
/// # Errors
/// When the server cannot be built or started. A page that cannot be built is told on standard
/// error and left out.
pub(crate) fn run(options: &[String]) -> anyhow::Result<ExitCode> {
    let repo = Repo::find()?;
    let interrupt = Interrupt::on_signals()?;
    if let Err(error) = web::refresh(&repo, &interrupt, |line| eprintln!("{line}")) {
        if interrupt.raised() {
            return Err(error);
        }
        eprintln!("starting without the newest web page: {error:#}");
    }
    let corelane = build::build(&repo, CORELANE, "release", &interrupt)?;

    let mut command = Command::new(&corelane);
    command.args(options);
    let page = repo.web_dist();
    if std::env::var_os(WEB_DIR).is_none() && page.join("index.html").is_file() {
        command.env(WEB_DIR, page);
    }
    if std::env::var_os(DATA_DIR).is_none() && !names_config(options) {
        command.env(DATA_DIR, repo.path(".corelane"));
    }
    let error: io::Error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", corelane.display()))
}

fn names_config(options: &[String]) -> bool {
    let named = |option: &String| option == "--config" || option.starts_with("--config=");
    std::env::var_os(CONFIG).is_some() || options.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::names_config;

    #[test]
    fn a_configuration_file_is_noticed() {
        let options = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
        assert!(names_config(&options("--config a.toml")));
        assert!(names_config(&options("--listen 127.0.0.1:0 --config=a.toml")));
        assert!(!names_config(&options("--configure x")));
    }
}
