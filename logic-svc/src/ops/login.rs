//! Connections that log in and end.

use proto::error::{ErrorCode, close_code};
use proto::ids::check_username;
use proto::limits::{DEVICE_CLASS_MAX_BYTES, DEVICE_ID_MAX_BYTES};
use proto::v1::{CallReply, Failure, Hello, ResumePoint, Welcome, call_reply};

use super::logouts::Since;
use super::{Operations, Result};
use crate::auth::Identity;
use crate::auth::accounts::{Accounts, revoked};
use crate::domain::UserId;
use crate::domain::delivery::ConnectionId;
use crate::ports::{Ended, Login, SessionChange, command};
use crate::store::failure;

/// When a user with too many connections may try again.
const DEVICES_RETRY_MS: u32 = 30_000;
/// Why connections lose their place.
const SAME_DEVICE: &str = "the same device logged in again";
const NEWER_DEVICE: &str = "a newer device of the same class logged in";

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
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// Its user; 0 where the gateway never learned it.
        user: UserId,
    },
}

/// Who a connection turned out to be.
struct Known {
    user: UserId,
    username: String,
    /// What a token told, which a logout voids; `None`: by mere name.
    by_token: Option<Identity>,
}

/// What a connection says it is.
enum Claimed<'a> {
    Token(&'a str),
    Resume(&'a str),
    Name(&'a str),
}

impl Operations {
    /// Lets connections in and out, in their order, and answers each login; connections they replace are closed.
    ///
    /// The store is asked once for all of them, who is connected is changed once, and `answer` gets all answers
    /// together; in the embedded form while the new entries are still unseen by the pipeline, so that a shard that
    /// takes its mail in order never sees a delivery before the answer.
    pub(crate) fn change_connections(
        &self,
        changes: Vec<ConnectionChange>,
        answer: &mut dyn FnMut(Vec<CallReply>),
    ) {
        let begun = self.logouts.mark();
        let known = self.identify_all(&changes);
        let now_ms = self.clock.now_ms();
        let most = self.settings.max_connections_per_user;
        let mut work = Work { logins: Vec::with_capacity(known.len()), ..Work::default() };
        let mut given = Some((changes, known));
        let shared = std::cell::RefCell::new(&mut work);
        let mut plan = || {
            let (changes, known) = given.take().unwrap_or_default();
            // Whoever logs out from here on finds the new entries.
            let since = if known.is_empty() { Since::none() } else { self.logouts.since(begun) };
            shared.borrow_mut().plan(changes, known, &since)
        };
        let mut done = |outcomes: Vec<Login>| {
            let mut work = shared.borrow_mut();
            work.settle(outcomes, most);
            if self.settings.logouts_elsewhere {
                return;
            }
            let replies = work.answers(|admitted| self.answer(admitted, now_ms));
            if !replies.is_empty() {
                answer(replies);
            }
        };
        let changed = self.sessions.change(most, &mut plan, &mut done);
        if let Err(error) = &changed {
            let failed = failure(error);
            work.logins.iter_mut().for_each(|login| login.known = Err(failed.clone()));
        } else if self.settings.logouts_elsewhere {
            self.look_again(&mut work);
        }
        if changed.is_err() || self.settings.logouts_elsewhere {
            let replies = work.answers(|admitted| self.answer(admitted, now_ms));
            if !replies.is_empty() {
                answer(replies);
            }
        }
        for Resuming { connection, user, points } in std::mem::take(&mut work.resuming) {
            let resumed = self.resume(user, &points).into_iter();
            let reply = |resumed| reply(connection, call_reply::Reply::Resumed(resumed));
            answer(resumed.map(reply).collect());
        }
        #[cfg(feature = "fault-injection")]
        if crate::config::Fault::NoKick.is_asked_for() {
            work.replaced.clear();
        }
        if !work.replaced.is_empty() {
            let told = |(old, why)| ended(old, close_code::REPLACED, why);
            self.notifier.end(work.replaced.into_iter().map(told).collect());
        }
    }

    /// Where others log users out too: whoever did so since the token was looked at either finds the connection, which
    /// is registered by now, or has voided the token by now.
    fn look_again(&self, work: &mut Work) {
        let by_token =
            |login: &Entering| login.known.as_ref().ok().and_then(|known| known.by_token);
        let identities: Vec<Identity> = work.logins.iter().filter_map(by_token).collect();
        if identities.is_empty() {
            return;
        }
        let users: Vec<UserId> = identities.iter().map(|identity| identity.user).collect();
        let epochs = self.store.names_and_epochs(&users).map_err(|error| failure(&error));
        let mut epochs = epochs.map(|found| found.into_iter().zip(identities));
        let mut voided = Vec::new();
        for login in work.logins.iter_mut().filter(|login| by_token(login).is_some()) {
            let verdict = match &mut epochs {
                Err(failed) => Err(failed.clone()),
                Ok(epochs) => match epochs.next() {
                    Some((Some((_, epoch)), identity)) if epoch == identity.epoch => Ok(()),
                    _ => Err(revoked()),
                },
            };
            if let Err(failed) = verdict {
                let user = login.known.as_ref().map_or(0, |known| known.user);
                voided.push(SessionChange::Closed { user, connection: login.connection });
                login.known = Err(failed);
            }
        }
        if !voided.is_empty() {
            let mut voided = Some(voided);
            let gone =
                self.sessions.change(0, &mut || voided.take().unwrap_or_default(), &mut |_| {});
            if let Err(error) = gone {
                tracing::warn!(%error, "a connection that was refused is still registered");
            }
        }
    }

    /// Voids all tokens of a user and closes the user's connections.
    pub(crate) fn logout(&self, user: UserId) -> Result<()> {
        self.accounts.logout(user)?;
        self.logouts.note(user);
        let connections = self.sessions.of(&[user]).map_err(|error| failure(&error))?;
        let told = |old| ended(old, close_code::UNAUTHENTICATED, "logged out");
        self.notifier.end(connections.into_iter().map(told).collect());
        Ok(())
    }

    /// Closes the user's connections, whose tokens stay good; gives how many there are.
    #[cfg(feature = "cluster")]
    pub(crate) fn kick(&self, user: UserId, code: u16, reason: &str) -> Result<u32> {
        let connections = self.sessions.of(&[user]).map_err(|error| failure(&error))?;
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        let told = |connection| Ended { connection, code, reason: reason.to_owned().into() };
        self.notifier.end(connections.into_iter().map(told).collect());
        Ok(count)
    }

    /// Who those who want in are, in their order.
    fn identify_all(&self, changes: &[ConnectionChange]) -> Vec<Result<Known>> {
        let logins = changes.iter().filter_map(|change| match change {
            ConnectionChange::Login(request) => Some(&request.hello),
            ConnectionChange::Closed { .. } => None,
        });
        let claimed: Vec<Result<Claimed<'_>>> = logins.map(|hello| self.claimed(hello)).collect();
        let (mut tokens, mut resumes, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for claim in claimed.iter().flatten() {
            match claim {
                Claimed::Token(token) => tokens.push(*token),
                Claimed::Resume(token) => resumes.push(*token),
                Claimed::Name(name) => names.push(*name),
            }
        }
        let mut by_token = self.by_token(&tokens, Accounts::authenticate_all).into_iter();
        let mut by_resume = self.by_token(&resumes, Accounts::resume_all).into_iter();
        let mut by_name = self.by_name(&names).into_iter();
        let lost = || Err(ErrorCode::Internal.failure("a login went astray"));
        let who = |claim: Result<Claimed<'_>>| match claim? {
            Claimed::Token(_) => by_token.next().unwrap_or_else(lost),
            Claimed::Resume(_) => by_resume.next().unwrap_or_else(lost),
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
        if !hello.resume_token.is_empty() {
            return Ok(Claimed::Resume(&hello.resume_token));
        }
        if !self.settings.dev_login || hello.dev_user.is_empty() {
            return Err(ErrorCode::Unauthenticated.failure("a token is needed"));
        }
        check_username(&hello.dev_user).map_err(|detail| ErrorCode::BadRequest.failure(detail))?;
        Ok(Claimed::Name(&hello.dev_user))
    }

    fn by_token(
        &self,
        tokens: &[&str],
        ask: impl Fn(&Accounts, &[&str]) -> Vec<Result<(Identity, String)>>,
    ) -> Vec<Result<Known>> {
        if tokens.is_empty() {
            return Vec::new();
        }
        let users = ask(&self.accounts, tokens).into_iter();
        let known = |(identity, username): (Identity, String)| Known {
            user: identity.user,
            username,
            by_token: Some(identity),
        };
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
                    Ok(Known { user, username: (*name).to_owned(), by_token: None })
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
            Ok(Known { user, username, by_token }) => call_reply::Reply::Welcome(Welcome {
                user_id: user,
                username,
                heartbeat_ms: self.settings.heartbeat_ms,
                features: 0,
                server_time_ms: now_ms,
                // Whoever may log in by name needs none.
                resume_token: by_token
                    .map_or_else(String::new, |who| self.accounts.resume_token(who)),
            }),
            Err(failure) => call_reply::Reply::Failure(failure),
        }
    }
}

/// Refuses whoever logged out since the tokens were looked at.
fn still_good(known: Known, logged_out: &Since) -> Result<Known> {
    match logged_out {
        _ if known.by_token.is_none() => Ok(known),
        Since::Users(users) if users.contains(&known.user) => Err(revoked()),
        Since::Users(_) => Ok(known),
        Since::Unknown => Err(ErrorCode::Busy.retry_after(1000, "very many users are logging out")),
    }
}

/// The logins of one tick on their way.
#[derive(Default)]
struct Work {
    /// In their order.
    logins: Vec<Entering>,
    /// Connections whose place was taken, and by what.
    replaced: Vec<(ConnectionId, &'static str)>,
    /// Those who were let in and want to know what they missed.
    resuming: Vec<Resuming>,
}

/// One login.
struct Entering {
    connection: ConnectionId,
    points: Vec<ResumePoint>,
    /// First who it is, then what became of it.
    known: Result<Known>,
}

/// Somebody who is back.
struct Resuming {
    connection: ConnectionId,
    user: UserId,
    points: Vec<ResumePoint>,
}

impl Work {
    /// What is to be changed: ends, and logins of those who are known.
    fn plan(
        &mut self,
        changes: Vec<ConnectionChange>,
        known: Vec<Result<Known>>,
        logged_out: &Since,
    ) -> Vec<SessionChange> {
        let mut known = known.into_iter();
        let mut planned = Vec::with_capacity(changes.len());
        for change in changes {
            let LoginRequest { connection, hello } = match change {
                ConnectionChange::Login(request) => request,
                ConnectionChange::Closed { connection, user } => {
                    planned.push(SessionChange::Closed { user, connection });
                    continue;
                }
            };
            let known = known.next().unwrap_or_else(|| Err(revoked()));
            let known = known.and_then(|known| still_good(known, logged_out));
            let Hello { device_id, device_class, resume: points, .. } = hello;
            if let Ok(Known { user, .. }) = known {
                planned.push(SessionChange::Login { user, connection, device_id, device_class });
            }
            self.logins.push(Entering { connection, points, known });
        }
        planned
    }

    /// Takes in what became of the logins that were planned.
    fn settle(&mut self, outcomes: Vec<Login>, most: usize) {
        let mut outcomes = outcomes.into_iter();
        for Entering { known, .. } in self.logins.iter_mut().filter(|login| login.known.is_ok()) {
            match outcomes.next() {
                Some(Login::Added) => {}
                Some(Login::Replaced(old)) => self.replaced.push((old, SAME_DEVICE)),
                Some(Login::Kicked(old)) => {
                    self.replaced.extend(old.into_iter().map(|old| (old, NEWER_DEVICE)));
                }
                Some(Login::ClassTaken) => *known = Err(class_taken()),
                Some(Login::TooMany) => *known = Err(too_many(most)),
                Some(Login::OutOfRange) => {
                    let detail = "the connection's number is out of range";
                    *known = Err(ErrorCode::Internal.failure(detail));
                }
                None => *known = Err(ErrorCode::Internal.failure("a login went astray")),
            }
        }
    }

    fn answers(&mut self, answer: impl Fn(Result<Known>) -> call_reply::Reply) -> Vec<CallReply> {
        let Self { logins, resuming, .. } = self;
        let one = |Entering { connection, points, known }| {
            if let (Ok(Known { user, .. }), false) = (&known, points.is_empty()) {
                resuming.push(Resuming { connection, user: *user, points });
            }
            reply(connection, answer(known))
        };
        logins.drain(..).map(one).collect()
    }
}

/// Temporary: it is over when the other device goes.
fn class_taken() -> Failure {
    let detail = "the user is logged in with another device of this class, and only one is allowed";
    ErrorCode::TooManyDevices.retry_after(DEVICES_RETRY_MS, detail)
}

/// Temporary, since a connection that broke unseen is found after some heartbeats and makes room.
fn too_many(most: usize) -> Failure {
    ErrorCode::TooManyDevices
        .retry_after(DEVICES_RETRY_MS, format!("the user has {most} connections, the most allowed"))
}

fn ended(connection: ConnectionId, code: u16, reason: &'static str) -> Ended {
    Ended { connection, code, reason: reason.into() }
}

fn reply(connection: ConnectionId, reply: call_reply::Reply) -> CallReply {
    let ConnectionId { shard, slot, generation, .. } = connection;
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
        let known = |by_token: bool| Known {
            user: 7,
            username: "alice".to_owned(),
            by_token: by_token.then_some(Identity { user: 7, epoch: 0 }),
        };
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
