//! The opening handshake, both sides, and the detection of protocols: the same answer however the
//! bytes arrive, answers that are well-formed, and no look past the limits.

use std::io::{self, Cursor, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::detect::{DETECT_MAX_BYTES, Detected, detect};
use codec::ws::handshake::{
    Limits, PROTOCOLS_MAX, Rejection, Request, Upgrade, read_request, read_request_from,
    read_response,
};

use crate::input::{Cuts, Reader};

/// Limits a case may have: bytes of the head, header lines.
pub const LIMITS: [(usize, usize); 4] = [(8192, 64), (200, 64), (8192, 3), (1, 1)];

/// The nonce of the client whose response is read.
pub const NONCE: [u8; 16] = *b"the sample nonce";

/// First bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Place in [`LIMITS`].
    pub limits: usize,
    /// Where the bytes are cut.
    pub cuts: Cuts,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Case {
    /// Reads a case from any bytes.
    #[must_use]
    pub fn read(data: &[u8]) -> Self {
        let mut reader = Reader::new(data);
        let limits = usize::from(reader.byte()) % LIMITS.len();
        Self { limits, cuts: Cuts::read(&mut reader), bytes: reader.rest().to_vec() }
    }

    /// Writes what [`Case::read`] reads.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![self.limits as u8];
        self.cuts.write(&mut out);
        out.extend_from_slice(&self.bytes);
        out
    }
}

/// What a request came to, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    NeedMore,
    Http,
    Rejected(u16, &'static str),
    Upgrade {
        path: String,
        query: Option<String>,
        origin: Option<String>,
        host: String,
        head_len: usize,
        protocols: Vec<String>,
        response: Vec<u8>,
    },
}

impl From<Result<Request<'_>, Rejection>> for Answer {
    fn from(outcome: Result<Request<'_>, Rejection>) -> Self {
        match outcome {
            Ok(Request::NeedMore) => Self::NeedMore,
            Ok(Request::Http) => Self::Http,
            Ok(Request::Upgrade(upgrade)) => Self::Upgrade {
                path: upgrade.path.to_owned(),
                query: upgrade.query.map(str::to_owned),
                origin: upgrade.origin.map(str::to_owned),
                host: upgrade.host.to_owned(),
                head_len: upgrade.head_len,
                protocols: upgrade.protocols().map(str::to_owned).collect(),
                response: response_of(&upgrade),
            },
            Err(rejection) => Self::Rejected(rejection.status, rejection.reason),
        }
    }
}

fn response_of(upgrade: &Upgrade<'_>) -> Vec<u8> {
    let mut response = Vec::new();
    upgrade.accept(upgrade.protocols().next(), &mut response);
    response
}

/// Reads a case and checks it.
pub fn run(data: &[u8]) {
    check(&Case::read(data));
}

/// Checks a case.
///
/// # Panics
/// The codec is wrong.
pub fn check(case: &Case) {
    let (max_head_bytes, max_headers) = LIMITS[case.limits];
    let mut limits = Limits::DEFAULT;
    (limits.max_head_bytes, limits.max_headers) = (max_head_bytes, max_headers);
    let whole = Answer::from(read_request(&case.bytes, &limits));
    check_cut(case, &limits, &whole);
    let seen = &case.bytes[..case.bytes.len().min(max_head_bytes)];
    assert_eq!(Answer::from(read_request(seen, &limits)), whole, "a look past the limit: {case:?}");
    match &whole {
        Answer::NeedMore => assert!(case.bytes.len() < max_head_bytes, "{case:?}"),
        Answer::Http => {}
        Answer::Rejected(status, reason) => check_rejection(*status, reason),
        Answer::Upgrade { .. } => check_upgrade(case, &limits, &whole),
    }
    check_detect(&case.bytes);
    check_client_side(case);
}

/// As a server does it: all bytes so far, again and again, until the answer is sure.
fn check_cut(case: &Case, limits: &Limits, whole: &Answer) {
    for bytewise in [false, true] {
        let pieces = match bytewise {
            true => case.bytes.chunks(1).collect(),
            false => case.cuts.pieces(&case.bytes),
        };
        let (mut have, mut seen) = (0, 0);
        let mut answer = Answer::NeedMore;
        for piece in pieces {
            have += piece.len();
            answer = read_request_from(&case.bytes[..have], seen, limits).into();
            if answer != Answer::NeedMore {
                break;
            }
            seen = have;
        }
        assert_eq!(answer, *whole, "bytewise {bytewise}: {case:?}");
    }
}

