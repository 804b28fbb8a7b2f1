//! Conversations over REST.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::error::ErrorCode;
use proto::v1::CreateConversation;
use serde::Deserialize;

use super::Shared;
use super::extract::{Body, CREATED, Caller, ConversationId, Params};
use super::json::{Conversation, Conversations, Members, Messages};
use super::problem::Problem;
use crate::ops::PullRequest;

#[derive(Deserialize)]
pub(super) struct CreateBody {
    r#type: String,
    conversation_id: Option<String>,
    name: Option<String>,
    #[serde(default)]
    members: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct ListParams {
    #[serde(default)]
    cursor: String,
    #[serde(default)]
    limit: u32,
}

#[derive(Deserialize)]
pub(super) struct MessageParams {
    #[serde(default)]
    cursor_seq: u64,
    #[serde(default)]
    limit: u32,
    direction: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct MemberParams {
    #[serde(default)]
    cursor: u64,
    #[serde(default)]
    limit: u32,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Caller(user): Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Conversations>, Problem> {
    let page = shared.run(move |operations| operations.sync(user.id, &params.cursor, params.limit));
    Ok(Json(page.await?.into()))
}

pub(super) async fn create(
    State(shared): State<Shared>,
    Caller(user): Caller,
    Body(body): Body<CreateBody>,
) -> Result<(StatusCode, Json<Conversation>), Problem> {
    let request = CreateConversation {
        request_id: 0,
        r#type: body.r#type,
        conversation_id: body.conversation_id.unwrap_or_default(),
        name: body.name.unwrap_or_default(),
        members: body.members,
    };
    let made = shared.run(move |operations| operations.create(user.id, &request, None));
    Ok((CREATED, Json(made.await?.into())))
}

pub(super) async fn messages(
    State(shared): State<Shared>,
    Caller(user): Caller,
    ConversationId(id): ConversationId,
    Params(params): Params<MessageParams>,
) -> Result<Json<Messages>, Problem> {
    let backward = match params.direction.as_deref() {
        None | Some("forward" | "") => false,
        Some("backward") => true,
        Some(_) => {
            return Err(ErrorCode::BadRequest
                .failure("direction must be \"forward\" or \"backward\"")
                .into());
        }
    };
    let page = shared.run(move |operations| {
        let MessageParams { cursor_seq, limit, .. } = params;
        operations.pull(user.id, PullRequest { conversation_id: &id, cursor_seq, limit, backward })
    });
    Ok(Json(page.await?.into()))
}

pub(super) async fn members(
    State(shared): State<Shared>,
    Caller(user): Caller,
    ConversationId(id): ConversationId,
    Params(params): Params<MemberParams>,
) -> Result<Json<Members>, Problem> {
    let page =
        shared.run(move |operations| operations.members(user.id, &id, params.cursor, params.limit));
    Ok(Json(page.await?.into()))
}

pub(super) async fn join(
    State(shared): State<Shared>,
    Caller(user): Caller,
    ConversationId(id): ConversationId,
) -> Result<Json<Conversation>, Problem> {
    let joined = shared.run(move |operations| operations.join(user.id, &id, None));
    Ok(Json(joined.await?.into()))
}

pub(super) async fn leave(
    State(shared): State<Shared>,
    Caller(user): Caller,
    ConversationId(id): ConversationId,
) -> Result<Json<Conversation>, Problem> {
    let left = shared.run(move |operations| operations.leave(user.id, &id, None));
    Ok(Json(left.await?.into()))
}
