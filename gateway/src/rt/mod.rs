//! The only room that names a runtime. A shard needs four things of one: to run on it, to wait until a
//! descriptor is readable, a timer, and a place for its second task. [`Runtime`] is that seam.

#[cfg(feature = "glommio")]
mod glommio_rt;
mod monoio_rt;

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[cfg(feature = "glommio")]
pub use glommio_rt::Glommio;
pub use monoio_rt::{MonoioEpoll, MonoioUring};

/// Which runtime and driver move the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    /// monoio on io_uring: the default where io_uring is granted.
    IoUring,
    /// monoio on epoll, where io_uring is denied or not wanted.
    Epoll,
    /// glommio, which knows only io_uring. Needs the cargo feature `glommio`.
    Glommio,
}

impl IoDriver {
    /// io_uring where the kernel grants it to this process.
    #[must_use]
    pub fn detect() -> Self {
        if monoio_rt::uring_is_granted() { Self::IoUring } else { Self::Epoll }
    }

    /// Whether glommio is in this build and starts in this process: it needs io_uring and 512 KiB of
    /// locked memory.
    ///
    /// # Errors
    /// Why not.
    pub fn check_glommio() -> io::Result<()> {
        #[cfg(feature = "glommio")]
        return glommio_rt::check();
        #[cfg(not(feature = "glommio"))]
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this build is without glommio (cargo feature `glommio` of the crate `gateway`)",
        ))
    }

    /// Whether sends go through an io_uring too.
    #[must_use]
    pub fn has_ring(self) -> bool {
        self != Self::Epoll
    }
}

/// A single-threaded runtime as a shard uses it.
pub trait Runtime: 'static {
    /// What [`Runtime::Awaitable`] is here.
    type Awaitable: Awaitable;

    /// Runs `future` to its end on this thread under a new runtime.
    ///
    /// # Errors
    /// The driver could not be set up.
    fn block_on<F: Future>(future: F) -> io::Result<F::Output>;

    /// Starts a task on this thread's runtime; it ends with the runtime.
    fn spawn(future: impl Future<Output = ()> + 'static);

    /// Waits.
    fn sleep(duration: Duration) -> impl Future<Output = ()>;
}

/// A descriptor whose readability can be awaited. Made inside the runtime that awaits it.
pub trait Awaitable: Sized {
    /// Takes the descriptor over. It need not be a socket: anything that can be polled will do.
    ///
    /// # Errors
    /// The driver cannot watch it.
    fn new(fd: UnixStream) -> io::Result<Self>;

    /// Waits until something is there.
    ///
    /// # Errors
    /// The driver failed; the shard cannot go on.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>>;
}
