//! monoio: io_uring, or its epoll driver where io_uring is denied.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use monoio::net::UnixStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Which driver moves the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring.
    IoUring,
    /// epoll, where io_uring is denied or not wanted.
    Epoll,
}

impl IoDriver {
    /// io_uring where the kernel grants it to this process.
    #[must_use]
    pub fn detect() -> Self {
        // The same builder call as at start, as some sandboxes let the probe pass and deny the set-up.
        match uring_builder().build(8) {
            Ok(_) if monoio::utils::detect_uring() => Self::IoUring,
            _ => Self::Epoll,
        }
    }
}

fn uring_builder() -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    // Without COOP_TASKRUN every wake of the poll interrupts the shard's core (1.95 against 1.19 of the
    // bare echo). DEFER_TASKRUN is out: monoio's non-waiting path submits without GETEVENTS.
    builder.setup_coop_taskrun().setup_cqsize(4096);
    builder
}

/// Runs `future` to its end on this thread under a new runtime.
///
/// # Errors
/// The driver could not be set up.
pub fn block_on<F: Future>(driver: IoDriver, future: F) -> io::Result<F::Output> {
    match driver {
        IoDriver::IoUring => {
            let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(uring_builder());
            Ok(builder.enable_timer().build()?.block_on(future))
        }
        IoDriver::Epoll => {
            Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(future))
        }
    }
}

/// Starts a task on this thread's runtime; it ends with the runtime.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(future));
}

/// Waits.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// A descriptor whose readability can be awaited. Made inside the runtime that awaits it.
pub struct Awaitable(UnixStream);

impl Awaitable {
    /// Takes the descriptor over.
    ///
    /// # Errors
    /// The driver cannot watch it.
    pub fn new(fd: StdUnixStream) -> io::Result<Self> {
        UnixStream::from_std(fd).map(Self)
    }

    /// Waits until something is there. Not "relaxed": on the epoll driver a relaxed wait trusts a flag
    /// that nothing resets, and spins.
    ///
    /// # Errors
    /// The driver failed; the shard cannot go on.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable(false).await
    }
}
