//! The logic service of the cluster form: all rooms joined over Kafka, MySQL, Redis and etcd.

mod discovery;
mod ids;
#[cfg(test)]
mod measure;
mod parts;
mod presence;
mod reports;
mod settings;
mod watched;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster::etcd::Etcd;
use cluster::kafka::{TopicSpec, Topics};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::{api, ingest, rpc, tasks};
use parts::Parts;

pub use settings::{Asked, Settings, load, table};

/// Wait between two attempts to reach a server that is not there yet.
const AGAIN: Duration = Duration::from_millis(300);
/// How long answers that are under way may take when the service stops.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Threads for gRPC, REST and etcd; whatever blocks has threads of its own.
const RUNTIME_THREADS: usize = 2;

/// The service could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(String);

impl ServiceError {
    fn of(what: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

type Result<T, E = ServiceError> = std::result::Result<T, E>;

/// Runs until SIGTERM or SIGINT; calls `ready` once everything is. Whatever was acknowledged is durable when it returns.
///
/// # Errors
/// A server is not there within the time given for the start, an address is taken, a setting cannot be.
pub fn run(settings: &Settings, ready: impl FnOnce()) -> Result<()> {
    let set_filter = cluster::log::begin(&settings.log);
    for setting in settings.values.changed() {
        tracing::info!("{setting}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("async")
        .enable_all()
        .build()
        .map_err(|error| ServiceError::of("the runtime for gRPC and REST", error))?;
    if let Some(listen) = settings.metrics_listen {
        let _inside = runtime.enter();
        cluster::metrics::serve(listen).map_err(|error| ServiceError(error.to_string()))?;
    }
    let service = Service::start(settings, &runtime, set_filter)?;
    ready();
    let signal = runtime.block_on(stop_signal())?;
    tracing::info!(signal, "stopping");
    service.stop(&runtime);
    Ok(())
}

async fn stop_signal() -> Result<&'static str> {
    let of = |kind| signal(kind).map_err(|error| ServiceError::of("signals", error));
    let (mut term, mut int) = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}

/// Tries until it goes well or the time for the start is over.
fn patiently<T, E: std::fmt::Display>(
    until: Instant,
    what: &str,
    mut attempt: impl FnMut() -> std::result::Result<T, E>,
) -> Result<T> {
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() >= until => return Err(ServiceError::of(what, error)),
            Err(error) => {
                tracing::warn!(%error, "{what} is not there yet");
                std::thread::sleep(AGAIN);
            }
        }
    }
}

/// Everything that runs.
struct Service {
    parts: Arc<Parts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    servers: Servers,
    registration: cluster::etcd::Registration,
    worker: cluster::etcd::WorkerLease,
}

/// gRPC and REST.
struct Servers {
    stop: tokio::sync::watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Service {
    fn start(
        settings: &Settings,
        runtime: &Runtime,
        set_filter: cluster::log::SetFilter,
    ) -> Result<Self> {
        let until = Instant::now() + settings.start_timeout;
        let topics = patiently(until, "Kafka", || topics(settings, until))?;
        let etcd = patiently(until, "etcd", || runtime.block_on(Etcd::connect(&settings.etcd)))?;
        let worker = patiently(until, "a worker number", || {
            let largest = crate::snowflake::WORKER_MAX;
            runtime.block_on(etcd.lease_worker(largest, &settings.instance))
        })?;
        let gateways = patiently(until, "etcd", || runtime.block_on(etcd.discover("gateways")))?;
        let dynamic = patiently(until, "etcd", || runtime.block_on(etcd.watch_config()))?;
        let parts = Arc::new(Parts::open(settings, topics, worker.worker(), until)?);
        let inside = runtime.enter();
        discovery::follow_gateways(gateways, Arc::clone(&parts), settings.has("tasks"));
        discovery::follow_config(dynamic, settings.values.clone(), Arc::clone(&parts), set_filter);
        discovery::watch_etcd(etcd.clone(), Arc::clone(&parts));
        drop(inside);
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        if settings.has("ingest") {
            threads.push(spawn("ingest", ingest_loop(settings, &parts, &stop)?)?);
        }
        if settings.has("tasks") {
            threads.push(spawn("tasks", tasks_loop(settings, &parts, &stop))?);
        }
        if settings.has("rpc") {
            threads.push(spawn("presence", presence::news_loop(&parts, &stop))?);
        }
        let servers = runtime.block_on(serve(settings, &parts))?;
        let said = serde_json::json!({
            "grpc": url(settings, servers.grpc),
            "http": url(settings, servers.http),
            "roles": settings.roles,
        });
        let registration = patiently(until, "registering", || {
            runtime.block_on(etcd.register("logic", &settings.instance, said.to_string(), false))
        })?;
        Ok(Self { parts, stop, threads, servers, registration, worker })
    }

    /// Gateways hear first that this service goes; what is under way is finished; what it held is given back last.
    fn stop(self, runtime: &Runtime) {
        if let Err(error) = runtime.block_on(self.registration.revoke()) {
            tracing::warn!(%error, "the registration goes when its lease runs out");
        }
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread panicked");
            }
        }
        let _ = self.servers.stop.send(true);
        runtime.block_on(async {
            for task in self.servers.tasks {
                if tokio::time::timeout(STOP_LIMIT, task).await.is_err() {
                    tracing::warn!("requests were under way for too long");
                }
            }
        });
        if !self.parts.outbox.flush(STOP_LIMIT) {
            tracing::warn!("records for gateways were not taken by Kafka in time");
        }
        if let Err(error) = runtime.block_on(self.worker.release()) {
            tracing::warn!(%error, "the worker number is free when its lease runs out");
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| ServiceError::of(name, error))
}

/// Makes the topics that are missing; gives how many partitions there are.
fn topics(settings: &Settings, until: Instant) -> Result<crate::egress::cluster::Topics> {
    let kafka = &settings.kafka;
    let spec = |name: String, partitions| TopicSpec {
        name,
        partitions,
        replication: settings.replication,
        retention_ms: None,
    };
    let wanted = [
        spec(kafka.upstream(), settings.partitions),
        spec(kafka.tasks(), settings.task_partitions),
        spec(kafka.dead_letters(), 1),
    ];
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let admin = Topics::new(kafka).map_err(|error| ServiceError(error.to_string()))?;
    let made = admin.ensure(&wanted, left).map_err(|error| ServiceError(error.to_string()))?;
    let partitions = |at: usize| made.get(at).map_or(1, |(_, partitions)| *partitions);
    Ok(crate::egress::cluster::Topics {
        upstream: kafka.upstream(),
        upstream_partitions: partitions(0),
        tasks: kafka.tasks(),
        task_partitions: partitions(1),
        dead_letters: kafka.dead_letters(),
    })
}

fn ingest_loop(
    settings: &Settings,
    parts: &Arc<Parts>,
    stop: &Arc<AtomicBool>,
) -> Result<impl FnOnce() + Send + 'static> {
    let options = ingest::kafka::Options {
        kafka: settings.kafka.clone(),
        group: format!("{}corelane-ingest", settings.kafka.topic_prefix),
        static_instance: None,
        poll_records: settings.poll_records,
        tick_messages: settings.config.tick_max_messages,
        poison_attempts: settings.poison_attempts,
    };
    let ingest = ingest::kafka::Parts {
        outbox: Arc::clone(&parts.outbox),
        gateways: Arc::clone(&parts.gateways),
        letters: Arc::clone(&parts.letters),
        clock: Arc::clone(&parts.clock),
        stop: Arc::clone(stop),
    };
    let mut pipeline = parts.pipeline(settings);
    Ok(move || ingest::kafka::run(&options, &ingest, &mut pipeline))
}

