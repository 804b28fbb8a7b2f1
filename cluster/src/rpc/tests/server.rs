//! A gRPC server with moods, which can be killed.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use tokio::runtime::Runtime;
use tonic::codegen::tokio_stream::Stream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::own_address::own_address;

/// How it answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    Well,
    /// It says that it does not serve, and does.
    Draining,
    /// Work is refused for a reason of the caller's.
    Refusing,
    /// Work is refused for a reason of the server's.
    Unavailable,
    /// Work is never answered.
    Hanging,
}

#[derive(Debug, Default)]
struct Script {
    mood: AtomicU8,
    calls: AtomicU32,
}

/// A server on a runtime of its own: dropping that kills it with all its connections.
pub(super) struct Server {
    address: SocketAddr,
    script: Arc<Script>,
    runtime: Option<Runtime>,
}

impl Server {
    pub(super) fn start() -> Server {
        let mut server = Server { address: own_address(), script: Arc::default(), runtime: None };
        server.restart();
        server
    }

    /// Starts it anew, on the same port.
    pub(super) fn restart(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let incoming = {
            let _entered = runtime.enter();
            TcpIncoming::bind(self.address).expect("the port is ours")
        };
        let service = HealthServer::new(Answers(Arc::clone(&self.script)));
        runtime.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.expect("it serves until it is killed");
        });
        self.runtime = Some(runtime);
    }

    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
            // The port is closed once the listener's task is dropped, on the runtime's thread.
            while std::net::TcpStream::connect(self.address).is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn set(&self, mood: Mood) {
        self.script.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// How often it was asked for work.
    pub(super) fn calls(&self) -> u32 {
        self.script.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Answers(Arc<Script>);

#[tonic::async_trait]
impl Health for Answers {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let mood = self.0.mood.load(Ordering::SeqCst);
        let probe = request.into_inner().service.is_empty();
        if !probe {
            self.0.calls.fetch_add(1, Ordering::SeqCst);
        }
        let mut status = ServingStatus::Serving;
        match mood {
            mood if mood == Mood::Draining as u8 => status = ServingStatus::NotServing,
            mood if mood == Mood::Refusing as u8 && !probe => {
                return Err(Status::not_found("on purpose"));
            }
            mood if mood == Mood::Unavailable as u8 && !probe => {
                return Err(Status::unavailable("on purpose"));
            }
            mood if mood == Mood::Hanging as u8 && !probe => std::future::pending().await,
            _ => {}
        }
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}
