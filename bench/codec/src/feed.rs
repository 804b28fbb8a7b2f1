//! A peer in memory: a stream of bytes that comes again and again, and a place where output ends.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Frames that come again and again.
#[derive(Clone, Debug)]
pub struct Stream {
    bytes: Vec<u8>,
    at: usize,
    at_most: usize,
}

impl Stream {
    /// Gives `bytes` again and again, at most `at_most` in one read, and never across their end.
    #[must_use]
    pub fn new(bytes: Vec<u8>, at_most: usize) -> Self {
        Self { bytes, at: 0, at_most }
    }

    /// Bytes of one turn of the stream.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next bytes, at most `room`.
    fn next(&mut self, room: usize) -> &[u8] {
        let start = self.at;
        let end = self.bytes.len().min(start + room.min(self.at_most));
        self.at = if end == self.bytes.len() { 0 } else { end };
        &self.bytes[start..end]
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let next = self.next(buffer.len());
        buffer[..next.len()].copy_from_slice(next);
        Ok(next.len())
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
        let next = self.next(buffer.remaining());
        buffer.put_slice(next);
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
