//! Errors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use proto::error::ErrorCode;
use proto::v1::Failure;
use serde::Serialize;

/// A problem on its way to the client.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    failure: Failure,
}

/// The document. `code` is the stable name that the other protocols use too.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    retry_after_ms: u32,
}

// By reference, as serde asks for it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Problem {
    /// A problem whose HTTP status is not the usual one of its error.
    pub(super) fn with_status(status: StatusCode, failure: Failure) -> Self {
        Self { status, failure }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let code = ErrorCode::ALL.iter().find(|code| code.code() == failure.code);
        Self {
            status: code.map_or(StatusCode::INTERNAL_SERVER_ERROR, |&code| status(code)),
            failure,
        }
    }
}

/// The HTTP status of a stable error.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::UnknownCommand => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::NotAMember => StatusCode::FORBIDDEN,
        ErrorCode::ConversationNotFound | ErrorCode::UserNotFound => StatusCode::NOT_FOUND,
        ErrorCode::AlreadyExists => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited | ErrorCode::TooManyDevices => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Busy => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, failure } = self;
        let document = Document {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: &failure.detail,
            code: &failure.name,
            retry_after_ms: failure.retry_after_ms,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if failure.retry_after_ms > 0 {
            headers.insert(header::RETRY_AFTER, failure.retry_after_ms.div_ceil(1000).into());
        }
        response
    }
}

/// No such path.
pub(super) async fn not_found(uri: Uri) -> Problem {
    let shown: String = uri.path().chars().take(100).collect();
    let failure = ErrorCode::UnknownCommand.failure(format!("no such resource: {shown}"));
    Problem::with_status(StatusCode::NOT_FOUND, failure)
}

/// The path is known, the method is not.
pub(super) async fn method_not_allowed() -> Problem {
    let failure = ErrorCode::UnknownCommand.failure("this resource does not know this method");
    Problem::with_status(StatusCode::METHOD_NOT_ALLOWED, failure)
}
