//! A peer: a stream of bytes that comes again and again, and a place where output ends.
//!
//! The bytes lie in a file in memory and are read by system calls, as from a socket: the kernel's
//! copying is nobody's user instructions.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{pread, write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Frames that come again and again.
#[derive(Debug)]
pub struct Stream {
    file: OwnedFd,
    len: usize,
    at: usize,
    at_most: usize,
}

impl Stream {
    /// Gives `bytes` again and again, at most `at_most` in one read, and never across their end.
    ///
    /// # Panics
    /// The system has no file for them.
    #[must_use]
    pub fn new(bytes: &[u8], at_most: usize) -> Self {
        let file = memfd_create("stream", MemfdFlags::CLOEXEC).expect("a file in memory");
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[write(&file, rest).expect("room in memory")..];
        }
        Self { file, len: bytes.len(), at: 0, at_most }
    }

    /// Bytes of one turn of the stream.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the next read begins, given that it took `count` bytes.
    fn advance(&mut self, count: usize) {
        self.at = (self.at + count) % self.len;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(self.at_most);
        let count = pread(&self.file, &mut buffer[..room], self.at as u64)?;
        self.advance(count);
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(black_box(bytes).len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(self.at_most);
        // SAFETY: the slice is only written to, by the system call.
        let spare = unsafe { &mut buffer.unfilled_mut()[..room] };
        let count = pread(&self.file, spare, self.at as u64)?.0.len();
        // SAFETY: the system call has written so many bytes.
        unsafe { buffer.assume_init(count) };
        buffer.advance(count);
        self.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(slices).iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
