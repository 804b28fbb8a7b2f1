//! Starts the shards, stops them, and knows their doors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::config::{GatewayConfig, IoChoice};
use crate::limits::{HTTP_CONNECTIONS, RESERVED_DESCRIPTORS};
use crate::mailbox::{Mailbox, Order};
use crate::net::listener;
use crate::rt::IoDriver;
use crate::session::rules::Rules;
use crate::shard::{self, HandedOver, ShardSetup, Stats, StatsSnapshot};
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
}

impl Gateway {
    /// Binds and starts all shards.
    ///
    /// # Errors
    /// The address cannot be bound, io_uring was demanded and is denied, or a thread cannot be started.
    pub fn start(config: &GatewayConfig) -> io::Result<Self> {
        let driver = choose_driver(config.io)?;
        let count = config.shards.max(1);
        let max_connections = connections_per_shard(config.max_connections, count);
        let listeners = listener::open(config.listen, count)?;
        let addr = listeners[0].local_addr()?;
        let (http_sender, http) = mpsc::channel(HTTP_CONNECTIONS);
        let mut gateway = Self {
            addr,
            driver,
            shards: vec![],
            mailboxes: vec![],
            stats: vec![],
            uplink: Arc::default(),
            http: Some(http),
        };
        let rules = Rules::new(config.mode.clone(), config.limits.clone());
        for (index, listener) in listeners.into_iter().enumerate() {
            let mailbox = Arc::new(Mailbox::new()?);
            let stats = Arc::new(Stats::default());
            let setup = ShardSetup {
                index: u32::try_from(index).map_err(io::Error::other)?,
                rules: rules.clone(),
                driver,
                listener,
                max_connections,
                mailbox: Arc::clone(&mailbox),
                uplink: Arc::clone(&gateway.uplink),
                http: Some(http_sender.clone()),
                stats: Arc::clone(&stats),
            };
            gateway.shards.push(spawn(index, count, setup)?);
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

fn spawn(index: usize, count: usize, setup: ShardSetup) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        pin_to_core(index, count);
        let outcome = shard::run(setup);
        if let Err(error) = &outcome {
            tracing::error!(shard = index, %error, "a shard failed");
        }
        outcome
    })
}

/// A shard stays on its core, unless there are more shards than cores.
fn pin_to_core(index: usize, count: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if count <= cores.len() && cores.len() > 1 {
        core_affinity::set_for_current(cores[index]);
    }
}

/// Raises the open-file limit to what is allowed and leaves a reserve of it to everything else.
fn connections_per_shard(wanted: usize, shards: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the open-file limit");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room =
        usize::try_from(files.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX).max(1);
    let total = if wanted == 0 { room } else { wanted.min(room) };
    total.div_ceil(shards)
}
