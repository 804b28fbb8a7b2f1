//! Connections that log in and end.

use proto::error::{ErrorCode, close_code};
use proto::ids::check_username;
use proto::limits::{DEVICE_CLASS_MAX_BYTES, DEVICE_ID_MAX_BYTES};
use proto::v1::{CallReply, Failure, Hello, Kick, Welcome, call_reply};

use super::{Operations, Result};
use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::ports::command;
use crate::store::failure;
use crate::store::presence::Login;

/// A connection that wants in.
#[derive(Debug)]
pub(crate) struct LoginRequest {
    /// The connection.
    pub connection: ConnectionId,
    /// What it says about itself.
    pub hello: Hello,
}

/// Who a connection turned out to be.
struct Known {
    user: UserId,
    username: String,
}

impl Operations {
    /// Logs connections in and answers each; connections they replace are closed.
    ///
    /// Each answer is handed over while the new presence entry is still unseen by the pipeline, so that a shard that
    /// takes its mail in order never sees a delivery before the answer.
    pub(crate) fn login(&self, requests: Vec<LoginRequest>) {
        let mut known: Vec<Result<Known>> =
            requests.iter().map(|request| self.identify(&request.hello)).collect();
        self.identify_by_name(&requests, &mut known);
        let mut replaced = Vec::new();
        let mut table = self.presence.write();
        for (request, known) in requests.iter().zip(known) {
            let admitted = known.and_then(|known| {
                match table.login(known.user, &request.hello.device_id, request.connection) {
                    Login::Added => Ok(known),
                    Login::Replaced(old) => {
                        replaced.push(old);
                        Ok(known)
                    }
                    Login::OutOfRange => {
                        Err(ErrorCode::Internal.failure("the connection's number is out of range"))
                    }
                }
            });
            self.sink.reply(reply(request.connection, self.answer(admitted)));
        }
        drop(table);
        for old in replaced {
            self.kick(old, close_code::REPLACED, "the same device logged in again");
        }
    }

    /// Takes a connection that ended out of the list of those online.
    pub(crate) fn closed(&self, connection: ConnectionId) {
        self.presence.write().closed(connection);
    }

    /// Voids all tokens of a user and closes the user's connections.
    pub(crate) fn logout(&self, user: UserId) -> Result<()> {
        self.accounts.logout(user)?;
        let connections = self.presence.read().of(user);
        for connection in connections {
            self.kick(connection, close_code::UNAUTHENTICATED, "logged out");
        }
        Ok(())
    }

    fn kick(&self, connection: ConnectionId, code: u16, reason: &str) {
        let ConnectionId { shard, slot, generation } = connection;
        self.sink.kick(Kick {
            shard,
            slot,
            generation,
            code: code.into(),
            reason: reason.to_owned(),
        });
    }

    /// Checks what needs no write; those who log in by name are left with user 0.
    fn identify(&self, hello: &Hello) -> Result<Known> {
        if hello.device_id.len() > DEVICE_ID_MAX_BYTES
            || hello.device_class.len() > DEVICE_CLASS_MAX_BYTES
        {
            return Err(ErrorCode::TooLarge.failure("device_id or device_class is too long"));
        }
        if !hello.token.is_empty() {
            let user = self.accounts.authenticate(&hello.token)?;
            return Ok(Known { user: user.id, username: user.username });
        }
        if !self.settings.dev_login || hello.dev_user.is_empty() {
            return Err(ErrorCode::Unauthenticated.failure("a token is needed"));
        }
        check_username(&hello.dev_user).map_err(|detail| ErrorCode::BadRequest.failure(detail))?;
        Ok(Known { user: 0, username: hello.dev_user.clone() })
    }

    /// Finds or makes, in one transaction, the users who log in by name.
    fn identify_by_name(&self, requests: &[LoginRequest], known: &mut [Result<Known>]) {
        let by_name: Vec<usize> = (0..known.len())
            .filter(|&at| known[at].as_ref().is_ok_and(|known| known.user == 0))
            .collect();
        let names: Vec<&str> =
            by_name.iter().map(|&at| requests[at].hello.dev_user.as_str()).collect();
        if names.is_empty() {
            return;
        }
        match self.store.ensure_users(&names, self.clock.now_ms()) {
            Ok(ids) => {
                for (&at, user) in by_name.iter().zip(ids) {
                    known[at] = Ok(Known { user, username: requests[at].hello.dev_user.clone() });
                }
            }
            Err(error) => {
                let failed: Failure = failure(&error);
                by_name.iter().for_each(|&at| known[at] = Err(failed.clone()));
            }
        }
    }

    fn answer(&self, admitted: Result<Known>) -> call_reply::Reply {
        match admitted {
            Ok(Known { user, username }) => call_reply::Reply::Welcome(Welcome {
                user_id: user,
                username,
                heartbeat_ms: self.settings.heartbeat_ms,
                features: 0,
                server_time_ms: self.clock.now_ms(),
            }),
            Err(failure) => call_reply::Reply::Failure(failure),
        }
    }
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
