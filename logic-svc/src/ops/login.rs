//! Connections that log in and end.

use proto::error::{ErrorCode, close_code};
use proto::ids::check_username;
use proto::limits::{DEVICE_CLASS_MAX_BYTES, DEVICE_ID_MAX_BYTES};
use proto::v1::{CallReply, Failure, Hello, Kick, Welcome, call_reply};

use super::logouts::Since;
use super::{Operations, Result};
use crate::auth::accounts::revoked;
use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::ports::command;
use crate::store::failure;
use crate::store::presence::{Login, Table};

/// When a user with too many connections may try again.
const DEVICES_RETRY_MS: u32 = 30_000;

/// A connection that wants in.
#[derive(Debug)]
pub(crate) struct LoginRequest {
    /// The connection.
    pub connection: ConnectionId,
    /// What it says about itself.
    pub hello: Hello,
}

/// What became of a connection.
#[derive(Debug)]
pub(crate) enum ConnectionChange {
    /// It wants in.
    Login(LoginRequest),
    /// It ended.
    Closed(ConnectionId),
}

/// Who a connection turned out to be.
struct Known {
    user: UserId,
    username: String,
    /// Whether a token told, which a logout voids.
    by_token: bool,
}

/// What a connection says it is.
enum Claimed<'a> {
    Token(&'a str),
    Name(&'a str),
}

impl Operations {
    /// Lets connections in and out, in their order, and answers each login; connections they replace are closed.
    ///
    /// The store is asked once for all of them, presence is changed under one lock, and the answers are handed over
    /// together while the new entries are still unseen by the pipeline, so that a shard that takes its mail in order
    /// never sees a delivery before the answer.
    pub(crate) fn change_connections(&self, changes: Vec<ConnectionChange>) {
        let begun = self.logouts.mark();
        let mut known = self.identify_all(&changes).into_iter();
        let now_ms = self.clock.now_ms();
        let most = self.settings.max_connections_per_user;
        let (mut replies, mut replaced) = (Vec::with_capacity(known.len()), Vec::new());
        let mut table = self.presence.write();
        // Whoever logs out from here on finds the new entries.
        let logged_out = if known.len() > 0 { self.logouts.since(begun) } else { Since::none() };
        for change in changes {
            let request = match change {
                ConnectionChange::Login(request) => request,
                ConnectionChange::Closed(connection) => {
                    table.closed(connection);
                    continue;
                }
            };
            let admitted = known.next().unwrap_or_else(|| Err(revoked()));
            let admitted = admitted
                .and_then(|known| still_good(known, &logged_out))
                .and_then(|known| register(&mut table, &request, known, most, &mut replaced));
            replies.push(reply(request.connection, self.answer(admitted, now_ms)));
        }
        if !replies.is_empty() {
            self.sink.replies(replies);
        }
        drop(table);
        if !replaced.is_empty() {
            let told = |old| kick(old, close_code::REPLACED, "the same device logged in again");
            self.sink.kicks(replaced.into_iter().map(told).collect());
        }
    }

    /// Voids all tokens of a user and closes the user's connections.
    pub(crate) fn logout(&self, user: UserId) -> Result<()> {
        self.accounts.logout(user)?;
        self.logouts.note(user);
        let connections = self.presence.read().of(user);
        let told = |old| kick(old, close_code::UNAUTHENTICATED, "logged out");
        self.sink.kicks(connections.into_iter().map(told).collect());
        Ok(())
    }

    /// Who those who want in are, in their order.
    fn identify_all(&self, changes: &[ConnectionChange]) -> Vec<Result<Known>> {
        let logins = changes.iter().filter_map(|change| match change {
            ConnectionChange::Login(request) => Some(&request.hello),
            ConnectionChange::Closed(_) => None,
        });
        let claimed: Vec<Result<Claimed<'_>>> = logins.map(|hello| self.claimed(hello)).collect();
        let (mut tokens, mut names) = (Vec::new(), Vec::new());
        for claim in claimed.iter().flatten() {
            match claim {
                Claimed::Token(token) => tokens.push(*token),
                Claimed::Name(name) => names.push(*name),
            }
        }
        let mut by_token = self.by_token(&tokens).into_iter();
        let mut by_name = self.by_name(&names).into_iter();
        let lost = || Err(ErrorCode::Internal.failure("a login went astray"));
        let who = |claim: Result<Claimed<'_>>| match claim? {
            Claimed::Token(_) => by_token.next().unwrap_or_else(lost),
            Claimed::Name(_) => by_name.next().unwrap_or_else(lost),
        };
        claimed.into_iter().map(who).collect()
    }

    /// Checks what needs no look at anything else.
    fn claimed<'a>(&self, hello: &'a Hello) -> Result<Claimed<'a>> {
        if hello.device_id.len() > DEVICE_ID_MAX_BYTES
            || hello.device_class.len() > DEVICE_CLASS_MAX_BYTES
        {
            return Err(ErrorCode::TooLarge.failure("device_id or device_class is too long"));
        }
        if !hello.token.is_empty() {
            return Ok(Claimed::Token(&hello.token));
        }
        if !self.settings.dev_login || hello.dev_user.is_empty() {
            return Err(ErrorCode::Unauthenticated.failure("a token is needed"));
        }
        check_username(&hello.dev_user).map_err(|detail| ErrorCode::BadRequest.failure(detail))?;
        Ok(Claimed::Name(&hello.dev_user))
    }

    fn by_token(&self, tokens: &[&str]) -> Vec<Result<Known>> {
        if tokens.is_empty() {
            return Vec::new();
        }
        let users = self.accounts.authenticate_all(tokens).into_iter();
        let known = |(user, username)| Known { user, username, by_token: true };
        users.map(|user| user.map(known)).collect()
    }

    /// Finds or makes, in one transaction, the users of these names.
    fn by_name(&self, names: &[&str]) -> Vec<Result<Known>> {
        if names.is_empty() {
            return Vec::new();
        }
        match self.store.ensure_users(names, self.clock.now_ms()) {
            Ok(users) => {
                let known = |(user, name): (UserId, &&str)| {
                    Ok(Known { user, username: (*name).to_owned(), by_token: false })
                };
                users.into_iter().zip(names).map(known).collect()
            }
            Err(error) => {
                let failed: Failure = failure(&error);
                names.iter().map(|_| Err(failed.clone())).collect()
            }
        }
    }

    fn answer(&self, admitted: Result<Known>, now_ms: u64) -> call_reply::Reply {
        match admitted {
            Ok(Known { user, username, .. }) => call_reply::Reply::Welcome(Welcome {
                user_id: user,
                username,
                heartbeat_ms: self.settings.heartbeat_ms,
                features: 0,
                server_time_ms: now_ms,
            }),
            Err(failure) => call_reply::Reply::Failure(failure),
        }
    }
}

