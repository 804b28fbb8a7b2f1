//! Brings a gateway up: its entry in etcd, its topic, its threads and tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cluster::etcd::{Etcd, EtcdError, Registration};
use cluster::kafka::{Producer, TopicSpec, Topics};
use gateway::Gateway;
use gateway::bus::kafka::{Push, Upstream, deliveries, probe};
use gateway::control::dynamic::{self, SetFilter, Told, Wanted};
use gateway::control::health::{self, Readiness};
use gateway::control::http_handoff::{HttpTimes, serve};
use gateway::control::proxy::Proxy;
use gateway::control::rpc::{Client, Doors, Lanes};
use gateway::control::{counters, discovery, registration, reports, site};
use gateway::index::{Identity, Index};
use gateway::mailbox::Mailboxes;
use gateway::supervisor::Watch;
use tokio::sync::{Notify, watch};

use crate::settings::Settings;

/// How long etcd and Kafka are waited for at the start.
const SERVERS: Duration = Duration::from_secs(30);
/// How long the first record of ours may take to come back.
const PROBED: Duration = Duration::from_secs(20);
/// How often a probe is sent until then.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// How long records of the push topic are kept: nobody reads them later than at once.
const PUSH_RETENTION_MS: u64 = 3_600_000;

/// A gateway that serves.
pub(crate) struct Running {
    pub(crate) up: Up,
    pub(crate) registration: Registration,
}

/// How threads and readiness learn that the end has come.
#[derive(Clone, Default)]
pub(crate) struct Stopping {
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) push: Arc<AtomicBool>,
}

/// What the rest is made from.
struct Base<'a> {
    settings: &'a Settings,
    etcd: Etcd,
    config: watch::Receiver<BTreeMap<String, String>>,
    partitions: u32,
}

/// Brings it up. `drain` is told when the dynamic configuration wants it drained.
pub(crate) async fn start(
    settings: &Settings,
    set_filter: SetFilter,
    drain: Arc<Notify>,
) -> anyhow::Result<Running> {
    if let Some(addr) = settings.metrics_listen {
        cluster::metrics::serve(addr)?;
        tracing::info!(%addr, "metrics");
    }
    let etcd = connect(settings).await?;
    let config = etcd.watch_config().await.context("cannot read the dynamic configuration")?;
    if dynamic::is_drained(&config.borrow(), &settings.gateway_id) {
        bail!(
            "the dynamic configuration wants this gateway drained: remove config/drain/{} first",
            settings.gateway_id
        );
    }
    let partitions = ensure_topics(settings).await?;
    let base = Base { settings, etcd, config, partitions };
    let registration = register(&base).await?;
    match bring_up(&base, &registration, set_filter, drain).await {
        Ok(up) => Ok(Running { up, registration }),
        Err(error) => {
            // The next one need not wait for the lease to run out.
            let _ = registration.revoke().await;
            Err(error)
        }
    }
}

async fn connect(settings: &Settings) -> anyhow::Result<Etcd> {
    let until = Instant::now() + SERVERS;
    loop {
        match Etcd::connect(&settings.etcd).await {
            Ok(etcd) => return Ok(etcd),
            Err(error @ EtcdError::Unavailable { .. }) if Instant::now() < until => {
                tracing::warn!(%error, "waiting for etcd");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => {
                let endpoints = settings.etcd.endpoints.join(", ");
                return Err(error).with_context(|| format!("cannot reach etcd at {endpoints}"));
            }
        }
    }
}

/// Makes the topics that are missing; gives how many partitions the upstream has.
async fn ensure_topics(settings: &Settings) -> anyhow::Result<u32> {
    let topic = |name, partitions, retention_ms| TopicSpec {
        name,
        partitions,
        replication: settings.replication,
        retention_ms,
    };
    let wanted = [
        topic(settings.kafka.upstream(), settings.upstream_partitions, None),
        topic(settings.kafka.push(&settings.gateway_id), 1, Some(PUSH_RETENTION_MS)),
    ];
    let kafka = settings.kafka.clone();
    let made = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<(String, u32)>> {
        let topics = Topics::new(&kafka)?;
        Ok(topics.ensure(&wanted, SERVERS)?)
    });
    let made = made.await?.with_context(|| {
        format!("cannot make the topics in Kafka at {}", settings.kafka.brokers)
    })?;
    match made.as_slice() {
        [(_, upstream), (_, 1)] => Ok(*upstream),
        [_, (topic, partitions)] => {
            bail!("the topic {topic} has {partitions} partitions but must have 1")
        }
        _ => bail!("Kafka does not tell how many partitions its topics have"),
    }
}

