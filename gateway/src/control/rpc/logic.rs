//! The logic service as the lanes see it.

use std::future::Future;

use proto::v1::{
    CallBatch, CallReplies, GatewayReport, GatewayReportReply, SessionChanges, SessionReplies,
};

/// Nobody answered; why, in words for the client's developer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer(pub String);

/// Answers requests, or says that nobody does, in bounded time.
pub trait Logic: Send + Sync + 'static {
    /// Lets connections in and out.
    fn change(
        &self,
        changes: SessionChanges,
    ) -> impl Future<Output = Result<SessionReplies, NoAnswer>> + Send;

    /// Takes a report.
    fn report(
        &self,
        report: GatewayReport,
    ) -> impl Future<Output = Result<GatewayReportReply, NoAnswer>> + Send;

    /// Answers requests. `repeatable`: asking twice does no more than asking once, so another service may
    /// be asked when the first does not answer.
    fn ask(
        &self,
        batch: CallBatch,
        repeatable: bool,
    ) -> impl Future<Output = Result<CallReplies, NoAnswer>> + Send;
}