/// Refuses whoever logged out since the tokens were looked at.
fn still_good(known: Known, logged_out: &Since) -> Result<Known> {
    match logged_out {
        _ if !known.by_token => Ok(known),
        Since::Users(users) if users.contains(&known.user) => Err(revoked()),
        Since::Users(_) => Ok(known),
        Since::Unknown => Err(ErrorCode::Busy.retry_after(1000, "very many users are logging out")),
    }
}

fn register(
    table: &mut Table,
    request: &LoginRequest,
    known: Known,
    most: usize,
    replaced: &mut Vec<ConnectionId>,
) -> Result<Known> {
    match table.login(known.user, &request.hello.device_id, request.connection, most) {
        Login::Added => {}
        Login::Replaced(old) => replaced.push(old),
        Login::TooMany => return Err(too_many(most)),
        Login::OutOfRange => {
            return Err(ErrorCode::Internal.failure("the connection's number is out of range"));
        }
    }
    Ok(known)
}

/// Temporary, since a connection that broke unseen is found after some heartbeats and makes room.
fn too_many(most: usize) -> Failure {
    ErrorCode::TooManyDevices
        .retry_after(DEVICES_RETRY_MS, format!("the user has {most} connections, the most allowed"))
}

fn kick(connection: ConnectionId, code: u16, reason: &str) -> Kick {
    let ConnectionId { shard, slot, generation } = connection;
    Kick { shard, slot, generation, code: code.into(), reason: reason.to_owned() }
}

fn reply(connection: ConnectionId, reply: call_reply::Reply) -> CallReply {
    let ConnectionId { shard, slot, generation } = connection;
    CallReply {
        shard,
        slot,
        generation,
        request_id: 0,
        command: command::LOGIN,
        reply: Some(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logout_voids_what_a_token_told_and_not_a_name() {
        let known = |by_token| Known { user: 7, username: "alice".to_owned(), by_token };
        let outcome = |by_token, since: &Since| {
            still_good(known(by_token), since).map(|known| known.user).map_err(|f| f.name)
        };
        let refused = |name: &str| Err(name.to_owned());
        assert_eq!(outcome(true, &Since::none()), Ok(7));
        assert_eq!(outcome(true, &Since::Users(vec![6, 8])), Ok(7));
        assert_eq!(outcome(true, &Since::Users(vec![6, 7])), refused("UNAUTHENTICATED"));
        assert_eq!(outcome(true, &Since::Unknown), refused("BUSY"));
        assert_eq!(outcome(false, &Since::Users(vec![7])), Ok(7));
        assert_eq!(outcome(false, &Since::Unknown), Ok(7));
    }
}