/// Waits for the lease of a predecessor that died; gives up on one that lives.
async fn register(base: &Base<'_>) -> anyhow::Result<Registration> {
    let id = &base.settings.gateway_id;
    let said = said(&address(base.settings, base.settings.gateway.listen));
    match base.etcd.register("gateways", id, said, true).await {
        Err(EtcdError::Taken { holder, .. }) => {
            bail!("gateway_id is \"{id}\", but another gateway of that name is running: {holder}")
        }
        outcome => outcome.context("cannot register in etcd"),
    }
}

fn address(settings: &Settings, listens: std::net::SocketAddr) -> String {
    settings.advertise.clone().unwrap_or_else(|| listens.to_string())
}

fn said(address: &str) -> String {
    serde_json::json!({ "address": address }).to_string()
}

/// What is up, but for the registration.
pub(crate) struct Up {
    pub(crate) gateway: Gateway,
    pub(crate) producer: Arc<Producer>,
    pub(crate) upstream: JoinHandle<()>,
    pub(crate) calls: JoinHandle<Vec<tokio::task::JoinHandle<()>>>,
    pub(crate) push: JoinHandle<()>,
    pub(crate) stopping: Stopping,
    pub(crate) follows_registration: tokio::task::JoinHandle<()>,
}

async fn bring_up(
    base: &Base<'_>,
    registration: &Registration,
    set_filter: SetFilter,
    drain: Arc<Notify>,
) -> anyhow::Result<Up> {
    let settings = base.settings;
    let identity = Arc::new(Identity::new(&settings.gateway_id, registration.epoch()));
    let index = Arc::new(Index::default());
    let mut gateway = Gateway::start(&settings.gateway)
        .with_context(|| format!("cannot listen on {}", settings.gateway.listen))?;
    tracing::info!(driver = ?gateway.driver(), shards = settings.gateway.shards, "shards run");
    if settings.advertise.is_none() {
        let address = address(settings, gateway.addr());
        registration.update(said(&address)).await.context("cannot tell etcd the address")?;
    }
    let mailboxes = Mailboxes(gateway.mailboxes());
    let stopping = Stopping::default();

    let (pending, tell) = deliveries();
    let producer = Arc::new(Producer::new(&settings.kafka, tell).context("the Kafka producer")?);
    let (push, push_up) =
        start_push(&gateway, settings, (&identity, &index), &producer, &stopping).await?;
    let topic = settings.kafka.upstream();
    let upstream = Upstream::new(
        Arc::clone(&producer),
        topic,
        base.partitions,
        pending,
        Arc::clone(&identity),
        mailboxes.clone(),
    );
    let uplink = gateway.uplink();
    let upstream = spawn("upstream", &gateway, move |watch| {
        upstream.run(&uplink);
        watch.all_is_well();
    })?;

    let services = discovery::follow(
        base.etcd.discover("logic").await.context("cannot look for logic services")?,
    );
    let client = Client::new(services.clone(), settings.call_timeout)?;
    let doors = Doors { logic: Arc::new(client), index, identity, mailboxes };
    let lanes = Lanes::start(&doors, settings.calls_in_flight);
    let follows_registration =
        registration::follow(registration, Arc::clone(&doors.identity), lanes.report_all());
    tokio::spawn(reports::run(doors.clone(), lanes.report_all()));
    let uplink = gateway.uplink();
    let calls = spawn("calls", &gateway, move |watch| match lanes.run(&uplink) {
        Ok(tasks) => {
            watch.all_is_well();
            tasks
        }
        Err(error) => {
            tracing::error!(%error, "calls");
            Vec::new()
        }
    })?;

    let stats = gateway.shard_stats();
    let named = move || stats.iter().map(|stats| stats.snapshot().named()).collect();
    tokio::spawn(counters::run(named, gateway.uplink(), Arc::clone(&doors.index)));
    follow_config(base, &doors.mailboxes, set_filter, drain);
    let logic = Arc::clone(&doors.logic);
    let readiness =
        readiness(registration, &producer, push_up, &stopping).with("logic", move || logic.is_up());
    serve_http(&mut gateway, settings, readiness, services);
    Ok(Up { gateway, producer, upstream, calls, push, stopping, follows_registration })
}

