//! Accounts and sessions over REST.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::extract::{Body, CREATED, Caller};
use super::problem::Problem;
use crate::auth::accounts::{Registration, Session};
use crate::ports::User;

// No Debug on what holds secrets: nothing can log them by accident.
#[derive(Deserialize)]
pub(super) struct RegisterBody {
    username: String,
    password: String,
    nickname: Option<String>,
}

/// `device_id` and `device_class` may be given too; they matter when the connection is made.
#[derive(Deserialize)]
pub(super) struct LoginBody {
    username: String,
    password: String,
}

#[derive(Deserialize)]
pub(super) struct RefreshBody {
    refresh_token: String,
}

#[derive(Serialize)]
pub(super) struct UserJson {
    user_id: String,
    username: String,
    nickname: String,
}

impl From<User> for UserJson {
    fn from(user: User) -> Self {
        Self { user_id: user.id.to_string(), username: user.username, nickname: user.nickname }
    }
}

#[derive(Serialize)]
pub(super) struct SessionJson {
    user_id: String,
    access_token: String,
    refresh_token: String,
    expires_in: u64,
}

impl From<Session> for SessionJson {
    fn from(session: Session) -> Self {
        let Session { user, access_token, refresh_token, expires_in_s } = session;
        Self { user_id: user.to_string(), access_token, refresh_token, expires_in: expires_in_s }
    }
}

pub(super) async fn register(
    State(shared): State<Shared>,
    Body(body): Body<RegisterBody>,
) -> Result<(StatusCode, Json<UserJson>), Problem> {
    let user = shared.run_hashing(move |operations| {
        let RegisterBody { username, password, nickname } = &body;
        operations.accounts().register(&Registration {
            username,
            password,
            nickname: nickname.as_deref(),
        })
    });
    Ok((CREATED, Json(user.await?.into())))
}

pub(super) async fn login(
    State(shared): State<Shared>,
    Body(body): Body<LoginBody>,
) -> Result<Json<SessionJson>, Problem> {
    let session = shared
        .run_hashing(move |operations| operations.accounts().login(&body.username, &body.password));
    Ok(Json(session.await?.into()))
}

pub(super) async fn refresh(
    State(shared): State<Shared>,
    Body(body): Body<RefreshBody>,
) -> Result<Json<SessionJson>, Problem> {
    let session = shared.run(move |operations| operations.accounts().refresh(&body.refresh_token));
    Ok(Json(session.await?.into()))
}

pub(super) async fn logout(
    State(shared): State<Shared>,
    Caller(user): Caller,
) -> Result<StatusCode, Problem> {
    shared.run(move |operations| operations.logout(user.id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn me(Caller(user): Caller) -> Json<UserJson> {
    Json(user.into())
}
