//! The request target (RFC 9112 section 3.2) of an upgrade.

/// Splits a target into path and query. Origin form (`/ws?a=b`) and absolute form
/// (`http://host/ws`, as RFC 6455 section 4.2.1 allows) are taken; the absolute form must name `host`.
pub(super) fn split<'b>(
    target: &'b str,
    host: &str,
) -> Result<(&'b str, Option<&'b str>), &'static str> {
    let target = origin_form(target, host)?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    check_path(path)?;
    Ok((path, query))
}

fn origin_form<'b>(target: &'b str, host: &str) -> Result<&'b str, &'static str> {
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\') {
        return Err("the request target has a character that is not allowed");
    }
    if target.starts_with('/') {
        return Ok(target);
    }
    let (scheme, rest) = target.split_once("://").ok_or("the request target must be a path")?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err("the scheme of the request target is not known");
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !authority.eq_ignore_ascii_case(host) {
        return Err("the request target names another host");
    }
    match path {
        "" => Ok("/"),
        path if path.starts_with('/') => Ok(path),
        _ => Err("the request target has no path"),
    }
}

/// Refuses bad percent-encoding, an encoded NUL, and segments that climb.
fn check_path(path: &str) -> Result<(), &'static str> {
    for escape in path.split('%').skip(1) {
        let hex = escape.as_bytes().get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        match hex {
            None => return Err("the path has a bad percent-encoding"),
            Some(b"00") => return Err("the path has a NUL"),
            Some(_) => {}
        }
    }
    if path.split('/').any(is_dot_segment) {
        return Err("the path has a dot segment");
    }
    Ok(())
}

/// `.` or `..`, each dot encoded or not.
fn is_dot_segment(segment: &str) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    while let Some(next) = [".", "%2e", "%2E"].iter().find_map(|dot| rest.strip_prefix(dot)) {
        rest = next;
        dots += 1;
    }
    rest.is_empty() && matches!(dots, 1 | 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_targets() {
        let table = [
            ("/ws", "/ws", None),
            ("/ws?user_id=alice", "/ws", Some("user_id=alice")),
            ("/?", "/", Some("")),
            ("/a/..b/%20/.well-known?x=/../", "/a/..b/%20/.well-known", Some("x=/../")),
            ("http://HOST:80/ws", "/ws", None),
            ("wss://host:80", "/", None),
        ];
        for (target, path, query) in table {
            assert_eq!(split(target, "host:80"), Ok((path, query)), "{target}");
        }
    }

    #[test]
    fn bad_targets() {
        let table = [
            "/../ws",
            "/ws/..",
            "/./ws",
            "/a/%2e%2E/b",
            "/.%2e",
            "/ws%00",
            "/ws%0",
            "/ws%zz",
            "/ws#a",
            "/a\\..\\b",
            "ws",
            "*",
            "",
            "http://other/ws",
            "http://host:80?x",
            "ftp://host:80/ws",
            "host:80",
            "/\u{e4}",
            "http://host:80@evil/ws",
        ];
        for target in table {
            assert!(split(target, "host:80").is_err(), "{target}");
        }
    }
}
