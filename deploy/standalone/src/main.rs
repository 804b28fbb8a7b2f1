//! `corelane`: gateway and logic service in one process, with an embedded store.

mod doors;
mod settings;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use gateway::Gateway;
use gateway::bus::direct::{Calls, Messages};
use gateway::config::GatewayConfig;
use gateway::control::http_handoff::{HttpTimes, serve};
use gateway::control::signals::Signals;
use gateway::control::site;
use gateway::mailbox::Mailboxes;
use gateway::rt::IoDriver;
use gateway::session::rules::{Access, Mode};
use logic_svc::Service;

use doors::{CallDoor, MessageDoor, WayBack};
use settings::{Invalid, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gateway::supervisor::use_small_pages();
    let settings = match Settings::load() {
        Ok(settings) => settings,
        Err(Invalid(sentence)) => {
            eprintln!("corelane: {sentence}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(settings.log.clone())
        .init();
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    if settings.dev_login {
        tracing::warn!(
            "DEV LOGIN IS ON: anyone who reaches this port logs in as anyone, without a password"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    let _inside = runtime.enter();
    // From here on a signal is ours: one that comes while we start is not lost.
    let mut signals = Signals::new().context("cannot listen for signals")?;

    let mut gateway = Gateway::start(&gateway_config(&settings))
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    report_driver(&gateway, &settings);
    let sink = Arc::new(WayBack(Mailboxes(gateway.mailboxes())));
    let service = Service::open(logic_config(&settings), sink).context("cannot open the store")?;
    let workers = start_workers(&gateway, &service)?;
    if let Some(handed_over) = gateway.take_http() {
        let site = site::router(service.router(), settings.web_dir.as_deref());
        runtime.spawn(serve(handed_over, site, HttpTimes::default()));
    }

    announce(&gateway);
    let alarm = gateway.alarm();
    runtime.block_on(async {
        tokio::select! {
            () = signals.next() => tracing::info!("stopping"),
            () = alarm.rang() => tracing::error!("stopping: a thread failed that nothing works without"),
        }
    });
    runtime.spawn(signals.second());
    stop(gateway, workers, service)
}

/// New connections end, what is under way is answered, the shards end, the pipeline empties its lane,
/// the store is closed.
fn stop(gateway: Gateway, workers: Vec<JoinHandle<()>>, service: Service) -> anyhow::Result<()> {
    let stats = gateway.stats();
    let outcome = gateway.stop().context("a shard failed");
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("a worker thread panicked"))?;
    }
    service.close();
    tracing::info!(
        accepted = stats.accepted,
        messages = stats.messages,
        pushes = stats.pushes,
        refused = stats.refused,
        "stopped"
    );
    outcome
}

fn start_workers(gateway: &Gateway, service: &Service) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let messages = MessageDoor(Messages(gateway.uplink()));
    let calls = CallDoor(Calls(gateway.uplink()));
    let (ingest, rpc) = (service.clone(), service.clone());
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let (pipeline, answering) = (gateway.alarm().watch(), gateway.alarm().watch());
    let ingest = move || {
        ingest.run_ingest(messages);
        pipeline.all_is_well();
    };
    let rpc = move || {
        rpc.run_calls(calls);
        answering.all_is_well();
    };
    Ok(vec![
        named("pipeline").spawn(ingest).context("cannot start a thread")?,
        named("calls").spawn(rpc).context("cannot start a thread")?,
    ])
}

fn gateway_config(settings: &Settings) -> GatewayConfig {
    let access = Access {
        dev_login: settings.dev_login,
        query_token: settings.query_token,
        allowed_origins: settings.allowed_origins.clone(),
    };
    GatewayConfig {
        shards: settings.shards,
        io: settings.io,
        limits: settings.limits.clone(),
        admission: settings.admission.clone(),
        congestion_control: settings.congestion_control.clone(),
        deflate: settings.deflate.then_some(settings.compression),
        ..GatewayConfig::new(settings.listen, Mode::Serve(access))
    }
}

fn logic_config(settings: &Settings) -> logic_svc::config::Config {
    logic_svc::config::Config {
        data_dir: settings.data_dir.clone(),
        dev_login: settings.dev_login,
        heartbeat_ms: settings.limits.heartbeat_ms,
        content_max_bytes: settings.limits.content_max_bytes,
        max_connections_per_user: settings.max_connections_per_user,
        device_policy: settings.device_policy.clone(),
        access_token_s: settings.access_token_s,
        refresh_token_s: settings.refresh_token_s,
        #[cfg(feature = "fault-injection")]
        fault: settings.fault,
        ..logic_svc::config::Config::default()
    }
}

fn report_driver(gateway: &Gateway, settings: &Settings) {
    match gateway.driver() {
        IoDriver::IoUring => tracing::info!(shards = settings.shards, "shards run on io_uring"),
        IoDriver::Epoll => tracing::info!(
            shards = settings.shards,
            "shards run on epoll with one system call a send (io_uring is denied or not wanted)"
        ),
        IoDriver::Glommio => tracing::info!(shards = settings.shards, "shards run on glommio"),
    }
}

#[allow(clippy::print_stdout, reason = "the ready line is what scripts wait for")]
fn announce(gateway: &Gateway) {
    println!("corelane ready on http://{}", gateway.addr());
}
