//! Registers users and logs them in over REST, on threads of its own so that the event loop never waits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;

use crate::plan::Plan;

const THREADS: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_MAX: usize = 64 * 1024;

struct Job {
    index: u32,
    name: String,
    registered: bool,
}

/// A connection of the worker and its token, or why there is none.
pub(crate) type Answer = (u32, Result<String, String>);

/// Fetches tokens for the connections of one worker.
pub(crate) struct Authenticator {
    jobs: Sender<Job>,
    answers: Receiver<Answer>,
}

impl Authenticator {
    pub(crate) fn start(plan: &Plan) -> Self {
        let (jobs, queue) = channel();
        let (done, answers) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let targets: Arc<Vec<(SocketAddr, String)>> = Arc::new(
            plan.targets.iter().map(|target| (target.address, target.host.clone())).collect(),
        );
        let password: Arc<str> = format!("pw-{}-{:x}", plan.tag, plan.seed).into();
        for _ in 0..THREADS {
            let (queue, done) = (Arc::clone(&queue), done.clone());
            let (targets, password) = (Arc::clone(&targets), Arc::clone(&password));
            std::thread::spawn(move || serve(&queue, &done, &targets, &password));
        }
        Self { jobs, answers }
    }

    /// Asks for the token of a user, who is registered first unless known.
    pub(crate) fn ask(&self, index: u32, name: String, registered: bool) {
        // Fails only when every thread has panicked; then no answer comes and the set-up times out.
        let _ = self.jobs.send(Job { index, name, registered });
    }

    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

fn serve(
    queue: &Mutex<Receiver<Job>>,
    done: &Sender<Answer>,
    targets: &[(SocketAddr, String)],
    password: &str,
) {
    let mut streams: Vec<Option<TcpStream>> = targets.iter().map(|_| None).collect();
    loop {
        let job = {
            let Ok(queue) = queue.lock() else { return };
            queue.recv()
        };
        let Ok(job) = job else { return };
        let which = job.index as usize % targets.len().max(1);
        let Some((address, host)) = targets.get(which) else { return };
        let mut http = Http { stream: &mut streams[which], address: *address, host };
        let answer = log_in(&mut http, &job, password);
        if done.send((job.index, answer)).is_err() {
            return;
        }
    }
}

fn log_in(http: &mut Http<'_>, job: &Job, password: &str) -> Result<String, String> {
    let user = serde_json::json!({ "username": job.name, "password": password });
    if !job.registered {
        // 409: an attempt whose answer was lost had registered the user.
        match http.post("/api/v1/users", &user)? {
            (201 | 409, _) => {}
            (status, body) => return Err(format!("register {status} {}", short(&body))),
        }
    }
    let mut login = user;
    login["device_id"] = "loadgen".into();
    login["device_class"] = "load".into();
    let (status, body) = http.post("/api/v1/login", &login)?;
    if status != 200 {
        return Err(format!("login {status} {}", short(&body)));
    }
    #[derive(Deserialize)]
    struct Session {
        access_token: String,
    }
    let session: Session =
        serde_json::from_slice(&body).map_err(|error| format!("login answer: {error}"))?;
    Ok(session.access_token)
}

fn short(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(80).collect()
}

/// A kept-alive HTTP/1.1 connection.
struct Http<'s> {
    stream: &'s mut Option<TcpStream>,
    address: SocketAddr,
    host: &'s str,
}

impl Http<'_> {
    /// Posts JSON; tries once more on a fresh connection when a kept one turns out to be closed.
    fn post(&mut self, path: &str, body: &serde_json::Value) -> Result<(u16, Vec<u8>), String> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        let kept = self.stream.is_some();
        match self.exchange(request.as_bytes()) {
            Err(_) if kept => self.exchange(request.as_bytes()),
            result => result,
        }
        .map_err(|error| format!("{path}: {:?}", error.kind()))
    }

    fn exchange(&mut self, request: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                stream
            }
        };
        stream.write_all(request)?;
        let (status, body, keep) = read_answer(&mut stream)?;
        *self.stream = keep.then_some(stream);
        Ok((status, body))
    }
}

/// Reads status and body; the third value says whether the connection may be used again.
fn read_answer(stream: &mut impl Read) -> std::io::Result<(u16, Vec<u8>, bool)> {
    let malformed = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let mut ended = false;
    loop {
        if let Some((head_len, status, length)) = parse_head(&bytes).map_err(|()| malformed())? {
            let have = bytes.len() - head_len;
            match length {
                Some(length) if have >= length => {
                    let body = bytes[head_len..head_len + length].to_vec();
                    return Ok((status, body, have == length && !ended));
                }
                None if ended => return Ok((status, bytes.split_off(head_len), false)),
                _ => {}
            }
        }
        if ended || bytes.len() > ANSWER_MAX {
            return Err(malformed());
        }
        let received = stream.read(&mut piece)?;
        ended = received == 0;
        bytes.extend_from_slice(&piece[..received]);
    }
}

/// Length of the head, status, and `Content-Length`.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, u16, Option<usize>)>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_len) = response.parse(bytes).map_err(|_| ())? else {
        return Ok(None);
    };
    let length =
        response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = match length {
        Some(header) => {
            Some(str::from_utf8(header.value).map_err(|_| ())?.trim().parse().map_err(|_| ())?)
        }
        None => None,
    };
    if length.is_some_and(|length: usize| length > ANSWER_MAX) {
        return Err(());
    }
    Ok(Some((head_len, response.code.ok_or(())?, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Option<(u16, Vec<u8>, bool)> {
        read_answer(&mut text.as_bytes()).ok()
    }

    #[test]
    fn an_answer_of_known_length_keeps_the_connection() {
        let text = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(answer(text), Some((201, b"{}".to_vec(), true)));
    }

    #[test]
    fn an_answer_without_length_ends_with_the_connection() {
        assert_eq!(answer("HTTP/1.1 200 OK\r\n\r\nabc"), Some((200, b"abc".to_vec(), false)));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let cases = [
            "",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
        ];
        for text in cases {
            assert_eq!(answer(text), None, "{text}");
        }
    }
}
