//! Users of the chat server and their access tokens, over its REST interface.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// Password hashes are what takes time here: one for each core and a little more.
const THREADS: usize = 4;
/// A token says when it was issued, in seconds.
const ISSUE_STEP: Duration = Duration::from_secs(1);

/// Registers `users` users and gets `count` different tokens, as many of each user: one at login,
/// the others by refreshing, one a second (two of the same user and second are the same).
///
/// # Errors
/// When the server refuses or does not answer.
pub fn fetch(address: SocketAddrV4, users: usize, count: usize) -> anyhow::Result<Vec<String>> {
    let users = users.clamp(1, count.max(1));
    let rounds = count.div_ceil(users);
    let threads = THREADS.min(users);
    let mut tokens: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|at| scope.spawn(move || of_users(address, (at..users).step_by(threads), rounds)))
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, anyhow::Result<Vec<String>>>| {
            worker.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
        };
        let parts: anyhow::Result<Vec<_>> = workers.into_iter().map(join).collect();
        Ok::<_, anyhow::Error>(parts?.concat())
    })?;
    let different: HashSet<&String> = tokens.iter().collect();
    if different.len() < tokens.len() {
        bail!("{} of {} tokens are different", different.len(), tokens.len());
    }
    tokens.truncate(count);
    Ok(tokens)
}

/// `rounds` tokens of each of these users; neighbours are of different users.
fn of_users(
    address: SocketAddrV4,
    users: impl Iterator<Item = usize>,
    rounds: usize,
) -> anyhow::Result<Vec<String>> {
    let mut tokens = Vec::new();
    let mut sessions = Vec::new();
    for number in users {
        let session = log_in(address, &format!("jwt{number}"))?;
        tokens.push(session.access_token.clone());
        sessions.push(session);
    }
    for _ in 1..rounds {
        thread::sleep(ISSUE_STEP);
        for session in &mut sessions {
            *session = refresh(address, &session.refresh_token)?;
            tokens.push(session.access_token.clone());
        }
    }
    Ok(tokens)
}

/// The part of a login's answer that is needed.
#[derive(Debug, Deserialize)]
struct Session {
    access_token: String,
    refresh_token: String,
}

fn log_in(address: SocketAddrV4, username: &str) -> anyhow::Result<Session> {
    let user = json!({ "username": username, "password": "correct horse battery" });
    match post(address, "/api/v1/users", &user)? {
        // 409: known from an earlier run on the same database.
        (201 | 409, _) => {}
        (status, body) => bail!("registering {username}: {status} {body}"),
    }
    match post(address, "/api/v1/login", &user)? {
        (200, body) => serde_json::from_value(body).context("the login's answer"),
        (status, body) => bail!("logging {username} in: {status} {body}"),
    }
}

fn refresh(address: SocketAddrV4, token: &str) -> anyhow::Result<Session> {
    match post(address, "/api/v1/token/refresh", &json!({ "refresh_token": token }))? {
        (200, body) => serde_json::from_value(body).context("the refresh's answer"),
        (status, body) => bail!("refreshing: {status} {body}"),
    }
}

fn post(address: SocketAddrV4, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX_BYTES).read_to_string(&mut answer).context("reading an answer")?;
    parse(&answer).with_context(|| format!("{path}: unexpected answer {answer:?}"))
}

/// Status and body. The server names the body's length and closes behind it, as it was asked to.
fn parse(answer: &str) -> Option<(u16, Value)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn status_and_body_are_read() {
        let (status, body) =
            parse("HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!((status, body["a"].as_u64()), (201, Some(1)));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n<html>"), None);
        assert_eq!(parse("HTTP/1.1 20"), None);
        assert_eq!(parse(""), None);
    }
}
