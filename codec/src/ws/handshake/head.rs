//! Finding the end of an HTTP head, and the small grammar of its values.

use memchr::{memchr, memchr_iter};

/// Why the end of a head was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndFault {
    /// A line feed without a carriage return before it. RFC 9112 lets a recipient refuse it, and what
    /// one parser takes for a line and another does not is how requests are smuggled.
    BareLineFeed,
    /// The first line alone is longer than the limit.
    FirstLineTooLong,
    /// The head is longer than the limit.
    TooLong,
}

/// The length of the head at the front of `bytes`, its blank line included; `None` while the blank
/// line is missing. The first `seen` bytes were searched by an earlier call.
pub(super) fn find_end(bytes: &[u8], seen: usize, max: usize) -> Result<Option<usize>, EndFault> {
    let window = &bytes[..bytes.len().min(max)];
    let seen = seen.min(window.len());
    for found in memchr_iter(b'\n', &window[seen..]) {
        let line_end = seen + found;
        let before = &window[..line_end];
        if before.ends_with(b"\r\n\r") {
            return Ok(Some(line_end + 1));
        }
        if !before.ends_with(b"\r") {
            return Err(EndFault::BareLineFeed);
        }
    }
    if bytes.len() < max {
        return Ok(None);
    }
    match memchr(b'\n', window) {
        Some(_) => Err(EndFault::TooLong),
        None => Err(EndFault::FirstLineTooLong),
    }
}

/// The bytes of a token (RFC 9110 section 5.6.2).
pub(in crate::ws) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The elements of a comma-separated list without the white space around them. Empty elements stay in.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// Without spaces and tabs at both ends.
pub(in crate::ws) fn trim(value: &[u8]) -> &[u8] {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !is_space(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !is_space(b)).map_or(start, |last| last + 1);
    &value[start..end]
}

/// Whether some element of the list is this token, in any case.
pub(super) fn list_has(value: &[u8], token: &[u8]) -> bool {
    list(value).any(|element| element.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_at_its_last_byte_whatever_was_seen() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let end = head.len() - 4;
        for have in 0..=head.len() {
            for seen in 0..=have.min(end - 1) {
                let expected = (have >= end).then_some(end);
                assert_eq!(find_end(&head[..have], seen, 100), Ok(expected), "{have} {seen}");
            }
        }
    }

    #[test]
    fn limits_and_bare_line_feeds() {
        assert_eq!(find_end(b"GET / HTTP/1.1\n", 0, 100), Err(EndFault::BareLineFeed));
        assert_eq!(find_end(b"\n", 0, 100), Err(EndFault::BareLineFeed));
        assert_eq!(find_end(&[b'a'; 99], 0, 100), Ok(None));
        assert_eq!(find_end(&[b'a'; 100], 0, 100), Err(EndFault::FirstLineTooLong));
        assert_eq!(find_end(&[b'a'; 100], 100, 100), Err(EndFault::FirstLineTooLong));
        assert_eq!(find_end(b"GET /\r\nabcd", 0, 10), Err(EndFault::TooLong));
        assert_eq!(find_end(b"GET /\r\n\r\nab", 0, 9), Ok(Some(9)));
        assert_eq!(find_end(b"GET /\r\n\r\nab", 0, 8), Err(EndFault::TooLong));
    }

    #[test]
    fn lists_and_tokens() {
        assert!(list_has(b"keep-alive ,\t UPGRADE", b"upgrade"));
        assert!(!list_has(b"upgraded, up grade", b"upgrade"));
        assert_eq!(list(b" a,, b ").collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
        assert_eq!(trim(b" \t "), b"");
        assert!(is_token(b"corelane.json.v1") && !is_token(b"") && !is_token(b"a b"));
        assert!(!is_token(b"a/b") && !is_token(b"a\x7f") && !is_token("ä".as_bytes()));
    }
}
