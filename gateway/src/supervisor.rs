//! Starts the shards, stops them, and knows their doors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{Notify, mpsc};

use crate::config::{GatewayConfig, IoChoice};
use crate::mailbox::{Mailbox, Order};
use crate::net::capacity::{Capacity, HandedOver};
use crate::net::descriptors::Budget;
use crate::net::listener;
use crate::rt::IoDriver;
use crate::session::bucket::Rate;
use crate::session::rules::Rules;
use crate::shard::{self, ShardSetup, Stats, StatsSnapshot};
use crate::uplink::Uplink;

/// A running gateway.
pub struct Gateway {
    addr: SocketAddr,
    driver: IoDriver,
    shards: Vec<JoinHandle<io::Result<()>>>,
    mailboxes: Vec<Arc<Mailbox>>,
    stats: Vec<Arc<Stats>>,
    uplink: Arc<Uplink>,
    http: Option<mpsc::Receiver<HandedOver>>,
    alarm: Alarm,
}

impl Gateway {
    /// Binds and starts all shards.
    ///
    /// # Errors
    /// The address cannot be bound, io_uring was demanded and is denied, or a thread cannot be started.
    pub fn start(config: &GatewayConfig) -> io::Result<Self> {
        let driver = choose_driver(config.io)?;
        let count = config.shards.max(1);
        let admission = &config.admission;
        let budget = Budget::of_this_process(admission.max_connections);
        report(&budget, config);
        let capacity =
            Arc::new(Capacity::new(budget.connections, admission.max_per_address, budget.http));
        let listeners = listener::open(config.listen, count, config.congestion_control.as_deref())?;
        let addr = listeners[0].local_addr()?;
        let (http_sender, http) = mpsc::channel(budget.http);
        let mut gateway = Self {
            addr,
            driver,
            shards: vec![],
            mailboxes: vec![],
            stats: vec![],
            uplink: Arc::default(),
            http: Some(http),
            alarm: Alarm::default(),
        };
        let mut rules = Rules::new(config.mode.clone(), config.limits.clone());
        rules.deflate = config.deflate;
        for (index, listener) in listeners.into_iter().enumerate() {
            let mailbox = Arc::new(Mailbox::new()?);
            let stats = Arc::new(Stats::default());
            let setup = ShardSetup {
                index: u32::try_from(index).map_err(io::Error::other)?,
                rules: rules.clone(),
                driver,
                listener,
                capacity: Arc::clone(&capacity),
                connection_rate: share_of_rate(
                    admission.connections_per_second,
                    admission.connection_burst,
                    count,
                ),
                max_logins: admission.max_logins.div_ceil(count).max(1),
                max_seen_off: (budget.reserve / 4 / count).max(1),
                mailbox: Arc::clone(&mailbox),
                uplink: Arc::clone(&gateway.uplink),
                http: Some(http_sender.clone()),
                stats: Arc::clone(&stats),
            };
            gateway.shards.push(spawn(index, count, setup, &gateway.alarm)?);
            gateway.mailboxes.push(mailbox);
            gateway.stats.push(stats);
        }
        Ok(gateway)
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The driver the shards run on.
    #[must_use]
    pub fn driver(&self) -> IoDriver {
        self.driver
    }

    /// The doors in, by shard.
    #[must_use]
    pub fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes.clone()
    }

    /// The door out.
    #[must_use]
    pub fn uplink(&self) -> Arc<Uplink> {
        Arc::clone(&self.uplink)
    }

    /// Plain HTTP connections, to be served by whoever takes this; once.
    pub fn take_http(&mut self) -> Option<mpsc::Receiver<HandedOver>> {
        self.http.take()
    }

    /// Rings when a shard failed; others may have their threads watched by it too.
    #[must_use]
    pub fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// The counters of each shard, to be read at any time.
    #[must_use]
    pub fn shard_stats(&self) -> Vec<Arc<Stats>> {
        self.stats.clone()
    }

    /// The counters of all shards together.
    #[must_use]
    pub fn stats(&self) -> StatsSnapshot {
        self.stats
            .iter()
            .map(|stats| stats.snapshot())
            .fold(StatsSnapshot::default(), |sum, one| sum + one)
    }

