//! monoio: io_uring, or its epoll driver where io_uring is denied.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use monoio::net::UnixStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::{Awaitable, Runtime};

/// monoio on io_uring.
pub struct MonoioUring;

/// monoio on epoll.
pub struct MonoioEpoll;

pub(super) fn uring_is_granted() -> bool {
    // The same builder call as at start, as some sandboxes let the probe pass and deny the set-up.
    uring_builder().build(8).is_ok() && monoio::utils::detect_uring()
}

fn uring_builder() -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    // Without COOP_TASKRUN every wake of the poll interrupts the shard's core (1.95 against 1.19 of the
    // bare echo). DEFER_TASKRUN is out: monoio's non-waiting path submits without GETEVENTS.
    builder.setup_coop_taskrun().setup_cqsize(4096);
    builder
}

impl Runtime for MonoioUring {
    type Awaitable = MonoioAwaitable;

    fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
        let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(uring_builder());
        Ok(builder.enable_timer().build()?.block_on(future))
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(future));
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> {
        monoio::time::sleep(duration)
    }
}

impl Runtime for MonoioEpoll {
    type Awaitable = MonoioAwaitable;

    fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
        Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(future))
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(future));
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> {
        monoio::time::sleep(duration)
    }
}

/// A descriptor in monoio's driver.
pub struct MonoioAwaitable(UnixStream);

impl Awaitable for MonoioAwaitable {
    fn new(fd: StdUnixStream) -> io::Result<Self> {
        UnixStream::from_std(fd).map(Self)
    }

    /// Not "relaxed": on the epoll driver a relaxed wait trusts a flag that nothing resets, and spins.
    async fn readable(&mut self) -> io::Result<()> {
        self.0.readable(false).await
    }
}
