//! Plain HTTP on the public port: the shard hands the socket over with the bytes it has already read,
//! and this side serves it to its end.
//!
//! How many there may be is settled before the hand-over: each connection brings its place along. How
//! long one may take is settled here: for a head, for a request, for a stall while it takes an answer,
//! and in all.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};

use crate::net::capacity::HandedOver;

/// How long a plain HTTP connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct HttpTimes {
    /// A whole request head, also the next one on a kept connection.
    pub head: Duration,
    /// From a head to its answer, the request's body included; then 408.
    pub request: Duration,
    /// Without taking a byte of what is sent to it.
    pub stall: Duration,
    /// In all; then the request under way is finished and the connection closed.
    pub life: Duration,
}

impl Default for HttpTimes {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            request: Duration::from_secs(30),
            stall: Duration::from_secs(15),
            life: Duration::from_secs(300),
        }
    }
}

/// Bytes of a head and of what is read ahead of it.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Serves what arrives on `handed_over` with `router` until all senders are gone.
pub async fn serve(mut handed_over: mpsc::Receiver<HandedOver>, router: Router, times: HttpTimes) {
    let router = router.layer(middleware::from_fn_with_state(times.request, limit_time));
    while let Some(HandedOver { socket, read, place }) = handed_over.recv().await {
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_one(socket, read, router, times).await {
                tracing::debug!(%error, "an HTTP connection ended");
            }
            drop(place);
        });
    }
}

/// A body that trickles would keep its request open for ever.
async fn limit_time(State(most): State<Duration>, request: Request, next: Next) -> Response {
    timeout(most, next.run(request)).await.unwrap_or_else(|_| {
        (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response()
    })
}

async fn serve_one(
    socket: OwnedFd,
    read: Vec<u8>,
    router: Router,
    times: HttpTimes,
) -> io::Result<()> {
    let socket = StdTcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let stream = TcpStream::from_std(socket)?;
    let stream = Stream { read, at: 0, stream, stall: times.stall, stalled: None };
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(times.head).max_buf_size(READ_BUFFER_BYTES);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    if let Ok(outcome) = timeout(times.life, connection.as_mut()).await {
        return outcome.map_err(io::Error::other);
    }
    connection.as_mut().graceful_shutdown();
    timeout(times.request, connection)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(io::Error::other)
}

/// A stream whose first bytes were read by somebody else, and whose writes do not wait for ever.
struct Stream {
    read: Vec<u8>,
    at: usize,
    stream: TcpStream,
    stall: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Stream {
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

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.stalled = None;
            return Poll::Ready(outcome);
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::sync::{Arc, mpsc as std_mpsc};
    use std::time::Instant;

    use crate::net::capacity::{AddressKey, Capacity};

    /// Longer than any test: each makes the time short that it is about, and no other ends it.
    const LONG: Duration = Duration::from_secs(60);
    const TIMES: HttpTimes = HttpTimes { head: LONG, request: LONG, stall: LONG, life: LONG };
    /// In this time everything has to be over.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// What a client that is served by the real thing sees until the end, and after how long that came for
    /// the server, which the client is told of.
    fn serve_client(
        times: HttpTimes,
        client: impl FnOnce(StdTcpStream, std_mpsc::Receiver<()>) -> Vec<u8> + Send + 'static,
    ) -> (String, Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let router = Router::new()
            .route("/large", axum::routing::get(|| async { vec![b'x'; 64 << 20] }))
            .route("/small", axum::routing::get(|| async { "small" }))
            .route("/body", axum::routing::post(|body: String| async { body }));
        runtime.block_on(async {
            let capacity = Arc::new(Capacity::new(1, 0, 1));
            capacity.take(AddressKey::NONE).unwrap();
            let place = capacity.to_http(AddressKey::NONE).unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let ours = StdTcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (theirs, _) = listener.accept().unwrap();
            let (sender, receiver) = mpsc::channel(1);
            sender
                .send(HandedOver { socket: theirs.into(), read: Vec::new(), place })
                .await
                .unwrap();
            drop(sender);
            let started = Instant::now();
            let (ended, end) = std_mpsc::channel();
            let client = tokio::task::spawn_blocking(move || client(ours, end));
            serve(receiver, router, times).await;
            // The place comes back with the end of the connection.
            while capacity.take(AddressKey::NONE).is_err() || {
                let place = capacity.to_http(AddressKey::NONE);
                place.is_none()
            } {
                assert!(started.elapsed() < PATIENCE, "nothing ends it, or the place is lost");
                sleep(Duration::from_millis(10)).await;
            }
            let took = started.elapsed();
            let _ = ended.send(());
            (String::from_utf8_lossy(&client.await.unwrap()).into_owned(), took)
        })
    }

    fn read_on(mut stream: StdTcpStream) -> Vec<u8> {
        let mut seen = Vec::new();
        let _ = stream.read_to_end(&mut seen);
        seen
    }

    /// Sends this again and again, with a pause, until the server takes no more.
    fn trickle(stream: &StdTcpStream, bytes: &'static [u8], pause: Duration) {
        let mut trickle = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            while trickle.write_all(bytes).is_ok() {
                std::thread::sleep(pause);
            }
        });
    }

    #[test]
    fn a_body_that_trickles_is_answered_408() {
        let times = HttpTimes { request: Duration::from_millis(600), ..TIMES };
        let (seen, took) = serve_client(times, |mut stream, _| {
            stream.write_all(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n").unwrap();
            trickle(&stream, b"x", Duration::from_millis(50));
            read_on(stream)
        });
        assert!(seen.starts_with("HTTP/1.1 408 "), "{seen}");
        assert!(took >= times.request, "{took:?}");
    }

    #[test]
    fn a_head_that_trickles_is_cut() {
        let times = HttpTimes { head: Duration::from_millis(400), ..TIMES };
        let (seen, took) = serve_client(times, |mut stream, _| {
            stream.write_all(b"GET /small HTTP/1.1\r\nHost: ").unwrap();
            trickle(&stream, b"a", Duration::from_millis(50));
            read_on(stream)
        });
        assert!(seen.is_empty() || seen.starts_with("HTTP/1.1 408 "), "{seen}");
        assert!(took >= times.head, "{took:?}");
    }

    #[test]
    fn who_takes_nothing_of_an_answer_is_cut() {
        let times = HttpTimes { stall: Duration::from_millis(500), ..TIMES };
        let (seen, took) = serve_client(times, |mut stream, end| {
            stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let _ = end.recv();
            read_on(stream)
        });
        assert!(seen.starts_with("HTTP/1.1 200 ") && seen.len() < 64 << 20, "{} bytes", seen.len());
        assert!(took >= times.stall, "{took:?}");
    }

    #[test]
    fn a_connection_has_a_life_and_its_last_request_is_answered() {
        const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n";
        let times = HttpTimes { life: Duration::from_millis(1_500), ..TIMES };
        let (seen, took) = serve_client(times, |mut stream, _| {
            stream.write_all(&REQUEST.repeat(6)).unwrap();
            trickle(&stream, REQUEST, Duration::from_millis(100));
            read_on(stream)
        });
        assert!(seen.matches("HTTP/1.1 200 ").count() > 5 && seen.ends_with("small"), "{seen}");
        assert!(took >= times.life, "{took:?}");
    }
}
