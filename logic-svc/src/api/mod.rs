//! REST: translates HTTP into operations and back. Errors are RFC 9457 problem documents.

mod accounts;
mod conversations;
mod extract;
mod json;
mod problem;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use proto::error::ErrorCode;
use proto::v1::Failure;
use tokio::sync::Semaphore;

use crate::ops::Operations;
use problem::Problem;

/// Largest request body in bytes.
const BODY_MAX_BYTES: usize = 64 * 1024;
/// Most requests that wait for a password hash; more are told to come back.
const HASHES_WAITING_MAX: usize = 64;

/// What handlers share.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    operations: Arc<Operations>,
    hashing: Semaphore,
    hashes_waiting: AtomicUsize,
}

/// The router. At most `hash_threads` passwords are hashed at the same time.
pub(crate) fn router(operations: Arc<Operations>, hash_threads: usize) -> Router {
    let inner = Inner {
        operations,
        hashing: Semaphore::new(hash_threads.max(1)),
        hashes_waiting: AtomicUsize::new(0),
    };
    Router::new()
        .route("/api/v1/users", post(accounts::register))
        .route("/api/v1/login", post(accounts::login))
        .route("/api/v1/token/refresh", post(accounts::refresh))
        .route("/api/v1/logout", post(accounts::logout))
        .route("/api/v1/me", get(accounts::me))
        .route("/api/v1/conversations", get(conversations::list).post(conversations::create))
        .route("/api/v1/conversations/{id}/messages", get(conversations::messages))
        .route("/api/v1/conversations/{id}/members", get(conversations::members))
        .route("/api/v1/conversations/{id}/join", post(conversations::join))
        .route("/api/v1/conversations/{id}/leave", post(conversations::leave))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(Shared(Arc::new(inner)))
}

impl Shared {
    /// Runs an operation on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Operations) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Problem> {
        let operations = Arc::clone(&self.0.operations);
        let done = tokio::task::spawn_blocking(move || work(&operations)).await;
        done.map_err(|_| Problem::from(ErrorCode::Internal.failure("the request failed")))?
            .map_err(Problem::from)
    }

    /// Like `run`, for operations that hash a password: a few at a time, and not endlessly many in line.
    async fn run_hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Operations) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Problem> {
        let _place = Place::take(&self.0.hashes_waiting)?;
        let busy = |_| Problem::from(ErrorCode::Busy.retry_after(1000, "the service is stopping"));
        let _permit = self.0.hashing.acquire().await.map_err(busy)?;
        self.run(work).await
    }
}

/// A place in the line for a password hash; given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, Problem> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= HASHES_WAITING_MAX {
            return Err(ErrorCode::Busy
                .retry_after(1000, "too many logins at the same time")
                .into());
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn jwks(State(shared): State<Shared>) -> axum::Json<serde_json::Value> {
    axum::Json(shared.0.operations.accounts().public_keys())
}

async fn healthz() -> &'static str {
    "ok"
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match shared.run(|operations| Ok(operations.ready())).await {
        Ok(true) => (StatusCode::OK, "ready").into_response(),
        Ok(false) => Problem::from(ErrorCode::Busy.retry_after(1000, "the store cannot write"))
            .into_response(),
        Err(problem) => problem.into_response(),
    }
}
