//! Users of the chat server and their access tokens, over its REST interface.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// Registers `count` users who are not known yet and logs each of them in.
///
/// # Errors
/// When the server refuses or does not answer.
pub fn fetch(address: SocketAddrV4, count: usize) -> anyhow::Result<Vec<String>> {
    (0..count).map(|number| one(address, &format!("jwt{number}"))).collect()
}

fn one(address: SocketAddrV4, username: &str) -> anyhow::Result<String> {
    let user = json!({ "username": username, "password": "correct horse battery" });
    match post(address, "/api/v1/users", &user)? {
        // 409: known from an earlier run on the same database.
        (201 | 409, _) => {}
        (status, body) => bail!("registering {username}: {status} {body}"),
    }
    match post(address, "/api/v1/login", &user)? {
        (200, body) => {
            let token = body["access_token"].as_str();
            Ok(token.context("the login's answer has no access_token")?.to_owned())
        }
        (status, body) => bail!("logging {username} in: {status} {body}"),
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
