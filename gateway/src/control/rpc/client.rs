//! The logic services over gRPC.

use std::sync::Arc;
use std::time::Duration;

use cluster::rpc::{CallError, CallOptions, Endpoints, EndpointsError, EndpointsSettings};
use proto::v1::requests_client::RequestsClient;
use proto::v1::sessions_client::SessionsClient;
use proto::v1::{
    CallBatch, CallReplies, GatewayReport, GatewayReportReply, SessionChanges, SessionReplies,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{Logic, NoAnswer};
use crate::control::discovery::Service;

/// Largest answer that is read: a full batch of full pages.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How often what may be repeated is tried.
const ATTEMPTS: u32 = 3;
/// How long a report may take: the next one comes soon.
const REPORT: Duration = Duration::from_secs(2);

/// Asks one service after another of those that are there.
pub struct Client {
    endpoints: Endpoints,
    timeout: Duration,
}

impl Client {
    /// Asks `services` as they come and go, and waits so long for an answer, all tries together. To be
    /// called on the tokio runtime that shall carry the connections.
    ///
    /// # Errors
    /// Not called on one.
    pub fn new(
        mut services: watch::Receiver<Arc<Vec<Service>>>,
        timeout: Duration,
    ) -> Result<Self, EndpointsError> {
        let endpoints = Endpoints::new("logic", EndpointsSettings::default())?;
        let followed = endpoints.clone();
        tokio::spawn(async move {
            loop {
                let known = services.borrow_and_update().clone();
                let addresses = known.iter().map(|service| service.grpc.clone());
                followed.set_endpoints(addresses.filter(|uri| !uri.is_empty()).collect());
                if services.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { endpoints, timeout })
    }

    /// Whether a service is known to answer.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.endpoints.is_up()
    }

    fn options(&self, idempotent: bool) -> CallOptions {
        CallOptions { deadline: self.timeout, idempotent, attempts: ATTEMPTS }
    }
}

fn sessions(channel: Channel) -> SessionsClient<Channel> {
    SessionsClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}

fn no_answer(error: &CallError) -> NoAnswer {
    tracing::debug!(%error, "the logic service");
    NoAnswer(match error {
        // The words of a service are for the log.
        CallError::Refused(_) => "it refuses to".to_owned(),
        CallError::Broken(_) => "the connection broke".to_owned(),
        CallError::NobodyThere | CallError::BreakerOpen | CallError::Deadline => error.to_string(),
    })
}

impl Logic for Client {
    /// A login that was done is done again with the same outcome, so it may be repeated.
    async fn change(&self, changes: SessionChanges) -> Result<SessionReplies, NoAnswer> {
        let call = self.endpoints.call(self.options(true), |channel| {
            let changes = changes.clone();
            async move { sessions(channel).change(changes).await }
        });
        call.await.map(tonic::Response::into_inner).map_err(|error| no_answer(&error))
    }

    async fn report(&self, report: GatewayReport) -> Result<GatewayReportReply, NoAnswer> {
        let options = CallOptions { deadline: REPORT.min(self.timeout), ..self.options(true) };
        let call = self.endpoints.call(options, |channel| {
            let report = report.clone();
            async move { sessions(channel).report(report).await }
        });
        call.await.map(tonic::Response::into_inner).map_err(|error| no_answer(&error))
    }

    async fn ask(&self, batch: CallBatch, repeatable: bool) -> Result<CallReplies, NoAnswer> {
        let call = self.endpoints.call(self.options(repeatable), |channel| {
            let batch = batch.clone();
            let mut client = RequestsClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
            async move { client.ask(batch).await }
        });
        call.await.map(tonic::Response::into_inner).map_err(|error| no_answer(&error))
    }
}