    /// Stops: no new connections, answers under way are waited for, GOAWAY is said, then the shards end
    /// and the uplink is closed behind them. Blocks until then.
    ///
    /// # Errors
    /// A shard failed or panicked before.
    pub fn stop(self) -> io::Result<()> {
        for mailbox in &self.mailboxes {
            mailbox.order(Order::Drain);
        }
        let outcomes: Vec<_> = self.shards.into_iter().map(JoinHandle::join).collect();
        self.uplink.messages.close();
        self.uplink.calls.close();
        for outcome in outcomes {
            outcome.map_err(|_| io::Error::other("a shard panicked"))??;
        }
        Ok(())
    }
}

/// Keeps this process on 4 KiB pages. With transparent huge pages the allocator's memory is counted and
/// kept in steps of 2 MiB: 15,000 idle connections then show as 10 MB instead of 2 MB. Call it first.
pub fn use_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // Only memory figures suffer.
        tracing::debug!(%error, "huge pages stay on");
    }
}

fn choose_driver(choice: IoChoice) -> io::Result<IoDriver> {
    match (choice, IoDriver::detect()) {
        (IoChoice::Epoll, _) => Ok(IoDriver::Epoll),
        (IoChoice::Glommio, _) => IoDriver::check_glommio().map(|()| IoDriver::Glommio),
        (IoChoice::IoUring, IoDriver::Epoll) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "io_uring is denied to this process (io = \"io_uring\" was asked for)",
        )),
        (_, driver) => Ok(driver),
    }
}

fn spawn(
    index: usize,
    count: usize,
    setup: ShardSetup,
    alarm: &Alarm,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let (watch, mailbox) = (alarm.watch(), Arc::clone(&setup.mailbox));
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        pin_to_core(index, count);
        let closed = CloseOnDrop(mailbox);
        let outcome = shard::run(setup);
        drop(closed);
        match &outcome {
            Ok(()) => watch.all_is_well(),
            Err(error) => tracing::error!(shard = index, %error, "a shard failed"),
        }
        outcome
    })
}

/// Whoever waits for room in the mailbox of a shard that panicked would wait for ever.
struct CloseOnDrop(Arc<Mailbox>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Rings when a thread that the process cannot do without has ended before its time. A server that has
/// lost a shard or its pipeline looks alive from outside and serves nobody: better to end as a whole, have
/// the clients connect elsewhere, and be started again. What was acknowledged is stored.
#[derive(Clone, Default)]
pub struct Alarm(Arc<Notify>);

impl Alarm {
    /// To be held by the thread; rings when it is dropped, by a panic say, before all was well.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(Some(Arc::clone(&self.0)))
    }

    /// Waits until it rings.
    pub async fn rang(&self) {
        self.0.notified().await;
    }
}

/// See [`Alarm::watch`].
pub struct Watch(Option<Arc<Notify>>);

impl Watch {
    /// The thread ends because it was asked to.
    pub fn all_is_well(mut self) {
        self.0 = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(notify) = &self.0 {
            notify.notify_one();
        }
    }
}

/// A shard stays on its core, unless there are more shards than cores.
fn pin_to_core(index: usize, count: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if count <= cores.len() && cores.len() > 1 {
        core_affinity::set_for_current(cores[index]);
    }
}

/// Says what the limits come to, so that nobody has to find out under load.
fn report(budget: &Budget, config: &GatewayConfig) {
    let Budget { limit, reserve, http, connections } = *budget;
    tracing::info!(
        open_files = limit,
        reserve,
        http,
        connections,
        per_address = config.admission.max_per_address,
        "room for connections"
    );
    if config.admission.max_connections > connections {
        tracing::warn!(
            wanted = config.admission.max_connections,
            connections,
            "the open-file limit allows fewer connections than wanted"
        );
    }
}

/// One shard's share of a rate of the whole process.
fn share_of_rate(per_second: f64, burst: u32, shards: usize) -> Option<Rate> {
    let shards = u32::try_from(shards).unwrap_or(u32::MAX);
    (per_second > 0.0)
        .then(|| Rate::new(per_second / f64::from(shards), burst.div_ceil(shards).max(1)))
}
