//! One call: whom to ask, how long to wait, when to ask again.

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, histogram};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::backoff;
use super::breaker::{Outcome, Permit};
use super::endpoints::{Endpoint, Endpoints, Nobody};
use super::liveness::Liveness;
use super::status::never_sent;

/// How long a call may take, and how often it may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallOptions {
    /// The end of everything: all tries and the waits between them.
    pub deadline: Duration,
    /// Whether doing it twice does no harm. Only then is it repeated once it may have arrived.
    pub idempotent: bool,
    /// How often it is tried; 0 counts as 1. An idempotent call gives each try an equal share of
    /// what is left of the deadline.
    pub attempts: u32,
}

/// A call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no endpoint, or none that takes connections: it was not sent.
    #[error("nobody is there to be asked")]
    NobodyThere,
    /// All endpoints have failed too often lately: it was not sent.
    #[error("the circuit breakers of all endpoints are open")]
    BreakerOpen,
    /// No answer in time. Whether it was done is not known.
    #[error("no answer within the deadline")]
    Deadline,
    /// The connection broke. Whether it was done is not known.
    #[error("the connection broke: {0}")]
    Broken(Box<Status>),
    /// The server has answered with this.
    #[error("refused: {0}")]
    Refused(Box<Status>),
}

impl CallError {
    /// Whether it certainly has had no effect on the other side, refusals left aside.
    #[must_use]
    pub fn was_not_sent(&self) -> bool {
        matches!(self, CallError::NobodyThere | CallError::BreakerOpen)
    }

    /// A short name, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            CallError::NobodyThere => "nobody_there",
            CallError::BreakerOpen => "breaker_open",
            CallError::Deadline => "deadline",
            CallError::Broken(_) => "broken",
            CallError::Refused(_) => "refused",
        }
    }
}

/// One try that failed, and what follows from it.
struct Failed {
    error: CallError,
    /// It certainly has not arrived: it may be repeated whatever it is.
    unsent: bool,
    /// Repeating it may help.
    temporary: bool,
}

impl Endpoints {
    /// Calls one endpoint after the other until one answers: at most `options.attempts` times,
    /// never beyond the deadline. A call that is not idempotent is repeated only while it
    /// certainly has not been sent. `f` makes a client of the channel and calls it.
    ///
    /// # Errors
    /// [`CallError`]; after several tries the error of the last one.
    pub async fn call<T, F, Fut>(&self, options: CallOptions, f: F) -> Result<T, CallError>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        let outcome = self.tries(options, begun + options.deadline, f).await;
        let kind = outcome.as_ref().err().map_or("ok", CallError::kind);
        counter!("corelane_rpc_calls_total", "service" => self.service().to_owned(),
            "outcome" => kind)
        .increment(1);
        histogram!("corelane_rpc_call_seconds", "service" => self.service().to_owned())
            .record(begun.elapsed().as_secs_f64());
        outcome
    }

    async fn tries<T, F, Fut>(
        &self,
        options: CallOptions,
        deadline: Instant,
        f: F,
    ) -> Result<T, CallError>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let attempts = options.attempts.max(1);
        let mut tried = Vec::new();
        for attempt in 0.. {
            let left = deadline.saturating_duration_since(Instant::now());
            // What is idempotent need not spend all its time on one that does not answer.
            let share = if options.idempotent { left / (attempts - attempt) } else { left };
            let failed = match self.one_try(share, &mut tried, &f).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let may = failed.temporary && (failed.unsent || options.idempotent);
            if !may || attempt + 1 >= attempts || !self.wait(attempt, deadline).await {
                return Err(failed.error);
            }
            counter!("corelane_rpc_retries_total", "service" => self.service().to_owned())
                .increment(1);
        }
        Err(CallError::Deadline)
    }

    async fn one_try<T, F, Fut>(
        &self,
        limit: Duration,
        tried: &mut Vec<String>,
        f: &F,
    ) -> Result<T, Failed>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let (endpoint, permit) = self.pick(tried).map_err(|nobody| Failed {
            error: match nobody {
                Nobody::There => CallError::NobodyThere,
                Nobody::Permitted => CallError::BreakerOpen,
            },
            unsent: true,
            temporary: true,
        })?;
        let mut leave = Leave { endpoints: self, endpoint: &endpoint, permit: Some(permit) };
        let outcome = tokio::time::timeout(limit, f(endpoint.channel())).await;
        let failed = match outcome {
            Ok(Ok(answer)) => {
                leave.end(Outcome::Success);
                return Ok(answer);
            }
            Ok(Err(status)) => judge(status, &mut leave),
            Err(_) => {
                leave.end(Outcome::Failure);
                // The prober finds out whether it is the endpoint or the call.
                endpoint.doubt(Liveness::Suspect);
                Failed { error: CallError::Deadline, unsent: false, temporary: true }
            }
        };
        tried.push(endpoint.uri().to_owned());
        Err(failed)
    }

    /// Waits before the next try; false: the deadline comes first.
    async fn wait(&self, attempt: u32, deadline: Instant) -> bool {
        let settings = self.settings();
        let first = Duration::from_millis(settings.retry_first_ms);
        let longest = Duration::from_millis(settings.retry_longest_ms);
        let wait = backoff::wait(first, longest, attempt, backoff::random());
        if Instant::now() + wait >= deadline {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }
}

/// What a status says about the call and about the endpoint.
fn judge(status: Status, leave: &mut Leave<'_>) -> Failed {
    if never_sent(&status) {
        leave.end(Outcome::Failure);
        leave.endpoint.doubt(Liveness::Dead);
        return Failed { error: CallError::NobodyThere, unsent: true, temporary: true };
    }
    // With a source it comes from the connection, without one from the server.
    if status.source().is_some() {
        leave.end(Outcome::Failure);
        leave.endpoint.doubt(Liveness::Suspect);
        let error = CallError::Broken(Box::new(status));
        return Failed { error, unsent: false, temporary: true };
    }
    let ill = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown
    );
    leave.end(if ill { Outcome::Failure } else { Outcome::Success });
    let temporary = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted
    );
    Failed { error: CallError::Refused(Box::new(status)), unsent: false, temporary }
}

/// The permit of a try under way; a caller that stops waiting gives it back by dropping it.
struct Leave<'a> {
    endpoints: &'a Endpoints,
    endpoint: &'a Arc<Endpoint>,
    permit: Option<Permit>,
}

impl Leave<'_> {
    fn end(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            self.endpoint.end(self.endpoints.now(), permit, outcome);
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.end(Outcome::Abandoned);
    }
}
