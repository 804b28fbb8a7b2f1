//! glommio: three rings an executor, io_uring only.

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::time::Duration;

use futures_lite::AsyncRead;
use glommio::net::TcpStream;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::{Awaitable, Runtime};

/// glommio's executor.
pub struct Glommio;

/// Registered buffers are for files, which a shard has none of; glommio would take 10 MiB.
const IO_MEMORY_BYTES: usize = 64 * 1024;
const RING_DEPTH: usize = 256;

fn executor() -> io::Result<LocalExecutor> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .make()
        .map_err(|error| io::Error::other(format!("glommio does not start: {error}")))
}

/// Whether an executor starts in this process.
pub(super) fn check() -> io::Result<()> {
    // On a thread of its own: an executor holds thread-local state. Its set-up panics where a ring is
    // denied, and that is an answer too.
    let outcome = std::thread::Builder::new()
        .name("glommio-check".into())
        .spawn(|| executor().map(drop))?
        .join();
    outcome.unwrap_or_else(|_| Err(io::Error::other("glommio does not start here")))
}

impl Runtime for Glommio {
    type Awaitable = GlommioAwaitable;

    fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
        Ok(executor()?.run(future))
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(future).detach();
    }

    async fn sleep(duration: Duration) {
        glommio::timer::sleep(duration).await;
    }
}

/// glommio has no public wait for a descriptor, but its stream starts a poll when it is made and does
/// not try to receive before that poll has fired. So each wait takes a new stream around a duplicate of
/// the descriptor, and the receive after the wake fails with ENOTSOCK, which nobody minds: three cheap
/// system calls a turn.
pub struct GlommioAwaitable(UnixStream);

/// Of `errno(3)`: the receive after the wake was tried on something that is no socket.
const ENOTSOCK: i32 = 88;

impl Awaitable for GlommioAwaitable {
    fn new(fd: UnixStream) -> io::Result<Self> {
        Ok(Self(fd))
    }

    async fn readable(&mut self) -> io::Result<()> {
        let mut stream = stream(self.0.try_clone()?);
        let mut byte = [0];
        let woken = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut byte)).await;
        match woken {
            Err(error) if error.raw_os_error() == Some(ENOTSOCK) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other("a socket is awaited, and a byte of it was taken")),
        }
    }
}

#[allow(unsafe_code, reason = "glommio takes descriptors only this way")]
fn stream(fd: UnixStream) -> TcpStream {
    // SAFETY: the stream becomes the only owner of a descriptor that was owned until here. That it is an
    // epoll set and no socket is harmless: only a poll and a failing receive are ever called on it.
    // Tested by `a_wait_ends_with_the_event_and_not_before`.
    unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::poll_set::{PollSet, Token};
    use std::io::Write;
    use std::time::Instant;

    #[test]
    fn a_wait_ends_with_the_event_and_not_before() {
        if let Err(error) = check() {
            return eprintln!("not tested: {error}");
        }
        Glommio::block_on(async {
            let mut set = PollSet::new(8).unwrap();
            let (a, mut b) = UnixStream::pair().unwrap();
            set.add(&a, Token { slot: 1, generation: 1 }).unwrap();
            let mut awaitable = GlommioAwaitable::new(set.awaitable().unwrap()).unwrap();
            for _ in 0..3 {
                let writer = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(50));
                    let writing = Instant::now();
                    b.write_all(b"x").unwrap();
                    (b, writing)
                });
                awaitable.readable().await.unwrap();
                let woken = Instant::now();
                let mut ready = Vec::new();
                set.take_ready(&mut ready).unwrap();
                assert_eq!(ready.len(), 1);
                let writing;
                (b, writing) = writer.join().unwrap();
                assert!(woken >= writing, "it did not wait");
            }
        })
        .unwrap();
    }
}
