//! What plain HTTP gets: the REST interface, and the web page for every other path.

use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use tower::ServiceExt;
use tower_http::services::{ServeDir, ServeFile};

/// The page loads nothing from elsewhere and runs no inline script.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Corelane</title>\
<p>Corelane is running, but its web page was not built: <code>cargo start</code> builds it where Node.js is installed.\
<p>REST lives under <code>/api/v1</code>, WebSocket at <code>/ws</code>.";

/// Puts the REST interface and the built page together; `None`: a page that says it was not built.
pub fn router(api: Router, web_dir: Option<&Path>) -> Router {
    let page = page(web_dir);
    Router::new().fallback(move |request: Request| {
        let router = match request.uri().path() {
            "/ws" => Router::new().fallback(upgrade_required),
            path if is_api(path) => api.clone(),
            _ => page.clone(),
        };
        async move { router.oneshot(request).await.unwrap_or_else(|never| match never {}) }
    })
}

fn is_api(path: &str) -> bool {
    ["/api", "/healthz", "/readyz", "/.well-known"].iter().any(|prefix| path.starts_with(prefix))
}

/// Upgrades never come this far: this one asked for `/ws` as if it were a page.
async fn upgrade_required() -> Response {
    let problem = r#"{"type":"about:blank","title":"Upgrade Required","status":426,"code":"BAD_REQUEST","detail":"/ws speaks WebSocket: connect with a WebSocket client"}"#;
    let headers = [(CONTENT_TYPE, "application/problem+json"), (UPGRADE, "websocket")];
    (StatusCode::UPGRADE_REQUIRED, headers, problem).into_response()
}

fn page(web_dir: Option<&Path>) -> Router {
    let built = web_dir.filter(|dir| dir.join("index.html").is_file());
    let Some(dir) = built else {
        return Router::new().fallback(|request: Request| async move {
            match request.uri().path() {
                "/" => Html(NOT_BUILT).into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        });
    };
    let files = ServeDir::new(dir).fallback(ServeFile::new(dir.join("index.html")));
    Router::new().fallback_service(files).layer(axum::middleware::map_response(with_headers))
}

async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
