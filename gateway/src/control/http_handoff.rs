//! Plain HTTP on the public port: the shard hands the socket over with the bytes it has already read,
//! and this side serves it to its end.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use crate::limits::HTTP_CONNECTIONS;

/// A whole request head must arrive within this time, also the next one on a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves what arrives on `handed_over` with `router` until all senders are gone.
pub async fn serve(mut handed_over: mpsc::Receiver<(OwnedFd, Vec<u8>)>, router: Router) {
    let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS));
    while let Some((socket, read)) = handed_over.recv().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_one(socket, read, router).await {
                tracing::debug!(%error, "an HTTP connection ended");
            }
            drop(permit);
        });
    }
}

async fn serve_one(socket: OwnedFd, read: Vec<u8>, router: Router) -> io::Result<()> {
    let socket = StdTcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let stream = Rewound { read, at: 0, stream: TcpStream::from_std(socket)? };
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
        .map_err(io::Error::other)
}

/// A stream whose first bytes were read by somebody else.
struct Rewound {
    read: Vec<u8>,
    at: usize,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.read.len() {
            let count = buffer.remaining().min(self.read.len() - self.at);
            buffer.put_slice(&self.read[self.at..self.at + count]);
            self.at += count;
            if self.at == self.read.len() {
                self.read = Vec::new();
                self.at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
