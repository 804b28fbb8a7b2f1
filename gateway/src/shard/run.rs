//! The pump and the timer: the two tasks of a shard's thread.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::door::DoorLimits;
use super::drain::Drain;
use super::stats::Stats;
use super::turn::{Parts, Shard, TICK_MS};
use crate::mailbox::Mailbox;
use crate::net::capacity::{Capacity, HandedOver};
use crate::net::sends::Sends;
use crate::rt::{Awaitable, IoDriver, MonoioEpoll, MonoioUring, Runtime};
use crate::session::bucket::Rate;
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
    /// What the whole process has room for.
    pub capacity: Arc<Capacity>,
    /// The shard's share of new connections a second; `None`: any number.
    pub connection_rate: Option<Rate>,
    /// Its share of logins that may wait for their answer.
    pub max_logins: usize,
    /// Its share of refused connections that may be kept for a moment.
    pub max_seen_off: usize,
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
    let outcome = match setup.driver {
        IoDriver::IoUring => run_on::<MonoioUring>(setup),
        IoDriver::Epoll => run_on::<MonoioEpoll>(setup),
        #[cfg(feature = "glommio")]
        IoDriver::Glommio => run_on::<crate::rt::Glommio>(setup),
        #[cfg(not(feature = "glommio"))]
        IoDriver::Glommio => IoDriver::check_glommio(),
    };
    mailbox.close();
    outcome
}

fn run_on<R: Runtime>(setup: ShardSetup) -> io::Result<()> {
    R::block_on(serve::<R>(setup)).and_then(|outcome| outcome)
}

async fn serve<R: Runtime>(setup: ShardSetup) -> io::Result<()> {
    let sends = if setup.driver.has_ring() {
        Sends::ring().unwrap_or(Sends::SystemCalls)
    } else {
        Sends::SystemCalls
    };
    let shard = Shard::new(Parts {
        index: setup.index,
        rules: setup.rules,
        sends,
        listener: setup.listener,
        door: DoorLimits {
            capacity: setup.capacity,
            rate: setup.connection_rate,
            max_logins: setup.max_logins,
            max_seen_off: setup.max_seen_off,
        },
        mailbox: setup.mailbox,
        uplink: setup.uplink,
        http: setup.http,
        stats: setup.stats,
    })?;
    let mut awaitable = R::Awaitable::new(shard.poll.awaitable()?)?;
    let shard = Rc::new(RefCell::new(shard));
    R::spawn(keep_time::<R>(Rc::clone(&shard)));
    pump::<R>(&shard, &mut awaitable).await
}

/// Turns taken in a row before the runtime gets its share (timers) again.
const TURNS_PER_WAIT: usize = 64;

/// One wait for all connections together, then turns for as long as they are full of work: under load
/// that saves the runtime's way round, with its poll and its `io_uring_enter`, for all but one of them.
/// After a turn with a single event another would mostly find nothing.
async fn pump<R: Runtime>(
    shard: &Rc<RefCell<Shard>>,
    awaitable: &mut R::Awaitable,
) -> io::Result<()> {
    loop {
        awaitable.readable().await?;
        let mut turning = shard.borrow_mut();
        let gathering = turning.is_gathering();
        for _ in 0..TURNS_PER_WAIT {
            let events = turning.turn()?;
            if turning.drain == Drain::Done {
                return Ok(());
            }
            if events < 2 {
                break;
            }
        }
        let begins = turning.is_gathering() && !gathering;
        // A runtime may begin with a task while it is being handed over.
        drop(turning);
        if begins {
            R::spawn(accept_gathered::<R>(Rc::clone(shard)));
        }
    }
}

/// How long connections of a herd gather: long enough for some ten of them, and short beside their login.
const GATHER: Duration = Duration::from_millis(1);

/// Accepts a herd.
async fn accept_gathered<R: Runtime>(shard: Rc<RefCell<Shard>>) {
    while shard.borrow().is_gathering() {
        R::sleep(GATHER).await;
        shard.borrow_mut().accept_gathered();
    }
}

async fn keep_time<R: Runtime>(shard: Rc<RefCell<Shard>>) {
    loop {
        R::sleep(Duration::from_millis(u64::from(TICK_MS))).await;
        shard.borrow_mut().tick();
    }
}