fn check_upgrade(case: &Case, limits: &Limits, answer: &Answer) {
    let Answer::Upgrade { path, query, host, origin, head_len, protocols, response } = answer
    else {
        return;
    };
    let head = &case.bytes[..*head_len];
    assert!(*head_len <= limits.max_head_bytes && head.ends_with(b"\r\n\r\n"));
    let lines = head.windows(2).filter(|pair| pair == b"\r\n").count();
    assert!(lines <= limits.max_headers + 2, "{lines} lines");
    let visible = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(path.starts_with('/') && visible(path) && !path.contains(['?', '#', '\\']));
    assert!(!path.split('/').any(|segment| [".", ".."].contains(&segment)));
    assert!(!host.is_empty() && visible(host) && !host.contains(['/', '@', ',']));
    assert!(query.as_ref().is_none_or(visible) && origin.as_ref().is_none_or(visible));
    assert!(protocols.len() <= PROTOCOLS_MAX);
    let unique: std::collections::BTreeSet<_> = protocols.iter().collect();
    assert_eq!(unique.len(), protocols.len());
    let key = header(head, "sec-websocket-key").expect("a key");
    // Bits that the padding leaves over make a key without a nonce; clients do not write such.
    if let Ok(nonce) = STANDARD.decode(&key).map(<[u8; 16]>::try_from) {
        let nonce = nonce.expect("a key of 16 bytes");
        let read = read_response(response, nonce).expect("our client takes it").expect("whole");
        assert_eq!(read.head_len, response.len());
        assert_eq!(read.protocol, protocols.first().map(String::as_str));
    }
    if let Some(theirs) = accepted_by_tungstenite(head) {
        assert_eq!(
            header(&theirs, "sec-websocket-accept"),
            header(response, "sec-websocket-accept")
        );
    }
}

/// The value of a header, by a plain search.
fn header(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head).into_owned();
    let mut lines = head.split("\r\n").skip(1);
    lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim_matches([' ', '\t']).to_owned())
    })
}

/// An answer that a client can read: a status line, a length that is right, and the end.
fn check_rejection(status: u16, reason: &'static str) {
    const STATUSES: [u16; 6] = [400, 405, 414, 426, 431, 505];
    assert!(STATUSES.contains(&status), "{status} {reason}");
    let mut bytes = Vec::new();
    Rejection { status, reason }.write(&mut bytes);
    let text = String::from_utf8(bytes).expect("ASCII");
    let (head, body) = text.split_once("\r\n\r\n").expect("a blank line");
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.contains("Connection: close"), "{head}");
    assert_eq!(header(head.as_bytes(), "content-length"), Some(body.len().to_string()));
}

/// Detection says the same as soon as it says anything, and says it in time.
fn check_detect(bytes: &[u8]) {
    let whole = detect(bytes);
    let seen = bytes.len().min(DETECT_MAX_BYTES);
    let first =
        (0..=seen).map(|n| detect(&bytes[..n])).find(|answer| *answer != Detected::NeedMore);
    assert_eq!(first.unwrap_or(Detected::NeedMore), whole);
    assert!(bytes.len() < DETECT_MAX_BYTES || whole != Detected::NeedMore);
    if bytes.starts_with(&codec::binary::PREFACE) {
        assert_eq!(whole, Detected::Binary);
        assert_eq!(codec::binary::read_preface(bytes), Ok(true));
    }
}

/// The same bytes as the response to our own request.
fn check_client_side(case: &Case) {
    let whole = read_response(&case.bytes, NONCE);
    let mut have = 0;
    let mut answer = Ok(None);
    for piece in case.cuts.pieces(&case.bytes) {
        have += piece.len();
        answer = read_response(&case.bytes[..have], NONCE);
        if answer != Ok(None) {
            break;
        }
    }
    assert_eq!(answer, whole, "a response, cut: {case:?}");
    if let Ok(Some(response)) = whole {
        assert!(case.bytes[..response.head_len].ends_with(b"\r\n\r\n"));
        assert!(case.bytes.starts_with(b"HTTP/1.1 101"), "{case:?}");
    }
}

/// tungstenite's answer to this request, when it takes it. It knows fewer forms of the headers.
fn accepted_by_tungstenite(head: &[u8]) -> Option<Vec<u8>> {
    let tape = Tape { input: Cursor::new(head), written: Vec::new() };
    let config = tungstenite::protocol::WebSocketConfig::default().read_buffer_size(512);
    let socket = tungstenite::accept_with_config(tape, Some(config)).ok()?;
    Some(socket.get_ref().written.clone())
}

struct Tape<'b> {
    input: Cursor<&'b [u8]>,
    written: Vec<u8>,
}

impl Read for Tape<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Tape<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