/// Starts the thread `push` and waits until it is sure that nothing sent to this gateway is missed: before
/// that nobody may log in. Gives the thread, and whether the topic is being read.
async fn start_push(
    gateway: &Gateway,
    settings: &Settings,
    (identity, index): (&Arc<Identity>, &Arc<Index>),
    producer: &Producer,
    stopping: &Stopping,
) -> anyhow::Result<(JoinHandle<()>, Arc<AtomicBool>)> {
    let mailboxes = Mailboxes(gateway.mailboxes());
    let push = Push::new(&settings.kafka, Arc::clone(identity), Arc::clone(index), mailboxes)
        .context("the Kafka consumer")?;
    let (live, up) = (push.live(), push.up());
    let stop = Arc::clone(&stopping.push);
    let thread = spawn("push", gateway, move |watch| {
        push.run(&stop);
        watch.all_is_well();
    })?;
    if let Err(error) = prove_live(producer, settings, identity, &live).await {
        stopping.push.store(true, Ordering::Release);
        return Err(error);
    }
    Ok((thread, up))
}

/// Starts a thread that the gateway cannot do without: unless it says that all is well, its end is the
/// gateway's.
fn spawn<T: Send + 'static>(
    name: &str,
    gateway: &Gateway,
    work: impl FnOnce(Watch) -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    let watch = gateway.alarm().watch();
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || work(watch)).with_context(|| format!("cannot start the thread {name}"))
}

async fn prove_live(
    producer: &Producer,
    settings: &Settings,
    identity: &Identity,
    live: &AtomicBool,
) -> anyhow::Result<()> {
    let until = Instant::now() + PROBED;
    while !live.load(Ordering::Acquire) {
        if Instant::now() >= until {
            bail!("Kafka does not bring records of {} back", settings.kafka.push(identity.id()));
        }
        if let Err(error) = probe(producer, &settings.kafka, identity) {
            tracing::debug!(%error, "a probe was not taken");
        }
        let next = Instant::now() + PROBE_EVERY;
        while !live.load(Ordering::Acquire) && Instant::now() < next {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

fn follow_config(
    base: &Base<'_>,
    mailboxes: &Mailboxes,
    set_filter: SetFilter,
    drain: Arc<Notify>,
) {
    let settings = base.settings;
    let wanted = Wanted {
        per_second: settings.gateway.limits.messages_per_second,
        burst: settings.gateway.limits.message_burst,
        log: settings.log.clone(),
    };
    let told = Told { mailboxes: mailboxes.clone(), log: set_filter, drain };
    let id = settings.gateway_id.clone();
    tokio::spawn(dynamic::follow(base.config.clone(), id, wanted, told));
}

fn readiness(
    registration: &Registration,
    producer: &Arc<Producer>,
    push_up: Arc<AtomicBool>,
    stopping: &Stopping,
) -> Readiness {
    let (lease, producer) = (registration.watch(), producer.health());
    let draining = Arc::clone(&stopping.draining);
    Readiness::default()
        .with("kafka", move || producer.is_up() && push_up.load(Ordering::Relaxed))
        .with("lease", move || lease.borrow().state == cluster::etcd::State::Held)
        .with("serving", move || !draining.load(Ordering::Relaxed))
}

fn serve_http(
    gateway: &mut Gateway,
    settings: &Settings,
    readiness: Readiness,
    services: watch::Receiver<Arc<Vec<discovery::Service>>>,
) {
    let Some(handed_over) = gateway.take_http() else { return };
    let api = health::router(readiness, Proxy::new(services).router());
    let site = site::router(api, settings.web_dir.as_deref());
    tokio::spawn(serve(handed_over, site, HttpTimes::default()));
}

/// Waits until the producer is of no use any more.
pub(crate) async fn kafka_is_lost(producer: Arc<Producer>) {
    while producer.health().fatal().is_none() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
