//! Logging in: the logic service is asked, and input waits for its answer.

use proto::error::{ErrorCode, close_code};
use proto::limits::{
    DEVICE_CLASS_MAX_BYTES, DEVICE_ID_MAX_BYTES, RESUME_POINTS_MAX, RESUME_TOKEN_MAX_BYTES,
    TOKEN_MAX_BYTES,
};
use proto::v1::{Call, Failure, Hello, Welcome, call};

use super::deflate::Takeover;
use super::{Buffer, Cause, Context, Phase, Session, answer};

/// A login under way.
pub(super) struct LoginWait {
    /// What came behind the login and is looked at after it.
    held: Vec<u8>,
    /// The 101 of a login by handshake. It goes out with the login's outcome: one send for both, and to
    /// most clients one wake.
    upgrade: Vec<u8>,
    /// The request's id, when the login was a request and its answer is awaited; a login by handshake
    /// is answered by silence.
    answer: Option<u32>,
    /// What the connection keeps for compression.
    pub(super) takeover: Option<Box<Takeover>>,
}

/// The shard stops receiving while a login is under way, so no more than one receive buffer is held.
/// A login by handshake followed by more than that is no client of ours.
const HELD_MAX_BYTES: usize = 2 * crate::limits::RECV_BUFFER_BYTES;

impl Session {
    /// Asks the logic service to log in. `answer` is the id of the request, 0 for none given.
    pub(super) fn begin_login(&mut self, cx: &mut Context<'_>, hello: Hello, answer: Option<u32>) {
        let refusal = check(&hello);
        self.phase = Phase::LoggingIn;
        let takeover = self.take_takeover();
        self.buffer = Buffer::Login(Box::new(LoginWait {
            held: Vec::new(),
            upgrade: Vec::new(),
            answer,
            takeover,
        }));
        if let Some(detail) = refusal {
            return self.on_login_failed(cx, &ErrorCode::Unauthenticated.failure(detail));
        }
        if cx.out.login_delay_ms > 0 {
            cx.out.cause = Some(Cause::LoginShed);
            let failure =
                ErrorCode::Busy.retry_after(cx.out.login_delay_ms, "too many logins at once");
            return self.on_login_failed(cx, &failure);
        }
        self.announced = true;
        cx.out.calls.push(Call {
            shard: cx.id.shard,
            slot: cx.id.slot,
            generation: cx.id.generation,
            user_id: 0,
            request: Some(call::Request::Login(hello)),
        });
    }

    /// Takes the 101 back out of the output, from `answer_at` on, until the login is over; unless it is
    /// over already.
    pub(super) fn hold_upgrade(&mut self, cx: &mut Context<'_>, answer_at: usize) {
        if let Buffer::Login(wait) = &mut self.buffer {
            wait.upgrade = cx.out.bytes.split_off(answer_at);
        }
    }

    /// Whatever is written now has the held 101 before it.
    pub(super) fn release_upgrade(&mut self, cx: &mut Context<'_>) {
        if let Buffer::Login(wait) = &mut self.buffer {
            cx.out.bytes.append(&mut wait.upgrade);
        }
    }

    pub(super) fn hold(&mut self, cx: &mut Context<'_>, input: &[u8]) {
        let Buffer::Login(wait) = &mut self.buffer else { return };
        if wait.held.len() + input.len() > HELD_MAX_BYTES {
            return self.close(
                cx,
                close_code::PROTOCOL_VIOLATION,
                "too much data before the login was answered",
            );
        }
        wait.held.extend_from_slice(input);
    }

    /// The logic service let the user in.
    pub fn on_welcome(&mut self, cx: &mut Context<'_>, welcome: &Welcome) {
        self.release_upgrade(cx);
        let Buffer::Login(wait) = std::mem::replace(&mut self.buffer, Buffer::Nothing) else {
            return;
        };
        let LoginWait { mut held, answer, takeover, .. } = *wait;
        if let Some(takeover) = takeover {
            self.buffer = Buffer::Takeover(takeover);
        }
        self.phase = Phase::Open;
        self.user_id = welcome.user_id;
        if let Some(request_id) = answer {
            answer::welcome(&mut cx.out.bytes, self.wire(), request_id, welcome);
        }
        self.on_bytes(cx, &mut held);
    }

    /// The logic service refused. The connection ends with a code that says whether to come back.
    pub fn on_login_failed(&mut self, cx: &mut Context<'_>, failure: &Failure) {
        self.release_upgrade(cx);
        let Buffer::Login(wait) = std::mem::replace(&mut self.buffer, Buffer::Nothing) else {
            return;
        };
        if let Some(request_id) = wait.answer {
            answer::failure(&mut cx.out.bytes, self.wire(), answer::LOGIN, request_id, failure);
        }
        let code = match failure {
            Failure { code, .. } if *code == ErrorCode::TooManyDevices.code() => {
                close_code::TOO_MANY_DEVICES
            }
            Failure { temporary: true, .. } => close_code::OVERLOADED,
            _ => close_code::UNAUTHENTICATED,
        };
        if failure.retry_after_ms > 0 {
            return self.send_away(cx, code, failure.retry_after_ms, &failure.detail);
        }
        self.close(cx, code, &failure.detail);
    }
}

fn check(hello: &Hello) -> Option<&'static str> {
    if hello.resume_token.len() > RESUME_TOKEN_MAX_BYTES {
        return Some("the resume token is too long");
    }
    if hello.resume.len() > RESUME_POINTS_MAX {
        return Some("resume must name at most 100 conversations");
    }
    if hello.token.len() > TOKEN_MAX_BYTES {
        return Some("the token is too long");
    }
    if hello.device_id.len() > DEVICE_ID_MAX_BYTES {
        return Some("device_id must be at most 64 bytes");
    }
    (hello.device_class.len() > DEVICE_CLASS_MAX_BYTES)
        .then_some("device_class must be at most 32 bytes")
}
