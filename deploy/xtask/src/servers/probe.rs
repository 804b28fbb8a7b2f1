//! Whether a server answers, asked in the first words of its own protocol.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::kind::Kind;

/// A server that is there answers at once; one that starts is asked again.
const PATIENCE: Duration = Duration::from_millis(500);

/// Metadata request, version 1, of no topic: size, key 3, version 1, correlation 7, no client id,
/// an empty array.
const KAFKA_METADATA: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0];

/// Whether the server on this port of loopback takes requests.
pub(super) fn answers(kind: Kind, port: u16) -> bool {
    let question: &[u8] = match kind {
        Kind::Kafka => &KAFKA_METADATA,
        // It speaks first.
        Kind::MariaDb => b"",
        Kind::Redis => b"PING\r\n",
        Kind::Etcd => b"GET /health HTTP/1.0\r\n\r\n",
    };
    let judge = match kind {
        Kind::Kafka => kafka_has_brokers,
        Kind::MariaDb => greets,
        Kind::Redis => pongs,
        Kind::Etcd => is_healthy,
    };
    judged(port, question, judge).unwrap_or(false)
}

/// One question that is answered with one line.
///
/// # Errors
/// When there is no answer within half a second.
pub(crate) fn ask(port: u16, question: &[u8]) -> std::io::Result<String> {
    let mut line = String::new();
    judged(port, question, |answer| {
        answer.contains(&b'\n').then(|| {
            line = String::from_utf8_lossy(answer).trim_end().to_owned();
            true
        })
    })?;
    Ok(line)
}

/// Reads until the answer is judged or the patience is over.
fn judged(
    port: u16,
    question: &[u8],
    judge: impl FnMut(&[u8]) -> Option<bool>,
) -> std::io::Result<bool> {
    let mut judge = judge;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(question)?;
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    // Answers are short: whoever talks on is somebody else.
    while answer.len() < 16 * 1024 {
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Ok(false);
        }
        answer.extend_from_slice(&part[..length]);
        if let Some(verdict) = judge(&answer) {
            return Ok(verdict);
        }
    }
    Ok(false)
}

/// Size, correlation, number of brokers: it counts itself once it takes requests.
fn kafka_has_brokers(answer: &[u8]) -> Option<bool> {
    let head: &[u8; 12] = answer.first_chunk()?;
    let ours = head[4..8] == [0, 0, 0, 7];
    Some(ours && i32::from_be_bytes([head[8], head[9], head[10], head[11]]) > 0)
}

/// Length and sequence number, then version 10 of the protocol; 0xff would be an error.
fn greets(answer: &[u8]) -> Option<bool> {
    Some(*answer.get(4)? == 10)
}

/// While it loads its data it answers with an error.
fn pongs(answer: &[u8]) -> Option<bool> {
    answer.contains(&b'\n').then(|| answer.starts_with(b"+PONG"))
}

fn is_healthy(answer: &[u8]) -> Option<bool> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let ok = head.split(' ').nth(1) == Some("200");
    if ok && !body.contains('}') {
        return None;
    }
    Some(ok && body.contains("\"health\":\"true\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        assert_eq!(kafka_has_brokers(&[0; 11]), None);
        assert_eq!(kafka_has_brokers(&[0, 0, 0, 31, 0, 0, 0, 7, 0, 0, 0, 1]), Some(true));
        assert_eq!(kafka_has_brokers(&[0, 0, 0, 31, 0, 0, 0, 7, 0, 0, 0, 0]), Some(false));
        assert_eq!(kafka_has_brokers(b"HTTP/1.1 400"), Some(false));
        assert_eq!(greets(&[70, 0, 0, 0, 10]), Some(true));
        assert_eq!(greets(&[70, 0, 0, 0, 0xff]), Some(false));
        assert_eq!(greets(&[70, 0, 0]), None);
        assert_eq!(pongs(b"+PO"), None);
        assert_eq!(pongs(b"+PONG\r\n"), Some(true));
        assert_eq!(pongs(b"-LOADING Redis is loading the dataset in memory\r\n"), Some(false));
        assert_eq!(is_healthy(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"health\":\"true\"}"), Some(true));
        assert_eq!(is_healthy(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n"), None);
        assert_eq!(
            is_healthy(b"HTTP/1.0 503 Service Unavailable\r\n\r\n{\"health\":\"false\"}"),
            Some(false)
        );
    }

    #[test]
    fn nobody_does_not_answer() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        for kind in Kind::ALL {
            assert!(!answers(kind, port), "{}", kind.name());
        }
    }
}