fn tasks_loop(
    settings: &Settings,
    parts: &Arc<Parts>,
    stop: &Arc<AtomicBool>,
) -> impl FnOnce() + Send + 'static {
    let options = tasks::Options {
        kafka: settings.kafka.clone(),
        group: format!("{}corelane-tasks", settings.kafka.topic_prefix),
        topic: settings.kafka.tasks(),
    };
    let work = tasks::Parts {
        gateways: Arc::clone(&parts.gateways),
        crowds: Arc::clone(&parts.crowds),
        watch: parts.watch.clone(),
        reports: Arc::clone(&parts.reports),
        letters: Arc::clone(&parts.letters),
        stop: Arc::clone(stop),
    };
    let keeper = parts.keeper(settings.retention);
    move || tasks::run(&options, &work, keeper)
}

/// Listens on both addresses. Without the role `rpc` REST shows health and nothing else is asked of it.
async fn serve(settings: &Settings, parts: &Arc<Parts>) -> Result<Servers> {
    let (grpc, grpc_address) = listen(settings.grpc_listen).await?;
    let (http, http_address) = listen(settings.http_listen).await?;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let about = rpc::grpc::About {
        instance: settings.instance.clone(),
        roles: settings.roles.clone(),
        etcd: {
            let parts = Arc::clone(parts);
            Box::new(move || parts.etcd_up.load(Ordering::Relaxed))
        },
    };
    let served = rpc::grpc::Parts {
        operations: Arc::clone(&parts.operations),
        gateways: Arc::clone(&parts.gateways),
        crowds: Arc::clone(&parts.crowds),
        threshold: parts.threshold.clone(),
        reports: Arc::clone(&parts.reports),
        letters: Arc::clone(&parts.letters),
        outbox: Arc::clone(&parts.outbox),
        about,
        admin_token: settings.admin_token.clone(),
        threads: settings.rpc_threads,
    };
    let until_stopped = |mut stopping: tokio::sync::watch::Receiver<bool>| async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let grpc_stop = until_stopped(stopping.clone());
    let router = api::router(Arc::clone(&parts.operations), settings.config.hash_threads);
    let grpc = tokio::spawn(async move {
        if let Err(error) = rpc::grpc::serve(grpc, served, grpc_stop).await {
            tracing::error!(%error, "gRPC ended");
        }
    });
    let http = tokio::spawn(async move {
        let served = axum::serve(http, router).with_graceful_shutdown(until_stopped(stopping));
        if let Err(error) = served.await {
            tracing::error!(%error, "REST ended");
        }
    });
    Ok(Servers { stop, tasks: vec![grpc, http], grpc: grpc_address, http: http_address })
}

async fn listen(on: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let fault = |error| ServiceError::of(&format!("listening on {on}"), error);
    let listener = TcpListener::bind(on).await.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok((listener, address))
}

fn url(settings: &Settings, listening: SocketAddr) -> String {
    match &settings.advertise_host {
        Some(host) => format!("http://{host}:{}", listening.port()),
        None => format!("http://{listening}"),
    }
}
