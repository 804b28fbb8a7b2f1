//! What handlers take from a request, with problem documents for what cannot be taken.

use axum::extract::rejection::{BytesRejection, FailedToBufferBody, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::{StatusCode, header, request::Parts};
use bytes::Bytes;
use proto::error::ErrorCode;
use serde::de::DeserializeOwned;

use super::Shared;
use super::problem::Problem;
use crate::ports::User;

/// A JSON body. Unknown keys are ignored; the content type is not insisted on.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Problem> {
        let bytes =
            Bytes::from_request(request, shared).await.map_err(|rejection| match rejection {
                BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                    ErrorCode::TooLarge.failure("the body is longer than 64 KiB")
                }
                _ => ErrorCode::BadRequest.failure("the body could not be read"),
            })?;
        // The parser's message may quote the body, and with it a password: only the place is told.
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            ErrorCode::BadRequest
                .failure(format!("the body is not the JSON expected here ({place})"))
        })?;
        Ok(Self(value))
    }
}

/// Query parameters.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let params = Query::<T>::from_request_parts(parts, shared).await;
        params.map(|Query(params)| Self(params)).map_err(|rejection: QueryRejection| {
            ErrorCode::BadRequest.failure(format!("query: {}", rejection.body_text())).into()
        })
    }
}

/// A conversation id in the path.
pub(super) struct ConversationId(pub(super) String);

impl FromRequestParts<Shared> for ConversationId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, shared).await;
        let Path(id) = id.map_err(|_| ErrorCode::BadRequest.failure("the path is not UTF-8"))?;
        proto::ids::check_conversation_id(&id)
            .map_err(|detail| ErrorCode::BadRequest.failure(detail))?;
        Ok(Self(id))
    }
}

/// The user of the bearer token.
pub(super) struct Caller(pub(super) User);

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let token = bearer(parts)
            .ok_or_else(|| ErrorCode::Unauthenticated.failure("a bearer token is needed"))?;
        let token = token.to_owned();
        shared.run(move |operations| operations.accounts().authenticate(&token)).await.map(Self)
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The status of an answer that made something.
pub(super) const CREATED: StatusCode = StatusCode::CREATED;
