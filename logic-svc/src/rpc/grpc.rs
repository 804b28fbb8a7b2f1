//! gRPC: what gateways and administrators ask. Batches stay whole; whatever blocks runs on a bounded number of threads.

mod admin;
mod gate;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use proto::error::ErrorCode;
use proto::v1::admin_server::AdminServer;
use proto::v1::call_reply::Reply;
use proto::v1::requests_server::{Requests, RequestsServer};
use proto::v1::sessions_server::{Sessions, SessionsServer};
use proto::v1::{
    CallBatch, CallReplies, CallReply, GatewayRef, GatewayReport, GatewayReportReply, Interests,
    Kick, SessionChanges, SessionReplies,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::answer::{Answers, Sorted, answer_all, sort};
use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::domain::{ConversationNo, UserId};
use crate::egress::cluster::{Outbox, Threshold};
use crate::gateways::Gateways;
use crate::ops::{ConnectionChange, Operations};
use crate::ports::{Crowds, DeadLetters, Large, Reports, StoreError};

/// Largest request that is read, in bytes.
const REQUEST_MAX: usize = 16 * 1024 * 1024;
/// Largest answer: a batch of pages.
const REPLY_MAX: usize = 64 * 1024 * 1024;
/// A client that says nothing is asked so often whether it is still there.
const PING_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// What the services work with.
pub(crate) struct Parts {
    pub(crate) operations: Arc<Operations>,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) crowds: Arc<dyn Crowds>,
    pub(crate) threshold: Threshold,
    pub(crate) reports: Arc<dyn Reports>,
    pub(crate) letters: Arc<dyn DeadLetters>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) about: About,
    /// What administrators have to name; `None`: they are answered on this machine only.
    pub(crate) admin_token: Option<String>,
    /// Batches worked at the same time.
    pub(crate) threads: usize,
}

/// What this service says of itself.
pub(crate) struct About {
    pub(crate) instance: String,
    pub(crate) roles: Vec<String>,
    /// Whether etcd answers.
    pub(crate) etcd: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Serves until `stop` is over and what is under way is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    parts: Parts,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let threads = parts.threads.max(1);
    let gate = gate::Gate::new(parts.admin_token.as_deref());
    let shared = Shared {
        parts: Arc::new(parts),
        // Logins must not wait behind a page of history.
        logins: Arc::new(Semaphore::new(threads)),
        others: Arc::new(Semaphore::new(threads)),
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<SessionsServer<Shared>>().await;
    reporter.set_serving::<RequestsServer<Shared>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let mut server = Server::builder().http2_keepalive_interval(Some(PING_EVERY));
    let mut router = server
        .add_service(health)
        .add_service(limited_sessions(shared.clone()))
        .add_service(
            RequestsServer::new(shared.clone())
                .max_decoding_message_size(REQUEST_MAX)
                .max_encoding_message_size(REPLY_MAX),
        )
        .add_service(InterceptedService::new(
            AdminServer::new(shared).max_encoding_message_size(REPLY_MAX),
            gate,
        ));
    match reflection {
        Ok(reflection) => router = router.add_service(reflection),
        Err(error) => tracing::warn!(%error, "no gRPC reflection"),
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    router.serve_with_incoming_shutdown(incoming, stop).await
}

fn limited_sessions(shared: Shared) -> SessionsServer<Shared> {
    SessionsServer::new(shared)
        .max_decoding_message_size(REQUEST_MAX)
        .max_encoding_message_size(REPLY_MAX)
}

/// What all services share.
#[derive(Clone)]
struct Shared {
    parts: Arc<Parts>,
    logins: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Shared {
    /// Runs work that blocks, when one of its places is free.
    async fn run<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        method: &'static str,
        work: impl FnOnce(&Parts) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let stopping = |_| Status::unavailable("the service is stopping");
        let place = Arc::clone(places).acquire_owned().await.map_err(stopping)?;
        let parts = Arc::clone(&self.parts);
        let began = Instant::now();
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&parts)
        });
        let result = done.await.unwrap_or_else(|_| Err(Status::internal("the request failed")));
        let code = result.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        metrics::counter!("corelane_logic_rpc_total", "method" => method, "code" => format!("{code:?}"))
            .increment(1);
        metrics::histogram!("corelane_logic_rpc_seconds", "method" => method)
            .record(began.elapsed().as_secs_f64());
        result.map(Response::new)
    }

    fn gateway(&self, gateway: Option<&GatewayRef>) -> Result<GatewayNo, Status> {
        match gateway {
            Some(GatewayRef { id, epoch }) if !id.is_empty() => {
                Ok(self.parts.gateways.number_of(id, *epoch))
            }
            _ => Err(Status::invalid_argument("the request names no gateway")),
        }
    }
}

#[tonic::async_trait]
impl Sessions for Shared {
    async fn change(
        &self,
        request: Request<SessionChanges>,
    ) -> Result<Response<SessionReplies>, Status> {
        let SessionChanges { gateway, calls } = request.into_inner();
        let gateway = self.gateway(gateway.as_ref())?;
        self.run(&self.logins, "Sessions.Change", move |parts| Ok(change(parts, gateway, calls)))
            .await
    }

