//! Runs the gateway of the cluster form, and stops it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gateway::control::dynamic::SetFilter;
use gateway::control::signals::Signals;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::announce;
use crate::settings::{self, Asked, Settings};
use crate::start::{self, Running, Up};

/// How long the last answers and ends of connections may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Does what the command line asks for.
pub(crate) fn main() -> ExitCode {
    let settings = match settings::load() {
        Ok(Asked::Run(settings)) => settings,
        Ok(Asked::Print(text)) => {
            announce(text.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(fault) => {
            eprintln!("gateway: {fault}");
            return ExitCode::from(2);
        }
    };
    let set_filter = cluster::log::begin(&settings.log);
    match run(&settings, set_filter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings, set_filter: SetFilter) -> anyhow::Result<()> {
    tracing::info!(settings = ?settings.changed, "starting");
    if settings.dev_login {
        tracing::warn!(
            "DEV LOGIN IS ON: anyone who reaches this port logs in as anyone, without a password"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control threads")?;
    let _inside = runtime.enter();
    // From here on a signal is ours: one that comes while we start is not lost.
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let drain = Arc::new(Notify::new());
    let running = runtime.block_on(async {
        tokio::select! {
            running = start::start(settings, set_filter, Arc::clone(&drain)) => running.map(Some),
            () = signals.next() => Ok(None),
        }
    })?;
    let Some(running) = running else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    announce(&format!("gateway ready on http://{}", running.up.gateway.addr()));
    let alarm = running.up.gateway.alarm();
    let failed = runtime.block_on(async {
        tokio::select! {
            () = signals.next() => None,
            () = drain.notified() => None,
            () = alarm.rang() => Some("a thread failed that nothing works without"),
            () = start::kafka_is_lost(Arc::clone(&running.up.producer)) => {
                Some("the Kafka producer has failed for good")
            }
        }
    });
    tracing::info!(why = failed.unwrap_or("asked to"), "stopping");
    runtime.spawn(signals.second());
    stop(&runtime, running)?;
    failed.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
}

/// Connections are said goodbye to and what is under way is answered; then the shards end, the lanes empty
/// themselves, and last of all the gateway's entry is removed.
fn stop(runtime: &Runtime, running: Running) -> anyhow::Result<()> {
    let Running { up, registration } = running;
    let Up { gateway, upstream, calls, push, stopping, follows_registration, .. } = up;
    stopping.draining.store(true, std::sync::atomic::Ordering::Release);
    let stats = gateway.stats();
    let outcome = gateway.stop().context("a shard failed");
    let panicked = |_| anyhow::anyhow!("a thread panicked");
    upstream.join().map_err(panicked)?;
    let tasks = calls.join().map_err(panicked)?;
    let answered = runtime.block_on(tokio::time::timeout(LAST_ANSWERS, async {
        for task in tasks {
            let _ = task.await;
        }
    }));
    if answered.is_err() {
        tracing::warn!(
            "not every end of a connection could be told; the routes end with the lease"
        );
    }
    stopping.push.store(true, std::sync::atomic::Ordering::Release);
    push.join().map_err(panicked)?;
    follows_registration.abort();
    if let Err(error) = runtime.block_on(registration.revoke()) {
        tracing::warn!(%error, "the registration ends by itself");
    }
    tracing::info!(
        accepted = stats.accepted,
        messages = stats.messages,
        pushes = stats.pushes,
        refused = stats.refused,
        "stopped"
    );
    outcome
}
