//! `/healthz` and `/readyz` of the gateway itself.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Something that has to be so before clients should be sent here.
pub type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// The checks with their names.
#[derive(Default)]
pub struct Readiness(Vec<(&'static str, Check)>);

impl Readiness {
    /// One more.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        check: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        self.0.push((name, Box::new(check)));
        self
    }

    /// Each check's name and outcome.
    fn outcomes(&self) -> Vec<(&'static str, bool)> {
        self.0.iter().map(|(name, check)| (*name, check())).collect()
    }
}

/// Puts both before `rest`, which gets everything else.
pub fn router(readiness: Readiness, rest: Router) -> Router {
    let readiness = Arc::new(readiness);
    let ready = move || {
        let outcomes = readiness.outcomes();
        async move { answer(&outcomes) }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback_service(rest)
}

fn answer(outcomes: &[(&'static str, bool)]) -> Response {
    let ready = outcomes.iter().all(|(_, good)| *good);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks: serde_json::Map<String, serde_json::Value> =
        outcomes.iter().map(|(name, good)| ((*name).to_owned(), (*good).into())).collect();
    (status, axum::Json(serde_json::json!({ "ready": ready, "checks": checks }))).into_response()
}