    async fn report(
        &self,
        request: Request<GatewayReport>,
    ) -> Result<Response<GatewayReportReply>, Status> {
        let report = request.into_inner();
        let gateway = self.gateway(report.gateway.as_ref())?;
        let work = move |parts: &Parts| {
            let reported =
                parts.reports.report(gateway, &report).map_err(|error| status(&error))?;
            let kicks = reported.replaced.into_iter().map(replaced).collect();
            Ok(GatewayReportReply { report_all: reported.report_all, kicks })
        };
        self.run(&self.logins, "Sessions.Report", work).await
    }
}

#[tonic::async_trait]
impl Requests for Shared {
    async fn ask(&self, request: Request<CallBatch>) -> Result<Response<CallReplies>, Status> {
        let CallBatch { gateway, calls } = request.into_inner();
        let gateway = self.gateway(gateway.as_ref())?;
        let work = move |parts: &Parts| {
            let sorted = calls.into_iter().filter_map(|call| sort(gateway, call));
            let requests = sorted.filter_map(|sorted| match sorted {
                Sorted::Request(peer, request) => Some((peer, request)),
                // Logins and ends have an order that this call does not keep.
                Sorted::Change(_) => None,
            });
            let mut replies = Vec::new();
            answer_all(&parts.operations, &mut replies, requests);
            Ok(CallReplies { replies })
        };
        self.run(&self.others, "Requests.Ask", work).await
    }
}

/// Lets connections in and out; those who come in are told the large conversations of their users.
fn change(parts: &Parts, gateway: GatewayNo, calls: Vec<proto::v1::Call>) -> SessionReplies {
    let sorted = calls.into_iter().filter_map(|call| sort(gateway, call));
    let changes = sorted.filter_map(|sorted| match sorted {
        Sorted::Change(change) => Some(change),
        Sorted::Request(..) => None,
    });
    let mut replies: Vec<CallReply> = Vec::new();
    parts.operations.change_connections(changes.collect(), &mut |more| replies.several(more));
    let let_in: Vec<(usize, UserId)> = replies
        .iter()
        .enumerate()
        .filter_map(|(at, reply)| match &reply.reply {
            Some(Reply::Welcome(welcome)) => Some((at, welcome.user_id)),
            _ => None,
        })
        .collect();
    let users: Vec<UserId> = let_in.iter().map(|&(_, user)| user).collect();
    if users.is_empty() {
        return SessionReplies { replies, ..SessionReplies::default() };
    }
    match large_of(parts, gateway, &users) {
        Ok(large) => {
            let about = |(&(at, user_id), large): (&(usize, UserId), Vec<Large>)| {
                let CallReply { shard, slot, generation, .. } = replies[at];
                let conversation_ids = large.into_iter().map(|large| large.id).collect();
                Interests { shard, slot, generation, user_id, conversation_ids }
            };
            let interests = let_in.iter().zip(large).map(about);
            let interests = interests.filter(|one| !one.conversation_ids.is_empty()).collect();
            SessionReplies { replies, interests, report_all: false }
        }
        Err(error) => {
            turn_away(parts, gateway, &let_in, &mut replies, &error);
            SessionReplies { replies, ..SessionReplies::default() }
        }
    }
}

/// The large conversations of these users, which the gateway has connections of from now on.
fn large_of(
    parts: &Parts,
    gateway: GatewayNo,
    users: &[UserId],
) -> Result<Vec<Vec<Large>>, StoreError> {
    let large = parts.crowds.large_of(users, parts.threshold.down())?;
    let mut nos: Vec<ConversationNo> = large.iter().flatten().map(|large| large.no).collect();
    nos.sort_unstable();
    nos.dedup();
    if !nos.is_empty() {
        parts.reports.interested(gateway, &nos)?;
    }
    Ok(large)
}

/// A connection whose large conversations are unknown would miss their messages: it is to come again.
fn turn_away(
    parts: &Parts,
    gateway: GatewayNo,
    let_in: &[(usize, UserId)],
    replies: &mut Vec<CallReply>,
    error: &StoreError,
) {
    tracing::warn!(%error, logins = let_in.len(), "large conversations are unknown; logins are turned away");
    let mut ends = Vec::with_capacity(let_in.len());
    for &(at, user) in let_in {
        let CallReply { shard, slot, generation, .. } = replies[at];
        let connection = ConnectionId { gateway, shard, slot, generation };
        ends.push(ConnectionChange::Closed { connection, user });
        let busy = ErrorCode::Busy.retry_after(1000, "the store is unavailable at the moment");
        replies[at].reply = Some(Reply::Failure(busy));
    }
    // What they missed is nobody's any more.
    replies.retain(|reply| !matches!(reply.reply, Some(Reply::Resumed(_))));
    parts.operations.change_connections(ends, &mut |_| {});
}

fn replaced(connection: ConnectionId) -> Kick {
    let ConnectionId { shard, slot, generation, .. } = connection;
    let code = proto::error::close_code::REPLACED.into();
    Kick { shard, slot, generation, code, reason: "the same device logged in again".to_owned() }
}

fn status(error: &StoreError) -> Status {
    match error {
        StoreError::Unavailable(_) => Status::unavailable(error.to_string()),
        StoreError::Corrupt(_) | StoreError::Internal(_) => Status::internal(error.to_string()),
    }
}
