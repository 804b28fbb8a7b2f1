//! The pump and the timer: the two tasks of a shard's thread.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::stats::Stats;
use super::turn::{Drain, HandedOver, Parts, Shard, TICK_MS};
use crate::mailbox::Mailbox;
use crate::net::sends::Sends;
use crate::rt::{self, Awaitable, IoDriver};
use crate::session::rules::Rules;
use crate::uplink::Uplink;

/// What a shard's thread is started with.
pub struct ShardSetup {
    /// Its number, from 0.
    pub index: u32,
    /// The rules of its sessions.
    pub rules: Rules,
    /// Which driver moves it.
    pub driver: IoDriver,
    /// Its own listener.
    pub listener: TcpListener,
    /// Connections it takes before it refuses.
    pub max_connections: usize,
    /// The door in.
    pub mailbox: Arc<Mailbox>,
    /// The door out.
    pub uplink: Arc<Uplink>,
    /// Where plain HTTP goes; `None` refuses it.
    pub http: Option<mpsc::Sender<HandedOver>>,
    /// Its counters.
    pub stats: Arc<Stats>,
}

/// Runs a shard on this thread until it has drained.
///
/// # Errors
/// The driver or the poll set could not be set up, or failed.
pub fn run(setup: ShardSetup) -> io::Result<()> {
    let mailbox = Arc::clone(&setup.mailbox);
    let outcome = rt::block_on(setup.driver, serve(setup)).and_then(|outcome| outcome);
    mailbox.close();
    outcome
}

async fn serve(setup: ShardSetup) -> io::Result<()> {
    let sends = match setup.driver {
        IoDriver::IoUring => Sends::ring().unwrap_or(Sends::SystemCalls),
        IoDriver::Epoll => Sends::SystemCalls,
    };
    let shard = Shard::new(Parts {
        index: setup.index,
        rules: setup.rules,
        sends,
        listener: setup.listener,
        max_connections: setup.max_connections,
        mailbox: setup.mailbox,
        uplink: setup.uplink,
        http: setup.http,
        stats: setup.stats,
    })?;
    let awaitable = Awaitable::new(shard.poll.awaitable()?)?;
    let shard = Rc::new(RefCell::new(shard));
    rt::spawn(keep_time(Rc::clone(&shard)));
    pump(&shard, &awaitable).await
}

/// One wait for all connections together, then one turn.
async fn pump(shard: &RefCell<Shard>, awaitable: &Awaitable) -> io::Result<()> {
    loop {
        awaitable.readable().await?;
        let mut shard = shard.borrow_mut();
        shard.turn()?;
        if shard.drain == Drain::Done {
            return Ok(());
        }
    }
}

async fn keep_time(shard: Rc<RefCell<Shard>>) {
    loop {
        rt::sleep(Duration::from_millis(u64::from(TICK_MS))).await;
        shard.borrow_mut().tick();
    }
}
