//! The web page in Chromium, against a server with an empty data folder of its own.

use std::process::Command;

use anyhow::Context as _;

use super::context::{Context, Verdict};
use super::setup::browser;
use crate::scratch::Scratch;
use crate::server::Server;
use crate::web;

/// Starts the server, runs the browser tests, stops the server.
///
/// # Errors
/// When something is missing, a test fails, or the server does not end cleanly.
pub(super) fn run(context: &mut Context) -> anyhow::Result<Verdict> {
    let browser = browser().context("no Chromium on the path")?;
    let corelane = context.corelane()?;
    web::refresh(&context.repo, &context.interrupt, |_| {}).context("the web page")?;
    let data = Scratch::create("e2e")?;
    let mut command = Command::new(corelane);
    command
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path())
        .env("CORELANE_WEB_DIR", context.repo.web_dist())
        // The tests type faster than people do.
        .env("CORELANE_MESSAGES_PER_SECOND", "1000")
        .env("CORELANE_MESSAGE_BURST", "1000")
        .env("CORELANE_REQUESTS_PER_SECOND", "1000")
        .env("CORELANE_REQUEST_BURST", "1000");
    let mut server = Server::start("corelane", &mut command, &context.interrupt)?;
    let mut tests = context.npm(&["run", "e2e"]);
    tests.env("BASE_URL", server.address()).env("CHROMIUM", browser);
    let outcome = context.run(tests);
    if outcome.is_err() {
        context.say(&format!("the server's last lines:{}", server.tail()));
    }
    let stopped = server.stop();
    outcome?;
    stopped?;
    Ok(Verdict::Done)
}
