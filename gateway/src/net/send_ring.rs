//! A submit-only io_uring for sends: nobody ever waits on it.
//!
//! Every send says MSG_DONTWAIT, so none is ever parked in the kernel: when `io_uring_enter` has
//! consumed it, it is final and its bytes are free again. MSG_WAITALL makes a short send count as
//! failed, so that skipping the completions of successes hides nothing.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};

use super::sockets::{Bytes, Send};
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
        let mut headers = Vec::new();
        for chunk in batch.chunks(SENDS_PER_SUBMIT as usize) {
            self.push_all(done, chunk, &mut headers);
            let left = self.submit_all();
            done += chunk.len() - left;
            self.reap(short);
            if left > 0 {
                break;
            }
        }
        done
    }

    /// `chunk` is at most as long as the queue, which is empty. `headers` has to stay as it is until all is submitted.
    fn push_all(&mut self, offset: usize, chunk: &[Send<'_>], headers: &mut Vec<libc::msghdr>) {
        headers.clear();
        headers.reserve(chunk.iter().filter(|send| matches!(send.bytes, Bytes::Parts(_))).count());
        let mut queue = self.ring.submission();
        for (index, send) in chunk.iter().enumerate() {
            let fd = types::Fd(send.fd.as_raw_fd());
            let entry = match send.bytes {
                Bytes::Whole(bytes) => {
                    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    opcode::Send::new(fd, bytes.as_ptr(), length).flags(FLAGS).build()
                }
                Bytes::Parts(parts) => {
                    headers.push(header_of(parts));
                    opcode::SendMsg::new(fd, &raw const headers[headers.len() - 1])
                        .flags(FLAGS.cast_unsigned())
                        .build()
                }
            };
            let entry = entry.flags(squeue::Flags::SKIP_SUCCESS).user_data((offset + index) as u64);
            // SAFETY: the entry points into `send.bytes`, or into `headers`, which point there (an `IoSlice` is an
            // `iovec`, as std says); they do not move, as there is room for all of them, and our caller keeps them
            // until all is submitted. Its own caller's borrow keeps `send.bytes` in place until `flush` returns, and
            // `flush` does not return before the kernel has consumed every entry: `submit_all` loops until the queue
            // is empty, and a consumed entry is final because MSG_DONTWAIT keeps the kernel from parking it. If the
            // ring breaks, the caller drops it, and what was not consumed never is. Tested by
            // `a_short_send_and_a_full_socket_are_told` and `a_short_send_of_parts_and_a_full_socket_are_told`.
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

/// What `sendmsg(2)` is given for bytes in parts.
fn header_of(parts: &[IoSlice<'_>]) -> libc::msghdr {
    // SAFETY: the fields are pointers and integers; all zero stands for no address, no parts, no control data and no
    // flags. Tested by `a_short_send_of_parts_and_a_full_socket_are_told`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len() as _;
    header
}

fn outcome_of(errno: i32) -> io::Result<usize> {
    let error = io::Error::from_raw_os_error(errno);
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
        _ => Err(error),
    }
}
