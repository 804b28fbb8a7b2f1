//! What a client asks, whatever the form it came in.

use bytes::Bytes;
use proto::error::{ErrorCode, close_code};
use proto::ids::{check_client_msg_id, check_conversation_id};
use proto::limits::PRESENCE_USERS_MAX;
use proto::v1::{Call, Failure, Hello, PresenceQuery, Send, UpstreamFrame, call};

use super::answer::{self, Refusal};
use super::bucket::Rate;
use super::{Context, Phase, Session, Wire};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The client is alive.
    Heartbeat {
        /// Its id, echoed; 0 for none.
        request_id: u32,
    },
    /// Log in.
    Login(Login),
    /// A message into a conversation.
    Send(Send),
    /// Anything else the logic service answers.
    Call {
        /// Its id, echoed; 0 for none.
        request_id: u32,
        /// What is asked.
        request: call::Request,
    },
}

/// A login as a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    /// Its id, echoed; 0 for none.
    pub request_id: u32,
    /// Token and device.
    pub hello: Hello,
}

impl Session {
    pub(super) fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match (command, self.phase) {
            (Command::Heartbeat { request_id }, _) => {
                answer::heartbeat(&mut cx.out.bytes, self.wire(), request_id);
                self.charge(cx);
            }
            (Command::Login(login), Phase::Anonymous) => {
                self.begin_login(cx, login.hello, Some(login.request_id))
            }
            (Command::Login(_), _) => {
                self.close(cx, close_code::PROTOCOL_VIOLATION, "already logged in")
            }
            (Command::Send(send), Phase::Open) => self.on_send(cx, send),
            (Command::Call { request_id, request }, Phase::Open) => {
                self.on_call(cx, request_id, request)
            }
            (command, _) => {
                refuse_unauthenticated(cx, self.wire(), command);
                self.charge(cx);
            }
        }
    }

    fn on_send(&mut self, cx: &mut Context<'_>, send: Send) {
        let allowed = check_send(&send, cx.rules.limits.content_max_bytes)
            .and_then(|()| take(&mut self.messages, &cx.rules.message_rate, cx.now_ms));
        if let Err(failure) = allowed {
            self.refuse_send(cx, &send, &failure);
            return self.charge(cx);
        }
        cx.out.messages.push(UpstreamFrame {
            slot: cx.id.slot,
            generation: cx.id.generation,
            user_id: self.user_id,
            send: Some(send),
        });
    }

    /// Answers a message that will not be stored.
    pub fn refuse_send(&self, cx: &mut Context<'_>, send: &Send, failure: &Failure) {
        answer::send_failure(
            &mut cx.out.bytes,
            self.wire(),
            send.request_id,
            &send.client_msg_id,
            failure,
        );
    }

    fn on_call(&mut self, cx: &mut Context<'_>, request_id: u32, request: call::Request) {
        let allowed = check_call(&request)
            .and_then(|()| take(&mut self.requests, &cx.rules.request_rate, cx.now_ms));
        if let Err(failure) = allowed {
            self.refuse_call(cx, &request, request_id, &failure);
            return self.charge(cx);
        }
        cx.out.calls.push(Call {
            shard: cx.id.shard,
            slot: cx.id.slot,
            generation: cx.id.generation,
            user_id: self.user_id,
            request: Some(request),
        });
    }

    /// Answers a request that will not be asked.
    pub fn refuse_call(
        &self,
        cx: &mut Context<'_>,
        request: &call::Request,
        request_id: u32,
        failure: &Failure,
    ) {
        answer::failure(
            &mut cx.out.bytes,
            self.wire(),
            answer::command_of(request),
            request_id,
            failure,
        );
    }
}

fn refuse_unauthenticated(cx: &mut Context<'_>, wire: Wire, command: Command) {
    let failure = ErrorCode::Unauthenticated.failure("log in first (cmd 1)");
    let out = &mut cx.out.bytes;
    match command {
        Command::Send(send) => {
            answer::send_failure(out, wire, send.request_id, &send.client_msg_id, &failure)
        }
        Command::Call { request_id, request } => {
            answer::failure(out, wire, answer::command_of(&request), request_id, &failure);
        }
        Command::Heartbeat { .. } | Command::Login(_) => {}
    }
}

fn take(bucket: &mut super::Bucket, rate: &Rate, now_ms: u32) -> Result<(), Failure> {
    bucket.take(rate, now_ms).map_err(|after_ms| {
        ErrorCode::RateLimited.retry_after(after_ms, "too many requests on this connection")
    })
}

fn check_send(send: &Send, content_max_bytes: usize) -> Result<(), Failure> {
    check_conversation_id(&send.conversation_id)
        .and_then(|()| check_client_msg_id(&send.client_msg_id))
        .map_err(bad_request)?;
    if send.content.len() > content_max_bytes {
        return Err(ErrorCode::TooLarge
            .failure(format!("content must be at most {content_max_bytes} bytes")));
    }
    if send.msg_type == 0 {
        return Err(bad_request("msg_type must be 1 or above"));
    }
    if send.msg_type == 1 && !is_utf8(&send.content) {
        return Err(bad_request("text content must be UTF-8"));
    }
    Ok(())
}

fn is_utf8(content: &Bytes) -> bool {
    std::str::from_utf8(content).is_ok()
}

fn check_call(request: &call::Request) -> Result<(), Failure> {
    use call::Request;
    let id = match request {
        Request::Pull(pull) => &pull.conversation_id,
        Request::Join(membership) | Request::Leave(membership) => &membership.conversation_id,
        Request::Members(list) => &list.conversation_id,
        Request::Read(read) => &read.conversation_id,
        Request::Create(create) if !create.conversation_id.is_empty() => &create.conversation_id,
        Request::Presence(query) => return check_presence(query),
        Request::Create(_) | Request::Sync(_) | Request::Login(_) | Request::Closed(_) => {
            return Ok(());
        }
    };
    check_conversation_id(id).map_err(bad_request)
}

fn check_presence(query: &PresenceQuery) -> Result<(), Failure> {
    if query.users.len() > PRESENCE_USERS_MAX {
        return Err(bad_request("users must name at most 100 users"));
    }
    Ok(())
}

fn bad_request(detail: &'static str) -> Failure {
    ErrorCode::BadRequest.failure(detail)
}

/// A refusal of something that never became a command.
pub(super) fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal { failure: ErrorCode::BadRequest.failure(detail), ..Refusal::default() }
}
