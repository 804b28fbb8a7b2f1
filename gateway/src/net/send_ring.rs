//! A submit-only io_uring for sends: nobody ever waits on it.
//!
//! Every send says MSG_DONTWAIT, so none is ever parked in the kernel: when `io_uring_enter` has
//! consumed it, it is final and its bytes are free again. MSG_WAITALL makes a short send count as
//! failed, so that skipping the completions of successes hides nothing.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};

use super::sockets::Send;
use crate::limits::SENDS_PER_SUBMIT;

const FLAGS: i32 = libc_flags();

const fn libc_flags() -> i32 {
    use rustix::net::SendFlags;
    const WAIT_ALL: u32 = 0x100; // MSG_WAITALL of <linux/socket.h>; a receive flag elsewhere, so not in SendFlags
    (SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL).bits() | WAIT_ALL).cast_signed()
}

/// The ring and nothing else; belongs to the thread that made it.
pub struct SendRing {
    ring: IoUring,
}

impl SendRing {
    /// Builds the ring with the flags this kernel knows.
    ///
    /// # Errors
    /// io_uring is denied, or so old that it cannot skip completions (before 5.17).
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .build(SENDS_PER_SUBMIT)
            .or_else(|_| IoUring::builder().setup_coop_taskrun().build(SENDS_PER_SUBMIT))
            .or_else(|_| IoUring::builder().build(SENDS_PER_SUBMIT))?;
        if !ring.params().is_feature_skip_cqe_on_success() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel cannot skip completions",
            ));
        }
        Ok(Self { ring })
    }

    /// Sends the batch and returns how many of its entries the kernel has dealt with: fewer than all
    /// only if the ring is broken, and then it must not be used again.
    pub(super) fn flush(
        &mut self,
        batch: &[Send<'_>],
        short: &mut impl FnMut(usize, io::Result<usize>),
    ) -> usize {
        let mut done = 0;
        for chunk in batch.chunks(SENDS_PER_SUBMIT as usize) {
            self.push_all(done, chunk);
            let left = self.submit_all();
            done += chunk.len() - left;
            self.reap(short);
            if left > 0 {
                break;
            }
        }
        done
    }

    fn push_all(&mut self, offset: usize, chunk: &[Send<'_>]) {
        let mut queue = self.ring.submission();
        for (index, send) in chunk.iter().enumerate() {
            let length = u32::try_from(send.bytes.len()).unwrap_or(u32::MAX);
            let entry =
                opcode::Send::new(types::Fd(send.fd.as_raw_fd()), send.bytes.as_ptr(), length)
                    .flags(FLAGS)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
                    .user_data((offset + index) as u64);
            // SAFETY: the entry points into `send.bytes`, which the caller's borrow keeps in place until
            // `flush` returns, and `flush` does not return before the kernel has consumed every entry:
            // `submit_all` loops until the queue is empty, and a consumed entry is final because
            // MSG_DONTWAIT keeps the kernel from parking it. If the ring breaks, the caller drops it,
            // and what was not consumed never is. Tested by `a_short_send_and_a_full_socket_are_told`.
            let pushed = unsafe { queue.push(&entry) };
            debug_assert!(
                pushed.is_ok(),
                "a chunk is as long as the queue, and the queue was empty"
            );
        }
    }

    /// Submits until the queue is empty; returns how many entries are left when that fails for good.
    fn submit_all(&mut self) -> usize {
        let mut failures = 0;
        loop {
            let outcome = self.ring.submit();
            let left = self.ring.submission().len();
            if left == 0 {
                return 0;
            }
            // Interrupted or short of memory for a moment: the rest is still in the queue.
            failures += u32::from(outcome.is_err());
            if failures > 100 {
                return left;
            }
        }
    }

    fn reap(&mut self, short: &mut impl FnMut(usize, io::Result<usize>)) {
        for completion in self.ring.completion() {
            let index = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            match usize::try_from(completion.result()) {
                Ok(sent) => short(index, Ok(sent)),
                Err(_) => short(index, outcome_of(-completion.result())),
            }
        }
    }
}

fn outcome_of(errno: i32) -> io::Result<usize> {
    let error = io::Error::from_raw_os_error(errno);
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
        _ => Err(error),
    }
}
