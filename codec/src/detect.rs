//! Which protocol a new connection speaks, told by its first bytes (requirement A1).

use crate::binary::Preface;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detected {
    /// Too few bytes to tell; ask again when more have come. At most [`DETECT_MAX_BYTES`] are needed.
    NeedMore,
    /// A TLS handshake record.
    Tls,
    /// An HTTP/1 request: plain, or a WebSocket upgrade.
    Http,
    /// The magic bytes of the binary protocol. Its version is [`crate::binary::read_preface`]'s to check.
    Binary,
    /// None of these; close.
    Unknown,
}

/// Bytes after which [`detect`] never answers [`Detected::NeedMore`].
pub const DETECT_MAX_BYTES: usize = METHOD_MAX_BYTES + 1;

/// Longest HTTP method that is recognised, in bytes. Every registered one is shorter.
const METHOD_MAX_BYTES: usize = 24;

/// ContentType `handshake` and the major version byte of every TLS record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// Tells the protocol of a connection from its first bytes. Nothing is consumed.
///
/// An HTTP request begins with a method and a space (RFC 9112 section 3). Methods that do not exist
/// are taken for HTTP as well, so that they get an HTTP answer.
#[must_use]
pub fn detect(first_bytes: &[u8]) -> Detected {
    if first_bytes.is_empty() {
        return Detected::NeedMore;
    }
    if let Some(complete) = begins_with(first_bytes, &TLS_HANDSHAKE) {
        return if complete { Detected::Tls } else { Detected::NeedMore };
    }
    if let Some(true) = begins_with(first_bytes, &Preface::MAGIC) {
        return Detected::Binary;
    }
    // `CRL` may still become a method, so an incomplete magic is left to this check.
    detect_method(first_bytes)
}

fn detect_method(bytes: &[u8]) -> Detected {
    let is_method = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_');
    let letters = bytes.iter().take(DETECT_MAX_BYTES).take_while(|b| is_method(b)).count();
    match bytes.get(letters) {
        _ if letters > METHOD_MAX_BYTES => Detected::Unknown,
        Some(b' ') if letters > 0 => Detected::Http,
        None => Detected::NeedMore,
        Some(_) => Detected::Unknown,
    }
}

/// `Some(true)`: `bytes` begins with `magic`; `Some(false)`: it is a part of it; `None`: it differs.
fn begins_with(bytes: &[u8], magic: &[u8]) -> Option<bool> {
    let n = bytes.len().min(magic.len());
    (bytes[..n] == magic[..n]).then_some(n == magic.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` one more at a time; the first answer that is not `NeedMore` and its length.
    fn first_answer(bytes: &[u8]) -> (Detected, usize) {
        let mut answers = (1..=bytes.len()).map(|n| (detect(&bytes[..n]), n));
        answers.find(|(d, _)| *d != Detected::NeedMore).unwrap_or((Detected::NeedMore, bytes.len()))
    }

    #[test]
    fn every_kind_is_told_at_its_first_sure_byte_and_stays() {
        let table: [(&[u8], Detected, usize); 14] = [
            (b"\x16\x03\x01\x02\x00\x01\x00", Detected::Tls, 2),
            (b"CRLN\x01\x01\x05", Detected::Binary, 4),
            (b"CRLN\x63", Detected::Binary, 4),
            (b"GET /ws HTTP/1.1\r\n", Detected::Http, 4),
            (b"CONNECT a:1 HTTP/1.1\r\n", Detected::Http, 8),
            (b"CRL / HTTP/1.1\r\n", Detected::Http, 4),
            (b"VERSION-CONTROL / HTTP/1.1", Detected::Http, 16),
            (b"get / HTTP/1.1\r\n", Detected::Http, 4),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Detected::Http, 4),
            (b"\x16\x02\x00", Detected::Unknown, 2),
            (b" GET / HTTP/1.1", Detected::Unknown, 1),
            (b"\x00", Detected::Unknown, 1),
            (b"hello\n", Detected::Unknown, 6),
            (b"CRLM\x01", Detected::Unknown, 5),
        ];
        for (bytes, expected, at) in table {
            assert_eq!(first_answer(bytes), (expected, at), "{bytes:?}");
            for n in at..=bytes.len() {
                assert_eq!(detect(&bytes[..n]), expected, "{bytes:?} after {n}");
            }
        }
    }

    #[test]
    fn an_endless_word_is_given_up_on() {
        let word = [b'A'; 100];
        assert_eq!(first_answer(&word), (Detected::Unknown, DETECT_MAX_BYTES));
        assert_eq!(detect(&[]), Detected::NeedMore);
    }
}
